"""manage.py settle: accounts, owner links, merges and second looks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from django.core.management.base import CommandParser

from terrain import locks
from terrain.commands import CannotRun
from terrain.commands import Command as BaseCommand
from terrain.legacy import carrying, settling, watching
from terrain.words import counted

T = TypeVar("T")


class Command(BaseCommand):
    is_paced = True
    help = (
        "Do what the triggers leave for after the commit: make customers, link orders and"
        " tables to their accounts, merge customers who became artists, look again at"
        " rows in quarantine. Every command does it too; --watch does it continuously. It"
        " changes new tables only; to undo a link or an account, change it in the admin."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--watch", action="store_true", help="go on until interrupted"
        )
        parser.add_argument(
            "--again",
            action="store_true",
            help="first derive functions and triggers anew and carry over rows that differ",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not settling.is_possible(self.connection):
            raise CannotRun(
                "There is nothing to settle: the database is not migrated, or its legacy"
                " tables have been cleaned up. See: python manage.py migration_status"
            )
        if options["again"]:
            self._carry_over_again()
        if options["watch"]:
            self._watch()
        else:
            self._report(self._alone(settling.settle))
            self._report_late()

    def _alone(self, action: Callable[[Any], T]) -> T:
        try:
            with locks.exclusive(self.connection):
                return action(self.connection)
        except locks.Busy as error:
            raise CannotRun(str(error)) from error

    def _carry_over_again(self) -> None:
        changed = self._alone(settling.carry_over_again)
        self.say(
            f"Functions and triggers derived anew; {counted(changed, 'row')} carried over."
        )

    def _watch(self) -> None:
        watch = watching.Watch(self.connection, self.say)
        self._report(watch.begin())
        while True:
            # A session held open would keep looking where the tables were, and an undoing of
            # the cut-over would have to end it.
            self.connection.close()
            time.sleep(watching.INTERVAL)
            done = watch.look()
            if done is None:
                self.say(
                    "There is nothing to settle any more: the database was rolled back, or its"
                    " legacy tables have been cleaned up."
                )
                return
            if not done.nothing:
                self._report(done)

    def _report_late(self) -> None:
        late = carrying.still_late(self.connection)
        if late:
            table, key, why = late[0]
            self.say(
                f"{counted(len(late), 'row')} could not be carried over yet, the first"
                f" {table} {key} ({why}). If somebody has them locked, run settle again"
                " when their transaction has ended."
            )

    def _report(self, done: settling.Settled) -> None:
        if done.nothing:
            self.say("Nothing was left to settle.")
            return
        parts = {
            "customers made": done.customers,
            "orders and tables linked": done.linked,
            "sessions made": done.sessions,
            "customers merged": done.merged,
            "rows released from quarantine": done.released,
            "late rows carried over": done.carried,
        }
        self.say(", ".join(f"{what}: {n:,}" for what, n in parts.items() if n) + ".")
