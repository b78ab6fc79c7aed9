"""The guide: its steps, how far each is, and what comes next.

Nothing here remembers anything.  What is done is read from the database itself: where the
tables are, which migrations are applied, what the ledger says.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from terrain import locks
from terrain.legacy import (
    backup,
    catalog,
    cleanup,
    copying,
    cut_over,
    guard,
    ledger,
    sql,
    usage,
)
from terrain.legacy.mapping import LENSES
from terrain.legacy.models import Quarantine, Run
from terrain.pace import control
from terrain.pace.models import PaceState
from terrain.progress import Progress

#: How long a process may take to start before it must hold its lock.
STARTING = datetime.timedelta(seconds=20)


class State(StrEnum):
    """How far a step is."""

    DONE = "done"
    RUNNING = "running"
    PAUSED = "paused"
    PENDING = "pending"
    FAILED = "failed"


@dataclass(frozen=True)
class Step:
    """A step of the guide.

    ``rate`` is rows a second, ``left`` and ``seconds`` (at work until now) are seconds;
    None if unknown.
    """

    name: str
    command: str
    state: State
    detail: str = ""
    rows: int | None = None
    total: int | None = None
    rate: float | None = None
    left: float | None = None
    seconds: float | None = None

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "state": str(self.state)}


def steps(connection: BaseDatabaseWrapper, backups: Path) -> list[Step]:
    """Every step of the guide, in order."""
    at_work = bool(locks.at_work(connection))
    found = catalog.legacy_tables(connection)
    is_legacy = bool(found) or cleanup.is_cleaned_up(connection)
    made = [_migrate(connection, found)]
    if is_legacy:
        before = [_backup(connection, backups, found)]
        made = [*before, *made, *_copies(connection, at_work), _settle(connection)]
    made.append(_assets(connection))
    if is_legacy:
        made += [_verify(connection), _cut_over(connection), _cleanup(connection)]
    reports = (
        control.states(connection)
        if catalog.new_table_exists(connection, PaceState._meta.db_table)
        else []
    )
    return [_with_pace(step, reports) for step in made]


def _with_pace(step: Step, reports: list[control.Report]) -> Step:
    """What a run that is at work on the step says of its pace."""
    for report in reports:
        # Of migrate there are several steps, and each is called by its own name.
        is_command = step.command == report.step != "migrate"
        if step.state != State.DONE and (step.name == report.step or is_command):
            paused = report.state == PaceState.State.PAUSED
            state = State.PAUSED if paused else State.RUNNING
            return replace(step, state=state, detail=report.why)
    return step


def next_step(found: list[Step]) -> Step | None:
    """What to type next, if anything is left.  What was interrupted comes first."""
    left = [step for step in found if step.state != State.DONE]
    paused = [step for step in left if step.state == State.PAUSED]
    return next(iter([*paused, *left]), None)


def has_ledger(connection: BaseDatabaseWrapper) -> bool:
    return catalog.new_table_exists(connection, "legacy_run")


def _last(connection: BaseDatabaseWrapper, step: str) -> Run | None:
    return ledger.last(step, connection.alias) if has_ledger(connection) else None


def _backup(
    connection: BaseDatabaseWrapper, backups: Path, found: dict[str, str]
) -> Step:
    proven = backup.latest_proven(
        backups, connection.settings_dict["NAME"], catalog.system(connection)
    )
    if proven is None:
        state = State.PENDING
        why = backup.why_unreadable(backups)
        detail = (
            f"{backups} cannot be read ({why})"
            if why
            else f"no proven backup in {backups}"
        )
    else:
        state, detail = State.DONE, f"proven, taken {_age(proven.taken_at)} ago"
    return Step("backup", "backup_database", state, detail)


def _age(moment: datetime.datetime) -> str:
    seconds = (datetime.datetime.now(datetime.UTC) - moment).total_seconds()
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _migrate(connection: BaseDatabaseWrapper, found: dict[str, str]) -> Step:
    if guard.is_half_way_back(connection):
        return Step(
            "migrate",
            "rollback_migration",
            State.PAUSED,
            "half-way back; run rollback_migration to go on",
        )
    if catalog.migrated_at(connection) is not None:
        return Step("migrate", "migrate", State.DONE, "all rows are copied and in step")
    if found and catalog.is_begun(connection):
        return Step(
            "migrate", "migrate", State.PAUSED, "half-way; run migrate to go on"
        )
    detail = ""
    if catalog.schema_exists(connection, catalog.PARKED):
        detail = "rolled back; the new tables are parked"
    return Step("migrate", "migrate", State.PENDING, detail)


def _copies(connection: BaseDatabaseWrapper, at_work: bool) -> Iterator[Step]:
    begun = catalog.is_begun(connection)
    back = _last(connection, guard.ROLLBACK)
    for table in (LENSES[0].legacy, "customers", *(lens.legacy for lens in LENSES[1:])):
        name = copying.step_name(table)
        run = _last(connection, name)
        if cleanup.is_cleaned_up(connection):
            yield Step(name, "migrate", State.DONE, rows=run.rows if run else None)
        elif run is None or not begun or (back is not None and run.pk < back.pk):
            yield Step(name, "migrate", State.PENDING)
        else:
            yield _copy(name, run, at_work)


def _copy(name: str, run: Run, at_work: bool) -> Step:
    if run.state == Run.State.DONE:
        return Step(
            name,
            "migrate",
            State.DONE,
            f"{run.seconds:.1f} s",
            run.rows,
            run.rows,
            seconds=run.seconds,
        )
    done = sum(run.batches.values_list("rows", flat=True))
    seconds = sum(run.batches.values_list("seconds", flat=True))
    progress = Progress(name, done, run.total, seconds)
    return Step(
        name,
        "migrate",
        State.RUNNING if at_work else State.PAUSED,
        "" if at_work else "interrupted; run migrate to go on",
        done,
        run.total,
        progress.rate,
        progress.left,
        seconds,
    )


def _settle(connection: BaseDatabaseWrapper) -> Step:
    if cleanup.is_cleaned_up(connection):
        return Step("settle", "settle", State.DONE, "no longer needed")
    if not catalog.table_exists(connection, "rebuilt", "queue"):
        return Step("settle", "settle", State.PENDING)
    waiting = catalog.value(connection, "SELECT count(*) FROM rebuilt.queue")
    state = State.DONE if not waiting else State.PENDING
    return Step(
        "settle", "settle", state, f"rows that wait: {waiting:,}", total=waiting
    )


def _assets(connection: BaseDatabaseWrapper) -> Step:
    command = "copy_models_to_assets"
    if not catalog.new_table_exists(connection, "models"):
        return Step("assets", command, State.PENDING)
    models, waiting = catalog.rows(
        connection,
        "SELECT (SELECT count(*) FROM @new.models),"
        "       (SELECT count(*) FROM @new.models m"
        "         WHERE NOT EXISTS (SELECT FROM @new.assets a WHERE a.id = m.id)"
        "           AND NOT EXISTS (SELECT FROM @new.assets a WHERE a.model_id = m.id)"
        "           AND NOT EXISTS (SELECT FROM @new.legacy_quarantine q"
        "                            WHERE q.legacy_table = 'models' AND q.legacy_id = m.id))",
    )[0]
    done = catalog.migrated_at(connection) is not None and not waiting
    return Step(
        "assets",
        command,
        State.DONE if done else State.PENDING,
        f"{waiting:,} models have no asset yet" if waiting else "",
        models - waiting,
        models,
    )


def _verify(connection: BaseDatabaseWrapper) -> Step:
    run = _last(connection, "verify")
    since = catalog.migrated_at(connection)
    if run is None or since is None or run.started_at < since:
        return Step("verify", "verify_migration", State.PENDING)
    if run.state == Run.State.RUNNING and is_verifying(connection, run):
        return Step("verify", "verify_migration", State.RUNNING)
    if not run.detail.get("passed"):
        failed = ", ".join(run.detail.get("failures", ())) or "it did not end"
        return Step(
            "verify", "verify_migration", State.FAILED, failed, seconds=run.seconds
        )
    detail = f"{run.detail['checks']} checks passed {_age(run.started_at)} ago"
    return Step("verify", "verify_migration", State.DONE, detail, seconds=run.seconds)


def is_verifying(connection: BaseDatabaseWrapper, run: Run) -> bool:
    """Whether a verification is at work, or has been started from a page a moment ago."""
    age = datetime.datetime.now(datetime.UTC) - run.started_at
    return age < STARTING or bool(locks.at_work(connection, locks.VERIFY_LOCK))


def _cut_over(connection: BaseDatabaseWrapper) -> Step:
    if cut_over.is_done(connection) or cleanup.is_cleaned_up(connection):
        return Step("cut over", "cut_over", State.DONE, "the new tables are in public")
    return Step(
        "cut over",
        "cut_over",
        State.PENDING,
        "when the old application has been stopped",
    )


def _cleanup(connection: BaseDatabaseWrapper) -> Step:
    if cleanup.is_cleaned_up(connection):
        return Step(
            "cleanup", "cleanup_legacy", State.DONE, "the legacy tables are gone"
        )
    return Step(
        "cleanup",
        "cleanup_legacy",
        State.PENDING,
        "after the cut-over, when the old application is gone for good",
    )


# --- how long it took ----------------------------------------------------------------------

#: In the ledger, before the name of a command that upgrade has run.
RAN = "command "


def write_times(
    connection: BaseDatabaseWrapper, times: list[tuple[str, float]]
) -> None:
    """Write down what upgrade's commands took, as soon as there is a ledger; empties it."""
    if not has_ledger(connection):
        return
    for command, seconds in times:
        run = Run(step=RAN + command, state=Run.State.DONE, seconds=seconds)
        run.finished_at = timezone.now()
        run.save(using=connection.alias)
    times.clear()


