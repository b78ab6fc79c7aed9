"""The triggers that call these functions."""

from __future__ import annotations

from collections.abc import Iterable

from terrain.legacy.schema import Lens, Part
from terrain.legacy.sql.text import ident, joined, literal, templates

TRIGGER_PREFIX = "zz_terrain_sync"

#: Not one of those that keep both sides in step: it is there when they are not.
CLOSING_TRIGGER = "terrain_closed"

EVENTS = ("insert", "update", "delete")

YIELDING = ("begin", "end")

#: The trigger that never fires.
GUARDING = "columns"

#: Derived columns whose change is the legacy table's business, or the quarantine's.
_PRICES = ("unit_price", "total_price", "price_source")


def triggers_on_legacy(lens: Lens) -> list[str]:
    """ENABLE ALWAYS, so that not even a replication role writes past them."""
    table = ident("legacy", lens.legacy)
    return [
        *_triggers(
            table,
            function=f"rebuilt.on_legacy_{lens.legacy}",
            truncate=f"rebuilt.on_legacy_{lens.legacy}_truncate",
        ),
        *_guarding(table, columns_on_legacy(lens)),
    ]


def _guarding(table: str, columns: Iterable[str]) -> list[str]:
    """Because of it the server refuses to drop columns that the functions read, or to change
    their types.  It is not told which these are by anything else, and the old application
    would go on, row by row late."""
    name = ident(f"{TRIGGER_PREFIX}_{GUARDING}")
    return [
        f"CREATE OR REPLACE TRIGGER {name} BEFORE UPDATE OF {joined(columns)} ON {table}"
        " FOR EACH STATEMENT WHEN (false) EXECUTE FUNCTION rebuilt.on_new_end()",
        f"ALTER TABLE {table} DISABLE TRIGGER {name}",
    ]


def triggers_on_new(new: str, lenses: Iterable[Lens]) -> list[str]:
    """A batch, which names no row but all of them, does not even fire those on insertion."""
    made = []
    for table in (new, *(lens.part.table for lens in lenses if lens.part is not None)):
        made += _triggers(
            ident("public", table),
            function=f"rebuilt.on_new_{table}",
            truncate="rebuilt.on_new_truncate",
            insert_when=(
                "WHEN (current_setting('terrain.echo', true)"
                f" IS DISTINCT FROM concat({literal(f'{new}:*@')}, pg_trigger_depth())) "
            ),
        )
        made += _yielding(ident("public", table))
    return made


def carried_over(root: str, rows: str) -> str:
    """In a trigger's function: whether its event is what the other side has just carried over.

    ``root`` is a table and ``rows`` an expression for the key whose rows these are.  The
    trigger is one level deeper than what it is called by, and that is what set the guard.
    """
    depth = "'@' || pg_trigger_depth() - 1"
    return (
        f"current_setting('terrain.echo', true) IN ({literal(f'{root}:')} || {rows} || {depth},"
        f" {literal(f'{root}:*')} || {depth})"
    )


def unchanged(columns: Iterable[str]) -> str:
    """In a trigger's function: whether an update has left these columns as they were."""
    old, new = (joined(f"{row}.{name}" for name in columns) for row in ("OLD", "NEW"))
    return f"TG_OP = 'UPDATE' AND NOT ROW({old})::record *<> ROW({new})::record"


def columns_on_legacy(lens: Lens) -> list[str]:
    """What a change of matters to the new side."""
    return [ident(column.name) for column in lens.mapped]


def columns_on_new(lenses: Iterable[Lens]) -> list[str]:
    """What a change of matters to the legacy side."""
    return list(
        dict.fromkeys(name for lens in lenses for name in [*lens.up, *lens.constants])
    )


def columns_on_part(part: Part) -> list[str]:
    """The same, of rows that are a part of another."""
    return [part.parent, "position", *part.up, *_PRICES]


def _yielding(table: str) -> list[str]:
    """Around every statement that is not a trigger's own: no long wait for a lock."""
    on = f"ON {table} FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0)"
    moments = {"begin": "BEFORE", "end": "AFTER"}
    return [
        statement
        for name, moment in moments.items()
        for statement in _enabled(
            table,
            name,
            f"{moment} INSERT OR UPDATE OR DELETE {on}"
            f" EXECUTE FUNCTION rebuilt.on_new_{name}()",
        )
    ]


def _triggers(
    table: str, *, function: str, truncate: str, insert_when: str = ""
) -> list[str]:
    """Conditions are the function's business: the server parses a WHEN for each statement,
    which takes ten times as long as to call a function that finds nothing to do."""
    statements = []
    for event in EVENTS:
        when = insert_when if event == "insert" else ""
        statements += _trigger(
            table, event, f"FOR EACH ROW {when}EXECUTE FUNCTION {function}()"
        )
    statements += _trigger(
        table, "truncate", f"FOR EACH STATEMENT EXECUTE FUNCTION {truncate}()"
    )
    return statements


def _trigger(table: str, event: str, rest: str) -> list[str]:
    return _enabled(table, event, f"AFTER {event.upper()} ON {table} {rest}")


def _enabled(table: str, event: str, definition: str) -> list[str]:
    name = ident(f"{TRIGGER_PREFIX}_{event}")
    return [
        f"CREATE OR REPLACE TRIGGER {name} {definition}",
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}",
    ]


def trigger_events(table: str) -> tuple[str, ...]:
    """What the names of the triggers of a qualified table end in, of those that fire."""
    events = (*EVENTS, "truncate")
    return events if table.startswith("legacy.") else (*events, *YIELDING)


def drop_triggers(table: str) -> list[str]:
    """``table`` is a quoted, qualified name."""
    return [
        f"DROP TRIGGER IF EXISTS {ident(f'{TRIGGER_PREFIX}_{event}')} ON {table}"
        for event in (*EVENTS, "truncate", *YIELDING, GUARDING)
    ]


def closed_function() -> str:
    return templates("functions.sql")["closed"]


def drop_closed_function() -> str:
    return "DROP FUNCTION IF EXISTS legacy_parked.closed()"


def closing_trigger(table: str) -> str:
    """``table`` is a quoted, qualified name.  What other triggers write passes."""
    return (
        f"CREATE OR REPLACE TRIGGER {CLOSING_TRIGGER}"
        f" BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH STATEMENT"
        " WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION legacy_parked.closed()"
    )


def opening(table: str) -> str:
    """The opposite of :func:`closing_trigger`."""
    return f"DROP TRIGGER IF EXISTS {CLOSING_TRIGGER} ON {table}"
