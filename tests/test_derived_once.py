"""What is derived once (price, model, artist) stays while the line's asset and quantity do."""

from __future__ import annotations

import time

import pytest

from orders.models import OrderItem
from tests.both import Both
from tests.legacy import key

pytestmark = pytest.mark.migration


PRICED = (
    "SELECT asset_ref, quantity, unit_price::text, total_price::text, price_source"
    " FROM order_items WHERE order_id = '#ord' ORDER BY position"
)


def test_what_is_derived_once_stays(both: Both) -> None:
    both.does("UPDATE assets SET base_price = 99, name = 'Dearer' WHERE id = '#tower'")
    both.does("UPDATE orders SET notes = 'x' WHERE id = '#ord'")
    both.does("UPDATE orders SET pricing = '{\"model_subtotal\": 1}' WHERE id = '#ord'")
    both.does(
        "UPDATE orders SET items = jsonb_set(items, '{0,gift}', 'true') WHERE id = '#ord'"
    )
    assert both.has(PRICED) == [("#tower", 2, "3.33", "6.66", "catalogue")]
    assert both.has("SELECT model_name FROM order_items WHERE order_id = '#ord'") == [
        ("Tower",)
    ]


def test_a_line_of_another_quantity_is_priced_anew_the_others_stay(both: Both) -> None:
    both.does("UPDATE assets SET base_price = 4 WHERE id = '#tower'")
    both.does(
        "UPDATE orders SET items = items || jsonb_build_array(jsonb_build_object("
        "'asset_id', '#bridge', 'quantity', 1)), pricing = '{\"model_subtotal\": 16.66}'"
        " WHERE id = '#ord'"
    )
    assert both.has(PRICED) == [
        ("#tower", 2, "3.33", "6.66", "catalogue"),
        ("#bridge", 1, "10.00", "10.00", "catalogue"),
    ]
    both.does(
        "UPDATE orders SET items = jsonb_set(items, '{0,quantity}', '3'),"
        " pricing = '{\"model_subtotal\": 22}' WHERE id = '#ord'"
    )
    assert both.has(PRICED) == [
        ("#tower", 3, "4.00", "12.00", "catalogue"),
        ("#bridge", 1, "10.00", "10.00", "catalogue"),
    ]


def test_lines_that_change_places_take_along_what_was_derived(both: Both) -> None:
    both.does(
        "UPDATE orders SET items = jsonb_build_array(jsonb_build_object("
        "'asset_id', '#bridge', 'quantity', 1)) || items,"
        " pricing = '{\"model_subtotal\": 16.66}' WHERE id = '#ord'"
    )
    both.does("UPDATE assets SET base_price = 50")
    both.does(
        "UPDATE orders SET items = jsonb_build_array(items -> 1, items -> 0)"
        " WHERE id = '#ord'"
    )
    assert both.has(PRICED) == [
        ("#tower", 2, "3.33", "6.66", "catalogue"),
        ("#bridge", 1, "10.00", "10.00", "catalogue"),
    ]


def test_gaps_between_positions_are_none_of_the_old_sides_business(both: Both) -> None:
    both.newly("UPDATE order_items SET position = 40 WHERE order_id = '#ord'")
    OrderItem.objects.create(
        order_id=key("#ord"), position=7, quantity=1, asset_ref="x"
    )
    assert both.sees(
        "SELECT jsonb_agg(e -> 'asset_id') FROM orders o,"
        " jsonb_array_elements(o.items) e WHERE o.id = '#ord'"
    ) == [(["x", "#tower"],)]
    both.does(
        "UPDATE orders SET items = items || '[{\"quantity\": 5}]' WHERE id = '#ord'"
    )
    assert both.has(
        "SELECT position, quantity FROM order_items WHERE order_id = '#ord' ORDER BY 1"
    ) == [(7, 1), (40, 2), (41, 5)]


def test_an_order_with_thousands_of_items_is_carried_over_in_time(both: Both) -> None:
    """Each statement in a quarter of a second or so; a quadratic plan takes several."""
    items = "(SELECT jsonb_agg(jsonb_build_object('asset_id', gen_random_uuid(),"
    items += " 'quantity', 1)) FROM generate_series(1, 5000))"
    for change in (
        items,
        "jsonb_set(items, '{0,gift}', '1')",
        "items || items",
        "'[]'",
    ):
        started = time.monotonic()
        both.does(f"UPDATE orders SET items = {change} WHERE id = '#ord'")
        assert time.monotonic() - started < 2, change
        assert both.has(
            "SELECT count(i) = jsonb_array_length(l.items) FROM @legacy.orders l"
            " LEFT JOIN order_items i ON i.order_id = l.id WHERE l.id = '#ord' GROUP BY l.id"
        ) == [(True,)]
