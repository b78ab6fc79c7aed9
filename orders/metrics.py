"""What is measured of orders and payments."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from prometheus_client.core import Metric

from orders.models import Order, Payment
from terrain.monitoring import sources
from terrain.monitoring.sources import gauge, known

#: Seconds that a sum over all orders or payments stays good.
DEAR = 120

_FILE = Path(__file__).with_suffix(".sql")

Sums = dict[str, tuple[int, int, Decimal]]


def register() -> None:
    """Have all this measured."""
    sources.register("newest_order", _newest)
    sources.register("orders", _orders, seconds=DEAR)
    sources.register("payments", _payments, seconds=DEAR)


def _by_status(
    rows: list[tuple[str, int, int, Decimal]], choices: type[models.TextChoices]
) -> Sums:
    """Status -> rows, rows without an amount, sum; all statuses, and the rest as other."""
    sums: Sums = {status: (0, 0, Decimal(0)) for status in [*choices.values, "other"]}
    for status, number, without, amount in rows:
        label = known(choices, status)
        had = sums[label]
        sums[label] = (had[0] + number, had[1] + without, had[2] + amount)
    return sums


def _gauges(name: str, words: tuple[str, str, str], sums: Sums) -> Iterator[Metric]:
    for index, (suffix, help_text) in enumerate(
        zip(("", "_without_amount", "_gbp"), words, strict=True)
    ):
        yield gauge(
            f"terrain_{name}{suffix}",
            help_text,
            ["status"],
            [([status], values[index]) for status, values in sums.items()],
        )


def _newest(connection: BaseDatabaseWrapper) -> Iterator[Metric]:
    yield gauge(
        "terrain_newest_order_timestamp_seconds",
        "When the newest order came.",
        [],
        [([], moment) for (moment,) in sources.ask(connection, _FILE, "newest_order")],
    )


def _orders(connection: BaseDatabaseWrapper) -> Iterator[Metric]:
    words = (
        "Orders, by status.",
        "Orders whose pricing.total is no amount, by status.",
        "What customers were charged (pricing.total) in pounds, by status of the order.",
    )
    rows = sources.ask(connection, _FILE, "orders")
    yield from _gauges("orders", words, _by_status(rows, Order.Status))


def _payments(connection: BaseDatabaseWrapper) -> Iterator[Metric]:
    words = (
        "Payments to artists, by status.",
        "Payments whose amount is NaN or not in pounds, by status.",
        "What artists were paid in pounds, by status of the payment.",
    )
    rows = sources.ask(connection, _FILE, "payments")
    yield from _gauges("payments", words, _by_status(rows, Payment.Status))
