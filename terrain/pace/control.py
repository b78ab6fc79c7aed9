"""What an operator orders from another terminal, and what runs say of themselves."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from terrain.pace.models import PaceOrder
from terrain.sqlfiles import statements

#: What a run slows down for, and so what can be ignored.
WAITING, COMMITS, REPLICAS, SLOTS, ARCHIVE = (
    "waiting",
    "commits",
    "replicas",
    "slots",
    "archive",
)
KINDS = (WAITING, COMMITS, REPLICAS, SLOTS, ARCHIVE)

RESUME = "python manage.py migration_control resume"


@cache
def query(name: str) -> str:
    """A statement of ``pace.sql``, without the comment before it."""
    text = statements(Path(__file__).parent / "pace.sql")[name]
    lines = text.strip().splitlines()
    return "\n".join(line for line in lines if not line.startswith("--"))


@dataclass(frozen=True)
class Orders:
    """The orders in force.  ``percent`` of the time is spent at work."""

    paused_at: datetime.datetime | None = None
    paused_by: str = ""
    percent: int = 100
    throttled_by: str = ""
    ignored: tuple[str, ...] = ()

    @property
    def is_paused(self) -> bool:
        return self.paused_at is not None

    @property
    def pause(self) -> str:
        """By whom and since when it is paused, and how to go on."""
        since = f"{self.paused_at:%Y-%m-%d %H:%M} UTC" if self.paused_at else ""
        return f"paused by {self.paused_by} since {since}, resume with: {RESUME}"

    @property
    def throttle(self) -> str:
        return f"throttled to {self.percent} % of the time by {self.throttled_by}"

    def sentences(self) -> list[str]:
        """What whoever begins something should know."""
        told = []
        if self.is_paused:
            told.append(f"The move is {self.pause}")
        if self.percent < 100:
            told.append(
                f"The move is {self.throttle}; end that with:"
                " python manage.py migration_control throttle off"
            )
        if self.ignored:
            told.append(
                f"The move does not slow down for {' or '.join(self.ignored)}; end that with:"
                " python manage.py migration_control ignore off"
            )
        return told

    def as_json(self) -> dict[str, Any]:
        return {
            "paused": self.is_paused,
            "paused_at": self.paused_at,
            "paused_by": self.paused_by,
            "percent": self.percent,
            "throttled_by": self.throttled_by,
            "ignored": list(self.ignored),
        }


def exists(connection: BaseDatabaseWrapper) -> bool:
    """Whether there is a place for orders: not before the first migration."""
    with connection.cursor() as cursor:
        cursor.execute(query("exists"))
        return bool(cursor.fetchone()[0])


def read(connection: BaseDatabaseWrapper) -> Orders:
    """The orders in force; the place for them must exist."""
    with connection.cursor() as cursor:
        cursor.execute(query("read_orders"))
        row = cursor.fetchone()
    if row is None:
        return Orders()
    paused_at, paused_by, percent, throttled_by, ignored = row
    return Orders(paused_at, paused_by, percent, throttled_by, tuple(ignored))


def in_force(connection: BaseDatabaseWrapper) -> Orders:
    """The orders in force, none where there is no place for them yet."""
    return read(connection) if exists(connection) else Orders()


def _order(connection: BaseDatabaseWrapper, **values: Any) -> None:
    PaceOrder.objects.using(connection.alias).update_or_create(
        pk=PaceOrder.ONE, defaults=values
    )


def _role(connection: BaseDatabaseWrapper) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        return f"role {cursor.fetchone()[0]}"


def pause(connection: BaseDatabaseWrapper, by: str | None = None) -> Orders:
    """Have every long run wait from its next batch on; returns the orders there were.

    Who is paused already stays so, by whom and since when it was.
    """
    before = read(connection)
    if not before.is_paused:
        _order(
            connection,
            paused_at=timezone.now(),
            paused_by=by or _role(connection),
        )
    return before


def resume(connection: BaseDatabaseWrapper) -> Orders:
    """Let every long run go on; returns the orders there were."""
    before = read(connection)
    if before.is_paused:
        _order(connection, paused_at=None, paused_by="")
    return before


def throttle(
    connection: BaseDatabaseWrapper, percent: int | None, by: str | None = None
) -> None:
    """Be at work for this part of the time (1 to 99 percent); None for all of it."""
    said = "" if percent is None else by or _role(connection)
    _order(connection, percent=percent, throttled_by=said)


def ignore(connection: BaseDatabaseWrapper, kinds: tuple[str, ...]) -> None:
    """Do not slow down for these (of ``KINDS``), and for all others."""
    _order(connection, ignored=sorted(set(kinds)))


# --- what runs say of themselves -----------------------------------------------------------


def forget(connection: BaseDatabaseWrapper) -> None:
    """Have no orders: in a copy of a database, whose own they are not."""
    if exists(connection):
        PaceOrder.objects.using(connection.alias).all().delete()


@dataclass(frozen=True)
class Report:
    """A run that is not at full speed; ``state`` is one of ``PaceState.State``."""

    step: str
    state: str
    why: str
    since: datetime.datetime
    pid: int

    def as_json(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "state": self.state,
            "why": self.why,
            "since": self.since,
            "pid": self.pid,
        }


def reports(connection: BaseDatabaseWrapper) -> list[Report]:
    """The runs that are not at full speed now; those whose session is gone are not told."""
    return states(connection) if exists(connection) else []


def states(connection: BaseDatabaseWrapper) -> list[Report]:
    """The same; the place for them must exist."""
    with connection.cursor() as cursor:
        cursor.execute(query("states"))
        return [Report(*row) for row in cursor.fetchall()]


def as_json(connection: BaseDatabaseWrapper) -> dict[str, Any]:
    """The orders in force, and the runs that are not at full speed."""
    return {
        "orders": in_force(connection).as_json(),
        "runs": [report.as_json() for report in reports(connection)],
    }
