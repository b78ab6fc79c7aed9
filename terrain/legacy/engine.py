"""Keeps both sides in step, and parks what a rollback leaves: all effects but the copies.

Every function here looks at what is there before it does anything, so that each can be
run again after having been killed at any instant, and a second run changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from terrain import locks
from terrain.blockers import Mode
from terrain.exceptions import Stopped
from terrain.legacy import catalog, closing, privileges, search_path, sql
from terrain.legacy.catalog import PARKED, REBUILT
from terrain.legacy.catalog import execute as _execute
from terrain.legacy.mapping import BY_NEW, LENSES
from terrain.legacy.place import Place
from terrain.legacy.schema import Lens
from terrain.waiting import Say


class CannotGoOn(Stopped):
    """What is in the database is not what a step expects; nothing was changed."""


def drop_schema_if_empty(connection: BaseDatabaseWrapper, schema: str) -> None:
    """What others have put there stays, and so does the schema."""
    if catalog.schema_exists(connection, schema) and not catalog.value(
        connection,
        "SELECT true FROM pg_depend d JOIN pg_namespace s ON s.oid = d.refobjid"
        " WHERE d.refclassid = 'pg_namespace'::regclass AND s.nspname = %s LIMIT 1",
        [schema],
    ):
        _execute(connection, [f"DROP SCHEMA {sql.ident(schema)}"])


# --- in step -------------------------------------------------------------------------------


def stand_beside(connection: BaseDatabaseWrapper, say: Say | None = None) -> None:
    """Bring back parked tables, and put all in place that keeps both sides in step."""
    unpark(connection, say)
    if not catalog.has_legacy_tables(connection):
        return
    derive(connection, say)
    for lens in LENSES:
        keep_in_step(connection, lens, say)


def stands_beside(connection: BaseDatabaseWrapper) -> bool:
    """Whether every trigger is in place, and no table with a legacy counterpart is parked.

    Others may return later than these.  A rollback that was killed has unapplied the
    migration that puts the triggers on only when it has taken off the last.
    """
    return not missing_triggers(connection) and not any(
        catalog.table_exists(connection, PARKED, table) for table in closing.MIRRORED
    )


def wanted_triggers(connection: BaseDatabaseWrapper) -> set[tuple[str, str]]:
    """(qualified table, trigger) of all that keeps both sides in step."""
    tables = [f"@legacy.{lens.legacy}" for lens in LENSES]
    tables += [f"@new.{table}" for table in closing.MIRRORED]
    there = catalog.where(connection)
    return {
        (there.name(table), f"{sql.TRIGGER_PREFIX}_{name}")
        for table in tables
        for name in sql.trigger_names(table)
    }


def missing_triggers(connection: BaseDatabaseWrapper) -> list[tuple[str, str]]:
    """Those that are not there, or do not always fire."""
    there = catalog.rows(
        connection,
        "SELECT s.nspname || '.' || c.relname, t.tgname FROM pg_trigger t"
        "  JOIN pg_class c ON c.oid = t.tgrelid"
        "  JOIN pg_namespace s ON s.oid = c.relnamespace"
        " WHERE t.tgenabled = 'A'",
    )
    return sorted(wanted_triggers(connection) - {*map(tuple, there)})


def derive(connection: BaseDatabaseWrapper, say: Say | None = None) -> None:
    """Make, or make again, the schema ``rebuilt``: views and functions from the declaration.

    Piece by piece: everybody connected is told of every function, see :func:`breathe`.  Each
    can be used as soon as it is there, by what is there already.
    """
    privileges.make_schema(connection, REBUILT)
    pieces = derived(connection)
    pieces[0][1].extend(_admit_owner(connection))
    pieces[-1][1].extend(_grants_to_owner(connection))

    for what, statements in pieces:

        def make() -> None:
            there = set(catalog.relations(connection, REBUILT))
            _bring_back_functions(connection, statements)  # noqa: B023
            _drop_superseded(connection, statements)  # noqa: B023
            _execute(connection, statements)  # noqa: B023
            for made in set(catalog.relations(connection, REBUILT)) - there:
                privileges.close_table(connection, made)
            _give_to_owner(connection)

        locks.run_briefly(
            connection,
            make,
            what=f"Deriving views and functions for {what}",
            # Not the queue: the old application's triggers, if they are on, write to it.
            tables=catalog.relations(connection, REBUILT, "v"),
            mode=Mode.ACCESS_EXCLUSIVE,
            say=say,
        )
    drop_parked_functions(connection)


def derived(
    connection: BaseDatabaseWrapper, there: Place | None = None
) -> list[tuple[str, list[str]]]:
    """What is made from the declaration: (of what, statements), not filled in yet.

    ``there`` is where the tables will be when it is used, if not where they are.
    """
    types = catalog.types(connection)
    pieces = [("what all share", sql.common_functions())]
    for lens in LENSES:
        pieces.append(
            (lens.legacy, sql.functions(lens, types, _order(connection, lens)))
        )
    on_new = [sql.on_new_function(new, lenses) for new, lenses in BY_NEW.items()]
    pieces.append(("the new tables", on_new))
    path = search_path.join(search_path.of_functions(connection, there))
    return [
        (what, [statement.replace("@path", path) for statement in statements])
        for what, statements in pieces
    ]


def _order(connection: BaseDatabaseWrapper, lens: Lens) -> list[str]:
    """The mapped columns of a legacy table, in the order that it has them in."""
    mapped = {column.name for column in lens.mapped}
    schema = catalog.where(connection).legacy
    there = catalog.columns(connection, schema, lens.legacy)
    return [column.name for column in there if column.name in mapped]


def _drop_superseded(connection: BaseDatabaseWrapper, made: Iterable[str]) -> None:
    """Functions of other arguments or another result, as another version has made them.

    ``CREATE OR REPLACE`` would leave the former beside its own, and refuses the latter.  Whoever
    is just about to call one is late with its row.
    """
    signatures = [each for each in map(sql.signature, made) if each is not None]
    superseded = catalog.rows(
        connection,
        "SELECT DISTINCT p.oid::regprocedure::text"
        "  FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[])"
        "       AS d (name, identity, result, arguments)"
        "  JOIN pg_proc p ON p.pronamespace = to_regnamespace('rebuilt') AND p.proname = d.name"
        " WHERE p.oid IS DISTINCT FROM to_regprocedure(d.identity)::oid"
        "    OR format_type(p.prorettype, NULL) <> d.result"
        "    OR coalesce(array_to_string(p.proargnames, ' '), '') <> d.arguments",
        [
            [each.name for each in signatures],
            list(catalog.names(connection, *(each.identity for each in signatures))),
            [each.result for each in signatures],
            [each.arguments for each in signatures],
        ],
    )
    _execute(connection, (f"DROP FUNCTION {function}" for (function,) in superseded))


def _owner(connection: BaseDatabaseWrapper) -> str:
    """The owner of the legacy tables."""
    schema = catalog.where(connection).legacy
    return catalog.owner(connection, schema, LENSES[0].legacy)


def _other_owner(connection: BaseDatabaseWrapper) -> str | None:
    """The owner of the legacy tables, for SQL, if that is not who we are."""
    owner = _owner(connection)
    is_us = owner == catalog.value(connection, "SELECT current_user")
    return None if is_us else sql.ident(owner)


def _give_to_owner(connection: BaseDatabaseWrapper) -> None:
    """Let the functions act as the owner of the legacy tables, and be called by nobody else.

    Those that do already are left alone: everybody connected would be told.
    """
    functions = catalog.rows(
        connection,
        "SELECT p.oid::regprocedure::text, pg_get_userbyid(p.proowner) = %s,"
        "       array(SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC'"
        "                         ELSE quote_ident(pg_get_userbyid(a.grantee)) END"
        "               FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a"
        "              WHERE a.grantee <> p.proowner)"
        "  FROM pg_proc p JOIN pg_namespace s ON s.oid = p.pronamespace"
        " WHERE s.nspname = 'rebuilt'",
        [_owner(connection)],
    )
    statements = [
        f"REVOKE ALL ON FUNCTION {name} FROM {sql.joined(others)}"
        for name, _is_theirs, others in functions
        if others
    ]
    role = _other_owner(connection)
    if role is not None:
        statements += [
            f"ALTER FUNCTION {name} OWNER TO {role}"
            for name, is_theirs, _others in functions
            if not is_theirs
        ]
    _execute(connection, statements)


def _admit_owner(connection: BaseDatabaseWrapper) -> list[str]:
    """What the owner of the functions needs of the schemas, before they are given."""
    role = _other_owner(connection)
    if role is None:
        return []
    there = catalog.where(connection)
    # A right that it has already is not granted: in public that would be seen.
    lacking = catalog.rows(
        connection,
        "SELECT DISTINCT quote_ident(name) FROM unnest(%s::text[]) name"
        " WHERE NOT has_schema_privilege(%s::name, name, 'USAGE')",
        [[there.legacy, *there.own], _owner(connection)],
    )
    return [
        f"GRANT USAGE, CREATE ON SCHEMA rebuilt TO {role}",
        *(f"GRANT USAGE ON SCHEMA {schema} TO {role}" for (schema,) in lacking),
    ]


def _grants_to_owner(connection: BaseDatabaseWrapper) -> list[str]:
    """What the owner of the functions needs of the tables, when all of them are there."""
    role = _other_owner(connection)
    if role is None:
        return []
    tables = sql.joined(sql.new_table(table) for table in _granted(connection))
    return [
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {role}",
        f"GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA rebuilt TO {role}",
        *(
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {sql.ident(schema)} TO {role}"
            for schema in catalog.where(connection).own
        ),
    ]


def take_back_grants(connection: BaseDatabaseWrapper) -> None:
    """Undo the grants of :func:`derive`, where the legacy tables had another owner."""
    if not catalog.has_legacy_tables(connection):
        return
    role = _other_owner(connection)
    if role is None:
        return
    tables = sql.joined(sql.new_table(table) for table in _granted(connection))
    _execute(
        connection,
        [
            f"REVOKE SELECT, INSERT, UPDATE, DELETE ON {tables} FROM {role}",
            *(
                f"REVOKE USAGE ON ALL SEQUENCES IN SCHEMA {sql.ident(schema)} FROM {role}"
                for schema in catalog.where(connection).own
            ),
        ],
    )


def _granted(connection: BaseDatabaseWrapper) -> list[str]:
    """The tables of ours that the triggers' functions write to."""
    return [
        table
        for table in (*catalog.NEW_TABLES, "legacy_quarantine", "legacy_released")
        if catalog.new_table_exists(connection, table)
    ]


