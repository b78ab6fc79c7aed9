-- What verification asks, by hand: none of these uses an expression of the declaration,
-- which, were it wrong, would fool every check made from it.  Each returns offending rows,
-- and says what is so when there are some, and when there are none.
--
-- White space is written out: trim() knows the blank alone, and what [:space:] is depends
-- on the locale of the database.  An address is text that has, trimmed, one @ with
-- something on either side of it and no white space inside.
--
-- {waiting}: what was written since the last settle.  It has no owner yet, and in a shop
-- that is open there is always some.  In the same snapshot: what somebody else is just
-- settling is still in the queue until it has its owner.

-- name: money_of_orders
-- fails: The lines of an order do not add up to what it says they cost.
-- holds: The lines of every order add up to what it says they cost.
SELECT o.id, o.order_number, sum(i.total_price) AS lines, o.pricing ->> 'model_subtotal' AS subtotal
  FROM @new.orders o
  JOIN @new.order_items i ON i.order_id = o.id
 WHERE o.pricing ->> 'model_subtotal' ~ '^[0-9]{1,10}([.][0-9]{1,2}0*)?$'
   AND NOT EXISTS (SELECT FROM @new.legacy_quarantine q
                    WHERE q.legacy_table = 'orders' AND q.legacy_id = o.id)
 GROUP BY o.id
HAVING sum(i.total_price) IS DISTINCT FROM (o.pricing ->> 'model_subtotal')::numeric

-- name: money_by_status
-- fails: The orders of a status are worth something else than before.
-- holds: The orders of each status are worth what they were, to the penny.
SELECT status, before, after
  FROM (SELECT status, count(*) AS orders, sum(pennies) AS before FROM (
               SELECT l.status, (l.pricing ->> 'total')::numeric * 100 AS pennies
                 FROM @legacy.orders l
                WHERE l.pricing ->> 'total' ~ '^-?[0-9]{1,12}([.][0-9]+)?$') b GROUP BY 1) b
  FULL JOIN (SELECT status, count(*) AS orders, sum(pennies) AS after FROM (
               SELECT o.status, (o.pricing ->> 'total')::numeric * 100 AS pennies
                 FROM @new.orders o
                WHERE o.pricing ->> 'total' ~ '^-?[0-9]{1,12}([.][0-9]+)?$') a GROUP BY 1) a
 USING (status)
 WHERE before IS DISTINCT FROM after OR b.orders IS DISTINCT FROM a.orders

-- name: money_of_artists
-- fails: An artist was paid something else than before, by status, in pennies.
-- holds: Every artist was paid what they were, by status, to the penny.
SELECT artist_id, status, before, after
  FROM (SELECT t.artist_id, t.status, count(*) AS transfers,
               sum(nullif(t.amount, 'NaN') * 100) AS before
          FROM @legacy.stripe_transfers t GROUP BY 1, 2) b
  FULL JOIN (SELECT p.artist_id, p.status, count(*) AS transfers,
                    sum(nullif(p.amount, 'NaN') * 100) AS after
               FROM @new.payments p GROUP BY 1, 2) a
 USING (artist_id, status)
 WHERE before IS DISTINCT FROM after OR b.transfers IS DISTINCT FROM a.transfers

-- name: money_of_models
-- fails: The models of an artist have other prices than before, by status, in pennies.
-- holds: The models of every artist have the prices they had, to the penny.
SELECT artist_id, status, before, after
  FROM (SELECT artist_id, status, count(*) AS models,
               sum(nullif(base_price, 'NaN') * 100) AS before
          FROM @legacy.assets GROUP BY 1, 2) b
  FULL JOIN (SELECT artist_id, status, count(*) AS models,
                    sum(nullif(base_price, 'NaN') * 100) AS after
               FROM @new.models GROUP BY 1, 2) a
 USING (artist_id, status)
 WHERE before IS DISTINCT FROM after OR b.models IS DISTINCT FROM a.models

