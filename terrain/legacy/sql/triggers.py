"""The triggers that call these functions."""

from __future__ import annotations

from collections.abc import Iterable

from terrain.legacy.schema import Lens
from terrain.legacy.sql.conditions import columns_on_legacy
from terrain.legacy.sql.text import (
    ident,
    joined,
    legacy_table,
    literal,
    new_table,
    templates,
)

TRIGGER_PREFIX = "zz_terrain_sync"

#: Not one of those that keep both sides in step: it is there when they are not.
CLOSING_TRIGGER = "terrain_closed"

#: The row triggers, by what their names end in.  One on a legacy table, with its events, because
#: a session keeps what it knows of a function once for each trigger that calls it; for each
#: event of a new table one, with the row that its condition asks.
ON_LEGACY = {"row": "INSERT OR UPDATE OR DELETE"}
ON_NEW = {"insert": "NEW", "update": "NEW", "delete": "OLD"}

YIELDING = {"begin": "BEFORE", "end": "AFTER"}

#: The trigger that never fires.
GUARDING = "columns"


def triggers_on_legacy(lens: Lens) -> list[str]:
    """ENABLE ALWAYS, so that not even a replication role writes past them."""
    table = legacy_table(lens.legacy)
    function = f"rebuilt.on_legacy_{lens.legacy}"
    made = []
    for name, events in ON_LEGACY.items():
        made += _after(
            table, name, events, f"FOR EACH ROW EXECUTE FUNCTION {function}()"
        )
    made += _truncation(table, f"{function}_truncate")
    return made + _guarding(table, columns_on_legacy(lens))


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
    """What the other side has just carried over does not fire them: see ``terrain.echo``."""
    lenses = tuple(lenses)
    made = []
    for name, key in (
        (new, "id"),
        *((lens.part.table, lens.part.parent) for lens in lenses if lens.part),
    ):
        table = new_table(name)
        for event, row in ON_NEW.items():
            when = _not_carried_over(new, f"{row}.{key}")
            rest = (
                f"FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION rebuilt.on_new_{name}()"
            )
            made += _after(table, event, event.upper(), rest)
        made += _truncation(table, "rebuilt.on_new_truncate")
        made += _yielding(table)
    return made


def _not_carried_over(root: str, key: str) -> str:
    """Whether an event is something else than a batch's, or than that of this very row.

    Asked when it happens, by the trigger's condition, and not when its function is called: only
    then does the depth tell what a statement does from what a foreign key does after it.
    As short as can be: the server parses a condition for each statement.
    """
    named = f"concat({literal(f'{root}:')}, {key}, '@', pg_trigger_depth())"
    # What a batch does is every row's.
    echo = f"replace(current_setting('terrain.echo', true), '*', {key}::text)"
    return f"{echo} IS DISTINCT FROM {named}"


def _yielding(table: str) -> list[str]:
    """Around every statement that is not a trigger's own: no long wait for a lock."""
    on = f"ON {table} FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0)"
    return [
        statement
        for name, moment in YIELDING.items()
        for statement in _enabled(
            table,
            name,
            f"{moment} INSERT OR UPDATE OR DELETE {on}"
            f" EXECUTE FUNCTION rebuilt.on_new_{name}()",
        )
    ]


def _truncation(table: str, function: str) -> list[str]:
    rest = f"FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
    return _after(table, "truncate", "TRUNCATE", rest)


def _after(table: str, name: str, events: str, rest: str) -> list[str]:
    return _enabled(table, name, f"AFTER {events} ON {table} {rest}")


def _enabled(table: str, name: str, definition: str) -> list[str]:
    name = ident(f"{TRIGGER_PREFIX}_{name}")
    return [
        f"CREATE OR REPLACE TRIGGER {name} {definition}",
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}",
    ]


def trigger_names(table: str) -> tuple[str, ...]:
    """What the names of the triggers of a table end in, of those that fire.

    ``table`` is ``@legacy.<table>`` or ``@new.<table>``.
    """
    if table.startswith("@legacy."):
        return (*ON_LEGACY, "truncate")
    return (*ON_NEW, "truncate", *YIELDING)


def all_triggers(table: str) -> set[str]:
    """The names of the triggers of such a table, those that never fire included."""
    guarding = (GUARDING,) if table.startswith("@legacy.") else ()
    return {f"{TRIGGER_PREFIX}_{name}" for name in (*trigger_names(table), *guarding)}


def drop_triggers(table: str, names: Iterable[str]) -> list[str]:
    """``table`` is a quoted, qualified name."""
    return [f"DROP TRIGGER {ident(name)} ON {table}" for name in names]


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
