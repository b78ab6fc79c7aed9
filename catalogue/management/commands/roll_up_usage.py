"""manage.py roll_up_usage: sum up what was done with assets."""

from __future__ import annotations

from typing import Any

from catalogue import usage
from terrain.commands import Command as BaseCommand


class Command(BaseCommand):
    help = (
        "Sum up what was done with assets (adds, removals, uses) by asset and day. The"
        " counting itself is the database's and never stops; this keeps what is counted"
        " small. Run it every few minutes (deploy/systemd has a timer). There is nothing"
        " to undo: the numbers stay the same."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        number = usage.roll_up(self.connection)
        self.say(f"Summed up {number:,} changes." if number else "Nothing was waiting.")
