"""manage.py upgrade: the whole guide, step by step."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandParser

from terrain.commands import Command as BaseCommand
from terrain.legacy import backup, catalog, cleanup, guide

#: A backup this recent need not be taken again before the tables move.
FRESH = datetime.timedelta(hours=1)

Call = tuple[str, tuple[str, ...]]


class Command(BaseCommand):
    help = (
        "Do the whole guide up to verification, each step with its result. Stops at the first"
        " that fails; run again, it goes on there, and does nothing when all is done."
        " Undo it with rollback_migration. cleanup_legacy is left to you."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--no-backup",
            action="store_true",
            help="do without a backup of this project's",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        calls = list(self._calls(options["no_backup"]))
        for number, (command, arguments) in enumerate(calls, 1):
            self.say(f"\n[{number}/{len(calls)}] {command}")
            call_command(
                command, *arguments, verbosity=self.verbosity, stdout=self.stdout._out
            )
        if not calls:
            self.say("All is done: nothing was changed.")
        self._print_summary()

    def _calls(self, no_backup: bool) -> Iterator[Call]:
        """The commands that are left, in order."""
        steps = {
            step.name: step
            for step in guide.steps(self.connection, settings.BACKUP_DIR)
        }

        def left(name: str) -> bool:
            return name in steps and steps[name].state != guide.State.DONE

        if left("migrate"):
            if "public" in catalog.legacy_tables(self.connection).values():
                yield "preflight", ()
                yield "prepare_database", ()
                if not no_backup and not self._has_fresh_backup():
                    yield "backup_database", ()
            yield "migrate", ()
        if left("settle") or left("migrate") and "settle" in steps:
            yield "settle", ()
        if left("migrate") or left("assets"):
            yield "copy_models_to_assets", ()
        if left("migrate") or left("verify"):
            yield "verify_migration", ()

    def _has_fresh_backup(self) -> bool:
        proven = backup.latest_proven(
            settings.BACKUP_DIR,
            self.connection.settings_dict["NAME"],
            catalog.system(self.connection),
        )
        now = datetime.datetime.now(datetime.UTC)
        return proven is not None and now - proven.taken_at < FRESH

    def _print_summary(self) -> None:
        if cleanup.is_cleaned_up(self.connection) or not catalog.is_moved(
            self.connection
        ):
            return
        self.say()
        self.print_table(
            ["legacy table", "→ new table", "rows", "held", "flagged", "seconds"],
            [
                [
                    moved.legacy,
                    moved.new,
                    f"{moved.rows:,}",
                    f"{moved.held:,}",
                    f"{moved.flagged:,}",
                    f"{moved.seconds:.1f}",
                ]
                for moved in guide.summary(self.connection)
            ],
            {2, 3, 4, 5},
        )
        self.say(
            "\nTo look at it in the admin:"
            "\n    python manage.py createsuperuser"
            "\n    python manage.py runserver"
            "\nthen open http://127.0.0.1:8000/admin/"
        )
