"""manage.py migration_status: how far each step of the guide is."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from terrain import locks
from terrain.commands import Command as BaseCommand
from terrain.legacy import catalog, guide, rehearsed
from terrain.pace import control
from terrain.progress import duration


class Command(BaseCommand):
    help = (
        "Say how far each step of the guide is, how long it took, beside what it took in the"
        " last rehearsal, and what comes next. Changes nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON document")

    def handle(self, *args: Any, **options: Any) -> None:
        steps = guide.steps(self.connection, settings.BACKUP_DIR)
        step = guide.next_step(steps)
        orders = control.in_force(self.connection)
        following = step.command if step is not None else None
        if following is not None and orders.is_paused:
            following = "migration_control resume"
        done = {step.name for step in steps if step.state == guide.State.DONE}
        took = {
            name: seconds
            for name, seconds in guide.took(self.connection).items()
            if name in done  # and not undone since, by a rollback
        }
        last = rehearsed.latest(
            settings.BACKUP_DIR,
            self.connection.settings_dict["NAME"],
            catalog.system(self.connection),
        )
        times = _rehearsed(last)
        at_work = locks.at_work(self.connection)
        if options["json"]:
            self.print_json(
                {
                    "steps": [
                        {
                            **step.as_json(),
                            "took": took.get(step.name),
                            "rehearsed": times.get(step.name),
                        }
                        for step in steps
                    ],
                    "pace": control.as_json(self.connection),
                    "at_work": at_work,
                    "next": following,
                    "rehearsal": last,
                }
            )
            return
        self._print(steps, took, times)
        if last is not None:
            self._print_rehearsal(last)
        for sentence in orders.sentences():
            self.say(f"\n{sentence}")
        if at_work:
            self.say(f"\nA command is at work: {'; '.join(at_work)}.")
        if following is None:
            self.say("\nAll is done.")
        elif not at_work or orders.is_paused:
            self.say(f"\nNext: python manage.py {following}")

    def _print(
        self, steps: list[guide.Step], took: dict[str, float], times: dict[str, float]
    ) -> None:
        columns = ["step", "state", "rows", "of", "rows/s", "s left", "s took"]
        rows = [[*_row(step), _seconds(took.get(step.name))] for step in steps]
        if times:
            columns.append("s rehearsed")
            for row, step in zip(rows, steps, strict=True):
                row.append(_seconds(times.get(step.name)))
        for row, step in zip(rows, steps, strict=True):
            row.append(step.detail)
        self.print_table([*columns, ""], rows, set(range(2, len(columns))))

    def _print_rehearsal(self, last: dict[str, Any]) -> None:
        at = last["at"][:16].replace("T", " ")
        if last["stopped"]:
            self.say(f"\nRehearsed {at} UTC: it stopped at {last['stopped']}")
            return
        forecast = last["forecast"]
        held = sum(each["held"] for each in last["moved"])
        flagged = sum(each["flagged"] for each in last["moved"])
        self.say(
            f"\nRehearsed {at} UTC: held {held:,}, flagged {flagged:,}; a real run would"
            f" take {duration(forecast['seconds'])} to"
            f" {duration(forecast['seconds_beside'])}."
        )


def _rehearsed(document: dict[str, Any] | None) -> dict[str, float]:
    """Step of the guide -> seconds in the rehearsal."""
    if document is None:
        return {}
    steps = {each["command"]: each["seconds"] for each in document["steps"]}
    steps["backup_database"] = document["backup_seconds"]
    found = {
        name: steps[command]
        for name, command in guide.COMMANDS.items()
        if command in steps
    }
    return {**found, **document["times"]}


def _row(step: guide.Step) -> list[Any]:
    numbers = (step.rows, step.total, step.rate, step.left)
    return [step.name, step.state, *(_number(value) for value in numbers)]


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:,.0f}"


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:,.1f}"
