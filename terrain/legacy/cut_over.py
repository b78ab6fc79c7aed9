"""The cut-over: the names change places, when the old application has stopped; and its undoing.

The legacy tables go to the schema ``legacy``, ours to ``public``, and both stay in step.  It is one
transaction.  The functions of the sync are made anew in it before any table is locked; then all
tables are locked at once or not at all; then nothing is changed but names.  Killed at any instant,
either all of it has happened or nothing.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db import DatabaseError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from terrain import locks
from terrain.blockers import Mode
from terrain.exceptions import Stopped
from terrain.legacy import (
    catalog,
    checks,
    engine,
    ledger,
    place,
    privileges,
    search_path,
    settling,
    sql,
    usage,
)
from terrain.legacy.catalog import LEGACY
from terrain.legacy.mapping import LENSES
from terrain.legacy.place import Place
from terrain.postgresql import schemas
from terrain.postgresql.schemas import PLACE_LOCK, PUBLIC, SCHEMA
from terrain.waiting import Say

#: The ledger's names for it and for its undoing.
CUT_OVER, UNDO = "cut over", "cut over, undone"
#: What each is called while it locks.
CUTTING_OVER, UNDOING = "Cutting over", "Undoing the cut-over"

#: Minutes for which no other role may have written to a legacy table.
QUIET_MINUTES = 5.0
#: Seconds for which the locks are tried for.  Less than a new session waits for ``PLACE_LOCK``.
LIMIT = 6.0
#: Seconds that sessions of the new application are given to end by themselves before an undoing.
PATIENCE = 2.0


class Objection(Exception):
    """It may not be done; the sentence says why and what to do.  Nothing was changed."""


@dataclass(frozen=True)
class Done:
    """What has changed places: ``moved`` are tables of ours, ``kept`` those that stayed in
    ``terrain``, ``seconds`` is how long all of them were locked, with the commit."""

    moved: tuple[str, ...]
    kept: tuple[str, ...]
    legacy: tuple[str, ...]
    seconds: float


# --- where it stands -----------------------------------------------------------------------


def is_done(connection: BaseDatabaseWrapper) -> bool:
    """Whether the names have changed places and the legacy tables are still there."""
    there = catalog.where(connection)
    return there.is_cut_over and catalog.has_legacy_tables(connection)


def is_possible(connection: BaseDatabaseWrapper) -> bool:
    """Whether both sides are there and in step, under the names from before the cut-over."""
    return (
        not catalog.where(connection).is_cut_over
        and catalog.migrated_at(connection) is not None
        and catalog.has_legacy_tables(connection)
    )


# --- before --------------------------------------------------------------------------------


def objections(
    connection: BaseDatabaseWrapper, *, ignore_activity: bool = False
) -> Iterator[str]:
    """Why the names may not change places now, a sentence each; settles and verifies."""
    if not is_possible(connection):
        yield "The migration is not complete. Run: python manage.py migrate"
        return
    missing = missing_privilege(connection)
    if missing is not None:
        yield " ".join(missing)
    used = [] if ignore_activity else list(activity(connection))
    settling.settle(connection)
    deferred = catalog.value(
        connection, "SELECT count(*) FROM rebuilt.queue q WHERE q.late"
    )
    if deferred:
        yield (f"Deferred rows: {deferred:,}. Run: python manage.py settle")
    yield from used
    result = checks.verify(connection)
    if result.failures:
        failed = ", ".join(each.name for each in result.failures)
        yield f"Verification fails ({failed}). Run: python manage.py verify_migration"


def missing_privilege(connection: BaseDatabaseWrapper) -> tuple[str, str] | None:
    """What this role lacks to move tables into ``public``, and what to run; None if nothing."""
    if catalog.value(connection, "SELECT has_schema_privilege('public', 'CREATE')"):
        return None
    role = catalog.value(connection, "SELECT quote_ident(current_user)")
    return (
        f"The role {role} lacks CREATE on the schema public.",
        f"Run as the owner of that schema: GRANT CREATE ON SCHEMA public TO {role};",
    )


def activity(connection: BaseDatabaseWrapper) -> Iterator[str]:
    """Signs that the old application still runs, a sentence each.

    A plain owner sees of other roles' sessions the role and the application's name, no more.
    """
    sessions = [str(each) for each in others_connected(connection)]
    for session in sessions:
        yield f"Another session is connected: {session}. Stop what it belongs to."
    since = timezone.now() - datetime.timedelta(minutes=QUIET_MINUTES)
    for each in usage.written(connection, since):
        yield f"{each.sentence} Stop the old application, then wait {QUIET_MINUTES:.0f} minutes."
    if sessions:
        yield (
            "If none of these is the old application, or if it is to run on with the search"
            " path of prepare_database, add --ignore-activity."
        )


def others_connected(connection: BaseDatabaseWrapper) -> list[search_path.Session]:
    """The sessions of roles with rights on the legacy tables, and of superusers none."""
    entitled = set(search_path.roles_with_rights(connection))
    return [
        each for each in search_path.other_sessions(connection) if each.role in entitled
    ]


def clients_with_owner_rights(connection: BaseDatabaseWrapper) -> list[tuple[str, str]]:
    """(role, application) of who has written to a legacy table with the rights of its owner.

    Coming back after the cut-over, they are refused nothing: ``orders`` and ``assets`` are the
    new tables then.
    """
    if not catalog.table_exists(connection, catalog.REBUILT, "used"):
        return []
    return [
        (role, application)
        for role, application in catalog.rows(
            connection,
            "SELECT DISTINCT u.role::text, u.application FROM rebuilt.used u"
            "  JOIN pg_roles r ON r.rolname = u.role"
            " WHERE pg_has_role(r.oid, (SELECT c.relowner FROM pg_class c"
            "                            WHERE c.oid = to_regclass(%s)), 'USAGE') ORDER BY 1, 2",
            catalog.names(connection, "@legacy.orders"),
        )
    ]


# --- the swap ------------------------------------------------------------------------------


def cut_over(connection: BaseDatabaseWrapper, say: Say | None = None) -> Done:
    """Let the names change places.

    Raises :class:`Objection`, and :class:`terrain.locks.LockNotObtained` when an open
    transaction or a dump keeps a table; nothing has changed then.
    """
    with (
        ledger.exclusive(connection),
        ledger.exclusive(connection, locks.VERIFY_LOCK),
    ):
        if catalog.where(connection).is_cut_over:
            raise Objection("The names have changed places already.")
        kept = _kept(connection)
        after = Place(LEGACY, (SCHEMA, PUBLIC) if kept else (PUBLIC,), frozenset(kept))
        moved = [
            name for name in _tables_in(connection, SCHEMA) if name not in after.kept
        ]
        swap = _Swap(connection, catalog.where(connection), after, moved)
        swap.run(CUTTING_OVER, say)
        done = Done(tuple(moved), tuple(sorted(kept)), tuple(swap.legacy), swap.seconds)
        _record(connection, CUT_OVER, CUTTING_OVER, done)
    return done


def undo(connection: BaseDatabaseWrapper, say: Say | None = None) -> Done:
    """Give the names back: the legacy tables to ``public``, ours to ``terrain``.

    Sessions of the new application are given a moment to end and are ended then, because they
    look in ``public``.  Raises as :func:`cut_over` does.
    """
    with (
        ledger.exclusive(connection),
        ledger.exclusive(connection, locks.VERIFY_LOCK),
    ):
        if not is_done(connection):
            raise Objection(
                "The names have not changed places, so there is nothing to undo."
            )
        for sentence in _in_the_way_of_undo(connection):
            raise Objection(sentence)
        privileges.make_schema(connection, SCHEMA)
        moved = _our_tables_in_public(connection)
        with _alone_in_public(connection):
            _mark_schema(connection, catalog.where(connection).own)
            swap = _Swap(connection, catalog.where(connection), place.BEFORE, moved)
            swap.run(UNDOING, say)
        done = Done(tuple(moved), (), tuple(swap.legacy), swap.seconds)
        _record(connection, UNDO, UNDOING, done)
    return done


@dataclass
class _Swap:
    """One transaction that takes tables from one place to another; ``moved`` are ours."""

    connection: BaseDatabaseWrapper
    now: Place
    then: Place
    moved: list[str]
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.legacy = _legacy_relations(self.connection, self.now.legacy)
        self.derived = engine.derived(self.connection, self.then)

    def run(self, what: str, say: Say | None) -> None:
        tables = [
            *(f"{self.now.legacy}.{name}" for name in self.legacy),
            *(f"{self.now.schema_of(name)}.{name}" for name in self.moved),
            "rebuilt.queue",
        ]
        statements = [*self._names(), *self._finish()]

        def change() -> None:
            started = time.monotonic()
            with self.connection.cursor() as cursor:
                cursor.execute("\n;\n".join(statements))

            def committed() -> None:
                self.seconds = time.monotonic() - started

            transaction.on_commit(committed, using=self.connection.alias)

        locks.run_briefly(
            self.connection,
            change,
            what=what,
            tables=tuple(tables),
            mode=Mode.ACCESS_EXCLUSIVE,
            say=say,
            before=self._make_functions,
            limit=LIMIT,
        )
        self.connection.follow_tables()  # type: ignore[attr-defined]

    def _make_functions(self) -> None:
        """The sync's functions for the other place, before any table is locked.

        They name tables that are not there yet; no argument of theirs is a row of a table.
        """
        made = [
            self.then.fill(statement)
            for _what, statements in self.derived
            for statement in statements
            if "CREATE OR REPLACE FUNCTION" in statement
        ]
        catalog.execute(
            self.connection, ["SET LOCAL check_function_bodies = off", *made]
        )

    def _names(self) -> Iterator[str]:
        """The statements that move the tables; first those whose names the others take."""
        legacy = [
            f"ALTER TABLE {sql.ident(self.now.legacy, name)}"
            f" SET SCHEMA {sql.ident(self.then.legacy)}"
            for name in self.legacy
        ]
        ours = [
            f"ALTER TABLE {sql.ident(self.now.schema_of(name), name)}"
            f" SET SCHEMA {sql.ident(self.then.schema_of(name))}"
            for name in self.moved
        ]
        if self.then.is_cut_over:
            yield from _open_legacy(self.connection, self.now.legacy)
            yield from (*legacy, *ours)
        else:
            yield from (*ours, *legacy)

    def _finish(self) -> Iterator[str]:
        """Our own functions, the mark, and what is empty now."""
        target = self.then.own[-1]
        path = search_path.join((*self.then.own, "pg_temp"))
        for schema, identity in _our_functions(self.connection):
            name = f"{sql.ident(schema)}.{identity}"
            moved = f"{sql.ident(target)}.{identity}"
            if schema != target:
                yield f"ALTER FUNCTION {name} SET SCHEMA {sql.ident(target)}"
            yield f"ALTER FUNCTION {moved} SET search_path = {path}"
            if self.then.is_cut_over:  # the schema terrain is closed
                yield privileges.closing_function(moved)
        yield _marking(self.then.own)
        if not self.then.is_cut_over:
            # RESTRICT: what others have put there keeps it.
            yield (
                "DO $$ BEGIN DROP SCHEMA IF EXISTS legacy;"
                " EXCEPTION WHEN dependent_objects_still_exist THEN NULL; END $$"
            )


def _open_legacy(connection: BaseDatabaseWrapper, schema: str) -> Iterator[str]:
    """Make ``legacy``, closed but for those who have a right on one of its tables."""
    if not catalog.schema_exists(connection, LEGACY):
        yield f"CREATE SCHEMA {sql.ident(LEGACY)}"
    yield privileges.closing(LEGACY)
    for role in _entitled(connection, schema):
        who = "PUBLIC" if role is None else sql.ident(role)
        yield f"GRANT USAGE ON SCHEMA {sql.ident(LEGACY)} TO {who}"


def _entitled(connection: BaseDatabaseWrapper, schema: str) -> list[str | None]:
    """Every role with a right on a legacy table, its owner included; None is PUBLIC."""
    return [
        role
        for (role,) in catalog.rows(
            connection,
            "SELECT DISTINCT CASE x.grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(x.grantee) END"
            "  FROM pg_class c"
            "  LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attacl IS NOT NULL"
            " CROSS JOIN LATERAL ("
            "    SELECT grantee FROM aclexplode(coalesce(c.relacl, acldefault('r', c.relowner)))"
            "    UNION SELECT grantee FROM aclexplode(a.attacl)"
            "    UNION SELECT c.relowner) x"
            " WHERE c.relnamespace = to_regnamespace(%s) AND c.relname = ANY (%s)",
            [schema, [lens.legacy for lens in LENSES]],
        )
    ]


# --- what is where -------------------------------------------------------------------------


def _tables_in(connection: BaseDatabaseWrapper, schema: str) -> list[str]:
    return [
        name
        for (name,) in catalog.rows(
            connection,
            "SELECT c.relname FROM pg_class c"
            " WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind IN ('r', 'p')"
            " ORDER BY 1",
            [schema],
        )
    ]


def our_names() -> list[str]:
    """The tables of all models, and the one that notes which migrations are applied."""
    tables = {
        model._meta.db_table
        for model in apps.get_models(include_auto_created=True)
        if model._meta.managed
    }
    return sorted({*tables, "django_migrations"})


def _our_tables_in_public(connection: BaseDatabaseWrapper) -> list[str]:
    kept = catalog.where(connection).kept
    names = set(our_names()) - kept
    return [name for name in _tables_in(connection, PUBLIC) if name in names]


def _legacy_relations(connection: BaseDatabaseWrapper, schema: str) -> list[str]:
    """The legacy tables that are there, with their partitions in the same schema."""
    return [
        name
        for (name,) in catalog.rows(
            connection,
            "SELECT DISTINCT c.relname FROM pg_class p"
            " CROSS JOIN LATERAL (SELECT p.oid UNION"
            "                     SELECT t.relid FROM pg_partition_tree(p.oid) t) t"
            "  JOIN pg_class c ON c.oid = t.oid AND c.relnamespace = p.relnamespace"
            " WHERE p.relnamespace = to_regnamespace(%s) AND p.relkind IN ('r', 'p')"
            "   AND p.relname = ANY (%s) ORDER BY 1",
            [schema, [lens.legacy for lens in LENSES]],
        )
    ]


def _our_functions(connection: BaseDatabaseWrapper) -> list[tuple[str, str]]:
    """(schema, name and arguments) of the functions that migrations have made for our tables."""
    return [
        (schema, identity)
        for schema, identity in catalog.rows(
            connection,
            "SELECT s.nspname::text, quote_ident(p.proname) || '('"
            "       || oidvectortypes(p.proargtypes) || ')'"
            "  FROM pg_proc p JOIN pg_namespace s ON s.oid = p.pronamespace"
            " WHERE s.nspname = ANY (%s) AND p.proname LIKE 'terrain\\_%%'"
            "   AND pg_has_role(p.proowner, 'USAGE') ORDER BY 1, 2",
            [[SCHEMA, PUBLIC]],
        )
    ]


def taken_names(
    connection: BaseDatabaseWrapper,
    planned: Mapping[str, Collection[str]] | None = None,
) -> dict[str, list[str]]:
    """Our tables whose names, or their indexes', sequences' or types', ``public`` has already.

    Table of ours -> the objects with its names, each as ``kind name``.  What moves out is left out.
    ``planned`` are tables that are not made yet, with the names that each will have.
    """
    pairs = [
        (table, name) for table, names in (planned or {}).items() for name in names
    ]
    found: dict[str, list[str]] = {}
    for table, kind, name in catalog.rows(
        connection,
        sql.query("taken_names"),
        {
            "own": SCHEMA,
            "legacy": PUBLIC,
            "moving": _legacy_relations(connection, PUBLIC),
            "planned_tables": [table for table, _ in pairs],
            "planned_names": [name for _, name in pairs],
        },
    ):
        found.setdefault(table, []).append(f"{kind} {name}")
    return found


def _kept(connection: BaseDatabaseWrapper) -> list[str]:
    return list(taken_names(connection))


def _in_the_way_of_undo(connection: BaseDatabaseWrapper) -> Iterator[str]:
    ours = set(_our_tables_in_public(connection))
    for name in _legacy_relations(connection, LEGACY):
        if name not in ours and catalog.value(
            connection,
            "SELECT true FROM pg_class c WHERE c.relname = %s"
            " AND c.relnamespace = 'public'::regnamespace",
            [name],
        ):
            yield (
                f"public.{name} is not of this project and is where the legacy table {name} has"
                " to go back to. Rename it, then undo again. Nothing was changed."
            )


# --- the mark ------------------------------------------------------------------------------


def _marking(path: tuple[str, ...]) -> str:
    return f"COMMENT ON SCHEMA {SCHEMA} IS {sql.literal(schemas.mark(path))}"


def _mark_schema(connection: BaseDatabaseWrapper, path: tuple[str, ...]) -> None:
    catalog.execute(connection, [_marking(path)])


def is_marked(connection: BaseDatabaseWrapper) -> bool:
    """Whether there is a schema ``terrain`` of this project's."""
    comment = catalog.value(
        connection,
        "SELECT obj_description(to_regnamespace('terrain'), 'pg_namespace')",
    )
    return schemas.marked(
        comment
    ) is not None and SCHEMA not in privileges.untrusted_owners(connection)


