"""Which rows in quarantine ``settle`` looks at again by itself."""

from __future__ import annotations

from django.db import connection

from terrain.legacy import catalog, settling, sql
from terrain.legacy.mapping import ORDERS
from tests.conftest import Database

TRIGGER = "ALTER TABLE public.orders {} TRIGGER zz_terrain_sync_row"


def held(database: Database) -> set[str]:
    return {
        number
        for (number,) in database.rows(
            "SELECT l.order_number FROM public.orders l JOIN terrain.legacy_quarantine q"
            " ON q.legacy_id = l.id AND q.kind = 'held' AND q.legacy_table = 'orders'"
        )
    }


def test_a_held_row_without_its_reason_is_tried_again(migrated: Database) -> None:
    one, other = (
        number
        for (number,) in migrated.rows(
            "SELECT order_number FROM public.orders ORDER BY 1 LIMIT 2"
        )
    )
    migrated.execute(
        "UPDATE public.orders SET notes = items::text, items = '{}'"
        " WHERE order_number = ANY (%s)",
        [one, other],
    )
    assert held(migrated) == {one, other}
    assert catalog.rows(connection, sql.to_retry(ORDERS)) == []

    migrated.execute(TRIGGER.format("DISABLE"))
    migrated.execute(
        "UPDATE public.orders SET items = notes::jsonb WHERE order_number = %s", one
    )
    migrated.execute(TRIGGER.format("ENABLE ALWAYS"))
    assert len(catalog.rows(connection, sql.to_retry(ORDERS))) == 1

    assert settling.settle(connection).released == 1
    assert held(migrated) == {other}
    assert migrated.value(
        "SELECT count(*) > 0 FROM terrain.order_items i JOIN terrain.orders o"
        " ON o.id = i.order_id WHERE o.order_number = %s",
        one,
    )
    assert settling.settle(connection).nothing
