"""manage.py load_sample: a realistic legacy shop, to try the move on."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import CommandParser

from terrain.commands import Command as BaseCommand
from terrain.commands import Refusal
from terrain.legacy import sample
from terrain.words import counted


def scale(text: str) -> float:
    """A positive number."""
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number <= 100:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number above 0 and up to 100"
        )
    return number


class Command(BaseCommand):
    help = (
        "Fill an empty database with a realistic legacy shop. Scale 1 is half a million orders"
        " (1 GB), 0.01 suits a look around. To undo it, drop the database."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--scale", type=scale, default=0.01, help="default: 0.01")
        parser.add_argument(
            "--if-empty",
            action="store_true",
            help="leave a database that is not empty as it is, and say so",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            rows = sample.load(self.connection, options["scale"])
        except sample.NotEmpty as error:
            if options["if_empty"]:
                self.say("The database is not empty: it is left as it is.")
                return
            raise Refusal(str(error)) from error
        for table, number in rows.items():
            self.say(f"{table}: {counted(number, 'row')}")
