"""What only the new schema knows of a row, while the row is held and when it returns."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from terrain.legacy import settling
from terrain.models import User
from tests.both import Both
from tests.legacy import insert, key, model, table

pytestmark = [pytest.mark.migration, pytest.mark.both_places]

BREAK = "UPDATE user_tables SET layout_data = '[]' WHERE id = "
REPAIR = "UPDATE user_tables SET layout_data = '{}' WHERE id = "


def place(both: Both, on: str, *names: str) -> None:
    """Put new assets of these names on a table."""
    for name in names:
        insert(both.old, model(name, "#ann"))
        both.newly(
            "INSERT INTO assets (id, model_id, artist_id, name, file_ref)"
            f" VALUES ('{name}', '{name}', '#ann', 'A', 'a.stl')"
        )
        both.newly(
            "INSERT INTO table_assets (id, table_id, asset_id, quantity)"
            f" VALUES (gen_random_uuid(), '{on}', '{name}', 4)"
        )


def test_a_held_table_that_is_given_another_key_keeps_its_library(both: Both) -> None:
    both.newly("UPDATE tables SET max_assets = 9 WHERE id = '#den'")
    place(both, "#den", "#wall")
    both.does(f"{BREAK} '#den'")
    both.does("UPDATE user_tables SET id = '#den2' WHERE id = '#den'")
    both.does(f"{REPAIR} '#den2'")
    assert both.held() == []
    assert both.has(
        "SELECT t.id, max_assets, quantity FROM tables t"
        " JOIN table_assets a ON a.table_id = t.id"
    ) == [("#den2", 9, 4)]


def test_held_items_of_an_order_that_is_given_another_key_keep_their_prices(
    both: Both,
) -> None:
    both.does("DELETE FROM stripe_transfers")
    both.newly("UPDATE order_items SET total_price = 1 WHERE order_id = '#ord'")
    both.does("UPDATE orders SET items = items || '[{}]' WHERE id = '#ord'")
    both.does("UPDATE orders SET id = '#ord2' WHERE id = '#ord'")
    both.does("UPDATE orders SET items = items - 1 WHERE id = '#ord2'")
    assert both.held() == []
    assert both.has(
        "SELECT total_price::text FROM order_items WHERE order_id = '#ord2'"
    ) == [("1.00",)]


def test_a_table_over_its_limit_returns_with_all_it_had(both: Both) -> None:
    """The old application's statement succeeds, and limits nothing."""
    place(both, "#den", "#wall", "#gate")
    both.newly("UPDATE tables SET max_assets = 1 WHERE id = '#den'")
    both.does(f"{BREAK} '#den'")
    both.does(f"{REPAIR} '#den'")
    assert both.has("SELECT count(*) FROM table_assets WHERE table_id = '#den'") == [
        (2,)
    ]
    assert both.does("SHOW terrain.sync").fetchall() == [("",)]


def settled(both: Both, name: str) -> Any:
    """The owner of a table, account or session, once everything is settled."""
    settling.settle(connection)
    return both.has(f"SELECT user_id, session_id FROM tables WHERE id = '{name}'")


@pytest.mark.parametrize(
    "change",
    [
        (BREAK, REPAIR),
        # Nothing is as much an address as NULL is.
        ("UPDATE user_tables SET user_email = '' WHERE id = ",),
    ],
    ids=["held", "no address"],
)
def test_a_table_that_somebody_claimed_stays_theirs(
    both: Both, change: tuple[str, ...]
) -> None:
    insert(both.old, table("#claimed", None), table("#shared", None))
    settling.settle(connection)
    User.objects.create_user("claims@at.example", id=key("#claimant"))
    both.newly(
        "UPDATE tables SET user_id = '#claimant', session_id = NULL WHERE id = '#claimed'"
    )
    both.newly(
        "INSERT INTO anonymous_sessions (id, session_token, table_limit, created_at, last_seen)"
        " VALUES ('#visit', 'token', 3, now(), now())"
    )
    both.newly("UPDATE tables SET session_id = '#visit' WHERE id = '#shared'")
    for statement in change:
        both.does(f"{statement} '#claimed'")
        both.does(f"{statement} '#shared'")
    assert settled(both, "#claimed") == [("#claimant", None)]
    assert settled(both, "#shared") == [(None, "#visit")]


def test_a_held_table_whose_address_changes_is_its_new_owners(both: Both) -> None:
    settling.settle(connection)
    both.does(f"{BREAK} '#den'")
    both.does(
        "UPDATE user_tables SET user_email = 'other@at.example', layout_data = '{}'"
        " WHERE id = '#den'"
    )
    settling.settle(connection)
    assert both.has(
        "SELECT u.email FROM tables t JOIN users u ON u.id = t.user_id WHERE t.id = '#den'"
    ) == [("other@at.example",)]


def test_a_held_table_whose_owner_is_gone_is_settled_anew(both: Both) -> None:
    settling.settle(connection)
    both.does(f"{BREAK} '#den'")
    both.newly("DELETE FROM users WHERE email = 'sits@at.example'")
    both.does(f"{REPAIR} '#den'")
    settling.settle(connection)
    assert both.has(
        "SELECT u.email FROM tables t JOIN users u ON u.id = t.user_id WHERE t.id = '#den'"
    ) == [("sits@at.example",)]
