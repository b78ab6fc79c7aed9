"""How the old application finds its tables once they stand aside: its search path.

The path is a setting of the database (or of each role, where the database is not ours to
alter), so sessions have it from the moment they begin: those that began earlier must be
recycled once.  While there is no schema ``legacy``, PostgreSQL passes over the name.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import DatabaseError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from terrain import locks
from terrain.blockers import Mode
from terrain.legacy import catalog, engine, sql
from terrain.legacy.catalog import LEGACY, REBUILT
from terrain.legacy.mapping import LENSES
from terrain.waiting import Say

#: What an unprepared session looks in, unless somebody has said otherwise.
DEFAULT_PATH = ("public",)


@dataclass(frozen=True)
class Session:
    """Somebody else's connection to this database.

    Of another role's, a plain owner of the database is told no more than the process and
    the role.
    """

    pid: int
    role: str
    application: str
    address: str
    since: datetime.datetime | None

    def __str__(self) -> str:
        if self.since is None:
            return f"process {self.pid}: role {self.role}"
        where = self.address or "local"
        return (
            f"process {self.pid}: role {self.role}, {self.application or 'unnamed'},"
            f" {where}, since {self.since:%Y-%m-%d %H:%M:%S} UTC"
        )


@dataclass(frozen=True)
class Prepared:
    """What ``prepare`` did: ``set_for`` (the database or roles), ``beyond`` roles it may
    not alter, and the ``sessions`` that began before."""

    set_for: tuple[str, ...]
    beyond: tuple[str, ...]
    sessions: tuple[Session, ...]


# --- paths ---------------------------------------------------------------------------------


def split_path(path: str) -> tuple[str, ...]:
    """The names in a search path, without their quotes."""
    names = re.findall(r'"((?:[^"]|"")*)"|([^,\s"]+)', path)
    return tuple(quoted.replace('""', '"') or bare for quoted, bare in names)


def join_path(names: Iterable[str]) -> str:
    """A search path, quoted where need be."""
    return ", ".join(
        name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else sql.ident(name)
        for name in names
    )


def database_path(connection: BaseDatabaseWrapper) -> tuple[str, ...] | None:
    """The search path set for the whole database, or None."""
    return _path_of(connection, 0)


def _path_of(connection: BaseDatabaseWrapper, role: int) -> tuple[str, ...] | None:
    setting = catalog.value(
        connection,
        "SELECT c FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) c"
        " WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())"
        "   AND s.setrole = %s AND c LIKE 'search_path=%%'",
        [role],
    )
    return split_path(setting.partition("=")[2]) if setting else None


def role_paths(connection: BaseDatabaseWrapper) -> dict[str, tuple[str, ...]]:
    """Role -> the path of its own, which hides the database's, in this database.

    Of a role that has no right on any legacy table the path does not matter.
    """
    found = catalog.rows(
        connection,
        "SELECT DISTINCT ON (r.rolname) r.rolname, c"
        "  FROM pg_db_role_setting s"
        "  JOIN pg_roles r ON r.oid = s.setrole"
        " CROSS JOIN LATERAL unnest(s.setconfig) c"
        " WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database"
        "                              WHERE datname = current_database()))"
        "   AND c LIKE 'search_path=%%' AND r.rolcanlogin"
        f"  AND (r.rolsuper OR {_HAS_RIGHTS})"
        " ORDER BY r.rolname, s.setdatabase DESC",
        [[lens.legacy for lens in LENSES]],
    )
    return {role: split_path(setting.partition("=")[2]) for role, setting in found}


#: Condition over a role ``r``; its parameter is the list of the legacy tables.
_HAS_RIGHTS = (
    "EXISTS (SELECT FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace"
    " WHERE s.nspname IN ('public', 'legacy') AND c.relkind IN ('r', 'p')"
    "   AND c.relname = ANY (%s)"
    "   AND has_table_privilege(r.oid, c.oid,"
    "         'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER'))"
)


def is_prepared(connection: BaseDatabaseWrapper) -> bool:
    """Whether every session that begins now finds the tables in ``legacy``."""
    own = role_paths(connection)
    path = database_path(connection)
    if path is not None and LEGACY in path:
        return all(LEGACY in theirs for theirs in own.values())
    return all(
        LEGACY in own.get(role, ()) for role in roles_with_rights(connection)
    ) and bool(own)


def roles_with_rights(connection: BaseDatabaseWrapper) -> list[str]:
    """The roles that may log in and have any right on a legacy table, owners included."""
    return [
        role
        for (role,) in catalog.rows(
            connection,
            "SELECT r.rolname FROM pg_roles r"
            f" WHERE r.rolcanlogin AND NOT r.rolsuper AND {_HAS_RIGHTS}"
            " ORDER BY 1",
            [[lens.legacy for lens in LENSES]],
        )
    ]


# --- sessions ------------------------------------------------------------------------------


def other_sessions(connection: BaseDatabaseWrapper) -> list[Session]:
    """Everybody else's connections to this database, oldest first."""
    return [
        Session(*row)
        for row in catalog.rows(
            connection,
            "SELECT pid, coalesce(usename, ''), coalesce(application_name, ''),"
            "       coalesce(host(client_addr), ''), backend_start"
            "  FROM pg_stat_activity"
            " WHERE datname = current_database() AND usesysid IS NOT NULL"
            # NULL where it is another role's, and not for us to know.
            "   AND coalesce(backend_type, 'client backend') = 'client backend'"
            "   AND pid <> pg_backend_pid() AND application_name IS DISTINCT FROM 'terrain'"
            " ORDER BY backend_start, pid",
        )
    ]


