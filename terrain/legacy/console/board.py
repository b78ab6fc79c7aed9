"""Everything the page of the move shows, as one value."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Count, Q
from django.utils import timezone

from terrain.legacy import backup, catalog, guide, ledger
from terrain.legacy.console import flows
from terrain.legacy.findings import Severity
from terrain.legacy.models import Quarantine, Run
from terrain.legacy.remembering import remembered
from terrain.pace import control
from terrain.pace.models import PaceOrder

#: Backups that are listed, the newest first.
SHOWN_BACKUPS = 5


@dataclass(frozen=True)
class Verified:
    """The last verification: what it found, and when it ended (None: it has not)."""

    at: datetime.datetime | None
    started_at: datetime.datetime
    findings: tuple[dict[str, Any], ...]
    is_running: bool

    @property
    def failures(self) -> int:
        bad = (Severity.BLOCKS, Severity.FAILS)
        return sum(each["severity"] in bad for each in self.findings)


@dataclass(frozen=True)
class Reason:
    """How many rows of a legacy table are in quarantine for a reason."""

    table: str
    kind: str
    reason: str
    rows: int
    undecided: int


@dataclass(frozen=True)
class Saved:
    """A backup: ``size`` in bytes; ``is_ours`` if it is of this very server."""

    name: str
    taken_at: datetime.datetime
    size: int
    rows: int
    is_proven: bool
    is_ours: bool


@dataclass(frozen=True)
class Board:
    """How things stand, at a moment."""

    at: datetime.datetime
    steps: tuple[guide.Step, ...]
    following: guide.Step | None
    flows: flows.Flows
    verified: Verified | None
    quarantine: tuple[Reason, ...]
    backups: tuple[Saved, ...]
    unreadable: str
    orders: control.Orders

    @property
    def is_running(self) -> bool:
        return any(step.state == guide.State.RUNNING for step in self.steps)

    @property
    def done(self) -> int:
        return sum(step.state == guide.State.DONE for step in self.steps)

    @property
    def said(self) -> str:
        """One sentence, for who cannot see the page change; without what changes always."""
        states = [
            f"{step.name} {'is ' if step.state != guide.State.FAILED else ''}{step.state}"
            for step in self.steps
            if step.state not in (guide.State.DONE, guide.State.PENDING)
        ]
        how_far = f"{self.done} of {len(self.steps)} steps are done"
        ordered = ["all is paused"] if self.orders.is_paused else []
        return "; ".join([how_far, *ordered, *states]) + "."


def read(connection: BaseDatabaseWrapper, folder: Path) -> Board:
    """How things stand now.  Reads only."""
    with remembered():
        steps = tuple(guide.steps(connection, folder))
        quarantine = tuple(_quarantine(connection))
        return Board(
            timezone.now(),
            steps,
            guide.next_step(list(steps)),
            flows.read(connection, steps, quarantine),
            _verified(connection, steps),
            quarantine,
            tuple(_backups(connection, folder)),
            backup.why_unreadable(folder) or "",
            _orders(connection),
        )


def _orders(connection: BaseDatabaseWrapper) -> control.Orders:
    table = PaceOrder._meta.db_table
    if not catalog.new_table_exists(connection, table):
        return control.Orders()
    return control.read(connection)


def _verified(
    connection: BaseDatabaseWrapper, steps: tuple[guide.Step, ...]
) -> Verified | None:
    if not guide.has_ledger(connection):
        return None
    run = ledger.last("verify", connection.alias)
    if run is None:
        return None
    running = any(
        step.name == "verify" and step.state == guide.State.RUNNING for step in steps
    )
    findings = run.detail.get("findings", ()) if run.state == Run.State.DONE else ()
    return Verified(run.finished_at, run.started_at, tuple(findings), running)


def _quarantine(connection: BaseDatabaseWrapper) -> list[Reason]:
    if not catalog.new_table_exists(connection, "legacy_quarantine"):
        return []
    found = (
        Quarantine.objects.using(connection.alias)
        .values_list("legacy_table", "kind", "reason")
        .annotate(rows=Count("pk"), undecided=Count("pk", Q(decided_at=None)))
        .order_by("legacy_table", "kind", "reason")
    )
    return [Reason(*row) for row in found]


def _backups(connection: BaseDatabaseWrapper, folder: Path) -> list[Saved]:
    system = catalog.system(connection)
    found = backup.find(folder, connection.settings_dict["NAME"])
    return [
        Saved(
            each.path.name,
            each.taken_at,
            sum(file["size"] for file in each.manifest["files"].values()),
            each.rows,
            each.is_proven,
            each.system == system,
        )
        for each in found[:SHOWN_BACKUPS]
    ]
