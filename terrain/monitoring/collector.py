"""Asks every source, and answers whatever happens to one of them.

A scrape must not hang nor fail because a table is missing (before ``migrate``, after a
rollback) or locked: each source has a transaction of its own with short limits, and one
that fails is left out and named in ``terrain_source_up``.

What is dear is kept for a while, and of what is due again one scrape asks the oldest only,
so that no scrape pays for all.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from django.db import DatabaseError, InterfaceError, OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as Base

from terrain.monitoring.sources import Source, registered

#: Milliseconds that a source may take, and wait for a lock.
STATEMENT_TIMEOUT, LOCK_TIMEOUT = 5000, 100

log = logging.getLogger("terrain.monitoring")


@dataclass(frozen=True)
class _Answer:
    metrics: list[Metric]
    at: float
    seconds: float


_kept: dict[tuple[str, str], _Answer] = {}
_keeping = threading.Lock()


def forget() -> None:
    """Ask every source anew."""
    with _keeping:
        _kept.clear()


class Collector(Base):
    """All sources, of one database."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection

    def describe(self) -> Iterator[Metric]:
        """Nothing is known before it is asked."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "terrain_source_up",
            "Whether a group of metrics could be asked; 0: its tables or the database are missing.",
            labels=["source"],
        )
        took = GaugeMetricFamily(
            "terrain_source_seconds",
            "How long asking a group of metrics took, when it was asked last.",
            labels=["source"],
        )
        age = GaugeMetricFamily(
            "terrain_source_age_seconds",
            "How long ago a group of metrics was asked; those that are dear are kept a while.",
            labels=["source"],
        )
        reachable = self._is_reachable()
        due = self._due()
        for source in registered():
            answer = self._answer(source, due) if reachable else None
            up.add_metric([source.name], answer is not None)
            if answer is not None:
                took.add_metric([source.name], answer.seconds)
                age.add_metric([source.name], max(time.monotonic() - answer.at, 0))
                yield from answer.metrics
        yield from (
            GaugeMetricFamily(
                "terrain_database_up", "Whether the database answers.", value=reachable
            ),
            up,
            took,
            age,
        )

    def _is_reachable(self) -> bool:
        """Asked once: each source would wait for a connection by itself."""
        try:
            with self.connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except (OperationalError, InterfaceError) as error:
            log.warning("No metrics: %s", str(error).strip().partition("\n")[0])
            self.connection.close_if_unusable_or_obsolete()
            return False
        return True

    def _due(self) -> Source | None:
        """Of the dear sources whose answer is not good any more, the one asked longest ago."""
        asked = [(self._kept(source), source) for source in registered()]
        over = [
            (kept.at, source.name, source)
            for kept, source in asked
            if kept is not None and time.monotonic() - kept.at >= source.seconds > 0
        ]
        return min(over)[2] if over else None

    def _kept(self, source: Source) -> _Answer | None:
        with _keeping:
            return _kept.get((source.name, self._database))

    @property
    def _database(self) -> str:
        return str(self.connection.settings_dict["NAME"])

    def _answer(self, source: Source, due: Source | None) -> _Answer | None:
        kept = self._kept(source)
        if kept is not None and source.seconds and source != due:
            return kept
        started = time.monotonic()
        try:
            with transaction.atomic(using=self.connection.alias):
                self._limit()
                metrics = list(source.collect(self.connection))
        except DatabaseError as error:
            first = str(error).strip().partition("\n")[0]
            log.info("No metrics of %s: %s", source.name, first)
            return None
        answer = _Answer(metrics, time.monotonic(), time.monotonic() - started)
        with _keeping:
            _kept[source.name, self._database] = answer
        return answer

    def _limit(self) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('statement_timeout', %s, true),"
                " set_config('lock_timeout', %s, true)",
                [f"{STATEMENT_TIMEOUT}ms", f"{LOCK_TIMEOUT}ms"],
            )
