"""What is done with assets: adds, removals and uses, by asset and day.

The database's triggers append every change to ``asset_usage_log``
(``migrations/0005_count_usage.sql`` says what counts).  :func:`roll_up` sums it up, now
and then; what is read here is complete at any time, summed up or not.
"""

from __future__ import annotations

import datetime
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from terrain import locks
from terrain.sqlfiles import render, statements

#: Changes summed up in one transaction: a second's work if each is a table of 200 pieces.
TAKEN_AT_ONCE = 500
#: Rows that :func:`by_asset_and_day` gives at most, unless told otherwise.
ROWS = 1000


@dataclass(frozen=True)
class Counted:
    """What was done with all assets together, in layouts or in libraries (``source``)."""

    source: str
    adds: int
    removals: int
    uses: int


@dataclass(frozen=True)
class OfAsset:
    """What was done with an asset on a day (UTC)."""

    asset: uuid.UUID
    day: datetime.date
    source: str
    adds: int
    removals: int
    uses: int

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "asset": str(self.asset), "day": self.day.isoformat()}


def _sql(name: str) -> str:
    """A statement of usage.sql, with the entries of the log told apart by asset."""
    source = statements(Path(__file__).with_suffix(".sql"))
    told_apart = source["told_apart"]
    return render(
        source[name],
        waiting=render(told_apart, log="asset_usage_log"),
        of_taken=render(told_apart, log="taken"),
    )


def roll_up(connection: BaseDatabaseWrapper) -> int:
    """Sum up what was counted since the last time; returns how many changes.

    In short transactions, so that it can be stopped at any time.  If somebody else is at
    it, that is left to them.
    """
    total = 0
    while True:
        taken: int
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [locks.USAGE_LOCK])
            if not cursor.fetchone()[0]:
                return total
            cursor.execute(_sql("roll_up"), {"limit": TAKEN_AT_ONCE})
            (taken,) = cursor.fetchone()
        total += taken
        if taken < TAKEN_AT_ONCE:
            return total


def totals(connection: BaseDatabaseWrapper) -> list[Counted]:
    """Everything that was ever counted, by source."""
    with connection.cursor() as cursor:
        cursor.execute(_sql("totals"))
        return [Counted(*row) for row in cursor.fetchall()]


def waiting(connection: BaseDatabaseWrapper) -> int:
    """How many changes have not been summed up yet."""
    with connection.cursor() as cursor:
        cursor.execute(_sql("waiting"))
        number: int = cursor.fetchone()[0]
    return number


def by_asset_and_day(
    connection: BaseDatabaseWrapper,
    *,
    since: datetime.date,
    until: datetime.date,
    asset: uuid.UUID | None = None,
    artist: uuid.UUID | None = None,
    limit: int = ROWS,
) -> list[OfAsset]:
    """What was done from one day to another, both included; the newest day first.

    Of one asset, or of the assets of one artist, where that is given.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            _sql("by_asset_and_day"),
            {
                "since": since,
                "until": until,
                "asset": asset,
                "artist": artist,
                "limit": limit,
            },
        )
        return [OfAsset(*row) for row in cursor.fetchall()]
