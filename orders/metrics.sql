-- What is measured of orders and payments.  A total that is no amount (NaN, infinite, text)
-- would make every sum it is in one of these; such rows are counted by themselves.

-- name: orders
-- Orders, those without a usable total, and the totals of the others, by status.
SELECT o.status, count(*), count(*) FILTER (WHERE t.total IS NULL), coalesce(sum(t.total), 0)
  FROM orders o
 CROSS JOIN LATERAL (
       SELECT CASE WHEN o.pricing ->> 'total' ~ '^[0-9]{1,12}([.][0-9]{1,6})?$'
                   THEN (o.pricing ->> 'total')::numeric END AS total) t
 GROUP BY 1

-- name: newest_order
-- When the newest order came.  Dates that cannot be are not after now.
SELECT extract(epoch FROM o.created_at) FROM orders o
 WHERE o.created_at BETWEEN '2000-01-01' AND now() ORDER BY o.created_at DESC LIMIT 1

-- name: payments
-- Payments, those without an amount in pounds, and the amounts of the others, by status.
SELECT p.status, count(*),
       count(*) FILTER (WHERE p.amount = 'NaN' OR p.currency <> 'GBP'),
       coalesce(sum(p.amount) FILTER (WHERE p.amount <> 'NaN' AND p.currency = 'GBP'), 0)
  FROM payments p GROUP BY 1