def begin(connection: BaseDatabaseWrapper) -> None:
    """Make the schema ``terrain`` of a legacy database, closed, before anything else is made.

    What a version before this has left in ``public`` when it was rolled back (Django's own
    tables and the ledger) moves there, too.
    """
    if is_marked(connection) or catalog.where(connection).is_cut_over:
        return
    if catalog.schema_exists(connection, SCHEMA):
        raise Stopped(
            "There is a schema terrain that this project has not made. Nothing was changed."
            " Rename it: ALTER SCHEMA terrain RENAME TO terrain_old"
        )
    left = _left_in_public(connection)

    def make() -> None:
        catalog.execute(connection, [f"CREATE SCHEMA {SCHEMA}"])
        privileges.close_schema(connection, SCHEMA)
        catalog.execute(
            connection,
            [
                *(
                    f"ALTER TABLE {sql.ident(PUBLIC, name)} SET SCHEMA {SCHEMA}"
                    for name in left
                ),
                _marking((SCHEMA,)),
            ],
        )

    locks.run_briefly(
        connection,
        make,
        what="Making the schema terrain",
        tables=tuple(f"public.{name}" for name in left),
        mode=Mode.ACCESS_EXCLUSIVE if left else None,
    )
    connection.follow_tables()  # type: ignore[attr-defined]


