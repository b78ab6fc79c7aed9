"""Which schema this project's tables are in, for the few places that must name it.

The tables change schemas when the old application's have gone, so no statement names one: the
search path of the connection finds them.  A lock is asked for by the full name, and a
function keeps the path that it was made with; both are looked up when they are needed.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.db.backends.base.base import BaseDatabaseWrapper


def qualified(connection: BaseDatabaseWrapper, table: str) -> str:
    """The name of a table that the connection sees, with its schema.

    One that is not there gets the schema that it would be made in.  Nothing is quoted: both
    are plain identifiers, as :mod:`terrain.locks` wants them.
    """
    (name,) = all_qualified(connection, [table])
    return name


def all_qualified(
    connection: BaseDatabaseWrapper, tables: Iterable[str]
) -> tuple[str, ...]:
    """The same of several tables, in their order and with one question; each once."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT concat_ws('.', coalesce(s.nspname, current_schema()), u.t)"
            "  FROM unnest(%s::text[]) WITH ORDINALITY AS u (t, n)"
            "  LEFT JOIN pg_class c ON c.oid = to_regclass(quote_ident(u.t))"
            "  LEFT JOIN pg_namespace s ON s.oid = c.relnamespace"
            " ORDER BY u.n",
            [list(dict.fromkeys(tables))],
        )
        return tuple(name for (name,) in cursor.fetchall())


def own_path(connection: BaseDatabaseWrapper) -> str:
    """The schemas that the connection looks in, quoted: what a function is to look in.

    pg_catalog and pg_temp are left out: the first is looked in anyway, and before all others.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT string_agg(quote_ident(u.s), ', ' ORDER BY u.n)"
            "  FROM unnest(current_schemas(false)) WITH ORDINALITY AS u (s, n)"
            " WHERE u.s !~ '^pg_'"
        )
        path: str | None = cursor.fetchone()[0]
    if path is None:
        raise LookupError("The search path names no schema that is there.")
    return path
