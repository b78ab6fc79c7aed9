"""manage.py backup_database: a dump, and the proof that it restores."""

from __future__ import annotations

import argparse
from contextlib import suppress
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
from terrain.legacy.backup import (
    Backup,
    cost,
    dumping,
    elsewhere,
    encryption,
    proof,
    shelf,
    tools,
)
from terrain.legacy.backup.manifest import find
from terrain.legacy.backup.programs import Failed
from terrain.legacy.backup.server import CannotTell, Server
from terrain.legacy.backup.telling import Teller
from terrain.legacy.management.arguments import add_jobs


class Command(BaseCommand):
    help = (
        "Back up the database into a new folder, with a manifest of what is in it, and prove"
        " the backup: restore it into a scratch database, compare everything, drop that"
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
        parser.add_argument(
            "--prove-on",
            metavar="URL",
            help="another server for the proof, without a password (that goes into PROVE_ON,"
            " PGPASSFILE or a service), or 'embedded' for one that is started for it",
        )
        parser.add_argument(
            "--encrypt-to",
            metavar="RECIPIENT",
            help="a recipient of age (age1…), or whom a key of gpg belongs to",
        )
        parser.add_argument(
            "--keep",
            type=positive,
            metavar="N",
            help="afterwards remove backups of this database older than the newest N proven",
        )
        parser.add_argument(
            "--keep-days",
            type=positive,
            metavar="N",
            help="the same, older than N days; the newest proven one always stays",
        )
        parser.add_argument(
            "--ignore-space",
            action="store_true",
            help="begin even if it is not expected to fit on the disk",
        )
        add_jobs(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        folder: Path = (options["output"] or settings.BACKUP_DIR).resolve()
        self.options = options
        try:
            server = Server.of(self.connection)
            with self.connection.wrap_database_errors, usage.ours(self.connection):
                made = self._backed_up(server, folder, Teller(self.say))
        except (
            CannotTell,
            tools.Missing,
            dumping.Unwritable,
            elsewhere.NotThere,
            encryption.CannotEncrypt,
            cost.DoesNotFit,
        ) as error:
            raise CannotRun(str(error)) from error
        except Failed as error:
            raise CannotRun(
                f"{error}. Nothing is left of this backup; run the command again when that"
                " is put right."
            ) from error
        self._retire(folder, made)
        if folder != settings.BACKUP_DIR.resolve():
            self.say(
                f"migration_status and cleanup_legacy look in {settings.BACKUP_DIR} only."
            )
        identity = " --identity FILE" if _needs_identity(made) else ""
        self.say(
            f"To restore it: python manage.py restore_database {made.path}{identity}"
        )

    def _backed_up(self, server: Server, folder: Path, teller: Teller) -> Backup:
        recipient, jobs = self.options["encrypt_to"], self.options["jobs"]
        cipher = encryption.to(recipient) if recipient is not None else None
        proof_on, where = self._proof_on(server)
        expected = self._cost(server, folder, proof_on)
        try:
            made = dumping.take(
                server, folder, jobs, teller, cipher, expected.dump.needed
            )
        except KeyboardInterrupt as stop:
            raise Stopped(
                "Stopped. Nothing is left of the unfinished backup.", INTERRUPTED
            ) from stop
        teller.say(f"{made.size / 1e6:,.1f} MB in {made.path}")
        made = self._prove(proof_on, made, jobs, teller, where)
        teller.say(_proven(made))
        return made

    def _proof_on(self, server: Server) -> tuple[Server, str]:
        """The server to prove on, and what to call the place."""
        given = self.options["prove_on"]
        where = given if given is not None else settings.PROVE_ON
        if not where:
            return server, "a scratch database"
        with server.connect() as connection:
            major = connection.info.server_version // 10000
        found = elsewhere.server(
            where, major, settings.BASE_DIR, is_argument=given is not None
        )
        its = "the embedded server" if found.is_ours else "the server of --prove-on"
        return found, f"a scratch database on {its}"

    def _cost(self, server: Server, folder: Path, proof_on: Server) -> cost.Cost:
        earlier = find(folder, server.database)
        expected = cost.of(server, folder, self.options["jobs"], earlier, proof_on)
        self.say(expected.sentence())
        if not self.options["ignore_space"]:
            expected.check()
        return expected

    def _prove(
        self, server: Server, made: Backup, jobs: int, teller: Teller, where: str
    ) -> Backup:
        try:
            return proof.prove(server, made, jobs, teller, where)
        except proof.Unproven as error:
            raise Refusal(str(error)) from error
        except KeyboardInterrupt as stop:
            raise Stopped(
                f"Stopped. The backup in {made.path} is whole, and not proven; take another:"
                " python manage.py backup_database",
                INTERRUPTED,
            ) from stop

    def _retire(self, folder: Path, made: Backup) -> None:
        keep = shelf.Keep(self.options["keep"], self.options["keep_days"])
        with suppress(FileNotFoundError):  # somebody else's run has retired it
            for each in shelf.retire(folder, made.database, made.system, keep):
                self.say(f"Removed {each.path}, which was not to be kept any longer.")


def _proven(made: Backup) -> str:
    found = made.manifest["proof"]
    objects = (
        f"{found['objects']:,} definitions"
        if found["objects"] is not None
        else "(definitions were not compared: another version of PostgreSQL writes them"
        " otherwise)"
    )
    text = (
        f"Proven: {found['tables']:,} tables with {found['rows']:,} rows and {objects} came"
        f" back as they were, in {found['seconds']:.1f} s."
    )
    if found["not_given_away"]:
        text += (
            f" {len(found['not_given_away']):,} owners and grants could not be tried, for"
            " want of a role or of rights; the manifest lists them."
        )
    if made.encryption is not None:
        text += (
            f" It was decrypted with a key of this run's, now forgotten; that"
            f" {made.encryption['recipient']} can decrypt it, only they can try."
        )
    return text


def _needs_identity(made: Backup) -> bool:
    return made.encryption is not None and made.encryption["program"] == "age"


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)