-- name: lines_of_orders
-- fails: An order has another number of lines, or of pieces, than items it was placed with.
-- holds: Every order has as many lines, and pieces, as it was placed with.
SELECT l.id, l.order_number, b.lines AS items, coalesce(a.lines, 0) AS lines,
       b.pieces AS pieces_before, coalesce(a.pieces, 0) AS pieces_after
  FROM @legacy.orders l
 CROSS JOIN LATERAL (
        SELECT count(*) AS lines, coalesce(sum(CASE WHEN jsonb_typeof(e -> 'quantity') = 'number'
                                           THEN (e ->> 'quantity')::numeric END), 0) AS pieces
          FROM jsonb_array_elements(CASE jsonb_typeof(l.items) WHEN 'array' THEN l.items
                                                               ELSE '[]' END) e) b
  LEFT JOIN (SELECT i.order_id, count(*) AS lines, sum(i.quantity) AS pieces
               FROM @new.order_items i GROUP BY 1) a ON a.order_id = l.id
 WHERE (b.lines <> coalesce(a.lines, 0) OR b.pieces <> coalesce(a.pieces, 0))
   AND NOT EXISTS (SELECT FROM @new.legacy_quarantine q
                    WHERE q.legacy_table = 'orders' AND q.legacy_id = l.id AND q.kind = 'held')

-- name: lines_know_their_model
-- fails: A line refers to another model than the one that was ordered.
-- holds: Every line refers to the model that was ordered.
SELECT i.id, i.order_id, i.position, i.asset_ref, i.model_id
  FROM @new.order_items i
 CROSS JOIN LATERAL (SELECT lower(translate(i.asset_ref, '{}-', '')) AS digits) r
 WHERE r.digits <> replace(i.model_id::text, '-', '')
   -- A model that was given another id has taken its lines along.
   AND r.digits IN (SELECT replace(m.id::text, '-', '') FROM @new.models m)

-- name: passwords
-- fails: An artist's password is another than before.
-- holds: Every artist's password is the one it was.
SELECT u.id, u.email FROM @new.users u JOIN @legacy.artists l USING (id)
 WHERE u.password_hash IS DISTINCT FROM l.password_hash AND u.role <> 'customer'

-- name: accounts
-- fails: An artist has no account of the same id and address, or a role that differs.
-- holds: Every artist has an account of the same id, address, role and status.
SELECT l.id, l.email, u.email AS account_email, u.role
  FROM @legacy.artists l LEFT JOIN @new.users u ON u.id = l.id
 WHERE u.id IS NULL OR u.email <> l.email OR u.role <> l.role OR u.status <> l.status

-- name: customers
-- fails: A customer's address is not in lower case, not trimmed, or an artist's.
-- holds: Every customer's address is trimmed, in lower case, and no artist's.
WITH white AS (SELECT E'\t\n\u000B\f\r\u001C\u001D\u001E\u001F \u0085\u00A0\u1680'
    '\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200A'
    '\u2028\u2029\u202F\u205F\u3000\uFEFF' AS space)
SELECT c.id, c.email FROM @new.users c CROSS JOIN white w
 CROSS JOIN LATERAL (SELECT btrim(c.email, w.space) AS trimmed) t
 WHERE c.role = 'customer' AND t.trimmed ~ '^[^@]+@[^@]+$'
   AND length(translate(t.trimmed, w.space, '')) = length(t.trimmed)
   AND length(lower(t.trimmed)) <= 255
   AND (c.email <> lower(t.trimmed)
        OR c.email IN (SELECT lower(btrim(a.email, w.space)) FROM @new.users a
                        WHERE a.role <> 'customer' AND a.id NOT IN ({waiting})))

-- name: orders_have_an_owner
-- fails: An order with an address belongs to nobody.
-- holds: Every order with an address belongs to somebody.
WITH white AS (SELECT E'\t\n\u000B\f\r\u001C\u001D\u001E\u001F \u0085\u00A0\u1680'
    '\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200A'
    '\u2028\u2029\u202F\u205F\u3000\uFEFF' AS space)
SELECT o.id, o.order_number, o.customer_email FROM @new.orders o CROSS JOIN white w
 CROSS JOIN LATERAL (SELECT btrim(o.customer_email, w.space) AS trimmed) t
 WHERE o.user_id IS NULL AND o.id NOT IN ({waiting}) AND t.trimmed ~ '^[^@]+@[^@]+$'
   AND length(translate(t.trimmed, w.space, '')) = length(t.trimmed)
   AND length(lower(t.trimmed)) <= 255

