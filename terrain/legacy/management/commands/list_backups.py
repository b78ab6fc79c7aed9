"""manage.py list_backups: which there are, how old, how large, and whether proven."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from terrain.commands import CannotRun
from terrain.commands import Command as BaseCommand
from terrain.legacy.backup import shelf
from terrain.legacy.backup.shelf import Listed


class Command(BaseCommand):
    help = (
        "List the backups in a folder, newest first: age, size, database, and whether each"
        " has been proven. Changes nothing. Checksums are not computed; restore_database"
        " computes them."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--output",
            type=Path,
            metavar="DIR",
            help="the folder (default: BACKUP_DIR)",
        )
        parser.add_argument(
            "--json", action="store_true", help="print one JSON document"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        folder: Path = options["output"] or settings.BACKUP_DIR
        now = datetime.datetime.now(datetime.UTC)
        try:
            found = shelf.listed(folder)
        except OSError as error:
            why = error.strerror or str(error)
            raise CannotRun(
                f"{folder} cannot be read ({why}). Name another folder with --output."
            ) from error
        if options["json"]:
            self.print_json(
                {
                    "folder": str(folder),
                    "backups": [each.as_json(now) for each in found],
                }
            )
            return
        if not found:
            self.say(
                f"There is no backup in {folder}. Next: python manage.py backup_database"
            )
            return
        self.print_table(
            [
                "taken (UTC)",
                "age",
                "MB",
                "rows",
                "database",
                "proven",
                "encrypted",
                "folder",
            ],
            [_row(each, now) for each in found if each.backup is not None],
            {1, 2, 3},
        )
        for each in found:
            if each.trouble is not None:
                self.say(f"! {each.trouble}")


def _row(listed: Listed, now: datetime.datetime) -> list[Any]:
    backup = listed.backup
    assert backup is not None
    return [
        f"{backup.taken_at:%Y-%m-%d %H:%M}",
        age(now - backup.taken_at),
        f"{backup.size / 1e6:,.1f}",
        f"{backup.rows:,}",
        backup.database,
        "proven" if backup.is_proven else "NOT PROVEN",
        (backup.encryption or {}).get("program", "no"),
        backup.path.name,
    ]


def age(passed: datetime.timedelta) -> str:
    """How long ago, in the unit that somebody would say it in."""
    seconds = passed.total_seconds()
    for length, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