def keep_in_step(
    connection: BaseDatabaseWrapper, lens: Lens, say: Say | None = None
) -> None:
    """Put the triggers of one lens in place, on both sides.

    They come in one transaction: a change on either side is carried over from the same
    moment on.  What an older version has put there under other names goes in the same.
    """
    superfluous = [
        statement
        for table in _sides(lens)
        for statement in sql.drop_triggers(
            table,
            sorted(our_triggers(connection, table) - sql.all_triggers(table)),
        )
    ]
    locks.change_briefly(
        connection,
        [
            *superfluous,
            *sql.triggers_on_legacy(lens),
            *sql.triggers_on_new(lens.new, BY_NEW[lens.new]),
        ],
        what=f"Putting the triggers on {lens.legacy} and {lens.new}",
        tables=catalog.names(connection, *_sides(lens)),
        mode=Mode.ACCESS_EXCLUSIVE if superfluous else Mode.SHARE_ROW_EXCLUSIVE,
        say=say,
    )


def _sides(lens: Lens) -> tuple[str, ...]:
    """The tables that have triggers of one lens."""
    parts = [f"@new.{lens.part.table}"] if lens.part else []
    return (f"@legacy.{lens.legacy}", f"@new.{lens.new}", *parts)


def let_go(
    connection: BaseDatabaseWrapper,
    lens: Lens,
    say: Say | None = None,
    *,
    close: bool = False,
) -> None:
    """Take the triggers of one lens away again, on both sides.

    With ``close``, the new application can write to the new tables no longer.  In one
    transaction, and so with more than one lock: with triggers on one side only, what is
    written there meanwhile would overwrite what has been written on the other.
    """
    open_ = {f"@new.{table}" for table in closing.MIRRORED} if close else set()
    open_ -= {f"@new.{table}" for table in closing.closed(connection)}
    there = catalog.where(connection)
    tables = [
        table
        for table in _sides(lens)
        if catalog.table_exists(connection, *there.name(table).split("."))
        and (table in open_ or our_triggers(connection, table))
    ]
    if not tables:
        return
    if open_:
        privileges.make_schema(connection, PARKED)

    statements = []
    for table in tables:
        statements += sql.drop_triggers(table, sorted(our_triggers(connection, table)))
        if table in open_:
            statements += closing.closing(connection, table.removeprefix("@new."))
    locks.change_briefly(
        connection,
        statements,
        what=f"Taking the triggers off {lens.legacy} and {lens.new}",
        tables=catalog.names(connection, *tables),
        mode=Mode.ACCESS_EXCLUSIVE,
        say=say,
    )


