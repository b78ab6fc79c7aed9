"""What the move will be like: how long it takes, and what it locks meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from terrain import locks
from terrain.legacy.mapping import BY_NEW
from terrain.legacy.preflight.asking import Situation
from terrain.legacy.preflight.server import legacy_bytes

#: Rows a second, measured at scale 1 on two lightly loaded cores: the copies, the
#: customers, and the indexes and constraints that come after.
SPEED: Mapping[str, int] = {
    "artists": 20_000,
    "assets": 80_000,
    "user_tables": 30_000,
    "example_tables": 30_000,
    "orders": 16_000,
    "stripe_transfers": 120_000,
}


@dataclass(frozen=True)
class Lock:
    """What a step locks: ``blocks`` whom, ``lasting`` how long, both in words."""

    step: str
    tables: tuple[str, ...]
    mode: str
    blocks: str
    lasting: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Outlook:
    """Rows of each table, bytes now, seconds for the copies, and the locks in order."""

    rows: Mapping[str, int]
    bytes: int
    seconds: float
    locks: tuple[Lock, ...]


def outlook(situation: Situation) -> Outlook:
    """The estimate: rows by the planner's count, or counted where it has none."""
    rows = {
        table: _rows(situation, name) for table, name in situation.qualified.items()
    }
    seconds = sum(number / SPEED[table] for table, number in rows.items()) * 1.5
    return Outlook(rows, legacy_bytes(situation), seconds, _locks(situation))


def _rows(situation: Situation, table: str) -> int:
    """How many rows ``table`` (quoted, qualified) has, about."""
    planned, readable = situation.rows(
        "SELECT c.reltuples, has_table_privilege(c.oid, 'SELECT') FROM pg_class c"
        " WHERE c.oid = to_regclass(%s)",
        [table],
    )[0]
    if planned < 0 and readable:  # never analysed
        return int(situation.value(f"SELECT count(*) FROM {table}"))
    return max(0, int(planned))


def _locks(situation: Situation) -> tuple[Lock, ...]:
    """Each step's locks on tables that the old application uses."""
    attempt = (
        f"a moment, after waiting {locks.LOCK_TIMEOUT} ms at most for each attempt"
    )
    legacy = tuple(f"legacy.{table}" for table in situation.tables)
    moving = [
        Lock(f"move {table}", (f"public.{table}",), "ACCESS EXCLUSIVE", "all", attempt)
        for table, schema in situation.tables.items()
        if schema == "public"
    ]
    return (
        *moving,
        Lock(
            "keep in step",
            (*legacy, *(f"public.{new}" for new in BY_NEW)),
            "SHARE ROW EXCLUSIVE",
            "writers, of one table at a time",
            attempt,
        ),
        Lock(
            "copy",
            legacy,
            "ROW SHARE",
            "deletions of rows of one batch",
            "a batch, about 80 ms while others are connected",
        ),
    )
