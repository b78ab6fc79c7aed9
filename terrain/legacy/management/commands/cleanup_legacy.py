"""manage.py cleanup_legacy: do without the legacy tables for good."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from terrain.commands import CannotRun
from terrain.commands import Command as BaseCommand
from terrain.commands import Refusal
from terrain.legacy import catalog, ledger, retreat


class Command(BaseCommand):
    help = (
        "Drop the legacy tables, what keeps them in step, and the search path, once nobody"
        " needs them. Only after a verification that passes now and a proven backup taken"
        " since the migration. Cannot be undone, except by restoring that backup."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *args: Any, **options: Any) -> None:
        if not catalog.legacy_tables(self.connection):
            self.say("There is nothing to clean up.")
            return
        if retreat.is_rolled_back(self.connection):
            raise Refusal(
                "The database is not migrated, so its legacy tables are the only ones."
                " Run: python manage.py migrate"
            )
        objections = list(retreat.objections(self.connection, settings.BACKUP_DIR))
        if objections:
            raise Refusal("\n".join([*objections, "Nothing has been dropped."]))
        for drop in retreat.what_goes(self.connection):
            self.say(f"{drop.name}: {drop.size / 1e6:,.1f} MB")
        if not options["yes"]:
            self.confirm(
                "These tables will be dropped for good.",
                self.connection.settings_dict["NAME"],
            )
        try:
            dropped = retreat.clean_up(self.connection, self.say)
        except ledger.Busy as error:
            raise CannotRun(str(error)) from error
        self.say(f"Dropped: {', '.join(dropped)}, and the schemas legacy and rebuilt.")
        self.say("The search path is as it was. The move is history.")
