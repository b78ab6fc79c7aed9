"""Where the tables are: the schemas of the legacy ones and of ours, before a cut-over and after.

SQL of the move does not name these schemas.  It says ``@legacy.<table>`` and ``@new.<table>``,
and every statement that Django's connection runs is filled in with the place of that moment
(:func:`fill`).  So a declaration, a batch or a trigger's function is written once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from terrain.postgresql.schemas import PUBLIC, SCHEMA

#: Where the legacy tables are after the cut-over.  Before it they are where they always were.
LEGACY = "legacy"

_TOKEN = re.compile(r'@(legacy|new)\.("[^"]+"|\w+)')


@dataclass(frozen=True)
class Place:
    """``legacy`` is the schema of the legacy tables, ``own`` those of ours, in the order of the
    search path; ``kept`` are our tables that stay in ``terrain`` after the cut-over, because
    ``public`` has something else of their names."""

    legacy: str
    own: tuple[str, ...]
    kept: frozenset[str] = frozenset()

    @property
    def is_cut_over(self) -> bool:
        """Whether the names have changed places, or there never was a legacy table."""
        return PUBLIC in self.own

    def schema_of(self, table: str) -> str:
        """The schema of one of our tables."""
        return SCHEMA if table in self.kept else self.own[-1]

    def name(self, token: str) -> str:
        """The qualified name of ``@legacy.<table>`` or ``@new.<table>``; others as they are."""
        return _TOKEN.sub(lambda found: self._name(found[1], found[2]), token)

    def _name(self, side: str, table: str) -> str:
        schema = self.legacy if side == "legacy" else self.schema_of(table.strip('"'))
        return f"{schema}.{table}"

    def fill(self, text: str) -> str:
        """SQL with the schemas' names in it."""
        return self.name(text) if "@" in text else text


BEFORE = Place(PUBLIC, (SCHEMA,))
AFTER = Place(LEGACY, (PUBLIC,))


def of(connection: BaseDatabaseWrapper) -> Place:
    """Where the tables are, as far as this connection knows."""
    connection.ensure_connection()
    path: tuple[str, ...] = connection.own_path  # type: ignore[attr-defined]
    if len(path) == 1:
        forget(connection)
        return BEFORE if path == BEFORE.own else AFTER
    known: Place | None = connection.__dict__.get("_place")
    if known is None:
        known = Place(LEGACY, path, frozenset(_kept(connection)))
        connection.__dict__["_place"] = known
    return known


def forget(connection: BaseDatabaseWrapper) -> None:
    """What stays in ``terrain`` is another database's, or has changed."""
    connection.__dict__.pop("_place", None)


def _kept(connection: BaseDatabaseWrapper) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_class c WHERE c.relkind IN ('r', 'p')"
            " AND c.relnamespace = to_regnamespace(%s)",
            [SCHEMA],
        )
        return [name for (name,) in cursor.fetchall()]


def fill(
    execute: Callable[..., Any],
    statement: Any,
    params: Any,
    many: bool,
    context: dict[str, Any],
) -> Any:
    """An execute wrapper of Django's: runs the statement with the place filled in."""
    if isinstance(statement, str) and ("@legacy." in statement or "@new." in statement):
        statement = of(context["connection"]).fill(statement)
    return execute(statement, params, many, context)


def fill_statements(connection: BaseDatabaseWrapper, **_: Any) -> None:
    """Have a new connection's statements filled in (the signal ``connection_created``)."""
    forget(connection)
    if connection.vendor == "postgresql" and fill not in connection.execute_wrappers:
        connection.execute_wrappers.append(fill)
