"""The search paths of the old application's roles: read, pinned in functions, and extended.

Nothing here is changed while the old application lives in ``public``.  After the cut-over its
tables are in ``legacy``, and a role whose path begins with that schema finds them there.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import DatabaseError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from terrain.legacy import catalog, sql
from terrain.legacy.catalog import LEGACY
from terrain.legacy.mapping import LENSES
from terrain.legacy.place import Place
from terrain.postgresql.schemas import SCHEMA

#: What PostgreSQL's own default is.
DEFAULT = ("$user", "public")

#: What an old application that works in ``legacy`` after the cut-over has to know.
BREAKS = (
    "current_schema() is legacy: what it creates without a schema is made in legacy, or refused.",
    "CREATE TABLE IF NOT EXISTS finds no table of public and makes an empty one that hides it.",
    "Its migration tool (knex, Sequelize, Prisma, node-pg-migrate) asks for its own table in"
    " current_schema(), finds none there, and runs every migration again.",
    "A client that sets its own search_path, or names public.<table>, finds the new tables.",
)


@dataclass(frozen=True)
class Session:
    """Another role's, or another program's, connection to this database.

    Of another role's, a plain owner of the database is told no more than process, role and
    application.
    """

    pid: int
    role: str
    application: str
    address: str
    since: datetime.datetime | None

    def __str__(self) -> str:
        if self.since is None:
            return (
                f"process {self.pid}: role {self.role}, {self.application or 'unnamed'}"
            )
        where = self.address or "local"
        return (
            f"process {self.pid}: role {self.role}, {self.application or 'unnamed'},"
            f" {where}, since {self.since:%Y-%m-%d %H:%M:%S} UTC"
        )


@dataclass(frozen=True)
class Prepared:
    """What :func:`extend` did: ``set_for`` (the database or roles, each with its path), and
    ``beyond`` roles that it may not alter."""

    set_for: tuple[tuple[str, tuple[str, ...]], ...]
    beyond: tuple[str, ...]


@dataclass(frozen=True)
class Undone:
    """What :func:`undo` did: ``reset_for`` the database or roles, and ``beyond`` roles that it may
    not alter."""

    reset_for: tuple[str, ...]
    beyond: tuple[str, ...]


# --- reading -------------------------------------------------------------------------------


def split(path: str) -> tuple[str, ...]:
    """The names in a search path, without their quotes."""
    names = re.findall(r'"((?:[^"]|"")*)"|([^,\s"]+)', path)
    return tuple(quoted.replace('""', '"') or bare for quoted, bare in names)


def join(names: Iterable[str]) -> str:
    """A search path, quoted where need be."""
    return ", ".join(
        name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else sql.ident(name)
        for name in names
    )


def database_path(connection: BaseDatabaseWrapper) -> tuple[str, ...] | None:
    """The search path set for the whole database, or None."""
    setting = catalog.value(
        connection,
        "SELECT c FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) c"
        " WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())"
        "   AND s.setrole = 0 AND c LIKE 'search_path=%%'",
        [],
    )
    return split(setting.partition("=")[2]) if setting else None


def default_path(connection: BaseDatabaseWrapper) -> tuple[str, ...]:
    """The path of a role that has none of its own: the database's, or the server's."""
    path = database_path(connection)
    if path is not None:
        return path
    me = catalog.value(connection, "SELECT current_user")
    if me in _role_settings(connection):  # what this session began with is its own
        return DEFAULT
    connection.ensure_connection()
    begun: str = connection.default_path  # type: ignore[attr-defined]
    return split(begun) or DEFAULT


def role_paths(connection: BaseDatabaseWrapper) -> dict[str, tuple[str, ...]]:
    """Role -> the path of its own, which hides the database's, in this database.

    Of a role that has no right on any legacy table the path does not matter.
    """
    found = _role_settings(connection)
    wanted = {*roles_with_rights(connection), *_superusers(connection)}
    return {role: path for role, path in found.items() if role in wanted}


def _role_settings(connection: BaseDatabaseWrapper) -> dict[str, tuple[str, ...]]:
    found = catalog.rows(
        connection,
        "SELECT DISTINCT ON (r.rolname) r.rolname, c"
        "  FROM pg_db_role_setting s"
        "  JOIN pg_roles r ON r.oid = s.setrole"
        " CROSS JOIN LATERAL unnest(s.setconfig) c"
        " WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database"
        "                              WHERE datname = current_database()))"
        "   AND c LIKE 'search_path=%%' AND r.rolcanlogin"
        " ORDER BY r.rolname, s.setdatabase DESC",
        [],
    )
    return {role: split(setting.partition("=")[2]) for role, setting in found}


def _superusers(connection: BaseDatabaseWrapper) -> list[str]:
    return [
        role
        for (role,) in catalog.rows(
            connection, "SELECT rolname FROM pg_roles WHERE rolsuper AND rolcanlogin"
        )
    ]


def roles_with_rights(connection: BaseDatabaseWrapper) -> list[str]:
    """The roles that may log in and have any right on a legacy table, owners included."""
    return [
        role
        for (role,) in catalog.rows(
            connection,
            "SELECT r.rolname FROM pg_roles r"
            " WHERE r.rolcanlogin AND NOT r.rolsuper AND EXISTS ("
            "       SELECT FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace"
            "        WHERE s.nspname = %s AND c.relkind IN ('r', 'p')"
            "          AND c.relname = ANY (%s)"
            "          AND has_table_privilege(r.oid, c.oid,"
            "                'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER'))"
            " ORDER BY 1",
            [
                catalog.where(connection).legacy,
                [lens.legacy for lens in LENSES],
            ],
        )
    ]


def effective_paths(connection: BaseDatabaseWrapper) -> dict[str, tuple[str, ...]]:
    """Role with rights on a legacy table -> the path that its sessions begin with."""
    own, default = _role_settings(connection), default_path(connection)
    return {role: own.get(role, default) for role in roles_with_rights(connection)}


def of_functions(
    connection: BaseDatabaseWrapper, there: Place | None = None
) -> tuple[str, ...]:
    """The path that the sync's functions pin: the old application's, as its triggers expect.

    The shop's own triggers fire beneath these functions.  ``$user`` is resolved, for the role
    that the old application connects as; ``terrain`` is left out; after the cut-over
    ``legacy`` comes first; temporary tables are looked for last.  ``there`` is where the tables
    will be, if not where they are.
    """
    paths = effective_paths(connection)
    me = catalog.value(connection, "SELECT current_user")
    # The application's own role says more than the owner's.
    role = next((role for role in paths if role != me), me)
    path = paths.get(role, default_path(connection))
    schemas = {
        name for (name,) in catalog.rows(connection, "SELECT nspname FROM pg_namespace")
    }
    names = [role if name == "$user" else name for name in path]
    ours = (SCHEMA, LEGACY, "pg_temp")
    pinned = [name for name in names if name in schemas and name not in ours]
    if (there or catalog.where(connection)).is_cut_over:
        pinned.insert(0, LEGACY)
    return (*dict.fromkeys(pinned), "pg_temp")


def other_sessions(connection: BaseDatabaseWrapper) -> list[Session]:
    """Connections to this database that are not this project's, oldest first.

    This project's are those of its own role under its own name.
    """
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
            "   AND pid <> pg_backend_pid()"
            "   AND NOT (usename = current_user AND application_name = 'terrain')"
            " ORDER BY backend_start, pid",
        )
    ]


# --- extending, for an application that runs on beyond the cut-over -------------------------


def is_extended(connection: BaseDatabaseWrapper) -> bool:
    """Whether every role with rights on the legacy tables finds them in ``legacy``."""
    paths = effective_paths(connection)
    return bool(paths) and all(LEGACY in path for path in paths.values())


def may_alter_database(connection: BaseDatabaseWrapper) -> bool:
    """Whether the database is ours."""
    return bool(
        catalog.value(
            connection,
            "SELECT pg_has_role(current_user, datdba, 'USAGE') FROM pg_database"
            " WHERE datname = current_database()",
        )
    )


def extend(connection: BaseDatabaseWrapper) -> Prepared:
    """Put ``legacy`` before the path that each role has: the database's, or its own."""
    set_for: list[tuple[str, tuple[str, ...]]] = []
    beyond: list[str] = []
    database = catalog.value(connection, "SELECT current_database()")
    default = default_path(connection)
    is_ours = may_alter_database(connection)
    with transaction.atomic(using=connection.alias):
        if is_ours and LEGACY not in default:
            path = (LEGACY, *default)
            _alter(connection, f"DATABASE {sql.ident(database)}", path)
            set_for.append((f"database {database}", path))
        for role, theirs in sorted(_to_extend(connection, is_ours).items()):
            path = (LEGACY, *theirs)
            target = f"ROLE {sql.ident(role)} IN DATABASE {sql.ident(database)}"
            try:
                with transaction.atomic(using=connection.alias):
                    _alter(connection, target, path)
                set_for.append((f"role {role}", path))
            except DatabaseError:
                beyond.append(role)
    return Prepared(tuple(set_for), tuple(beyond))


