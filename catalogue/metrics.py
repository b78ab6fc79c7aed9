"""What is measured of the catalogue and of tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from django.db.backends.base.base import BaseDatabaseWrapper
from prometheus_client.core import Metric

from catalogue import usage
from catalogue.models import Asset, PublicationStatus, Table, UsageSource
from terrain.monitoring import sources
from terrain.monitoring.sources import counter, gauge, known

#: Seconds that a count over all tables or libraries stays good.
DEAR = 60

_FILE = Path(__file__).with_suffix(".sql")


def register() -> None:
    """Have all this measured."""
    sources.register("asset_usage", _usage)
    sources.register("asset_usage_waiting", _waiting)
    sources.register("assets", _assets, seconds=DEAR)
    sources.register("tables", _tables, seconds=DEAR)


def _usage(connection: BaseDatabaseWrapper) -> Iterator[Metric]:
    found = {each.source: each for each in usage.totals(connection)}
    for name, what in (
        ("adds", "An asset came onto a table that had it not."),
        ("removals", "An asset went from a table that had it."),
        ("uses", "An asset was placed once more."),
    ):
        yield counter(
            f"terrain_asset_{name}",
            f"{what} Source: the table's layout, or its library by hand.",
            ["source"],
            [
                ([source], getattr(found.get(source), name, 0))
                for source in UsageSource.values
            ],
        )


def _waiting(connection: BaseDatabaseWrapper) -> Iterator[Metric]:
    """By itself: where so many wait that telling them apart takes too long, it is to be seen."""
    yield gauge(
        "terrain_asset_usage_waiting",
        "Changes counted and not summed up yet: roll_up_usage does that.",
        [],
        [([], usage.waiting(connection))],
    )


def _assets(connection: BaseDatabaseWrapper) -> Iterator[Metric]:
    numbers: Counter[tuple[str, str]] = Counter()
    for status, visibility, number in sources.ask(connection, _FILE, "assets"):
        key = known(PublicationStatus, status), known(Asset.Visibility, visibility)
        numbers[key] += number
    yield gauge(
        "terrain_assets",
        "Assets of the catalogue, by status and visibility.",
        ["status", "visibility"],
        numbers.items(),
    )


def _tables(connection: BaseDatabaseWrapper) -> Iterator[Metric]:
    numbers: Counter[tuple[str, str, str, str]] = Counter()
    for kind, plan, status, owner, number in sources.ask(connection, _FILE, "tables"):
        labels = known(Table.Plan, plan), owner, kind, known(Table.Status, status)
        numbers[labels] += number
    yield gauge(
        "terrain_tables",
        "Tables, by plan and by whose they are (a user's, a visitor's session's, nobody's yet).",
        ["plan", "owner", "kind", "status"],
        numbers.items(),
    )
