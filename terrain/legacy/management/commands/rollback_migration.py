"""manage.py rollback_migration: the legacy database again, with all rows written since."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from terrain.commands import CannotRun
from terrain.commands import Command as BaseCommand
from terrain.commands import Refusal
from terrain.legacy import ledger, retreat


class Command(BaseCommand):
    help = (
        "Give the legacy database back as it would be had the migration never run, with all"
        " rows either application has written since. A cut-over is undone first. The new"
        " tables are parked in the schema"
        " legacy_parked, and return with the next migrate, which undoes this."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *args: Any, **options: Any) -> None:
        if not retreat.is_rolled_back(self.connection) and not options["yes"]:
            self.confirm(
                "The new application will find no tables until migrate is run again."
            )
        try:
            done = retreat.roll_back(self.connection, self.say)
        except retreat.Objection as error:
            raise Refusal(str(error)) from error
        except ledger.Busy as error:
            raise CannotRun(str(error)) from error
        if done is None:
            self.say("There is nothing to roll back.")
            return
        if done.was_cut_over:
            self.say("The cut-over is undone: the legacy tables are back in public.")
        self.say("The legacy tables are as they were, with all rows written since.")
        parked = ", ".join(
            f"{rows:,} {table}" for table, rows in done.parked.items() if rows
        )
        self.say(f"Parked in legacy_parked: {parked or 'nothing'}.")
        self.say("To go forward again: python manage.py migrate")
