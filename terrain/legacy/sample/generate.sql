-- Fills the legacy schema with a realistic shop.  Deterministic: the same counts give the
-- same rows.  sample.py puts a number in the place of each :n_... name.

SET timezone = 'UTC';

CREATE OR REPLACE FUNCTION pg_temp.uid(kind text, n bigint) RETURNS uuid
    LANGUAGE sql IMMUTABLE AS $$ SELECT md5(kind || ':' || n)::uuid $$;

-- A repeatable "random" number in [0, m).
CREATE OR REPLACE FUNCTION pg_temp.pick(seed text, m bigint) RETURNS bigint
    LANGUAGE sql IMMUTABLE AS
    $$ SELECT abs(hashtextextended(seed, 42) % greatest(m, 1)) $$;

INSERT INTO artists
SELECT pg_temp.uid('artist', n), 'artist' || n || '@example.com',
       '$2b$12$' || substr(md5('s' || n) || md5('h' || n), 1, 53),
       'Artist ' || n, 'Terrain for ' || n || ' worlds', 'https://cdn.example.com/a/' || n || '.png', NULL,
       CASE WHEN n % 5 > 0 THEN 'acct_' || md5('acct' || n) END, n % 5 > 0, 'INV' || n,
       CASE WHEN n % 20 = 0 THEN 'suspended' WHEN n % 11 = 0 THEN 'invited' ELSE 'active' END,
       CASE WHEN n = 1 THEN 'admin' ELSE 'artist' END,
       CASE WHEN n = 1 THEN 1.000 ELSE 0.700 + (n % 4) * 0.050 END,
       timestamp '2023-01-01' + n * interval '17 minutes', timestamp '2024-01-01' + n * interval '19 minutes'
FROM generate_series(1, :n_artists) n;

INSERT INTO assets
SELECT pg_temp.uid('asset', n), pg_temp.uid('artist', 1 + pg_temp.pick('owner' || n, :n_artists)),
       (ARRAY['Ruined Tower','Stone Bridge','Forest Pack','Tavern','Dungeon Tiles','Market Stall'])[1 + n % 6] || ' ' || n,
       CASE WHEN n % 7 > 0 THEN 'Printable terrain number ' || n END,
       (299 + pg_temp.pick('price' || n, 4000)) / 100.0,
       (ARRAY['fantasy','scifi','ww2','modern'])[1 + n % 4],
       CASE n % 3 WHEN 0 THEN '{buildings}'::text[] WHEN 1 THEN '{nature,scatter}' ELSE '{props}' END,
       ARRAY['terrain', 'tag' || (n % 40), 'tag' || (n % 7)],
       jsonb_build_object('min', '{"x":0,"y":0,"z":0}'::jsonb,
                          'max', jsonb_build_object('x', 40 + n % 200, 'y', 30 + n % 150, 'z', 20 + n % 90)),
       CASE WHEN n % 50 > 0 THEN jsonb_build_object('width', 40 + n % 200, 'depth', 30 + n % 150, 'height', 20 + n % 90) END,
       jsonb_build_object('glb', 'models/' || n || '/m.glb', 'thumbnail', 'thumbs/' || n || '.png')
         || CASE WHEN n % 9 > 0 THEN jsonb_build_object('stl', 'models/' || n || '/m.stl') ELSE '{}' END
         || CASE WHEN n % 4 = 0 THEN jsonb_build_object('additional_images', jsonb_build_array('img/' || n || '-1.png', 'img/' || n || '-2.png')) ELSE '{}' END,
       '{"material": ["pla"], "layer_height": 0.2, "infill": 15, "supports": false}',
       jsonb_build_object('triangle_count', 5000 + n % 90000, 'volume_mm3', 1000.5 + n % 5000),
       CASE WHEN n % 10 < 7 THEN 'published' WHEN n % 10 < 9 THEN 'draft' ELSE 'archived' END,
       pg_temp.pick('views' || n, 5000), pg_temp.pick('buys' || n, 200),
       timestamp '2023-03-01' + n * interval '3 minutes', timestamp '2024-03-01' + n * interval '2 minutes'
FROM generate_series(1, :n_assets) n;

CREATE OR REPLACE FUNCTION pg_temp.layout(seed text, n_assets int) RETURNS jsonb
    LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object('models', coalesce(jsonb_agg(jsonb_build_object(
               'id', 'p' || i,
               'asset_id', pg_temp.uid('asset', 1 + pg_temp.pick(seed || 'a' || (i % 6), n_assets)),
               'position', jsonb_build_object('x', i * 37 % 1200, 'y', 0, 'z', i * 53 % 900),
               'rotation', i * 45 % 360, 'scale', 1)), '[]'))
    FROM generate_series(1, pg_temp.pick(seed, 24)::int) i $$;

