-- What a report counts, written by hand: none of these uses an expression of the
-- declaration.  Those that come in pairs, before and after, return (status, rows, pennies);
-- an amount that is no number counts as nothing, and so does text that is no amount.

-- name: fingerprint
-- Rows and fingerprint of a table: a sum, so that the order of the rows is no matter, and
-- in numeric, so that it cannot overflow.  Saved reports have it, so it stays as it is.
SELECT count(*), coalesce(sum(hashtextextended(ROW({columns})::text COLLATE "C", 0)), 0)::text
  FROM ONLY {table} t

-- name: orders_before
-- What customers have paid, or are to pay: the total that each order states.
SELECT coalesce(l.status, ''), count(*), coalesce(sum((l.pricing ->> 'total')::numeric) FILTER (
           WHERE l.pricing ->> 'total' ~ '^-?[0-9]{1,12}([.][0-9]+)?$'), 0) * 100
  FROM @legacy.orders l GROUP BY 1 ORDER BY 1

-- name: orders_after
-- The same of the new orders.
SELECT coalesce(o.status, ''), count(*), coalesce(sum((o.pricing ->> 'total')::numeric) FILTER (
           WHERE o.pricing ->> 'total' ~ '^-?[0-9]{1,12}([.][0-9]+)?$'), 0) * 100
  FROM @new.orders o GROUP BY 1 ORDER BY 1

-- name: lines_before
-- What the models of an order cost together, where nothing of it is in quarantine.
SELECT coalesce(l.status, ''), count(*), coalesce(sum((l.pricing ->> 'model_subtotal')::numeric), 0) * 100
  FROM @legacy.orders l
 WHERE l.pricing ->> 'model_subtotal' ~ '^[0-9]{1,10}([.][0-9]{1,2}0*)?$'
   AND NOT EXISTS (SELECT FROM @new.legacy_quarantine q
                    WHERE q.legacy_table = 'orders' AND q.legacy_id = l.id)
   AND EXISTS (SELECT FROM @new.order_items i WHERE i.order_id = l.id)
 GROUP BY 1 ORDER BY 1

-- name: lines_after
-- What the lines of the same orders add up to.
SELECT coalesce(o.status, ''), count(*), coalesce(sum(i.total), 0) * 100
  FROM @new.orders o
  JOIN (SELECT order_id, sum(total_price) AS total FROM @new.order_items GROUP BY 1) i
    ON i.order_id = o.id
 WHERE o.pricing ->> 'model_subtotal' ~ '^[0-9]{1,10}([.][0-9]{1,2}0*)?$'
   AND NOT EXISTS (SELECT FROM @new.legacy_quarantine q
                    WHERE q.legacy_table = 'orders' AND q.legacy_id = o.id)
 GROUP BY 1 ORDER BY 1

-- name: payments_before
-- What artists were paid, or are to be.
SELECT coalesce(t.status, ''), count(*), coalesce(sum(nullif(t.amount, 'NaN')), 0) * 100
  FROM @legacy.stripe_transfers t GROUP BY 1 ORDER BY 1

-- name: payments_after
-- The same of the new payments.
SELECT coalesce(p.status, ''), count(*), coalesce(sum(nullif(p.amount, 'NaN')), 0) * 100
  FROM @new.payments p GROUP BY 1 ORDER BY 1

-- name: prices_before
-- What the catalogue costs.
SELECT coalesce(a.status, ''), count(*), coalesce(sum(nullif(a.base_price, 'NaN')), 0) * 100
  FROM @legacy.assets a GROUP BY 1 ORDER BY 1

-- name: prices_after
-- The same of the new models.
SELECT coalesce(m.status, ''), count(*), coalesce(sum(nullif(m.base_price, 'NaN')), 0) * 100
  FROM @new.models m GROUP BY 1 ORDER BY 1