def our_triggers(connection: BaseDatabaseWrapper, table: str) -> set[str]:
    """The names of those on a table that keep both sides in step, of any version.

    ``table`` is ``@legacy.<table>`` or ``@new.<table>``.
    """
    return {
        name
        for (name,) in catalog.rows(
            connection,
            "SELECT tgname FROM pg_trigger"
            " WHERE tgrelid = to_regclass(%s) AND starts_with(tgname, %s)",
            [*catalog.names(connection, table), sql.TRIGGER_PREFIX],
        )
    }


# --- what is derived, and others with it ----------------------------------------------------


def others_on_rebuilt(connection: BaseDatabaseWrapper) -> list[str]:
    """A sentence for each relation of somebody else's that would go with ``rebuilt``."""
    ours = [lens.legacy for lens in LENSES]
    return [
        f"The {kind} {name} would go with the schema rebuilt, which it is in or made from."
        " Move it elsewhere, make it from the new tables, or drop it."
        for kind, name in catalog.rows(
            connection,
            sql.query("others_on_rebuilt"),
            {"ours": [*ours, "queue", "used", "prepared"]},
        )
    ]


def drop_rebuilt(connection: BaseDatabaseWrapper, say: Say | None = None) -> None:
    """Take away all that was derived.

    The functions, which no trigger calls any more, go a few at a time.
    """
    if not catalog.schema_exists(connection, REBUILT):
        return
    functions = _functions_nothing_depends_on(connection)
    for some in a_few_at_a_time(functions):
        locks.change_briefly(
            connection,
            [f"DROP FUNCTION {sql.joined(some)}"],
            what="Dropping functions of the schema rebuilt",
            tables=(),
            mode=Mode.ACCESS_EXCLUSIVE,
            say=say,
        )
    locks.change_briefly(
        connection,
        ["DROP SCHEMA IF EXISTS rebuilt CASCADE"],
        what="Dropping the schema rebuilt",
        tables=catalog.relations(connection, REBUILT),
        mode=Mode.ACCESS_EXCLUSIVE,
        say=say,
    )


