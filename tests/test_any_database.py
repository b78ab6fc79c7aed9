"""Any database comes back as it was: generated ones, with whatever a name or a value may be."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection as django_connection
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql as pg

from terrain.embedded import OWNER
from terrain.legacy.backup import dumping, proof, restore
from terrain.legacy.backup.server import Server
from terrain.legacy.backup.telling import Teller
from tests import backups
from tests.conftest import Database, pointed_at

pytestmark = pytest.mark.migration

#: How many databases are made; each is dumped once and restored twice.
NUMBER = int(os.environ.get("DATABASES", "6"))

#: Type -> literals of it, odd ones first.
VALUES = {
    "text": ["''", "NULL", r"E'\\.'", r"E'\t\n\r\b'", "'ünï 🂡'", "repeat('x', 9000)"],
    "varchar(5)": ["'a b '", "NULL"],
    "char(5)": ["'a'", "''"],
    "integer": ["-2147483648", "0"],
    "bigint": ["9223372036854775807", "NULL"],
    "numeric": ["'NaN'", "1.10", "1e-30", "'-Infinity'"],
    "double precision": ["'-0'", "'NaN'", "0.1::float8 + 0.2"],
    "boolean": ["true", "NULL"],
    "timestamptz": ["'infinity'", "'1999-12-31 23:59:59.999999+14'"],
    "date": ["'4713-01-01 BC'", "'9999-12-31'"],
    "interval": ["'1 mon -3 days'", "'24:00'", "'1 day'"],
    "bytea": [r"'\x'", r"'\x00ff5c'"],
    "jsonb": ["'null'", """'{"a": [1.10, "x"], "": {}}'""", "NULL"],
    "json": ["""'{"b" :1,"b":2}'"""],
    "text[]": ["'{}'", """'{NULL,"a,b",""}'"""],
    "int4range": ["'empty'", "'[1,9)'"],
    "uuid": ["'00000000-0000-0000-0000-000000000000'"],
    "money": ["'-1'"],
    "point": ["'(1e300,-0)'"],
    "bit(3)": ["'101'"],
    "inet": ["'::1/64'"],
    "regclass": ["'pg_class'"],
}

names = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
    min_size=1,
    max_size=15,
).filter(lambda name: not name.startswith("pg_") and len(name.encode()) <= 55)
columns = st.dictionaries(names, st.sampled_from(sorted(VALUES)), max_size=5)
tables = st.dictionaries(
    names, st.tuples(columns, st.integers(0, 40), st.booleans()), max_size=3
)
databases = st.fixed_dictionaries(
    {
        "schemas": st.dictionaries(names, tables, max_size=3),
        "sequences": st.dictionaries(names, st.integers(1, 10**9), max_size=2),
        "objects": st.lists(st.binary(max_size=5000), max_size=3),
        "extensions": st.sets(
            st.sampled_from(["citext", "hstore", "pg_trgm", "ltree", "btree_gin"])
        ),
    }
)


def statements(made: dict[str, Any], available: set[str]) -> Iterator[pg.Composed]:
    """What makes a database."""
    for extension in sorted(made["extensions"] & available):
        yield pg.SQL("CREATE EXTENSION {}").format(pg.Identifier(extension))
    for name, place in made["sequences"].items():
        yield pg.SQL("CREATE SEQUENCE public.{}").format(pg.Identifier("q" + name))
        yield pg.SQL("SELECT setval({}, {}, {})").format(
            pg.Literal(pg.Identifier("public", "q" + name).as_string(None)),
            place,
            place % 2 == 0,
        )
    for content in made["objects"]:
        yield pg.SQL("SELECT lo_from_bytea(0, {})").format(content)
    for schema, its_tables in made["schemas"].items():
        yield pg.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(pg.Identifier(schema))
        for table, (its_columns, rows, granted) in its_tables.items():
            yield from _table(pg.Identifier(schema, table), its_columns, rows, granted)


def _table(
    table: pg.Identifier, its_columns: dict[str, str], rows: int, granted: bool
) -> Iterator[pg.Composed]:
    defined = [
        pg.SQL("{} {}").format(pg.Identifier(name), pg.SQL(type_))  # type: ignore[arg-type]
        for name, type_ in its_columns.items()
    ]
    yield pg.SQL("CREATE TABLE {} ({})").format(table, pg.SQL(", ").join(defined))
    for row in range(rows):
        values = [
            pg.SQL(VALUES[type_][row % len(VALUES[type_])])  # type: ignore[arg-type]
            for type_ in its_columns.values()
        ]
        yield (
            pg.SQL("INSERT INTO {} VALUES ({})").format(
                table, pg.SQL(", ").join(values)
            )
            if values
            else pg.SQL("INSERT INTO {} DEFAULT VALUES").format(table)
        )
    if granted:
        yield pg.SQL("GRANT SELECT ON {} TO shop_app").format(table)
        yield pg.SQL("COMMENT ON TABLE {} IS '--\n-- Name: x; Type: TABLE'").format(
            table
        )


EVERYTHING: dict[str, Any] = {
    "schemas": {
        'a"b%s{x}': {
            f"table {number}": ({f"{type_} column": type_}, 7, True)
            for number, type_ in enumerate(sorted(VALUES))
        },
        "empty": {},
    },
    "sequences": {"\n": 7, ".": 8},
    "objects": [b"", bytes(range(256))],
    "extensions": {"citext", "hstore", "pg_trgm", "ltree", "btree_gin"},
}


@example(EVERYTHING)
@given(databases)
@settings(
    max_examples=NUMBER,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
def test_any_database(
    cluster: Any,
    create_database: Callable[..., str],
    drop_database: Callable[[str], None],
    tmp_path_factory: pytest.TempPathFactory,
    django_db_blocker: Any,
    administrator: psycopg.Connection[Any],
    made: dict[str, Any],
) -> None:
    original = Database(cluster, create_database())
    copy = f"{original.name}_too"
    folder: Path = tmp_path_factory.mktemp("any")
    try:
        with psycopg.connect(
            cluster.dsn(original.name, OWNER), autocommit=True
        ) as connection:
            available = {
                name
                for (name,) in connection.execute(
                    "SELECT name FROM pg_available_extension_versions WHERE trusted"
                )
            }
            for statement in statements(made, available):
                connection.execute(statement)
        with django_db_blocker.unblock(), pointed_at(original.name):
            server = Server.of(django_connection)
            taken = dumping.take(server, folder, 2, Teller())
            proof.prove(server, taken, 2, Teller())
            done = restore.restore(server, taken.path, into=copy, teller=Teller())
        assert (done.beyond, done.unlike) == ((), ())
        assert backups.contents(cluster, copy) == backups.contents(
            cluster, original.name
        )
        assert backups.definitions(cluster, copy) == backups.definitions(
            cluster, original.name
        )
    finally:
        drop_database(copy)
        drop_database(original.name)
