"""What a database holds, in a few numbers per table, to be compared with another's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from terrain.legacy import sql
from terrain.legacy.backup.server import Connection
from terrain.sqlfiles import render, statements

#: Table, quoted where need be -> ``rows`` and ``fingerprint``.
Contents = Mapping[str, Mapping[str, Any]]

_STATEMENTS = Path(__file__).with_name("backup.sql")

LARGE_OBJECTS = "large objects"  # no table: a name with a space would be quoted


def statement(name: str, **parts: str) -> Any:
    """A statement of ``backup.sql``."""
    return render(statements(_STATEMENTS)[name].strip(), **parts)


@contextmanager
def one_moment(connection: Connection) -> Iterator[None]:
    """A read-only transaction that sees the database as it is now, values pinned as text."""
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    try:
        connection.execute(statement("pinned"))
        yield
    finally:
        if not connection.closed:
            connection.execute("ROLLBACK")


def system(ask: Callable[[str], Any]) -> str | None:
    """Which server this is, whatever it is reached by; None where it is not told.

    ``ask`` returns the one value of a query.
    """
    if not ask(statement("may_tell_system")):
        return None
    found: str = ask(statement("system"))
    return found


def of(connection: Connection, tell: Callable[[], None] | None = None) -> Contents:
    """Rows and fingerprint of every table; within :func:`one_moment`."""
    found = {}
    for name, schema, table, columns in connection.execute(statement("tables")):
        found[name] = _asked(
            connection,
            statement(
                "fingerprint",
                table=sql.ident(schema, table),
                columns=", ".join(sql.ident("t", column) for column in columns),
            ),
        )
        if tell is not None:
            tell()
    found[LARGE_OBJECTS] = _asked(connection, statement("large_objects"))
    return found


def _asked(connection: Connection, query: Any) -> Mapping[str, Any]:
    row = connection.execute(query).fetchone()
    assert row is not None
    return {"rows": row[0], "fingerprint": row[1]}


def rows(contents: Contents) -> int:
    """Rows of all tables."""
    return sum(each["rows"] for name, each in contents.items() if name != LARGE_OBJECTS)


def differences(before: Contents, after: Contents) -> list[str]:
    """Where two databases differ, a sentence for each table."""
    found = []
    for name in sorted({*before, *after}):
        was, is_ = before.get(name), after.get(name)
        if was == is_:
            continue
        if is_ is None:
            found.append(f"{name} was not restored.")
        elif was is None:
            found.append(f"{name} is not in the backup.")
        elif was["rows"] != is_["rows"]:
            found.append(
                f"{name} has {was['rows']:,} rows in the backup and {is_['rows']:,} restored."
            )
        else:
            found.append(f"{name} has other values restored than in the backup.")
    return found