-- name: orders_of_their_owner
-- warns: An order belongs to an account with another address.
-- holds: Every customer's orders carry the customer's address.
WITH white AS (SELECT E'\t\n\u000B\f\r\u001C\u001D\u001E\u001F \u0085\u00A0\u1680'
    '\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200A'
    '\u2028\u2029\u202F\u205F\u3000\uFEFF' AS space)
SELECT o.id, o.order_number, o.customer_email, u.email
  FROM @new.orders o
  JOIN @new.users u ON u.id = o.user_id AND u.role = 'customer'
  JOIN @legacy.orders l ON l.id = o.id
 CROSS JOIN white w
 WHERE lower(btrim(u.email, w.space)) <> lower(btrim(o.customer_email, w.space))

-- name: tables_have_an_owner
-- fails: A table belongs neither to an account nor to a session.
-- holds: Every table belongs to an account or to a session.
SELECT t.id, t.kind, t.contact_email FROM @new.tables t
 WHERE t.user_id IS NULL AND t.session_id IS NULL AND t.id NOT IN ({waiting})

-- name: examples_have_their_artist
-- fails: A showcase table belongs to somebody else than the artist who published it.
-- holds: Every showcase table belongs to the artist who published it.
SELECT t.id, l.artist_id, t.user_id
  FROM @legacy.example_tables l JOIN @new.tables t ON t.id = l.id AND t.kind = 'example'
 WHERE t.user_id IS DISTINCT FROM l.artist_id

-- name: measures
-- fails: A table has other measures than its configuration said.
-- holds: Every table has the measures its configuration said.
SELECT t.id, t.width, t.depth, l.table_config
  FROM (SELECT 'user' AS kind, id, table_config FROM @legacy.user_tables
        UNION ALL SELECT 'example', id, table_config FROM @legacy.example_tables) l
  JOIN @new.tables t ON t.id = l.id AND t.kind = l.kind
 WHERE t.width::text <> regexp_replace(l.table_config ->> 'width', '[.]0+$', '')
    OR t.depth::text <> regexp_replace(l.table_config ->> 'depth', '[.]0+$', '')
    -- A whole number that fits has a column; what is no number has none.  Strict, or a
    -- number in an array would pass for one.
    OR (t.width IS NULL) = coalesce(l.table_config -> 'width' @? 'strict $ ? (@.type() == "number" &&
        @ >= -2147483647 && @ <= 2147483647 && @.floor() == @)', false)
    OR (t.depth IS NULL) = coalesce(l.table_config -> 'depth' @? 'strict $ ? (@.type() == "number" &&
        @ >= -2147483647 && @ <= 2147483647 && @.floor() == @)', false)

-- name: held_rows_stay_behind
-- fails: A row is held and has come over all the same.
-- holds: No held row has come over.
SELECT q.legacy_table, q.legacy_id, q.reason FROM @new.legacy_quarantine q
 WHERE q.kind = 'held' AND q.reason NOT IN ('refused', 'triggers_disagree')
   AND (q.legacy_table = 'user_tables'
        AND EXISTS (SELECT FROM @new.tables t WHERE t.id = q.legacy_id AND t.kind = 'user')
        OR q.legacy_table = 'example_tables'
        AND EXISTS (SELECT FROM @new.tables t WHERE t.id = q.legacy_id AND t.kind = 'example')
        OR q.legacy_table = 'orders'
        AND EXISTS (SELECT FROM @new.order_items i WHERE i.order_id = q.legacy_id))

-- name: assets_of_models
-- fails: An asset made from a model has no file to print.
-- holds: Every asset made from a model has a file to print.
SELECT a.id, a.name, m.file_paths FROM @new.assets a JOIN @new.models m ON m.id = a.model_id
 WHERE a.copied IS NOT NULL AND coalesce(a.file_ref, '') = ''

-- name: asset_counters
-- warns: An asset's counters are not what the tables' libraries say; copy_models_to_assets counts again.
-- holds: Every asset's counters are what the tables' libraries say.
SELECT a.id, a.name, a.add_count, coalesce(t.tables, 0) AS tables,
       a.use_count, coalesce(t.placements, 0) AS placements
  FROM @new.assets a
  LEFT JOIN (SELECT asset_id, count(*) AS tables, sum(quantity) AS placements
               FROM @new.table_assets GROUP BY 1) t ON t.asset_id = a.id
 WHERE a.add_count <> coalesce(t.tables, 0) OR a.use_count <> coalesce(t.placements, 0)
