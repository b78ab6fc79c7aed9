-- What is measured of the catalogue, of tables and of visitors.

-- name: tables
-- By plan, and by whose they are: of a user, of a visitor, of nobody yet.
SELECT t.kind, t.plan, t.status,
       CASE WHEN t.user_id IS NOT NULL THEN 'user'
            WHEN t.session_id IS NOT NULL THEN 'session' ELSE 'nobody' END,
       count(*)
  FROM tables t GROUP BY 1, 2, 3, 4

-- name: assets
SELECT a.status, a.visibility, count(*) FROM assets a GROUP BY 1, 2
