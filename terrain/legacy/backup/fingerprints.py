"""What a database holds, in a few numbers per table, to be compared with another's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from terrain.legacy import sql
from terrain.legacy.backup.server import Connection
from terrain.sqlfiles import render, statements

#: Table, quoted where need be -> ``rows`` and fingerprints.
Contents = Mapping[str, Mapping[str, Any]]
#: Sequence, quoted where need be -> its last value, and whether it has been given out.
Places = Mapping[str, Sequence[Any]]

_STATEMENTS = Path(__file__).with_name("backup.sql")

LARGE_OBJECTS = "large objects"  # no table: a name with a space would be quoted

#: How fingerprints are computed, which a manifest names: only like can be compared.
METHOD = 2


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


# --- rows ----------------------------------------------------------------------------------


def of(
    connection: Connection,
    tell: Callable[[str], None] | None = None,
    method: int = METHOD,
) -> Contents:
    """Rows and fingerprint of every table; within :func:`one_moment`.

    ``tell`` is called with the name of each table that has been read.
    """
    found = {}
    for name, schema, table, columns in connection.execute(statement("tables")):
        asking = _asking if method > 1 else _asking_1
        found[name] = _asked(connection, asking(schema, table, columns), "text")
        if tell is not None:
            tell(name)
    objects = "large_objects" if method > 1 else "large_objects_1"
    found[LARGE_OBJECTS] = _asked(connection, statement(objects), "owners")
    return found


def _asking(schema: str, table: str, columns: Sequence[tuple[str, str]]) -> Any:
    written = {
        "plain": "{}",
        "text": '{} COLLATE "C"',
        "other": '{}::text COLLATE "C"',
    }
    return statement(
        "fingerprint",
        table=sql.ident(schema, table),
        columns=", ".join(
            written[kind].format(sql.ident("t", column)) for column, kind in columns
        ),
        texts=", ".join(f"(r.t).{sql.ident(column)}" for column, _ in columns),
    )


def _asking_1(schema: str, table: str, columns: Sequence[tuple[str, str]]) -> Any:
    return statement(
        "fingerprint_1",
        table=sql.ident(schema, table),
        columns=", ".join(sql.ident("t", column) for column, _ in columns),
    )


def _asked(connection: Connection, query: Any, third: str) -> Mapping[str, Any]:
    row = connection.execute(query).fetchone()
    assert row is not None
    return dict(zip(("rows", "fingerprint", third), row, strict=False))


def rows(contents: Contents) -> int:
    """Rows of all tables."""
    return sum(each["rows"] for name, each in contents.items() if name != LARGE_OBJECTS)


def differences(before: Contents, after: Contents) -> list[str]:
    """Where two databases differ, a sentence for each table."""
    found = []
    for name in sorted({*before, *after}):
        was, is_ = before.get(name), after.get(name)
        if is_ is None:
            found.append(f"{name} was not restored.")
        elif was is None:
            found.append(f"{name} is not in the backup.")
        elif was["rows"] != is_["rows"]:
            found.append(
                f"{name} has {was['rows']:,} rows in the backup and {is_['rows']:,} restored."
            )
        elif was["fingerprint"] != is_["fingerprint"]:
            found.append(f"{name} has other values restored than in the backup.")
        elif was.get("text") != is_.get("text"):
            found.append(
                f"{name} has equal values that are written otherwise restored."
            )
    return found


def have_other_owners(before: Contents, after: Contents) -> bool:
    """Whether large objects belong, or are granted, to others; no script tells of these."""
    was, is_ = before[LARGE_OBJECTS].get("owners"), after[LARGE_OBJECTS].get("owners")
    return was is not None and was != is_


# --- sequences -----------------------------------------------------------------------------


def sequences(connection: Connection) -> Places:
    """How far each sequence is *now*: no snapshot holds them still."""
    each = [
        f"SELECT {sql.literal(name)}, last_value, is_called FROM {sql.ident(schema, relation)}"
        for name, schema, relation in connection.execute(statement("sequences"))
    ]
    if not each:
        return {}
    return {
        name: [last, called]
        for name, last, called in connection.execute(" UNION ALL ".join(each))
    }


def out_of_place(before: Places, after: Places, now: Places) -> list[str]:
    """Sequences that are restored to no place they had while the dump was written.

    ``pg_dump`` reads each at some moment between ``before`` and ``after``; where nobody
    draws from it these are the same, and nothing else will do.
    """
    found = []
    for name in sorted({*before, *now}):
        was, is_, at = before.get(name), after.get(name), now.get(name)
        if at is None:
            found.append(f"The sequence {name} was not restored.")
        elif was is None or is_ is None:
            found.append(f"The sequence {name} is not in the backup.")
        elif not min(was[0], is_[0]) <= at[0] <= max(was[0], is_[0]):
            where = f"{was[0]:,}" if was == is_ else f"{was[0]:,} to {is_[0]:,}"
            found.append(
                f"The sequence {name} is at {where} in the backup and at {at[0]:,} restored."
            )
        elif was == is_ and list(at) != list(was):
            given = ("not yet given out", "given out")
            found.append(
                f"The sequence {name} is at {was[0]:,} in the backup, {given[was[1]]}, and at"
                f" {at[0]:,} restored, {given[at[1]]}."
            )
    return found
