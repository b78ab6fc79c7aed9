"""What is measured of the move: how far it is, what waits, who still uses the old tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.db.backends.base.base import BaseDatabaseWrapper
from prometheus_client.core import Metric

from terrain import locks
from terrain.legacy import backup, catalog, cleanup
from terrain.legacy.catalog import REBUILT
from terrain.legacy.models import Run
from terrain.monitoring import sources
from terrain.monitoring.sources import counter, gauge

#: How the move stands, in the order in which it comes to that.
PHASES = ("none", "before", "moving", "in_step", "cut_over", "cleaned_up")
#: Seconds that a look at the folder of backups stays good.
LOOK_AT_BACKUPS = 60

_FILE = Path(__file__).with_suffix(".sql")


def register() -> None:
    """Have all this measured."""
    sources.register("move", _move)
    sources.register("move_steps", _steps)
    sources.register("verification", _verification)
    sources.register("quarantine", _quarantine)
    sources.register("settling", _settling)
    sources.register("legacy_use", _use)
    sources.register("backups", _backups, seconds=LOOK_AT_BACKUPS)


def phase(connection: BaseDatabaseWrapper) -> str:
    """How the move stands: one of :data:`PHASES`; before it, and rolled back, are alike."""
    if catalog.has_legacy_tables(connection):
        if not catalog.is_begun(connection):
            return "before"
        if catalog.migrated_at(connection) is None:
            return "moving"
        return "cut_over" if catalog.where(connection).is_cut_over else "in_step"
    return "cleaned_up" if cleanup.is_cleaned_up(connection) else "none"


def _move(connection: BaseDatabaseWrapper) -> Iterator[Metric]:
    now = phase(connection)
    yield gauge(
        "terrain_move_phase",
        "How the move stands: 1 for the phase it is in. Rolled back is before.",
        ["phase"],
        [([name], name == now) for name in PHASES],
    )
    ((at_work,),) = sources.ask(connection, _FILE, "at_work", {"lock": locks.RUN_LOCK})
    yield gauge(
        "terrain_move_at_work",
        "Whether a command that changes the database is running.",
        [],
        [([], at_work)],
    )


def _steps(connection: BaseDatabaseWrapper) -> Iterator[Metric]:
    rows = sources.ask(connection, _FILE, "steps")
    yield gauge(
        "terrain_move_step_state",
        "The state of the last run of a step: 1 for the one it is in.",
        ["step", "state"],
        [
            ([step, name], name == state)
            for step, state, *_ in rows
            for name in Run.State.values
        ],
    )
    columns = (
        ("rows", "Rows done by the last run of a step."),
        ("rows_expected", "Rows that it expects to do."),
        ("seconds", "Seconds at work, those of parallel batches added up."),
        ("finished_timestamp_seconds", "When it ended."),
        ("batch_rows", "Rows in its last batch: the pace follows what the shop bears."),
        ("batch_seconds", "Seconds that its last batch took, with the commit."),
    )
    for index, (name, help_text) in enumerate(columns):
        yield gauge(
            f"terrain_move_step_{name}",
            help_text,
            ["step"],
            [([row[0]], row[index + 2]) for row in rows],
        )


def _verification(connection: BaseDatabaseWrapper) -> Iterator[Metric]:
    rows = sources.ask(connection, _FILE, "verification")
    yield gauge(
        "terrain_verification_passed",
        "Whether the last verify_migration found nothing wrong.",
        [],
        [([], passed) for passed, _ in rows],
    )
    yield gauge(
        "terrain_verification_timestamp_seconds",
        "When it was.",
        [],
        [([], moment) for _, moment in rows],
    )


def _quarantine(connection: BaseDatabaseWrapper) -> Iterator[Metric]:
    yield gauge(
        "terrain_quarantine_rows",
        "Rows that need a person: held (not migrated) or flagged, and whether decided on.",
        ["table", "kind", "reason", "decided"],
        [
            (labels, number)
            for *labels, number in sources.ask(connection, _FILE, "quarantine")
        ],
    )


def _settling(connection: BaseDatabaseWrapper) -> Iterator[Metric]:
    if not catalog.table_exists(connection, REBUILT, "queue"):
        return
    ((number, seconds),) = sources.ask(connection, _FILE, "settling")
    yield gauge(
        "terrain_settle_waiting", "Rows that wait for settle.", [], [([], number)]
    )
    yield gauge(
        "terrain_settle_waiting_seconds",
        "How long the first of them has waited.",
        [],
        [([], seconds)],
    )


def _use(connection: BaseDatabaseWrapper) -> Iterator[Metric]:
    rows = sources.ask(connection, _FILE, "use")
    yield counter(
        "terrain_legacy_table_reads",
        "Scans of a legacy table. The sync looks rows up by index when either side writes.",
        ["table", "how"],
        [
            ([row[0], how], row[index])
            for row in rows
            for how, index in (("sequential", 1), ("index", 2))
        ],
    )
    yield counter(
        "terrain_legacy_table_writes",
        "Rows written to a legacy table, what this application writes carried over included.",
        ["table", "operation"],
        [
            ([row[0], operation], row[index])
            for row in rows
            for operation, index in (("insert", 3), ("update", 4), ("delete", 5))
        ],
    )
    if catalog.table_exists(connection, REBUILT, "used"):
        yield gauge(
            "terrain_legacy_last_write_timestamp_seconds",
            "When a role last wrote to a legacy table by a statement of its own, to the minute.",
            ["table", "role"],
            [
                ([table, role], at)
                for table, role, at in sources.ask(connection, _FILE, "written")
            ],
        )
    yield gauge(
        "terrain_other_sessions",
        "Sessions of other programs in this database, by role: the old application's pools.",
        ["role"],
        [
            ([role], number)
            for role, number in sources.ask(connection, _FILE, "sessions")
        ],
    )


def _backups(connection: BaseDatabaseWrapper) -> Iterator[Metric]:
    folder = settings.BACKUP_DIR
    yield gauge(
        "terrain_backups_readable",
        "Whether the folder of backups can be looked at.",
        [],
        [([], backup.why_unreadable(folder) is None)],
    )
    found = backup.find(folder, connection.settings_dict["NAME"])
    proven = backup.latest_proven(
        folder, connection.settings_dict["NAME"], catalog.system(connection)
    )
    yield gauge(
        "terrain_backups",
        "Whole backups of this database, by whether they were restored and compared.",
        ["proven"],
        [
            ([word], sum(each.is_proven is wanted for each in found))
            for word, wanted in (("yes", True), ("no", False))
        ],
    )
    newest = [("any", found[0] if found else None), ("yes", proven)]
    yield gauge(
        "terrain_backup_newest_timestamp_seconds",
        "When the newest backup was taken: of any, and of the proven ones of this server.",
        ["proven"],
        [([word], each.taken_at.timestamp()) for word, each in newest if each],
    )
