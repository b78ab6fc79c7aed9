"""The triggers that call these functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from terrain.legacy.schema import Lens
from terrain.legacy.sql.text import ident, joined, templates

TRIGGER_PREFIX = "zz_terrain_sync"

#: Not one of those that keep both sides in step: it is there when they are not.
CLOSING_TRIGGER = "terrain_closed"

EVENTS = ("insert", "update", "delete")

YIELDING = ("begin", "end")

#: Derived columns whose change is the legacy table's business, or the quarantine's.
_PRICES = ("unit_price", "total_price", "price_source")


def triggers_on_legacy(lens: Lens) -> list[str]:
    """ENABLE ALWAYS, so that not even a replication role writes past them."""
    columns = [ident(column.name) for column in lens.mapped]
    return _triggers(
        ident("legacy", lens.legacy),
        function=f"rebuilt.on_legacy_{lens.legacy}",
        truncate=f"rebuilt.on_legacy_{lens.legacy}_truncate",
        root=lambda row: f"'legacy.{lens.legacy}:' || {row}.id",
        changed=(columns, columns),
        ever=f"'legacy.{lens.legacy}:*'",
    )


def triggers_on_new(new: str, lenses: Iterable[Lens]) -> list[str]:
    """Only a change of a column that has a legacy counterpart fires them."""
    lenses = tuple(lenses)
    columns = list(
        dict.fromkeys(name for lens in lenses for name in [*lens.up, *lens.constants])
    )
    made = _triggers(
        ident("public", new),
        function=f"rebuilt.on_new_{new}",
        truncate="rebuilt.on_new_truncate",
        root=lambda row: f"'{new}:' || {row}.id",
        changed=(columns, columns),
        ever=f"'{new}:*'",
    )
    made += _yielding(ident("public", new))
    for lens in lenses:
        part = lens.part
        if part is not None:
            columns = [part.parent, "position", *part.up, *_PRICES]
            made += _triggers(
                ident("public", part.table),
                function=f"rebuilt.on_new_{part.table}",
                truncate="rebuilt.on_new_truncate",
                root=lambda row: f"'{new}:' || {row}.{part.parent}",  # noqa: B023
                changed=(columns, columns),
                ever=f"'{new}:*'",
            )
            made += _yielding(ident("public", part.table))
    return made


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
    table: str,
    *,
    function: str,
    truncate: str,
    root: Callable[[str], str],
    changed: tuple[list[str], list[str]],
    ever: str,
) -> list[str]:
    statements = []
    for event in EVENTS:
        row = "OLD" if event == "delete" else "NEW"
        echo = "coalesce(current_setting('terrain.echo', true), '')"
        depth = "'@' || pg_trigger_depth()"
        when = f"{echo} NOT IN ({ever} || {depth}, {root(row)} || {depth})"
        if event == "update":
            old = joined(f"OLD.{name}" for name in changed[0])
            new = joined(f"NEW.{name}" for name in changed[1])
            # Not ROW() on both sides, nor with a cast, which a dump leaves out: restored, it
            # would be a comparison column by column, for which there are no operators.
            when = f"coalesce(ROW({old})) *<> coalesce(ROW({new})) AND {when}"
        statements += _trigger(
            table, event, f"FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION {function}()"
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
    """What the names of the triggers of a qualified table end in."""
    events = (*EVENTS, "truncate")
    return events if table.startswith("legacy.") else (*events, *YIELDING)


def drop_triggers(table: str) -> list[str]:
    """``table`` is a quoted, qualified name."""
    return [
        f"DROP TRIGGER IF EXISTS {ident(f'{TRIGGER_PREFIX}_{event}')} ON {table}"
        for event in (*EVENTS, "truncate", *YIELDING)
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