def _left_in_public(connection: BaseDatabaseWrapper) -> list[str]:
    """Our tables in ``public`` beside the legacy ones, by what their migrations table says."""
    if not catalog.value(
        connection,
        "SELECT to_regclass('public.django_migrations') IS NOT NULL"
        "   AND to_regclass('public.legacy_quarantine') IS NOT NULL",
    ):
        return []
    applied = {
        app
        for (app,) in catalog.rows(
            connection, "SELECT DISTINCT app FROM public.django_migrations"
        )
    }
    if not {"terrain", "legacy"} <= applied:
        return []  # another Django application's
    names = {
        model._meta.db_table
        for model in apps.get_models(include_auto_created=True)
        if model._meta.managed and model._meta.app_label in applied
    }
    there = set(_tables_in(connection, PUBLIC))
    return sorted(
        (names & there - {lens.legacy for lens in LENSES}) | {"django_migrations"}
    )


# --- sessions of ours that look in public ---------------------------------------------------


class _alone_in_public:
    """Within the block no other session of this project looks in ``public``, and none comes.

    See :func:`terrain.postgresql.schemas.settle_in`.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection

    def __enter__(self) -> None:
        # A session's own share does not conflict with its exclusive lock.
        if self._wait(PATIENCE):
            return
        catalog.rows(
            self.connection,
            "SELECT pg_terminate_backend(l.pid) FROM pg_locks l"
            "  JOIN pg_stat_activity s ON s.pid = l.pid"
            # Of another role's session the objection below speaks.
            "   AND pg_has_role(s.usesysid, 'MEMBER')"
            " WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 0 AND l.objid = %s"
            "   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            "   AND l.pid <> pg_backend_pid()",
            [PLACE_LOCK],
        )
        if not self._wait(PATIENCE):
            raise Objection(
                "Sessions of the new application look in public and do not end. Stop the web"
                " server and settle --watch, then undo again. Nothing was changed."
            )

    def _wait(self, seconds: float) -> bool:
        try:
            catalog.rows(
                self.connection,
                "SELECT set_config('lock_timeout', %s, false)",
                [f"{seconds * 1000:.0f}ms"],
            )
            catalog.rows(self.connection, "SELECT pg_advisory_lock(%s)", [PLACE_LOCK])
        except DatabaseError as error:
            if not locks.is_retried(error):
                raise
            return False
        finally:
            catalog.rows(
                self.connection, "SELECT set_config('lock_timeout', '0', false)"
            )
        return True

    def __exit__(self, *_: Any) -> None:
        if self.connection.connection is not None and self.connection.is_usable():
            catalog.rows(self.connection, "SELECT pg_advisory_unlock(%s)", [PLACE_LOCK])


# --- afterwards ----------------------------------------------------------------------------


def _record(connection: BaseDatabaseWrapper, step: str, what: str, done: Done) -> None:
    # While the tables moved, this connection did not know the ledger's place.
    ledger.note_lock(connection.alias, what, done.seconds, 0.0, 1)
    run = ledger.begin(step, using=connection.alias)
    run.seconds = done.seconds
    ledger.finish(run, kept=list(done.kept))


def grants_to_mirror(connection: BaseDatabaseWrapper) -> list[str]:
    """GRANT statements that give a new table what readers have on the legacy one of its name.

    After the cut-over ``orders`` and ``assets`` are other tables; a report that reads them by
    name needs a right on these.  A role that may write to a legacy table is left out: it is the
    old application's, which is to be refused.  None is run unless a person asks for it.
    """
    there = catalog.where(connection)
    names = {lens.legacy for lens in LENSES} & set(catalog.NEW_TABLES)
    return [
        f"GRANT SELECT ON {there.name(f'@new.{table}')} TO {sql.ident(role)};"
        for table, role in catalog.rows(
            connection,
            sql.query("readers"),
            {
                "legacy": there.legacy,
                "tables": sorted(names),
                "new": [there.name(f"@new.{table}") for table in sorted(names)],
                "all": [lens.legacy for lens in LENSES],
            },
        )
    ]
