"""manage.py prepare_database: for an old application that is to run on beyond the cut-over."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from terrain import locks
from terrain.commands import CannotRun
from terrain.commands import Command as BaseCommand
from terrain.commands import Refusal
from terrain.legacy import catalog, cut_over, search_path


class Command(BaseCommand):
    help = (
        "Put legacy before the search path that each role of the old application has. Only an"
        " old application that is to run on beyond the cut-over needs it: it then finds its"
        " tables in the schema legacy. Lists what this breaks for it. Undo it with --undo."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--undo", action="store_true", help="take it back")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with locks.exclusive(self.connection):
                self._undo() if options["undo"] else self._extend()
        except locks.Busy as error:
            raise CannotRun(str(error)) from error

    def _undo(self) -> None:
        if cut_over.is_done(self.connection) and search_path.is_extended(
            self.connection
        ):
            others = cut_over.others_connected(self.connection)
            if others:
                raise Refusal(
                    "The legacy tables are in the schema legacy, and this search path lets"
                    f" connected sessions find them: {others[0]}. Nothing was changed. Stop the"
                    " old application first, or undo the cut-over: python manage.py cut_over"
                    " --undo"
                )
        undone = search_path.undo(self.connection)
        if undone.reset_for:
            self.say(
                f"The search path is as it was for: {', '.join(undone.reset_for)}."
            )
        elif not undone.beyond:
            self.say("There was nothing to undo.")
        for role in undone.beyond:
            self.say(
                f"The role {role} has a path that this role may not change. As a superuser:"
                f" {search_path.statement_against(self.connection, role)}"
            )

    def _extend(self) -> None:
        if not catalog.has_legacy_tables(self.connection):
            self.say("There are no legacy tables, so no search path needs extending.")
            return
        done = search_path.extend(self.connection)
        for whose, path in done.set_for:
            self.say(f"{whose}: search_path = {search_path.join(path)}")
        if not done.set_for:
            self.say("The search path was extended already.")
        for role in done.beyond:
            self.say(
                f"The role {role} has a path that this role may not change. As a superuser:"
                f" {search_path.statement_for(self.connection, role)}"
            )
        self.say(
            "Sessions that begin from now on have it; recycle the old application's pools. From"
            " the cut-over on, this changes for the old application:"
        )
        for sentence in search_path.BREAKS:
            self.say(f"    {sentence}")
        self.say("Undo: python manage.py prepare_database --undo")
