"""manage.py cut_over: the names change places, when the old application has been stopped."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from terrain import locks
from terrain.commands import CannotRun
from terrain.commands import Command as BaseCommand
from terrain.commands import Refusal
from terrain.legacy import catalog, cut_over, ledger
from terrain.words import counted


class Command(BaseCommand):
    help = (
        "Move the legacy tables from public to the schema legacy and the new tables from terrain"
        " to public, in one transaction. Run it when the old application has been stopped."
        " Both sides stay in step. Undo it with --undo."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--undo",
            action="store_true",
            help="give the names back; ends sessions of the new application",
        )
        parser.add_argument("--yes", action="store_true", help="do not ask")
        parser.add_argument(
            "--ignore-activity",
            action="store_true",
            help="although other sessions are connected or have just written",
        )
        parser.add_argument(
            "--mirror-grants",
            action="store_true",
            help="give the new orders and assets the grants that the legacy ones have",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        for name in ("ignore_activity", "mirror_grants"):
            if options["undo"] and options[name]:
                flag = f"--{name.replace('_', '-')}"
                raise CannotRun(f"{flag} is for the cut-over, not for --undo.")
        try:
            if options["undo"]:
                self._undo(options["yes"])
            else:
                self._cut_over(options)
        except cut_over.Objection as error:
            raise Refusal(str(error)) from error
        except ledger.Busy as error:
            raise CannotRun(str(error)) from error

    def _cut_over(self, options: dict[str, Any]) -> None:
        if not catalog.has_legacy_tables(self.connection):
            self.say("There is nothing to cut over: there are no legacy tables.")
            return
        if catalog.where(self.connection).is_cut_over:
            self.say(
                "There is nothing to cut over: the new tables are in public already."
            )
            return
        locks.ensure_alone(self.connection)  # before all is verified
        objections = list(
            cut_over.objections(
                self.connection, ignore_activity=options["ignore_activity"]
            )
        )
        if objections:
            raise Refusal("\n".join([*objections, "Nothing was changed."]))
        self._say_what_stays()
        for role, application in cut_over.clients_with_owner_rights(self.connection):
            self.say(
                f"! {application or 'An unnamed program'} has written as the role {role}, which"
                " owns the tables. If it comes back after the cut-over, its statements on orders"
                " and assets run on the new tables without an error. Change that role's password,"
                " or stop the program for good."
            )
        if not options["yes"]:
            self.confirm(
                "The old application will not find its tables in public any more."
                " Has it been stopped for good, everywhere it runs?"
            )
        done = cut_over.cut_over(self.connection, self.say)
        self.say(
            f"{self.mark('✓')} {counted(len(done.moved), 'table')} of the new schema are in"
            f" public, {counted(len(done.legacy), 'legacy table')} in legacy; all were locked"
            f" for {done.seconds * 1000:.0f} ms."
        )
        self._grants(options["mirror_grants"])
        self.say(
            "An old application that must run on finds its tables if its role's path begins with"
            " legacy: python manage.py prepare_database"
        )
        self.say("To go back: python manage.py cut_over --undo")
        self.say("Next: python manage.py cleanup_legacy")

    def _say_what_stays(self) -> None:
        for table, names in cut_over.taken_names(self.connection).items():
            self.say(
                f"! {table} stays in the schema terrain for good: public has the"
                f" {', the '.join(names)}."
            )

    def _grants(self, mirror: bool) -> None:
        statements = cut_over.grants_to_mirror(self.connection)
        if not statements:
            return
        if mirror:
            catalog.execute(self.connection, statements)
            self.say("Granted on the new tables:")
        else:
            self.say(
                "These roles have rights on the legacy tables of these names, and none on the new"
                " ones. Grant them where a report is to go on (or add --mirror-grants):"
            )
        for statement in statements:
            self.say(f"    {statement}")

    def _undo(self, yes: bool) -> None:
        if not cut_over.is_done(self.connection):
            self.say("There is nothing to undo: the names have not changed places.")
            return
        if not yes:
            self.confirm(
                "The new tables go back to the schema terrain, and requests of the new"
                " application that are under way may fail."
            )
        done = cut_over.undo(self.connection, self.say)
        self.say(
            f"{self.mark('✓')} {counted(len(done.legacy), 'legacy table')} are back in public,"
            f" {counted(len(done.moved), 'table')} of the new schema in terrain; all were locked"
            f" for {done.seconds * 1000:.0f} ms."
        )
        self.say("To go forward again: python manage.py cut_over")