def prepared_at(connection: BaseDatabaseWrapper) -> datetime.datetime | None:
    """When ``prepare`` last set a path, if it could write that down."""
    if not catalog.table_exists(connection, REBUILT, "prepared"):
        return None
    moment: datetime.datetime | None = catalog.value(
        connection, "SELECT max(prepared_at) FROM rebuilt.prepared"
    )
    return moment


def _were_there(connection: BaseDatabaseWrapper) -> list[int]:
    """The processes of the sessions that were connected at that moment."""
    return [
        pid
        for (pid,) in catalog.rows(
            connection, "SELECT unnest(pids) FROM rebuilt.prepared"
        )
    ]


def sessions_before(connection: BaseDatabaseWrapper) -> list[Session]:
    """The sessions that began before the path was set, and so do not have it."""
    moment = prepared_at(connection)
    if moment is None:
        return []
    were_there = _were_there(connection)
    return [
        each
        for each in other_sessions(connection)
        if (each.since < moment if each.since is not None else each.pid in were_there)
    ]


# --- setting and undoing -------------------------------------------------------------------


def may_alter_database(connection: BaseDatabaseWrapper) -> bool:
    """Whether the database is ours."""
    return bool(
        catalog.value(
            connection,
            "SELECT pg_has_role(current_user, datdba, 'USAGE') FROM pg_database"
            " WHERE datname = current_database()",
        )
    )


def is_left(connection: BaseDatabaseWrapper) -> bool:
    """Whether there is anything that ``prepare`` would set."""
    path = database_path(connection)
    return (may_alter_database(connection) and LEGACY not in (path or ())) or any(
        may_alter_role(connection, role) for role in _lacking(connection)
    )


def out_of_reach(connection: BaseDatabaseWrapper) -> list[str]:
    """The roles with rights on a legacy table that ``prepare`` could not help.

    They have a path of their own (or would need one, the database not being ours to
    alter) which is not for the current role to set.
    """
    return [
        role for role in _lacking(connection) if not may_alter_role(connection, role)
    ]


def _lacking(connection: BaseDatabaseWrapper) -> list[str]:
    """The roles that need a path of their own and have none with ``legacy`` in it."""
    own = role_paths(connection)
    wanted = set(own)
    if not may_alter_database(connection) and LEGACY not in (
        database_path(connection) or ()
    ):
        wanted |= {*roles_with_rights(connection)}
    return [role for role in sorted(wanted) if LEGACY not in own.get(role, ())]


def may_alter_role(connection: BaseDatabaseWrapper, role: str) -> bool:
    """Whether the current role may set another's search path."""
    return bool(
        catalog.value(
            connection,
            "SELECT me.rolsuper OR me.oid = r.oid OR me.rolcreaterole AND NOT r.rolsuper"
            "       AND (current_setting('server_version_num')::int < 160000"
            "            OR EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = r.oid"
            "                          AND m.admin_option AND pg_has_role(m.member, 'USAGE')))"
            "  FROM pg_roles me CROSS JOIN pg_roles r"
            " WHERE me.rolname = current_user AND r.rolname = %s",
            [role],
        )
    )


def prepare(connection: BaseDatabaseWrapper) -> Prepared:
    """Set the path for the database, and for roles that have one of their own."""
    # As one: killed in between, nobody would know when the path was set.
    with transaction.atomic(using=connection.alias):
        set_for, beyond = _set_paths(connection)
        if set_for:
            _write_down(connection)
    return Prepared(tuple(set_for), tuple(beyond), tuple(sessions_before(connection)))


