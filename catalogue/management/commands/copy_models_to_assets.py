"""manage.py copy_models_to_assets: fill the global catalogue."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from catalogue import assets
from terrain import locks
from terrain.commands import CannotRun
from terrain.commands import Command as BaseCommand


class Command(BaseCommand):
    is_paced = True
    help = (
        "Make an asset of the global catalogue from every model, and fill each table's"
        " library with what its layout places. Run again, it adds what is new, refreshes"
        " what nobody has edited since, and leaves edited assets alone. To undo it, delete"
        " the assets in the admin; models and layouts are only read."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would be done"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            copied = assets.copy(self.connection, dry_run=options["dry_run"])
        except (assets.NoModels, locks.Busy) as error:
            raise CannotRun(str(error)) from error
        would = "would be " if options["dry_run"] else ""
        self.say(
            f"Assets: {would}{copied.added:,} added, {copied.refreshed:,} refreshed;"
            f" {copied.edited:,} edited since and left alone."
        )
        self.say(
            f"Libraries of tables: {would}{copied.placed:,} assets added,"
            f" {copied.replaced:,} counted anew, {copied.removed:,} removed."
        )
        for reason, number in copied.held:
            models = "model is" if number == 1 else "models are"
            sentence = assets.REASONS[reason]
            self.say(f"{number:,} {models} held ({reason}): each {sentence}")
        if options["dry_run"]:
            self.say("Nothing was changed.")
