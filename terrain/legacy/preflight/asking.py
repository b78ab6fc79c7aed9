"""What every question starts from, and what it answers with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from terrain.legacy import catalog, sql
from terrain.legacy.findings import EXAMPLES, Finding, Severity
from terrain.legacy.mapping import LENSES
from terrain.legacy.schema import Lens

OLDEST_SERVER = 140000
#: Seconds a transaction may be open before it is worth a word.
PATIENCE = 5.0


@dataclass(frozen=True)
class Situation:
    """The tables that are there, and in which schema.

    ``free`` is the room on the server's disk in bytes, None if it is to be looked up;
    ``oldest`` the server that will do, as ``server_version_num`` has it.
    """

    connection: BaseDatabaseWrapper
    tables: Mapping[str, str]
    lenses: tuple[Lens, ...] = LENSES
    free: int | None = None
    oldest: int = OLDEST_SERVER
    patience: float = PATIENCE

    @property
    def qualified(self) -> dict[str, str]:
        """Legacy table -> its quoted, qualified name."""
        return {
            table: sql.ident(schema, table) for table, schema in self.tables.items()
        }

    @property
    def is_to_begin(self) -> bool:
        """Whether the move has still to begin."""
        return not catalog.is_begun(self.connection)

    def rows(self, query: str, params: Any = None) -> list[tuple[Any, ...]]:
        return catalog.rows(self.connection, query, params)

    def value(self, query: str, params: Any = None) -> Any:
        return catalog.value(self.connection, query, params)


Question = Callable[[Situation], Iterator[Finding]]


def found(
    name: str,
    rows: list[dict[str, Any]],
    sentence: str,
    remedy: str,
    *,
    severity: Severity = Severity.BLOCKS,
) -> Iterator[Finding]:
    """A finding with its rows, if there are any."""
    if rows:
        yield Finding(
            name, severity, sentence, remedy, tuple(rows[:EXAMPLES]), len(rows)
        )
