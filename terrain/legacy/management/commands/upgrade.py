"""manage.py upgrade: the whole guide, step by step; or rehearsed on a copy."""

from __future__ import annotations

import contextlib
import datetime
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError

from terrain import exceptions
from terrain.cli import INTERRUPTED
from terrain.commands import REFUSED, CannotRun
from terrain.commands import Command as BaseCommand
from terrain.commands import Refusal
from terrain.legacy import backup, catalog, cleanup, cut_over, guide, rehearsal
from terrain.legacy.backup import encryption, loading, restore, tools
from terrain.legacy.backup.programs import Failed
from terrain.legacy.backup.server import CannotTell
from terrain.legacy.backup.telling import Teller
from terrain.legacy.management.arguments import add_jobs
from terrain.legacy.management.offering import offer_cut_over
from terrain.locks import Busy
from terrain.progress import duration
from terrain.words import counted, megabytes

#: A backup this recent need not be taken again before the tables move.
FRESH = datetime.timedelta(hours=1)

Call = tuple[str, tuple[str, ...]]


class Command(BaseCommand):
    is_paced = True
    help = (
        "Do the whole guide up to verification, each step with its result. Stops at the first"
        " that fails; run again, it goes on there, and does nothing when all is done."
        " Undo it with rollback_migration. The cut-over comes last: with --cut-over, on the"
        " project's own server, or if a person at the terminal says yes. cleanup_legacy is"
        " left to you. With --rehearse nothing of this is done to the database, but to a"
        " restored copy of its newest backup, which is dropped afterwards; migration_status"
        " shows the result."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--no-backup",
            action="store_true",
            help="do without a backup of this project's",
        )
        parser.add_argument(
            "--cut-over",
            action="store_true",
            help="cut over at the end: the old application has been stopped",
        )
        parser.add_argument(
            "--rehearse",
            action="store_true",
            help="do it to a copy, and say what a real run would take",
        )
        parser.add_argument(
            "--keep",
            action="store_true",
            help="with --rehearse: keep the copy, migrated, to look at",
        )
        parser.add_argument(
            "--json", action="store_true", help="with --rehearse: one JSON document"
        )
        parser.add_argument(
            "--identity",
            type=Path,
            metavar="FILE",
            help="with --rehearse: the key of a backup that age has encrypted",
        )
        add_jobs(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["rehearse"]:
            self._rehearse(options)
            return
        if options["keep"] or options["json"]:
            raise CannotRun("--keep and --json are for a rehearsal: add --rehearse.")
        calls = list(self._calls(options["no_backup"], options["cut_over"]))
        unwritten: list[tuple[str, float]] = []
        for number, (command, arguments) in enumerate(calls, 1):
            self.say(f"\n[{number}/{len(calls)}] {command}")
            started = time.monotonic()
            call_command(
                command, *arguments, verbosity=self.verbosity, stdout=self.stdout._out
            )
            unwritten.append((command, time.monotonic() - started))
            guide.write_times(self.connection, unwritten)
        is_left = cut_over.is_possible(self.connection)
        if not calls:
            done = "All is done up to the cut-over" if is_left else "All is done"
            self.say(f"{done}: nothing was changed.")
        self._print_summary()
        if is_left:
            self.say()
            offer_cut_over(self.connection, self.stdout, self.verbosity)
        if cut_over.is_possible(self.connection):
            self.say(
                "Next: python manage.py settle --watch, beside the old application; when that"
                " has been stopped: python manage.py cut_over"
            )

    def _calls(self, no_backup: bool, to_cut_over: bool) -> Iterator[Call]:
        """The commands that are left, in order."""
        steps = {
            step.name: step
            for step in guide.steps(self.connection, settings.BACKUP_DIR)
        }

        def left(name: str) -> bool:
            return name in steps and steps[name].state != guide.State.DONE

        if left("migrate"):
            if catalog.has_legacy_tables(self.connection) and not catalog.is_begun(
                self.connection
            ):
                yield "preflight", ()
                if not no_backup and not self._has_fresh_backup():
                    yield "backup_database", ()
            yield "migrate", ("--no-cut-over",)
        if left("settle") or left("migrate") and "settle" in steps:
            yield "settle", ()
        if left("migrate") or left("assets"):
            yield "copy_models_to_assets", ()
        if left("migrate") or left("verify"):
            yield "verify_migration", ()
        if left("cut over") and (to_cut_over or settings.CUT_OVER_BY_ITSELF):
            yield "cut_over", ("--yes",)

    def _has_fresh_backup(self) -> bool:
        proven = backup.latest_proven(
            settings.BACKUP_DIR,
            self.connection.settings_dict["NAME"],
            catalog.system(self.connection),
        )
        now = datetime.datetime.now(datetime.UTC)
        return proven is not None and now - proven.taken_at < FRESH

    def _print_summary(self) -> None:
        if cleanup.is_cleaned_up(self.connection) or not catalog.has_legacy_tables(
            self.connection
        ):
            return
        self.say()
        self._print_moved([each.as_json() for each in guide.summary(self.connection)])
        answers = guide.answers(self.connection)
        if answers:
            self.say(
                "\nThe verification queries of the guide, and what they answer now:"
            )
        for query, answer in answers:
            self.say(f"    {query};\n        {answer}")
        self.say(
            "\nTo look at it in the admin:"
            "\n    python manage.py createsuperuser"
            "\n    python manage.py runserver"
            "\nthen open http://127.0.0.1:8000/admin/"
        )

    def _print_moved(self, moved: list[dict[str, Any]]) -> None:
        self.print_table(
            ["legacy table", "→ new table", "rows", "held", "flagged", "seconds"],
            [
                [
                    each["legacy"],
                    each["new"],
                    f"{each['rows']:,}",
                    f"{each['held']:,}",
                    f"{each['flagged']:,}",
                    f"{each['seconds']:.1f}",
                ]
                for each in moved
            ],
            {2, 3, 4, 5},
        )

    # --- rehearsing ------------------------------------------------------------------------

    def _rehearse(self, options: dict[str, Any]) -> None:
        as_json = options["json"]
        say = (lambda _: None) if as_json else self.say
        try:
            with self.connection.wrap_database_errors:
                done = rehearsal.rehearse(
                    self.connection,
                    settings.BACKUP_DIR,
                    _run,
                    jobs=options["jobs"],
                    keep=options["keep"],
                    identity=options["identity"],
                    teller=Teller(say),
                )
        except (
            rehearsal.CannotRehearse,
            CannotTell,
            encryption.CannotDecrypt,
            tools.Missing,
        ) as error:
            raise CannotRun(str(error)) from error
        except (backup.Damaged, restore.Refused, loading.Unlike) as error:
            raise Refusal(f"The backup could not be restored: {error}") from error
        except Failed as error:
            raise CannotRun(f"The backup could not be restored: {error}.") from error
        except KeyboardInterrupt as stop:
            raise exceptions.Stopped(
                "Stopped. Nothing was changed in the database itself, and the copy is gone."
                " A rehearsal begins anew.",
                INTERRUPTED,
            ) from stop
        if as_json:
            self.print_json({**done.document, "kept": done.kept})
        else:
            self._print_rehearsal(done)
        if done.document["stopped"]:
            raise SystemExit(REFUSED)

    def _print_rehearsal(self, done: rehearsal.Rehearsal) -> None:
        document = done.document
        if document["moved"]:
            self.say()
            self._print_moved(document["moved"])
        for each in document["quarantined"]:
            self.say(
                f"· {counted(each['rows'], 'row')} of {each['legacy_table']}"
                f" {each['kind']}: {each['reason']}"
            )
        if done.kept:
            self.say(
                f"The copy is kept: put {quote(done.kept, '')} into DATABASE_URL to look"
                " at it."
            )
        if document["stopped"]:
            self.say(f"{self.mark('✗')} The rehearsal stopped at {document['stopped']}")
            self.say("Nothing was changed in the database itself.")
            return
        self._print_forecast(document["forecast"], document)

    def _print_forecast(
        self, forecast: dict[str, Any], document: dict[str, Any]
    ) -> None:
        grown = (
            f" The database has grown by {forecast['growth'] - 1:.0%} since the backup."
        )
        self.say(
            f"{self.mark('✓')} All of it went well. A real run would take about"
            f" {duration(forecast['seconds'])} with nobody there, up to"
            f" {duration(forecast['seconds_beside'])} beside a busy shop, the backup"
            f" included ({duration(document['backup_seconds'])}), and"
            f" {megabytes(forecast['bytes'])} of disk."
            + (grown if forecast["growth"] > 1.005 else "")
        )
        self.say(
            "Nothing was changed in the database itself. Beside what is done:"
            " python manage.py migration_status"
        )


def _run(command: str, arguments: tuple[str, ...]) -> None:
    """Run a command of the rehearsal; what it prints is only of interest if it stops."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            call_command(command, *arguments, verbosity=1, stdout=said)
    except SystemExit as stop:
        if stop.code:
            raise rehearsal.Stopped(_reason(said.getvalue())) from stop
    except (CommandError, exceptions.Stopped, Busy, DatabaseError) as error:
        raise rehearsal.Stopped(str(error)) from error


def _reason(said: str) -> str:
    """Of all that a command printed, the findings that made it say no."""
    lines = [line for line in said.splitlines() if line.startswith("✗")]
    return " ".join(line.removeprefix("✗ ") for line in lines[:3]) or said.strip()