def _functions_nothing_depends_on(connection: BaseDatabaseWrapper) -> list[str]:
    """Functions in ``rebuilt``, with their arguments; not those that a view or trigger uses."""
    found = catalog.rows(
        connection,
        "SELECT p.oid::regprocedure::text FROM pg_proc p"
        " WHERE p.pronamespace = 'rebuilt'::regnamespace"
        "   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_proc'::regclass"
        "                    AND d.refobjid = p.oid)"
        " ORDER BY p.oid",
    )
    return [str(name) for (name,) in found]


# --- parking -------------------------------------------------------------------------------

#: Functions dropped, or put aside, in one transaction.
FUNCTIONS_AT_ONCE = 20

#: Not made anew by a migration after a rollback: terrain.0001 stays applied, because
#: Django's own tables refer to it.
_WITHOUT_STAND_IN = ("users", "users_groups", "users_user_permissions")


def park(
    connection: BaseDatabaseWrapper,
    say: Say | None = None,
    tables: Iterable[str] = catalog.NEW_TABLES,
) -> list[str]:
    """Put new tables into ``legacy_parked``, rows and all; returns which.

    In the place of each an empty one of the same shape, closed, stays for Django's
    migrations to remove.
    """
    parked = []
    privileges.make_schema(connection, PARKED)
    for table in tables:
        if not catalog.new_table_exists(connection, table) or catalog.table_exists(
            connection, PARKED, table
        ):
            continue

        statements = [
            *_drop_limits(connection, table),
            f"ALTER TABLE {sql.new_table(table)} SET SCHEMA {sql.ident(PARKED)}",
        ]
        if table not in _WITHOUT_STAND_IN:
            # Empty, and in a closed schema.
            statements += [
                f"CREATE TABLE {sql.new_table(table)}"
                f" (LIKE {sql.ident(PARKED, table)} INCLUDING DEFAULTS)",
                *closing.closing(connection, table),
            ]
        locks.change_briefly(
            connection,
            statements,
            what=f"Parking {table}",
            tables=catalog.new(connection, table),
            mode=Mode.ACCESS_EXCLUSIVE,
            say=say,
        )
        parked.append(table)
    return parked


