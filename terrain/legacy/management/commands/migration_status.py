"""manage.py migration_status: how far each step of the guide is."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from terrain.commands import Command as BaseCommand
from terrain.legacy import guide


class Command(BaseCommand):
    help = (
        "Say how far each step of the guide is, and what comes next. Changes nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON document")

    def handle(self, *args: Any, **options: Any) -> None:
        steps = guide.steps(self.connection, settings.BACKUP_DIR)
        following = guide.next_step(steps)
        if options["json"]:
            self.print_json(
                {
                    "steps": [step.as_json() for step in steps],
                    "next": following.command if following else None,
                }
            )
            return
        self.print_table(
            ["step", "state", "rows", "of", "rows/s", "s left", ""],
            [self._row(step) for step in steps],
            {2, 3, 4, 5},
        )
        if following is None:
            self.say("\nAll is done.")
        else:
            self.say(f"\nNext: python manage.py {following.command}")

    def _row(self, step: guide.Step) -> list[Any]:
        def number(value: float | None) -> str | None:
            return None if value is None else f"{value:,.0f}"

        return [
            step.name,
            step.state,
            number(step.rows),
            number(step.total),
            number(step.rate),
            number(step.left),
            step.detail,
        ]