def took(connection: BaseDatabaseWrapper) -> dict[str, float]:
    """Step of the guide -> seconds it took, where that is known."""
    found = {}
    for name, command in COMMANDS.items():
        run = _last(connection, RAN + command)
        if run is not None:
            found[name] = run.seconds
    for table in ("customers", *(lens.legacy for lens in LENSES)):
        run = _last(connection, copying.step_name(table))
        if run is not None:
            found[run.step] = run.seconds
    return found


#: Step of the guide -> the command that does it, and nothing else.
COMMANDS = {
    "backup": "backup_database",
    "migrate": "migrate",
    "settle": "settle",
    "assets": "copy_models_to_assets",
    "verify": "verify_migration",
    "cut over": "cut_over",
}


# --- the guide's verification queries --------------------------------------------------------

#: As they are typed into psql after the cut-over, where these names mean the new tables.
QUERIES = (
    "SELECT role, count(*) FROM users GROUP BY role ORDER BY role",
    "SELECT status, count(*) FROM models GROUP BY status ORDER BY status",
    "SELECT status, count(*) FROM assets GROUP BY status ORDER BY status",
    "SELECT kind, count(*) FROM tables GROUP BY kind ORDER BY kind",
    "SELECT count(*) FROM orders",
    "SELECT count(*), sum(total_price) FROM order_items",
    "SELECT count(*), sum(amount) FROM payments",
)


