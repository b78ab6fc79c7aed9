"""What is measured.  Each app registers its own, and the move registers itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from terrain.sqlfiles import statements

Collect = Callable[[BaseDatabaseWrapper], Iterable[Metric]]


@dataclass(frozen=True)
class Source:
    """Something that is measured together, ``seconds`` being how long it stays good.

    0: it is asked at every scrape.  More: counting is dear, and a scrape gets the same
    answer again until that time is over and its turn has come.
    """

    name: str
    collect: Collect
    seconds: float = 0


_registered: dict[str, Source] = {}


def register(name: str, collect: Collect, *, seconds: float = 0) -> None:
    """Have ``collect`` asked; it takes a connection, and yields metrics.

    It may raise ``DatabaseError``: then its tables are not there, or the database is not.
    """
    _registered[name] = Source(name, collect, seconds)


def registered() -> list[Source]:
    """Everything that is measured, in the order of registration."""
    return list(_registered.values())


# --- for those who measure -----------------------------------------------------------------


def ask(
    connection: BaseDatabaseWrapper,
    file: Path,
    name: str,
    params: Mapping[str, Any] | None = None,
) -> list[tuple[Any, ...]]:
    """All rows of a statement in a file of named ones."""
    with connection.cursor() as cursor:
        cursor.execute(statements(file)[name], params)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def known(choices: type[models.TextChoices], value: str) -> str:
    """A value as a label: what nobody has thought of must not make ever more of them."""
    return value if value in choices.values else "other"


def gauge(
    name: str,
    help_text: str,
    labels: Sequence[str],
    samples: Iterable[tuple[Sequence[str], Any]],
) -> Metric:
    """A value that goes up and down, for each set of labels; a None is left out."""
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for values, value in samples:
        if value is not None:
            family.add_metric(values, float(value))
    return family


def counter(
    name: str,
    help_text: str,
    labels: Sequence[str],
    samples: Iterable[tuple[Sequence[str], Any]],
) -> Metric:
    """A number that only grows; Prometheus calls it ``<name>_total``."""
    family = CounterMetricFamily(name, help_text, labels=labels)
    for values, value in samples:
        if value is not None:
            family.add_metric(values, float(value))
    return family
