"""manage.py restore_database: a backup again, in the place of what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.core.management.base import CommandParser

from terrain.cli import INTERRUPTED
from terrain.commands import CannotRun
from terrain.commands import Command as BaseCommand
from terrain.commands import Refusal
from terrain.exceptions import Stopped
from terrain.legacy import backup
from terrain.legacy.backup import encryption, loading, restore, tools
from terrain.legacy.backup.programs import Failed
from terrain.legacy.backup.server import CannotTell, Server
from terrain.legacy.backup.telling import Teller
from terrain.legacy.management.arguments import add_jobs


class Command(BaseCommand):
    help = (
        "Restore a backup into the database of DATABASE_URL, or another. It is checked"
        " first, restored into a new database beside, compared, and only then takes the"
        " name. A database that is not empty is left alone unless --replace is given, and"
        " even then it is kept, under another name: to undo, rename both back. Exit code 1"
        " if it was refused."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "path", type=Path, metavar="PATH", help="the folder of a backup"
        )
        parser.add_argument(
            "--into", metavar="NAME", help="the database (default: DATABASE_URL's)"
        )
        parser.add_argument(
            "--replace",
            action="store_true",
            help="take the place of a database that is not empty",
        )
        parser.add_argument(
            "--unproven",
            action="store_true",
            help="restore a backup even though it was never proven",
        )
        parser.add_argument(
            "--identity",
            type=Path,
            metavar="FILE",
            help="the file with the key, of a backup that age has encrypted (gpg asks its"
            " agent)",
        )
        add_jobs(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        self.connection.close()  # a database in use cannot be replaced, not even by us
        try:
            with self.connection.wrap_database_errors:
                done = restore.restore(
                    Server.of(self.connection),
                    options["path"],
                    into=options["into"],
                    replace=options["replace"],
                    unproven=options["unproven"],
                    jobs=options["jobs"],
                    identity=options["identity"],
                    teller=Teller(self.say),
                )
        except (backup.Damaged, restore.Refused) as error:
            raise Refusal(str(error)) from error
        except loading.Unlike as error:
            raise Refusal(
                f"What was restored is not what was backed up: {error} Nothing was changed."
            ) from error
        except (CannotTell, tools.Missing, encryption.CannotDecrypt) as error:
            raise CannotRun(str(error)) from error
        except Failed as error:
            raise CannotRun(
                f"{error}. Nothing was changed; run the command again when that is put right."
            ) from error
        except KeyboardInterrupt as stop:
            raise Stopped("Stopped. Nothing was changed.", INTERRUPTED) from stop
        self._print(done)

    def _print(self, done: restore.Restored) -> None:
        self.say(
            f"Restored into {done.database}: {done.tables:,} tables with {done.rows:,}"
            " rows, as they were."
        )
        if done.beyond:
            self.say(
                f"! {len(done.beyond)} owners, grants or settings could not be given back,"
                " for want of a role or of rights; what they are about belongs to you:"
            )
            for each in done.beyond[:10]:
                self.say(f"    {each}")
            if done.beyond[10:]:
                self.say(f"    … and {len(done.beyond) - 10:,} more")
        if done.unlike:
            self.say(
                f"! {loading.one_and_more(done.unlike)} Rows and sequences are as they were;"
                " compare the definitions before the shop uses it."
            )
        if done.replaced:
            self.say(
                f"What was there is now {done.replaced}. When it is not needed any more:"
                f' DROP DATABASE "{done.replaced}";'
            )
        if done.database == self.connection.settings_dict["NAME"]:
            self.say("Next: python manage.py migration_status")
        else:
            # As it is written there: a name may have a quote, a blank, a slash.
            self.say(f"To use it, put {quote(done.database, '')} into DATABASE_URL.")