def answers(connection: BaseDatabaseWrapper) -> list[tuple[str, str]]:
    """Each of :data:`QUERIES` with its answer: rows apart by commas, none before the cut-over."""
    if not catalog.where(connection).is_cut_over:
        return []
    return [
        (
            query,
            ", ".join(
                " ".join(map(str, row)) for row in catalog.rows(connection, query)
            ),
        )
        for query in QUERIES
    ]


# --- the table at the end ------------------------------------------------------------------


@dataclass(frozen=True)
class Moved:
    """What became of one legacy table."""

    legacy: str
    new: str
    rows: int
    new_rows: int
    held: int
    flagged: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def summary(connection: BaseDatabaseWrapper) -> list[Moved]:
    """Legacy table -> new table, rows, quarantined rows, seconds of copying."""
    with usage.ours(connection):
        return list(_summary(connection))


def _summary(connection: BaseDatabaseWrapper) -> Iterator[Moved]:
    for lens in LENSES:
        run = _last(connection, copying.step_name(lens.legacy))
        quarantined = Quarantine.objects.using(connection.alias).filter(
            legacy_table=lens.legacy
        )
        rows = catalog.value(
            connection, f"SELECT count(*) FROM {sql.legacy_table(lens.legacy)}"
        )
        new_rows = catalog.value(
            connection,
            f"SELECT count(*) FROM {sql.new_table(lens.new)} n WHERE {lens.own}",
        )
        yield Moved(
            lens.legacy,
            f"{lens.new}, {lens.part.table}" if lens.part else lens.new,
            rows,
            new_rows,
            quarantined.filter(kind="held").count(),
            quarantined.filter(kind="flagged").count(),
            run.seconds if run is not None else 0.0,
        )