def _set_paths(connection: BaseDatabaseWrapper) -> tuple[list[str], list[str]]:
    """Whom a path was set for, and the roles for whom it could not be."""
    set_for: list[str] = []
    beyond: list[str] = []
    database = catalog.value(connection, "SELECT current_database()")
    path = database_path(connection)
    own = role_paths(connection)
    if may_alter_database(connection):
        if path is None or LEGACY not in path:
            _alter(
                connection,
                f"DATABASE {sql.ident(database)}",
                (LEGACY, *(path or DEFAULT_PATH)),
            )
            set_for.append(f"database {database}")
        roles = list(own)
    else:
        roles = sorted({*own, *roles_with_rights(connection)})
    for role in roles:
        theirs = own.get(role)
        if theirs is not None and LEGACY in theirs:
            continue
        target = f"ROLE {sql.ident(role)} IN DATABASE {sql.ident(database)}"
        try:
            with transaction.atomic(using=connection.alias):
                _alter(connection, target, (LEGACY, *(theirs or DEFAULT_PATH)))
            set_for.append(f"role {role}")
        except DatabaseError:
            beyond.append(role)
    return set_for, beyond


def alter_role(connection: BaseDatabaseWrapper, role: str) -> str:
    """The statement that puts ``legacy`` before what a role has for its path."""
    database = catalog.value(connection, "SELECT current_database()")
    path = (LEGACY, *role_paths(connection).get(role, DEFAULT_PATH))
    return (
        f"ALTER ROLE {join_path([role])} IN DATABASE {join_path([database])}"
        f" SET search_path = {join_path(path)};"
    )


def undo(connection: BaseDatabaseWrapper) -> tuple[str, ...]:
    """Take ``legacy`` out of every path again; returns for whom."""
    database = catalog.value(connection, "SELECT current_database()")
    undone = []
    path = database_path(connection)
    if path is not None and LEGACY in path and may_alter_database(connection):
        _without_legacy(connection, f"DATABASE {sql.ident(database)}", path)
        undone.append(f"database {database}")
    for role, theirs in role_paths(connection).items():
        if LEGACY in theirs:
            target = f"ROLE {sql.ident(role)} IN DATABASE {sql.ident(database)}"
            try:
                with transaction.atomic(using=connection.alias):
                    _without_legacy(connection, target, theirs)
                undone.append(f"role {role}")
            except DatabaseError:
                continue
    _forget(connection)
    return tuple(undone)


def _alter(connection: BaseDatabaseWrapper, target: str, path: Iterable[str]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER {target} SET search_path = {join_path(path)}")


def _without_legacy(
    connection: BaseDatabaseWrapper, target: str, path: tuple[str, ...]
) -> None:
    rest = tuple(name for name in path if name != LEGACY)
    if rest in ((), DEFAULT_PATH):
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER {target} RESET search_path")
    else:
        _alter(connection, target, rest)


def _write_down(
    connection: BaseDatabaseWrapper,
    moment: datetime.datetime | None = None,
    were_there: list[int] | None = None,
) -> None:
    """Remember when, to tell the sessions that began earlier; a courtesy, not a need.

    When a session of another role's began is often not for us to see, so who was there
    is remembered too.
    """
    pids = [each.pid for each in other_sessions(connection)]
    try:
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute("CREATE SCHEMA IF NOT EXISTS rebuilt")
            cursor.execute(
                "CREATE TABLE IF NOT EXISTS rebuilt.prepared"
                " (prepared_at timestamptz NOT NULL, pids integer[] NOT NULL)"
            )
            cursor.execute("DELETE FROM rebuilt.prepared")
            cursor.execute(
                "INSERT INTO rebuilt.prepared VALUES (coalesce(%s, clock_timestamp()), %s)",
                [moment, pids if were_there is None else were_there],
            )
    except DatabaseError:
        return


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
    """Take away all that was derived; when the path was set is still remembered.

    The functions, which no trigger calls any more, go a few at a time.
    """
    if not catalog.schema_exists(connection, REBUILT):
        return
    functions = _functions_nothing_depends_on(connection)
    for some in engine.a_few_at_a_time(functions):
        locks.change_briefly(
            connection,
            [f"DROP FUNCTION {sql.joined(some)}"],
            what="Dropping functions of the schema rebuilt",
            tables=(),
            mode=Mode.ACCESS_EXCLUSIVE,
            say=say,
        )
    moment = prepared_at(connection)
    were_there = _were_there(connection) if moment is not None else []

    def drop() -> None:
        with connection.cursor() as cursor:
            cursor.execute("DROP SCHEMA IF EXISTS rebuilt CASCADE")
        if moment is not None:
            _write_down(connection, moment, were_there)

    locks.run_briefly(
        connection,
        drop,
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


def _forget(connection: BaseDatabaseWrapper) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS rebuilt.prepared")
    engine.drop_schema_if_empty(connection, REBUILT)
