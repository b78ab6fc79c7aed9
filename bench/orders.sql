-- What a DBA would type for legacy.orders: the orders, then a row per item.
INSERT INTO orders (id, order_number, user_id, customer_email, customer_name,
                    shipping_address, pricing, status, print_farm_order_id,
                    stripe_payment_id, paypal_payment_id, tracking_number, notes,
                    created_at, updated_at)
SELECT o.id, o.order_number, u.id, o.user_email, o.user_name,
       o.shipping_address, o.pricing, o.status, o.print_farm_order_id,
       o.stripe_payment_id, o.paypal_payment_id, o.tracking_number, o.notes,
       o.created_at AT TIME ZONE 'UTC', o.updated_at AT TIME ZONE 'UTC'
  FROM legacy.orders o
  LEFT JOIN users u ON lower(u.email) = lower(trim(o.user_email));

INSERT INTO order_items (id, order_id, position, asset_ref, model_id, artist_id, model_name,
                         quantity, unit_price, total_price, price_source, print_color,
                         print_material, print_quality, special_instructions, extra)
SELECT md5(o.id || ':' || e.position)::uuid, o.id, e.position, e.item ->> 'asset_id',
       m.id, m.artist_id, m.name, (e.item ->> 'quantity')::integer, m.base_price,
       m.base_price * (e.item ->> 'quantity')::integer, 'catalogue',
       e.item #>> '{printOptions,color}', e.item #>> '{printOptions,material}',
       e.item #>> '{printOptions,quality}', e.item #>> '{printOptions,notes}',
       e.item - '{asset_id,quantity,printOptions}'::text[]
  FROM legacy.orders o
 CROSS JOIN jsonb_array_elements(o.items) WITH ORDINALITY AS e (item, position)
  LEFT JOIN models m ON m.id = (e.item ->> 'asset_id')::uuid;
