"""manage.py backup_database: a dump, and the proof that it restores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from terrain.cli import INTERRUPTED
from terrain.commands import CannotRun
from terrain.commands import Command as BaseCommand
from terrain.commands import Refusal
from terrain.exceptions import Stopped
from terrain.legacy import usage
from terrain.legacy.backup import dumping, proof, tools
from terrain.legacy.backup.server import CannotTell, Server
from terrain.legacy.management.arguments import add_jobs


class Command(BaseCommand):
    help = (
        "Back up the database into a new folder, with a manifest of what is in it, and prove"
        " the backup: restore it into a scratch database, compare every table, drop that"
        " again. The database itself is not changed. To undo it, delete the folder. Exit"
        " code 1 if the backup is there but could not be proven."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--output",
            type=Path,
            metavar="DIR",
            help="make the folder in DIR (default: BACKUP_DIR)",
        )
        add_jobs(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        folder, jobs = options["output"] or settings.BACKUP_DIR, options["jobs"]
        try:
            with self.connection.wrap_database_errors, usage.ours(self.connection):
                server = Server.of(self.connection)
                made = self._take(server, folder, jobs)
                self.say(f"{made.manifest['size'] / 1e6:,.1f} MB in {made.path}")
                made = self._prove(server, made, jobs)
        except (CannotTell, tools.Missing, dumping.Unwritable) as error:
            raise CannotRun(str(error)) from error
        except tools.Failed as error:
            raise CannotRun(
                f"{error}. Nothing is left of this backup; run the command again when that"
                " is put right."
            ) from error
        found = made.manifest["proof"]
        self.say(
            f"Proven: {found['tables']:,} tables with {found['rows']:,} rows came back as"
            f" they were, in {found['seconds']:.1f} s."
        )
        if folder.resolve() != settings.BACKUP_DIR.resolve():
            self.say(
                f"migration_status and cleanup_legacy look in {settings.BACKUP_DIR} only."
            )
        self.say(f"To restore it: python manage.py restore_database {made.path}")

    def _take(self, server: Server, folder: Path, jobs: int) -> Any:
        try:
            return dumping.take(server, folder, jobs, self.say)
        except KeyboardInterrupt as stop:
            raise Stopped(
                "Stopped. Nothing is left of the unfinished backup.", INTERRUPTED
            ) from stop

    def _prove(self, server: Server, made: Any, jobs: int) -> Any:
        try:
            return proof.prove(server, made, jobs, self.say)
        except proof.Unproven as error:
            raise Refusal(str(error)) from error
        except KeyboardInterrupt as stop:
            raise Stopped(
                f"Stopped. The backup in {made.path} is whole, and not proven; take another:"
                " python manage.py backup_database",
                INTERRUPTED,
            ) from stop