def _to_extend(
    connection: BaseDatabaseWrapper, is_ours: bool
) -> dict[str, tuple[str, ...]]:
    """The roles that need a path of their own, with the one that they have."""
    found = role_paths(connection)
    if not is_ours:
        found = effective_paths(connection) | found
    return {role: path for role, path in found.items() if LEGACY not in path}


def statement_for(connection: BaseDatabaseWrapper, role: str) -> str:
    """The statement that puts ``legacy`` before what a role has for its path."""
    has = _role_settings(connection).get(role) or default_path(connection)
    path = (LEGACY, *_without_legacy(has))
    return f"ALTER {_plain_role(connection, role)} SET search_path = {join(path)};"


def statement_against(connection: BaseDatabaseWrapper, role: str) -> str:
    """The statement that takes ``legacy`` out of the path of a role."""
    path = _role_settings(connection)[role]
    change = _undoing(path, _fallback(connection, role))
    return f"ALTER {_plain_role(connection, role)} {change};"


def _plain_role(connection: BaseDatabaseWrapper, role: str) -> str:
    """A role in this database, quoted only where need be."""
    database = catalog.value(connection, "SELECT current_database()")
    return f"ROLE {join([role])} IN DATABASE {join([database])}"


def undo(connection: BaseDatabaseWrapper) -> Undone:
    """Take ``legacy`` out of every path again."""
    database = catalog.value(connection, "SELECT current_database()")
    undone: list[str] = []
    beyond: list[str] = []
    path = database_path(connection)
    if path is not None and LEGACY in path and may_alter_database(connection):
        change = _undoing(path, DEFAULT)
        catalog.execute(connection, [f"ALTER DATABASE {sql.ident(database)} {change}"])
        undone.append(f"database {database}")
    for role, theirs in sorted(role_paths(connection).items()):
        if LEGACY in theirs:
            target = f"ROLE {sql.ident(role)} IN DATABASE {sql.ident(database)}"
            change = _undoing(theirs, _fallback(connection, role))
            try:
                with transaction.atomic(using=connection.alias):
                    catalog.execute(connection, [f"ALTER {target} {change}"])
                undone.append(f"role {role}")
            except DatabaseError:
                beyond.append(role)
    return Undone(tuple(undone), tuple(beyond))


def _alter(connection: BaseDatabaseWrapper, target: str, path: Iterable[str]) -> None:
    catalog.execute(connection, [f"ALTER {target} SET search_path = {join(path)}"])


def _without_legacy(path: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in path if name != LEGACY)


def _undoing(path: tuple[str, ...], fallback: tuple[str, ...]) -> str:
    """What ``ALTER … `` ends with: without the setting there would be ``fallback``."""
    rest = _without_legacy(path)
    plain = (DEFAULT, ("public",))
    if rest in ((), fallback) or (rest in plain and fallback in plain):
        return "RESET search_path"
    return f"SET search_path = {join(rest)}"


def _fallback(connection: BaseDatabaseWrapper, role: str) -> tuple[str, ...]:
    """The path of a role that has none of its own in this database."""
    everywhere = catalog.value(
        connection,
        "SELECT c FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole"
        " CROSS JOIN LATERAL unnest(s.setconfig) c"
        " WHERE s.setdatabase = 0 AND r.rolname = %s AND c LIKE 'search_path=%%'",
        [role],
    )
    if everywhere:
        return split(everywhere.partition("=")[2])
    return _without_legacy(default_path(connection))
