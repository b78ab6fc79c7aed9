"""Deletions, which are never widened, demotions, and keys that change."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from django.db import connection

from catalogue.models import AssetSet
from terrain.legacy import settling
from terrain.models import User
from tests.both import Both
from tests.legacy import (
    artist,
    example,
    insert,
    key,
    model,
    order,
    table,
    transfer,
)

pytestmark = [pytest.mark.migration, pytest.mark.both_places]


def test_an_artist_deleted_on_the_old_side_who_bought_becomes_a_customer(
    both: Both,
) -> None:
    insert(both.old, artist("#cy", "Cy@Buys.example"))
    insert(both.old, order("#cys", email="cy@buys.example"))
    settling.settle(connection)
    both.does("DELETE FROM artists WHERE id = '#cy'")
    assert both.has("SELECT id, email, role FROM users WHERE id = '#cy'") == [
        ("#cy", "cy@buys.example", "customer")
    ]
    assert both.has("SELECT user_id FROM orders WHERE id = '#cys'") == [("#cy",)]


def test_an_artist_deleted_on_the_old_side_who_owns_a_set_becomes_a_customer(
    both: Both,
) -> None:
    owner = User.objects.get(pk=key("#bob"))
    AssetSet.objects.create(name="Hills", owner=owner)
    both.does("DELETE FROM artists WHERE id = '#bob'")
    assert both.has("SELECT role FROM users WHERE id = '#bob'") == [("customer",)]
    assert both.has("SELECT id FROM models WHERE id = '#bridge'") == []
    assert both.has("SELECT owner_id FROM asset_sets WHERE name = 'Hills'") == [
        ("#bob",)
    ]


def test_an_artist_who_becomes_a_customer_joins_the_one_with_that_address(
    both: Both,
) -> None:
    """Not yet settled: the customer of the same address is there still."""
    insert(both.old, artist("#cy", "BUYER@shop.example"))
    both.newly("INSERT INTO asset_sets (name, owner_id) VALUES ('Hills', '#cy')")
    both.does("DELETE FROM artists WHERE id = '#cy'")
    assert both.has(
        "SELECT u.email, u.role FROM asset_sets s JOIN users u ON u.id = s.owner_id"
        " WHERE s.name = 'Hills'"
    ) == [("buyer@shop.example", "customer")]


def test_an_artist_with_nothing_left_goes(both: Both) -> None:
    both.does("DELETE FROM artists WHERE id = '#bob'")
    assert both.has("SELECT id FROM users WHERE id = '#bob'") == []
    assert both.has("SELECT id FROM models WHERE id = '#bridge'") == []


def test_an_artist_made_again_is_an_artist_again(both: Both) -> None:
    insert(both.old, artist("#cy", "cy@buys.example"))
    insert(both.old, order("#cys", email="cy@buys.example"))
    settling.settle(connection)
    both.does("DELETE FROM artists WHERE id = '#cy'")
    insert(both.old, artist("#cy", "cy@buys.example"))
    assert both.has("SELECT role FROM users WHERE id = '#cy'") == [("artist",)]


@pytest.mark.parametrize(
    "change", ["DELETE FROM users", "UPDATE users SET role = 'customer'"]
)
@pytest.mark.parametrize(
    "owned, where",
    [
        (model("#only", "#cy"), "assets"),
        (example("#only", "#cy"), "example_tables"),
        (transfer("#only", "#ord", "#cy"), "stripe_transfers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_artist_who_owns_anything_is_neither_deleted_nor_demoted_by_the_new_side(
    both: Both, change: str, owned: Any, where: str
) -> None:
    insert(both.old, artist("#cy"))
    insert(both.old, owned)
    with pytest.raises(psycopg.DatabaseError) as refused:
        both.newly(f"{change} WHERE id = '#cy'")
    assert refused.value.sqlstate == "TB002"
    assert str(refused.value).startswith(
        both.fill(
            "@new.users #cy cannot be kept in step with @legacy.artists:"
            f" @legacy.artists #cy still has rows in {where}"
        )
    )
    both.does(f"DELETE FROM {where} WHERE id = '#only'")
    both.newly(f"{change} WHERE id = '#cy'")
    assert both.sees("SELECT id FROM artists WHERE id = '#cy'") == []


def test_cascades_of_the_old_side_arrive(both: Both) -> None:
    both.does("DELETE FROM stripe_transfers WHERE id = '#pay'")
    both.does("DELETE FROM artists WHERE id = '#ann'")
    assert both.has("SELECT id FROM models WHERE id = '#tower'") == []
    assert both.has("SELECT id FROM tables WHERE id = '#show'") == []
    # What was sold stays sold.
    assert both.has(
        "SELECT asset_ref, model_id, artist_id, model_name, total_price::text"
        " FROM order_items WHERE order_id = '#ord'"
    ) == [("#tower", None, None, "Tower", "6.66")]
    assert both.sees(
        "SELECT items -> 0 ->> 'asset_id' FROM orders WHERE id = '#ord'"
    ) == [("#tower",)]


def test_a_key_that_changes_takes_everything_along(both: Both) -> None:
    """ON UPDATE, in the database: lines, libraries, owners."""
    insert(
        both.old,
        artist("#cy", "cy@buys.example"),
        order("#cys", email="cy@buys.example"),
    )
    settling.settle(connection)
    both.newly("UPDATE tables SET max_assets = 9 WHERE id = '#den'")
    both.newly("UPDATE order_items SET total_price = 1 WHERE order_id = '#ord'")
    both.does("DELETE FROM stripe_transfers WHERE id = '#pay'")
    both.does("UPDATE artists SET id = '#cy2' WHERE id = '#cy'")
    both.does("UPDATE orders SET id = '#ord2' WHERE id = '#ord'")
    both.does("UPDATE user_tables SET id = '#den2' WHERE id = '#den'")
    both.does("UPDATE assets SET id = '#tower2' WHERE id = '#tower'")
    assert both.has("SELECT user_id FROM orders WHERE id = '#cys'") == [("#cy2",)]
    assert both.has("SELECT max_assets FROM tables WHERE id = '#den2'") == [(9,)]
    assert both.has(
        "SELECT order_id, model_id, asset_ref, total_price::text FROM order_items"
        " WHERE order_id IN ('#ord', '#ord2')"
    ) == [("#ord2", "#tower2", "#tower", "1.00")]
    for gone in ("#cy", "#ord", "#den", "#tower"):
        assert (
            both.has(
                f"SELECT id FROM users WHERE id = '{gone}' UNION ALL SELECT id FROM orders"
                f" WHERE id = '{gone}' UNION ALL SELECT id FROM tables WHERE id = '{gone}'"
                f" UNION ALL SELECT id FROM models WHERE id = '{gone}'"
            )
            == []
        )


def test_keys_that_are_exchanged(both: Both) -> None:
    """Through a third one, in one transaction, deferred to nobody."""
    insert(both.old, table("#t1", None), table("#t2", None))
    both.does("BEGIN")
    for one, other in (("#t1", "#t3"), ("#t2", "#t1"), ("#t3", "#t2")):
        both.does(f"UPDATE user_tables SET id = '{other}' WHERE id = '{one}'")
    both.does("COMMIT")
    assert both.has(
        "SELECT id, name FROM tables WHERE id IN ('#t1', '#t2') ORDER BY 2"
    ) == [
        ("#t2", "T1"),
        ("#t1", "T2"),
    ]
