"""manage.py cleanup_legacy: do without the legacy tables for good."""

from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from terrain import locks
from terrain.commands import REFUSED, CannotRun
from terrain.commands import Command as BaseCommand
from terrain.commands import Refusal
from terrain.legacy import catalog, cleanup, ledger, rehearsed, retreat, usage
from terrain.postgresql.schemas import SCHEMA
from terrain.words import counted, megabytes


class Command(BaseCommand):
    is_paced = True
    help = (
        "After the cut-over: drop the legacy tables and what keeps them in step, once nobody"
        " needs them. Only after a verification that passes now, with a proven backup taken"
        " since the migration, every quarantined row decided, and the old application not"
        " seen for a day. Cannot be undone, except by restoring that backup. --dry-run"
        " changes nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--yes", action="store_true", help="do not ask")
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="say what would go, and what speaks against it",
        )
        parser.add_argument(
            "--json",
            action="store_true",
            help="with --dry-run: one JSON document",
        )
        parser.add_argument(
            "--despite-use",
            action="store_true",
            help="although somebody seems to use the legacy tables",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        as_json = options["json"]
        if as_json and not options["dry_run"]:
            raise CannotRun(
                "There is nothing to read as JSON but the outlook: add --dry-run."
            )
        if not catalog.legacy_tables(self.connection):
            if as_json:
                self.print_json(self._document([], [], []))
            else:
                self.say("There is nothing to clean up.")
            return
        if retreat.is_rolled_back(self.connection):
            raise Refusal(
                "The database is not migrated, so its legacy tables are the only ones."
                " Run: python manage.py migrate"
            )
        if not options["dry_run"]:
            self._ensure_alone()
        objections = list(
            cleanup.objections(
                self.connection,
                settings.BACKUP_DIR,
                despite_use=options["despite_use"],
            )
        )
        hints = [] if options["despite_use"] else cleanup.hints(self.connection)
        if options["dry_run"]:
            self._rehearse(objections, hints, as_json)
            return
        if objections:
            raise Refusal("\n".join([*objections, "Nothing has been dropped."]))
        self._print(cleanup.what_goes(self.connection), hints)
        if not options["yes"]:
            self.confirm(
                "All this will be dropped for good.",
                self.connection.settings_dict["NAME"],
            )
        self._clean_up()

    def _ensure_alone(self) -> None:
        """Before all is verified: somebody at work would be in the way of it."""
        try:
            locks.ensure_alone(self.connection)
        except locks.Busy as error:
            raise CannotRun(str(error)) from error

    def _clean_up(self) -> None:
        try:
            dropped = cleanup.clean_up(self.connection, self.say)
        except cleanup.Objection as error:
            raise Refusal(str(error)) from error
        except ledger.Busy as error:
            raise CannotRun(str(error)) from error
        rehearsed.forget(
            settings.BACKUP_DIR,
            self.connection.settings_dict["NAME"],
            catalog.system(self.connection),
        )
        *most, last = (
            schema
            for schema in (catalog.LEGACY, catalog.REBUILT, SCHEMA)
            if not catalog.schema_exists(self.connection, schema)
        )
        self.say(
            f"Dropped: {', '.join(dropped)}, and the schemas {', '.join(most)} and {last}."
        )
        self.say("The move is complete.")

    def _rehearse(self, objections: list[str], hints: list[str], as_json: bool) -> None:
        drops = cleanup.what_goes(self.connection)
        if as_json:
            self.print_json(self._document(drops, objections, hints))
        else:
            self._print(drops, hints)
            for sentence in objections:
                self.say(f"{self.mark('✗')} {sentence}")
            if not objections:
                self.say(f"{self.mark('✓')} Nothing speaks against it.")
            self.say("Nothing has been dropped.")
        if objections:
            sys.exit(REFUSED)

    def _document(
        self, drops: list[cleanup.Drop], objections: list[str], hints: list[str]
    ) -> dict[str, Any]:
        return {
            "database": self.connection.settings_dict["NAME"],
            "drops": [drop.as_json() for drop in drops],
            "objections": objections,
            "hints": hints,
        }

    def _print(self, drops: list[cleanup.Drop], hints: list[str]) -> None:
        self.say("To be dropped:")
        self.print_table(
            ["table", "rows", "size"],
            [[each.name, f"{each.rows:,}", megabytes(each.size)] for each in drops],
            {1, 2},
        )
        for line in cleanup.what_goes_along(self.connection):
            self.say(f"and {line}")
        self.say(
            f"{counted(sum(each.rows for each in drops), 'row')},"
            f" {megabytes(sum(each.size for each in drops))} in all."
        )
        watched = usage.watched_since(self.connection)
        if watched is not None:
            self.say(
                f"The legacy tables have been watched since {watched:%Y-%m-%d %H:%M} UTC:"
                " connected sessions, writes by the triggers, reads by PostgreSQL's counters."
            )
        for hint in hints:
            self.say(f"! {hint}")
        if hints:
            self.say(
                "  If that was the old application and not you, stop it before you go on."
            )
