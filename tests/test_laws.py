"""Laws 1, 2 and 3 over generated rows of every legacy table, hostile ones included.

Each example is a transaction that is rolled back.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection as django_connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql as pg

from terrain.embedded import OWNER
from terrain.legacy import catalog, cut_over, sample, sql
from terrain.legacy.mapping import BY_LEGACY, LENSES
from terrain.legacy.place import AFTER, BEFORE
from terrain.legacy.schema import Lens
from tests import rows
from tests.conftest import pointed_at

pytestmark = pytest.mark.migration


class Connection(psycopg.Connection[Any]):
    """One that knows where the tables are: see ``place.py``."""

    place = BEFORE

    def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
        return super().execute(self.place.fill(query), *arguments, **options)


#: LAWS_EXAMPLES=5000 looks longer.
laws = settings(
    max_examples=int(os.environ.get("LAWS_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

ARTIST = uuid.UUID("aaaaaaaa-0000-4000-8000-000000000001")
ORDER = uuid.UUID("bbbbbbbb-0000-4000-8000-000000000001")
MODEL = uuid.UUID("cccccccc-0000-4000-8000-000000000001")


@pytest.fixture(scope="module")
def types(django_db_blocker: Any) -> sql.Types:
    return catalog.types(django_connection)


def _connect(cluster: Any, name: str) -> Connection:
    return Connection.connect(
        cluster.dsn(name, OWNER),
        options="-c search_path=legacy,public -c timezone=UTC",
    )


@pytest.fixture(scope="module")
def before(
    cluster: Any,
    create_database: Callable[..., str],
    drop_database: Callable[[str], None],
) -> Iterator[Connection]:
    """The legacy schema, not yet migrated, with what rows refer to."""
    name = create_database()
    _legacy_schema(cluster, name)
    with _connect(cluster, name) as connection:
        yield connection
    drop_database(name)


@pytest.fixture(scope="module", params=[BEFORE, AFTER], ids=["before", "cut over"])
def after(
    request: pytest.FixtureRequest,
    cluster: Any,
    create_database: Callable[..., str],
    drop_database: Callable[[str], None],
    django_db_blocker: Any,
) -> Iterator[Connection]:
    """The same, migrated: before the names have changed places, and after it."""
    name = create_database()
    _legacy_schema(cluster, name)
    with django_db_blocker.unblock(), pointed_at(name):
        call_command("migrate", verbosity=0)
        if request.param is AFTER:
            cut_over.cut_over(django_connection)
    with _connect(cluster, name) as connection:
        connection.place = request.param
        yield connection
    drop_database(name)


def _legacy_schema(cluster: Any, name: str) -> None:
    schema = Path(sample.__file__).parent / "schema.sql"
    with _connect(cluster, name) as connection:
        connection.execute(schema.read_text())  # type: ignore[arg-type]
        _referred_to(connection)


def _referred_to(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO artists (id, email, password_hash, name)"
        " VALUES (%s, 'a@example.com', '', 'A')",
        [ARTIST],
    )
    connection.execute(
        "INSERT INTO assets (id, artist_id, name, base_price, file_paths)"
        " VALUES (%s, %s, 'Tower', 3.33, '{}')",
        [MODEL, ARTIST],
    )
    connection.execute(
        "INSERT INTO orders (id, order_number, user_email, user_name, shipping_address, pricing)"
        " VALUES (%s, 'O-1', 'b@example.com', 'B', '{}', '{}')",
        [ORDER],
    )


def insert(connection: Connection, table: str, row: rows.Row) -> None:
    """Insert a legacy row as the old application would."""
    connection.execute(
        pg.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            pg.Identifier(table),
            pg.SQL(", ").join(map(pg.Identifier, row)),
            pg.SQL(", ").join([pg.Placeholder()] * len(row)),
        ),
        list(row.values()),
    )


ANY_ROW: st.SearchStrategy[tuple[str, rows.Row]] = st.one_of(
    st.tuples(st.just("artists"), rows.artists()),
    st.tuples(st.just("assets"), rows.assets(ARTIST)),
    st.tuples(st.just("user_tables"), rows.user_tables()),
    st.tuples(st.just("example_tables"), rows.example_tables(ARTIST)),
    st.tuples(st.just("orders"), rows.orders()),
    st.tuples(st.just("stripe_transfers"), rows.stripe_transfers(ORDER, ARTIST)),
)
SOME_ROWS = st.lists(
    ANY_ROW, min_size=1, max_size=6, unique_by=lambda pair: pair[1]["id"]
)


def fill(
    connection: Connection, some: list[tuple[str, rows.Row]]
) -> list[tuple[str, rows.Row]]:
    """Insert what the legacy schema itself accepts; returns that."""
    accepted = []
    for table, row in some:
        try:
            with connection.transaction():
                insert(connection, table, row)
        except (psycopg.DataError, psycopg.errors.UniqueViolation):
            continue  # the legacy database refuses it: not our row
        accepted.append((table, row))
    return accepted


def differences(connection: Connection, lens: Lens) -> list[Any]:
    return connection.execute(
        sql.differences(lens), {"after": None, "upto": None}  # type: ignore[arg-type]
    ).fetchall()


def unaccounted_for(connection: Connection, lens: Lens) -> list[Any]:
    """Legacy rows that are neither in the new table nor held (law 3)."""
    return connection.execute(
        f"SELECT l.id FROM @legacy.{lens.legacy} l"  # type: ignore[arg-type]
        f" WHERE NOT EXISTS (SELECT FROM @new.{lens.new} n WHERE n.id = l.id AND {lens.own})"
        " AND NOT EXISTS (SELECT FROM @new.legacy_quarantine q WHERE q.kind = 'held'"
        "   AND q.legacy_table = %s AND q.legacy_id = l.id)",
        [lens.legacy],
    ).fetchall()


@given(SOME_ROWS)
@laws
def test_every_row_comes_back_as_it_is(
    before: Connection, types: sql.Types, some: list[tuple[str, rows.Row]]
) -> None:
    """Law 1, as preflight proves it before anything has changed."""
    with before.transaction(force_rollback=True):
        fill(before, some)
        tables = {lens.legacy: f"@legacy.{lens.legacy}" for lens in LENSES}
        for lens in LENSES:
            failed = before.execute(
                sql.round_trip(lens, types, tables)  # type: ignore[arg-type]
            ).fetchall()
            assert failed == []


@given(SOME_ROWS)
@laws
def test_triggers_carry_every_row_over(
    after: Connection, some: list[tuple[str, rows.Row]]
) -> None:
    """Laws 2 and 3, for rows the old application writes after the migration."""
    with after.transaction(force_rollback=True):
        fill(after, some)
        for lens in LENSES:
            assert differences(after, lens) == []
            assert unaccounted_for(after, lens) == []


#: Set by settle, or at random: not the same for both ways.
_OF_SETTLE = ("user_id", "session_id")


def new_rows(connection: Connection, keys: list[uuid.UUID]) -> dict[str, list[Any]]:
    """What the new schema and the quarantine have of these keys."""
    made = {}
    for table, column in (
        ("users", "id"),
        ("models", "id"),
        ("tables", "id"),
        ("orders", "id"),
        ("order_items", "order_id"),
        ("payments", "id"),
    ):
        strip = "- 'user_id' - 'session_id'" if table == "orders" else ""
        if table == "tables":
            strip = (
                "- 'session_id' - CASE t.kind WHEN 'user' THEN 'user_id' ELSE '' END"
            )
        made[table] = connection.execute(
            f"SELECT (to_jsonb(t) {strip})::text FROM @new.{table} t"  # type: ignore[arg-type]
            f" WHERE t.{column} = ANY (%s) ORDER BY t.id",
            [keys],
        ).fetchall()
    made["quarantine"] = connection.execute(
        "SELECT legacy_table, legacy_id, kind, reason, detail, row::text"
        "  FROM @new.legacy_quarantine WHERE legacy_id = ANY (%s) ORDER BY 1, 2, 3, 4",
        [keys],
    ).fetchall()
    return made


@given(SOME_ROWS)
@laws
def test_copy_and_triggers_make_the_same_rows(
    after: Connection, types: sql.Types, some: list[tuple[str, rows.Row]]
) -> None:
    """A row copied in a batch is the row that the trigger would have made."""
    keys = [row["id"] for _, row in some]
    with after.transaction(force_rollback=True):
        accepted = fill(after, some)
        by_trigger = new_rows(after, keys)
    with after.transaction(force_rollback=True):
        for lens in LENSES:
            after.execute(f"ALTER TABLE {lens.legacy} DISABLE TRIGGER USER")  # type: ignore
        for table, row in accepted:
            insert(after, table, row)
        after.execute("SELECT set_config('terrain.sync', 'on', true)")
        for lens in LENSES:
            after.execute(
                "SELECT set_config('terrain.echo', %s, true)", [f"{lens.new}:*@0"]
            )
            after.execute(
                sql.copy_batch(lens, types, 3),  # type: ignore[arg-type]
                {"after": None, "upto": uuid.UUID(int=2**128 - 1)},
            )
            # What is not fit, the worker carries over afterwards.
            after.execute(
                f"SELECT rebuilt.{lens.legacy}_to_new(q.key) FROM rebuilt.queue q"  # type: ignore
                " WHERE q.late AND q.legacy_table = %s",
                [lens.legacy],
            )
        by_batch = new_rows(after, keys)
    assert by_batch == by_trigger


WRITES = st.sampled_from(
    [
        "UPDATE @new.tables SET width = %(number)s",
        "UPDATE @new.tables SET depth = NULL",
        "UPDATE @new.tables SET config = %(object)s",
        "UPDATE @new.tables SET config = config || %(object)s, name = %(text)s",
        "UPDATE @new.tables SET contact_email = %(text)s WHERE kind = 'user'",
        "UPDATE @new.order_items SET quantity = %(positive)s",
        "UPDATE @new.order_items SET asset_ref = %(text)s",
        "UPDATE @new.order_items SET asset_ref = NULL, extra = extra - 'asset_id'",
        "UPDATE @new.order_items SET print_color = %(text)s, print_quality = NULL",
        "UPDATE @new.order_items SET special_instructions = NULL",
        "UPDATE @new.order_items SET extra = %(object)s",
        "UPDATE @new.order_items SET unit_price = %(price)s, price_source = 'own'",
        "UPDATE @new.order_items SET price_source = 'catalogue'",
        "DELETE FROM @new.order_items WHERE position = 1",
        "INSERT INTO @new.order_items (order_id, position, quantity, asset_ref)"
        " SELECT o.id, 77, %(positive)s, %(text)s FROM @new.orders o"
        " WHERE NOT EXISTS (SELECT FROM @new.order_items i WHERE i.position = 77"
        "                    AND i.order_id = o.id)",
        "UPDATE @new.orders SET pricing = %(object)s, status = 'paid'",
        "UPDATE @new.users SET display_name = %(text)s WHERE role <> 'customer'",
        "UPDATE @new.models SET tags = ARRAY[%(text)s, NULL], view_count = view_count + 1",
        "UPDATE @new.payments SET status = 'failed'",
        "DELETE FROM @new.tables WHERE kind = 'user'",
    ]
)
VALUES = st.fixed_dictionaries(
    {
        "number": st.integers(-(2**31), 2**31 - 1),
        "positive": st.integers(1, 2**31 - 1),
        "text": rows.TEXT,
        "object": st.one_of(
            rows.OBJECTS,
            rows.with_keys(
                width=rows.JSON,
                depth=rows.NUMBERS,
                quantity=rows.JSON,
                asset_id=rows.JSON,
                unit_price=rows.PRICES,
                price=rows.PRICES,
                printOptions=rows.PRINT_OPTIONS,
            ),
        ).map(rows.dump),
        "price": st.decimals(0, 999, places=2),
    }
)


@given(SOME_ROWS, st.lists(st.tuples(WRITES, VALUES), min_size=1, max_size=4))
@laws
def test_what_the_new_application_writes_is_in_step_or_refused(
    after: Connection,
    some: list[tuple[str, rows.Row]],
    writes: list[tuple[str, dict[str, Any]]],
) -> None:
    """Law 2, the other way: carried over, or refused as a whole with a sentence."""
    with after.transaction(force_rollback=True):
        fill(after, some)
        for statement, values in writes:
            try:
                with after.transaction():
                    after.execute(statement, values)  # type: ignore[arg-type]
            except psycopg.DatabaseError as error:
                assert error.sqlstate == "TB002"
        for lens in LENSES:
            assert differences(after, lens) == []
            assert unaccounted_for(after, lens) == []


def test_every_legacy_column_is_mapped_or_dropped(before: Connection) -> None:
    """The declaration and the catalog name the same columns, of the same types."""
    for lens in LENSES:
        there = before.execute(
            "SELECT attname, format_type(atttypid, atttypmod), NOT attnotnull FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            [f"public.{lens.legacy}"],
        ).fetchall()
        declared = [
            (column.name, column.type, getattr(column, "nullable", True))
            for column in lens.columns
        ]
        assert declared == there


def test_every_new_column_has_a_source(types: sql.Types) -> None:
    """What no legacy column and no rule fills has a default in the database."""
    for lens in LENSES:
        filled = {*lens.up, *lens.constants, *lens.first}
        if lens.owner is not None:
            filled |= {lens.owner.column, lens.owner.or_session or lens.owner.column}
        assert filled <= set(types[lens.new]), lens.legacy
    assert set(BY_LEGACY) == {lens.legacy for lens in LENSES}
