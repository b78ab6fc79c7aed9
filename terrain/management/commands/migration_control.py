"""manage.py migration_control: pause, resume and throttle what runs, from another terminal."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from terrain import locks
from terrain.commands import CannotRun
from terrain.commands import Command as BaseCommand
from terrain.pace import control

ACTIONS = ("pause", "resume", "throttle", "ignore")


def percent(words: list[str]) -> int | None:
    """A whole number from 1 to 99, or None for ``off`` and 100."""
    text = " ".join(words)
    if text in ("off", "100"):
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 99:
        raise CannotRun(
            f"{text!r} is neither a number from 1 to 100, percent of the time, nor off."
            " Type for instance: python manage.py migration_control throttle 25"
        )
    return int(text)


def kinds(words: list[str]) -> tuple[str, ...]:
    """Some of ``control.KINDS``, none for ``off``."""
    if words == ["off"]:
        return ()
    if not words or not {*words} <= {*control.KINDS}:
        raise CannotRun(
            f"{' '.join(words)!r} is nothing that a run slows down for. It is one or more of"
            f" {', '.join(control.KINDS)}; or off."
        )
    return tuple(words)


class Command(BaseCommand):
    help = (
        "Pause what runs on this database (pause, resume), have it work for N percent of the"
        " time (throttle N), or not slow down for something (ignore WHAT). It holds within a"
        " batch, and for every later run too, until it is undone with resume, throttle off,"
        " ignore off. Without an action, say what is in force."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "action",
            nargs="?",
            choices=ACTIONS,
            metavar="ACTION",
            help=" | ".join(ACTIONS),
        )
        parser.add_argument(
            "words",
            nargs="*",
            metavar="WORD",
            help="for throttle: percent of the time, or off; for ignore:"
            f" {', '.join(control.KINDS)}, or off",
        )
        parser.add_argument("--json", action="store_true", help="one JSON document")

    def handle(self, *args: Any, **options: Any) -> None:
        if not control.exists(self.connection):
            raise CannotRun(
                "Nothing can be paused yet: the tables for it come with the first migration."
                " Run: python manage.py migrate"
            )
        action, words = options["action"], options["words"]
        if action in ("pause", "resume") and words:
            raise CannotRun(
                f"{action} takes no more words, and not {' '.join(words)!r}."
            )
        if action is not None:
            sentence = getattr(self, action)(words)
        if options["json"]:
            self.print_json(control.as_json(self.connection))
        elif action is None:
            self.show()
        else:
            self.say(sentence)

    def pause(self, words: list[str]) -> str:
        before = control.pause(self.connection)
        if before.is_paused:
            return f"It is {before.pause}"
        if self.is_at_work():
            return "Paused; what runs waits from its next batch on."
        return (
            "Paused. No command is at work just now: the next one will wait before its"
            f" first batch, and so does settle --watch. Resume with: {control.RESUME}"
        )

    def resume(self, words: list[str]) -> str:
        before = control.resume(self.connection)
        if not before.is_paused:
            return "It was not paused."
        if self.is_at_work():
            return "Resumed; what waited goes on."
        return "Resumed. No command is at work just now; run it again to go on."

    def throttle(self, words: list[str]) -> str:
        share = percent(words)
        control.throttle(self.connection, share)
        if share is None:
            return "No longer throttled."
        return f"At work {share} % of the time from the next batch on."

    def ignore(self, words: list[str]) -> str:
        ignored = kinds(words)
        control.ignore(self.connection, ignored)
        if not ignored:
            return "It slows down again for whatever needs it."
        return f"Nothing slows down for {' or '.join(ignored)} any more."

    def show(self) -> None:
        orders = control.read(self.connection)
        for sentence in orders.sentences() or ["No orders are in force."]:
            self.say(sentence)
        for report in control.reports(self.connection):
            self.say(f"{report.step}: {report.why}")

    def is_at_work(self) -> bool:
        try:
            with locks.exclusive(self.connection):
                return False
        except locks.Busy:
            return True
