-- What is measured of visitors without an account.

-- name: sessions
-- All, those seen in the last day, those that may keep no further table, and among these
-- the ones seen in the last day.
SELECT count(*),
       count(*) FILTER (WHERE s.last_seen > now() - interval '1 day'),
       count(*) FILTER (WHERE coalesce(t.there, 0) >= s.table_limit),
       count(*) FILTER (WHERE coalesce(t.there, 0) >= s.table_limit
                          AND s.last_seen > now() - interval '1 day')
  FROM anonymous_sessions s
  LEFT JOIN (SELECT t.session_id, count(*) AS there FROM tables t
              WHERE t.session_id IS NOT NULL AND t.status = 'active'
              GROUP BY t.session_id) t ON t.session_id = s.id
