"""Old tables to new ones: how many rows are on each side, and how far the copy between is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from django.db.backends.base.base import BaseDatabaseWrapper

from terrain.legacy import catalog, copying, sql
from terrain.legacy.guide import State, Step
from terrain.legacy.mapping import LENSES
from terrain.legacy.schema import Lens

#: Rows up to which a table is counted; beyond, the planner is asked.
COUNTED = 10_000
#: The sides that a table may be on: the same name may be on both.
OLD, NEW = "old", "new"
#: New tables that are filled from new ones, when the catalogue is made.
CATALOGUE = ("assets", "table_assets")


@dataclass(frozen=True)
class Rows:
    """How many rows a table has; ``about`` where that is the planner's idea of it.

    ``number`` is None where there is no such table.
    """

    number: int | None
    about: bool = False

    def __str__(self) -> str:
        if self.number is None:
            return "–"
        return f"{'about ' if self.about else ''}{self.number:,}"


@dataclass(frozen=True)
class Flow:
    """A legacy table, the new tables its rows go to, and how much of it has arrived.

    ``share`` is between 0 and 1; ``held`` and ``flagged`` are rows in quarantine.
    """

    legacy: str
    legacy_rows: Rows
    new: tuple[tuple[str, Rows], ...]
    state: State
    share: float
    held: int
    flagged: int


class _Quarantined(Protocol):
    """Rows of a table that are in quarantine."""

    @property
    def table(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def rows(self) -> int: ...


@dataclass(frozen=True)
class Flows:
    """All of them, and the tables of the catalogue, which new rows fill."""

    each: tuple[Flow, ...] = ()
    catalogue: tuple[tuple[str, Rows], ...] = ()
    catalogue_state: State = State.PENDING


def read(
    connection: BaseDatabaseWrapper,
    steps: Sequence[Step],
    quarantine: Sequence[_Quarantined],
) -> Flows:
    """What flows where; nothing in a database that was made new."""
    by_name = {step.name: step for step in steps}
    if copying.step_name(LENSES[0].legacy) not in by_name:
        return Flows()
    where = catalog.legacy_tables(connection)
    rows = _counted(connection, where)
    return Flows(
        tuple(
            _flow(lens, by_name[copying.step_name(lens.legacy)], rows, quarantine)
            for lens in LENSES
        ),
        tuple((table, rows[NEW, table]) for table in CATALOGUE),
        by_name["assets"].state,
    )


def _flow(
    lens: Lens,
    step: Step,
    rows: Mapping[tuple[str, str], Rows],
    quarantine: Sequence[_Quarantined],
) -> Flow:
    return Flow(
        lens.legacy,
        rows[OLD, lens.legacy],
        tuple((table, rows[NEW, table]) for table in _targets(lens)),
        step.state,
        _share(step),
        _in(quarantine, lens.legacy, "held"),
        _in(quarantine, lens.legacy, "flagged"),
    )


def _targets(lens: Lens) -> list[str]:
    return [lens.new, *([lens.part.table] if lens.part is not None else [])]


def _share(step: Step) -> float:
    if step.state == State.DONE:
        return 1.0
    return min((step.rows or 0) / step.total, 1.0) if step.total else 0.0


def _in(quarantine: Sequence[_Quarantined], table: str, kind: str) -> int:
    return sum(
        each.rows for each in quarantine if (each.table, each.kind) == (table, kind)
    )


# --- counting ------------------------------------------------------------------------------


def _counted(
    connection: BaseDatabaseWrapper, where: Mapping[str, str]
) -> dict[tuple[str, str], Rows]:
    """Rows by side and table, by one statement that reads little of large tables."""
    there = catalog.where(connection)
    old = {(OLD, lens.legacy): where.get(lens.legacy) for lens in LENSES}
    new = {
        (NEW, table): (
            there.schema_of(table)
            if catalog.new_table_exists(connection, table)
            else None
        )
        for table in (*CATALOGUE, *(name for lens in LENSES for name in _targets(lens)))
    }
    both = {**old, **new}
    found_in = {key: schema for key, schema in both.items() if schema is not None}
    found: Sequence[int] = ()
    if found_in:
        columns = (_counting(schema, key[1]) for key, schema in found_in.items())
        (found,) = catalog.rows(connection, f"SELECT {sql.joined(columns)}")
    pairs = zip(found[::2], found[1::2], strict=True)
    made = {key: _rows(*pair) for key, pair in zip(found_in, pairs, strict=True)}
    return {key: made.get(key, Rows(None)) for key in both}


def _rows(number: int, planned: int) -> Rows:
    return Rows(max(planned, number), True) if number > COUNTED else Rows(number)


def _counting(schema: str, table: str) -> str:
    """Two columns: the rows, as far as they are counted, and what the planner thinks."""
    name = sql.ident(schema, table)
    return (
        f"(SELECT count(*) FROM (SELECT FROM {name} LIMIT {COUNTED + 1}) t),"
        f" (SELECT reltuples::bigint FROM pg_class WHERE oid = {sql.literal(name)}::regclass)"
    )
