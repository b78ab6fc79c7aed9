"""What the move will be like: how long it takes, and what it locks meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from terrain.legacy.preflight.asking import Situation
from terrain.legacy.preflight.locking import Lock, foretold
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
class Outlook:
    """Rows of each table, bytes now, seconds for the copies, and the locks in order."""

    rows: Mapping[str, int]
    bytes: int
    seconds: float
    locks: tuple[Lock, ...]


def outlook(situation: Situation, seen: frozenset[str] = frozenset()) -> Outlook:
    """The estimate: rows by the planner's count, or counted where it has none.

    ``seen`` are the transactions that were open a while ago.
    """
    rows = {
        table: _rows(situation, name) for table, name in situation.qualified.items()
    }
    seconds = sum(number / SPEED[table] for table, number in rows.items()) * 1.5
    return Outlook(rows, legacy_bytes(situation), seconds, foretold(situation, seen))


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
