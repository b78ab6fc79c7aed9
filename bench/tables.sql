-- What a DBA would type for legacy.user_tables and legacy.example_tables.
INSERT INTO anonymous_sessions (id, session_token, table_limit, created_at, last_seen)
SELECT md5('session:' || id)::uuid, md5(random()::text) || md5(random()::text), 3,
       created_at AT TIME ZONE 'UTC', created_at AT TIME ZONE 'UTC'
  FROM legacy.user_tables
 WHERE coalesce(user_email, '') NOT LIKE '%@%';

INSERT INTO tables (id, kind, user_id, session_id, name, width, depth, config, layout,
                    share_code, is_public, contact_email, plan, created_at, updated_at)
SELECT t.id, 'user', u.id, CASE WHEN u.id IS NULL THEN md5('session:' || t.id)::uuid END,
       t.name, (t.table_config ->> 'width')::integer, (t.table_config ->> 'depth')::integer,
       t.table_config - '{width,depth}'::text[], t.layout_data,
       t.share_token, t.is_public, t.user_email,
       CASE WHEN u.id IS NULL THEN 'anon_free' ELSE 'user_free' END,
       t.created_at AT TIME ZONE 'UTC', t.updated_at AT TIME ZONE 'UTC'
  FROM legacy.user_tables t
  LEFT JOIN users u ON lower(u.email) = lower(trim(t.user_email));

INSERT INTO tables (id, kind, user_id, name, description, thumbnail_url, width, depth,
                    config, layout, is_public, is_featured, view_count, plan,
                    created_at, updated_at)
SELECT id, 'example', artist_id, name, description, thumbnail_url,
       (table_config ->> 'width')::integer, (table_config ->> 'depth')::integer,
       table_config - '{width,depth}'::text[], layout_data, true, is_featured, view_count,
       'user_free', created_at AT TIME ZONE 'UTC', created_at AT TIME ZONE 'UTC'
  FROM legacy.example_tables;
