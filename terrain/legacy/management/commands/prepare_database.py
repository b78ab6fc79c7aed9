"""manage.py prepare_database: let the old application find tables that stand aside."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from terrain import locks
from terrain.commands import CannotRun
from terrain.commands import Command as BaseCommand
from terrain.commands import Refusal
from terrain.legacy import catalog, prepare
from terrain.legacy.catalog import LEGACY


class Command(BaseCommand):
    help = (
        "Set the search path of the database to legacy, public, so that the old application"
        " goes on finding its tables when they move. Changes nothing until then."
        " Undo it with --undo."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--undo", action="store_true", help="take it back")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with locks.exclusive(self.connection):
                self._set_or_undo(options["undo"])
        except locks.Busy as error:
            raise CannotRun(str(error)) from error

    def _set_or_undo(self, undo: bool) -> None:
        tables = catalog.legacy_tables(self.connection)
        if undo:
            if LEGACY in tables.values():
                raise Refusal(
                    "The legacy tables stand in the schema legacy, where only this search"
                    " path lets the old application find them. Nothing was changed. To go"
                    " back first: python manage.py rollback_migration"
                )
            undone = prepare.undo(self.connection)
            self.say(
                f"The search path is as it was for: {', '.join(undone)}."
                if undone
                else "There was nothing to undo."
            )
            return
        if not tables:
            self.say("There are no legacy tables, so nothing needs preparing.")
            return
        prepared = prepare.prepare(self.connection)
        if prepared.set_for:
            self.say(
                f"The search path is now legacy, public for: {', '.join(prepared.set_for)}."
            )
        else:
            self.say("The search path was set already.")
        for role in prepared.beyond:
            self.say(
                f"The role {role} has a path of its own, which this role may not change. As"
                f" a superuser: {prepare.alter_role(self.connection, role)}"
            )
        if prepared.sessions:
            self.say(
                "These sessions began before, and do not have it. Recycle their pools once:"
            )
            for session in prepared.sessions:
                self.say(f"    {session}")
        self.say("Next: python manage.py backup_database")
