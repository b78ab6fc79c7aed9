"""A few hundred rows of every legacy table that no shop should have, and some shop will."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

from tests import test_laws
from tests.conftest import Database

#: What Hypothesis seldom comes upon.
PLANTED = (
    # Two artists of one address, and of one Stripe account.
    "INSERT INTO artists (email, password_hash, name, stripe_account_id)"
    " VALUES ('Twin@x.org', '', 'A', 'acct_twin'), (' twin@X.org ', '', 'B', 'acct_twin'),"
    " (E'\u00a0Odd@x.org\t', '', 'C', ''), ('nobody', '', 'D', '')",
    # A user table and an example of one id; and again, of which the first is held.
    "INSERT INTO user_tables (id, name, table_config, layout_data, user_email) VALUES"
    " ('11111111-0000-4000-8000-000000000001', '', '{}', '{}', NULL),"
    " ('11111111-0000-4000-8000-000000000002', '', '[]', '{}', 'held@x.org'),"
    " (gen_random_uuid(), '', '{\"width\": 1e3, \"depth\": 1200.0}', '{}', ''),"
    " (gen_random_uuid(), '', '{\"width\": 1e400, \"depth\": \"900\"}', '{}', ' A@x.org'),"
    " (gen_random_uuid(), '', '{\"width\": 0.5, \"depth\": null}', '{}', E'\u3000T@x.org'),"
    " (gen_random_uuid(), '', '{\"width\": -1.50, \"depth\": -0}', '{}', 'twin@x.org')",
    "INSERT INTO example_tables (id, artist_id, name, table_config, layout_data)"
    " SELECT k.id, a.id, '', '{\"width\": 7}', '{}' FROM (SELECT id FROM artists LIMIT 1) a,"
    " (VALUES ('11111111-0000-4000-8000-000000000001'::uuid),"
    "         ('11111111-0000-4000-8000-000000000002')) k (id)",
    # Own prices that are more than the subtotal, orders paid twice, odd totals.
    "INSERT INTO orders (order_number, user_email, user_name, shipping_address, items,"
    "                    pricing, stripe_payment_id) VALUES"
    " ('H-1', 'a@b.c', '', '{}', '[{\"quantity\": 2, \"price\": 9.5}]',"
    "  '{\"model_subtotal\": 3, \"total\": 3}', 'pi_twice'),"
    " ('H-2', '', '', '{}', '[]', '{\"model_subtotal\": 3, \"total\": \"NaN\"}', 'pi_twice'),"
    " ('H-3', '', '', '{}', '[{\"quantity\": 2}, 7]', '{\"model_subtotal\": \"4.00\"}', ''),"
    " ('H-4', '', '', '{}', '[{\"quantity\": 2147483648}]', '{}', ''),"
    " ('H-5', '', '', '{}', '[{\"quantity\": 2.0}, {\"quantity\": 2.5}]', '{}', ''),"
    " ('H-6', E'Odd@X.org\u00a0', '', '{}', '[{\"quantity\": 2.0}, {\"quantity\": 1e1}]',"
    "  '{\"model_subtotal\": 4.0000, \"total\": 1e2}', ''),"
    " ('H-7', E'\u3000new@x.org', '', '{}', '[]', '[]', ''),"
    " ('H-8', 'a@b@c', '', '{}', '[]', '\"total\"', ''),"
    " ('H-9', '', '', '{}', '{}', '{\"total\": 0}', ''),"
    " ('H-10', '', '', '{}', '[{}]', '{\"total\": -0.01}', ''),"
    " ('H-11', '', '', '{}', '[{\"quantity\": \"2\"}]', '{}', ''),"
    " ('H-12', '', '', '{}', '[{\"quantity\": 0}]', '{}', '')",
    "INSERT INTO stripe_transfers (order_id, artist_id, stripe_transfer_id, amount, status)"
    " SELECT o.id, a.id, 'tr_x', 'NaN', 'pending' FROM (SELECT id FROM orders LIMIT 2) o,"
    " (SELECT id FROM artists LIMIT 1) a",
    "INSERT INTO stripe_transfers (order_id, artist_id, stripe_transfer_id, amount, status,"
    "                              created_at)"
    " SELECT o.id, a.id, v.* FROM (SELECT id FROM orders LIMIT 1) o,"
    " (SELECT id FROM artists LIMIT 1) a,"
    " (VALUES ('tr_0', 0, 'pending', 'infinity'::timestamp),"
    "         ('tr_1', -0.01, 'pending', '0044-03-15 BC'::timestamp)) v",
    "INSERT INTO assets (artist_id, name, base_price, file_paths, created_at)"
    " SELECT a.id, '', v.*  FROM (SELECT id FROM artists LIMIT 1) a,"
    " (VALUES (0::numeric, '{}'::jsonb, '-infinity'::timestamp), (-1, '[]', 'infinity'),"
    "         ('NaN', '7', '12026-01-01')) v",
    "UPDATE artists SET commission_rate = 'NaN', created_at = 'infinity'"
    " WHERE email = 'nobody'",
    "UPDATE user_tables SET updated_at = 'infinity' WHERE user_email = 'twin@x.org'",
    "UPDATE example_tables SET created_at = '10000-01-01' WHERE name = 'Showcase 3'",
    "UPDATE example_tables SET layout_data = '1' WHERE name = 'Showcase 4'",
    "UPDATE example_tables SET table_config = 'null' WHERE name = 'Showcase 5'",
    "UPDATE user_tables SET layout_data = '[]' WHERE name = 'Table 5'",
    "UPDATE orders SET created_at = '-infinity' WHERE order_number = 'H-12'",
)


def rows() -> list[tuple[str, dict[str, Any]]]:
    """Drawn from the strategies of the laws, the same ones each time."""
    drawn: list[tuple[str, dict[str, Any]]] = []

    @given(test_laws.SOME_ROWS)
    @settings(
        max_examples=150,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def draw(some: list[tuple[str, dict[str, Any]]]) -> None:
        drawn.extend(some)

    draw()
    return list({row["id"]: (table, row) for table, row in drawn}.values())


def fill(shop: Database) -> None:
    """Put them all into a shop, over a connection of the shop's own."""
    with shop.connect(path="legacy,public") as filler:
        test_laws._referred_to(filler)
        test_laws.fill(filler, rows())
        for statement in PLANTED:
            filler.execute(statement)  # type: ignore[arg-type]