def _drop_limits(connection: BaseDatabaseWrapper, table: str) -> list[str]:
    """Statements against our own triggers of a new table, whose functions will go."""
    return [
        f"DROP TRIGGER {sql.ident(name)} ON {sql.new_table(table)}"
        for (name,) in catalog.rows(
            connection,
            "SELECT t.tgname FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid"
            " WHERE t.tgrelid = to_regclass(%s) AND NOT t.tgisinternal"
            "   AND p.pronamespace"
            "       = (SELECT c.relnamespace FROM pg_class c WHERE c.oid = t.tgrelid)"
            "   AND starts_with(p.proname, 'terrain_') ORDER BY 1",
            catalog.new(connection, table),
        )
    ]


def park_functions(connection: BaseDatabaseWrapper, say: Say | None = None) -> None:
    """Put what the triggers have called aside, instead of dropping it.

    PL/pgSQL files what it keeps of a function by the function's number, as long as a session
    lives: a new one in its place frees that, a drop does not, nor does a new one after it.  So
    a pool whose connections are never recycled would remember every time there and back.
    The functions of triggers are filed by the triggers' numbers, too: they are dropped.
    """
    ours = sql.query("our_functions")
    found = catalog.rows(connection, sql.query("functions_to_park", ours=ours))
    functions = [identity for (identity,) in found]
    privileges.make_schema(connection, PARKED)
    for some in a_few_at_a_time(functions):
        locks.change_briefly(
            connection,
            [f"ALTER FUNCTION {each} SET SCHEMA {PARKED}" for each in some],
            what="Putting functions of the schema rebuilt aside",
            tables=(),
            mode=Mode.ACCESS_EXCLUSIVE,
            say=say,
        )


def a_few_at_a_time(functions: Sequence[str]) -> Iterator[Sequence[str]]:
    """What may be changed in one transaction: everybody connected is told of each, and looks
    through all that it keeps; see :func:`terrain.pace.breathe`."""
    for start in range(0, len(functions), FUNCTIONS_AT_ONCE):
        yield functions[start : start + FUNCTIONS_AT_ONCE]


def _bring_back_functions(connection: BaseDatabaseWrapper, made: Iterable[str]) -> None:
    """Those that will be made anew: see :func:`park_functions`.

    One whose place is taken stays, for :func:`drop_parked_functions`: an older version has
    migrated in between, which knows nothing of them.
    """
    names = {each.name for each in map(sql.signature, made) if each is not None}
    parked = [
        identity
        for identity, name, taken in _parked_functions(connection)
        if name in names and not taken
    ]
    _execute(
        connection, (f"ALTER FUNCTION {each} SET SCHEMA {REBUILT}" for each in parked)
    )


