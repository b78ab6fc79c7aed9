"""What is measured of visitors without an account."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from django.db.backends.base.base import BaseDatabaseWrapper
from prometheus_client.core import Metric

from terrain.monitoring import sources
from terrain.monitoring.sources import gauge

#: Seconds that a count over all sessions stays good.
DEAR = 60

_FILE = Path(__file__).with_suffix(".sql")


def register() -> None:
    """Have all this measured."""
    sources.register("sessions", _sessions, seconds=DEAR)


def _sessions(connection: BaseDatabaseWrapper) -> Iterator[Metric]:
    (row,) = sources.ask(connection, _FILE, "sessions")
    sessions, seen, full, full_seen = row
    yield gauge(
        "terrain_sessions",
        "Visitors without an account: ever, and seen in the last day.",
        ["seen"],
        [(["ever"], sessions), (["day"], seen)],
    )
    yield gauge(
        "terrain_sessions_at_limit",
        "Those of them who may keep no further table.",
        ["seen"],
        [(["ever"], full), (["day"], full_seen)],
    )