INSERT INTO example_tables
SELECT pg_temp.uid('example', n), pg_temp.uid('artist', 1 + pg_temp.pick('ex' || n, :n_artists)),
       'Showcase ' || n, CASE WHEN n % 3 > 0 THEN 'A table worth copying' END,
       'https://cdn.example.com/t/' || n || '.png',
       '{"width": 1200, "depth": 900, "grid_size": 25}',
       pg_temp.layout('example' || n, :n_assets),
       n % 10 = 0, pg_temp.pick('exv' || n, 9000), timestamp '2023-06-01' + n * interval '41 minutes'
FROM generate_series(1, :n_examples) n;

INSERT INTO user_tables
SELECT pg_temp.uid('table', n),
       CASE WHEN n % 17 = 0 THEN NULL
            WHEN n % 23 = 0 THEN 'Player' || (n % :n_customers) || '@Example.COM'
            WHEN n % 41 = 0 THEN 'artist' || (1 + n % :n_artists) || '@example.com'
            ELSE 'player' || pg_temp.pick('who' || n, :n_customers) || '@example.com' END,
       'Table ' || n,
       jsonb_build_object('width', (ARRAY[900,1200,1500,1830])[1 + n % 4], 'depth', (ARRAY[600,900,1200])[1 + n % 3], 'grid_size', 25)
         || CASE WHEN n % 6 = 0 THEN '{"background_color": "#2b2b2b"}'::jsonb ELSE '{}' END,
       pg_temp.layout('table' || n, :n_assets),
       CASE WHEN n % 13 > 0 THEN md5('share' || n) END, n % 5 = 0,
       timestamp '2023-07-01' + n * interval '2 minutes', timestamp '2024-07-01' + n * interval '1 minute'
FROM generate_series(1, :n_tables) n;

INSERT INTO orders
SELECT pg_temp.uid('order', n), 'AA-' || to_char(n, 'FM0000000'),
       CASE WHEN n % 29 = 0 THEN 'PLAYER' || (n % :n_customers) || '@example.com'
            ELSE 'player' || pg_temp.pick('buyer' || n, :n_customers) || '@example.com' END,
       'Player ' || (n % 5000),
       jsonb_build_object('name', 'Player ' || (n % 5000), 'line1', n || ' High Street', 'city', 'Leeds',
                          'postal_code', 'LS' || (n % 29) || ' 1AA', 'country', 'GB'),
       i.items,
       jsonb_build_object('model_subtotal', i.subtotal, 'platform_commission', round(i.subtotal * 0.2, 2),
                          'print_subtotal', 4.50, 'shipping', 3.99, 'total', i.subtotal + 8.49),
       (ARRAY['paid','paid','processing','printing','shipped','delivered','delivered','cancelled','pending_payment','payment_failed'])[1 + n % 10],
       NULL, CASE WHEN n % 10 < 7 THEN 'pi_' || md5('pi' || n) END, NULL, NULL, NULL,
       timestamp '2023-08-01' + n * interval '55 seconds', timestamp '2023-08-02' + n * interval '55 seconds'
FROM generate_series(1, :n_orders) n
CROSS JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_object('asset_id', a.id, 'quantity', q)
                     || CASE WHEN k % 2 = 0 THEN jsonb_build_object('printOptions',
                            jsonb_build_object('material', 'pla', 'quality', 'standard', 'color', 'Gray')) ELSE '{}' END
                     ORDER BY k) AS items,
           sum(q * a.base_price) AS subtotal
    FROM generate_series(1, 1 + pg_temp.pick('len' || n, 5)::int) k
    CROSS JOIN LATERAL (SELECT 1 + pg_temp.pick('q' || n || k, 3) AS q,
                               pg_temp.uid('asset', 1 + pg_temp.pick('line' || n || '-' || k, :n_assets)) AS aid) l
    JOIN assets a ON a.id = l.aid
) i;

INSERT INTO stripe_transfers
SELECT pg_temp.uid('transfer', n), o.id, o.artist_id,
       CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'tr_' || md5('tr' || n) END,
       greatest(0.01, round((o.pricing->>'model_subtotal')::numeric * 0.8, 2)),
       CASE WHEN n % 50 = 0 THEN 'failed' WHEN n % 31 = 0 THEN 'pending' ELSE 'completed' END,
       o.created_at + interval '3 days'
FROM (SELECT row_number() OVER (ORDER BY o.order_number) AS n, o.*,
             (SELECT artist_id FROM assets WHERE id = (o.items->0->>'asset_id')::uuid) AS artist_id
      FROM orders o WHERE o.status IN ('paid','processing','printing','shipped','delivered')) o;

ANALYZE;