def drop_parked_functions(connection: BaseDatabaseWrapper) -> None:
    """Those of them that have not been brought back: another version's."""
    _execute(
        connection,
        (
            f"DROP FUNCTION {identity}"
            for identity, _name, _taken in _parked_functions(connection)
        ),
    )


def _parked_functions(connection: BaseDatabaseWrapper) -> list[tuple[Any, ...]]:
    """Functions put aside: with their arguments, by name alone, and whether there are others in
    their place."""
    ours = sql.query("our_functions")
    return catalog.rows(connection, sql.query("parked_functions", ours=ours))


def unpark(connection: BaseDatabaseWrapper, say: Say | None = None) -> list[str]:
    """Bring back what :func:`park` has put aside; returns which tables.

    Their rows are not up to date with the legacy ones yet: they are closed until then.
    A table whose stand-in has not been made yet waits: its own migration comes later.
    """
    if not catalog.schema_exists(connection, PARKED):
        return []
    returned = []
    for table in catalog.NEW_TABLES:
        if not catalog.table_exists(connection, PARKED, table):
            continue
        if table not in _WITHOUT_STAND_IN and not catalog.new_table_exists(
            connection, table
        ):
            continue
        _check_shape(connection, table)
        _strip(connection, table)

        statements = [
            f"DROP TABLE IF EXISTS {sql.new_table(table)}",
            f"ALTER TABLE {sql.ident(PARKED, table)} SET SCHEMA"
            f" {sql.ident(catalog.where(connection).own[0])}",
        ]
        if table in closing.MIRRORED:
            statements += closing.closing(connection, table)
        locks.change_briefly(
            connection,
            statements,
            what=f"Bringing back {table}",
            tables=(f"{PARKED}.{table}", *catalog.new(connection, table)),
            mode=Mode.ACCESS_EXCLUSIVE,
            say=say,
        )
        returned.append(table)
    drop_schema_if_empty(connection, PARKED)
    return returned


def _strip(connection: BaseDatabaseWrapper, table: str) -> None:
    """Take from a parked table what migrations that are still to come make beside the traffic.

    The rows that come back are brought up to date one by one, in whatever order, which
    indexes slow and foreign keys forbid.  Done here, where nobody uses the table, and not
    when it was parked: the old application was still waiting then.
    """
    made = catalog.rows(
        connection,
        sql.query("made_later"),
        {"parked": f"{PARKED}.{table}", "names": catalog.made_online()},
    )
    parked = sql.ident(PARKED, table)
    for kind, name, other in made:
        statement = (
            f"DROP INDEX {sql.ident(PARKED, name)}"
            if kind == "index"
            else f"ALTER TABLE {parked} DROP CONSTRAINT {sql.ident(name)}"
        )
        locks.change_briefly(
            connection,
            [statement],
            what=f"Dropping {name}",
            tables=(f"{PARKED}.{table}", *([other] if other else [])),
            mode=Mode.ACCESS_EXCLUSIVE,
        )


def _check_shape(connection: BaseDatabaseWrapper, table: str) -> None:
    """A parked table may take the place of an empty one of its own shape only."""
    parked = catalog.columns(connection, PARKED, table)
    (name,) = catalog.new(connection, table)
    fresh = catalog.columns(connection, *name.split("."))
    if not fresh:
        return
    if parked != fresh:
        odd = {column.name for column in set(parked) ^ set(fresh)}
        raise CannotGoOn(
            f"legacy_parked.{table} and the new {name} differ in"
            f" {', '.join(sorted(odd))}: they were made by different versions of the project."
            " Migrate with the version that was rolled back, or drop legacy_parked to do"
            " without what it holds."
        )
    if catalog.value(connection, f"SELECT true FROM {sql.new_table(table)} LIMIT 1"):
        raise CannotGoOn(
            f"{name} has rows, and so has legacy_parked.{table} from before the"
            " rollback. Move one of the two out of the way, then run migrate again."
        )
