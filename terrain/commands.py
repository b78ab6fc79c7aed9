"""What the project's management commands have in common.

Results go to standard output, progress and refusals to standard error, so that what is read
by a program is never mixed with what is read by a person.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from rich.console import Console
from rich.table import Table

from terrain import progress
from terrain.pace import control

#: Exit codes: the answer is no, and: there was no answer.
REFUSED, COULD_NOT_RUN = 1, 2


class Refusal(CommandError):
    """The command ran and says no: exit code 1."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, returncode=REFUSED)


class CannotRun(CommandError):
    """The command could not do its work: exit code 2."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, returncode=COULD_NOT_RUN)


def tell_orders(connection: Any) -> None:
    """Say what orders are in force for long runs: somebody may have forgotten them."""
    for sentence in control.in_force(connection).sentences():
        progress.say(sentence)


class Command(BaseCommand):
    """A command that prints tables to people and JSON to programs.

    System checks are left out: they say nothing about a database that is half-way.
    """

    requires_system_checks: list[str] = []
    #: Whether it has batches, and so waits while the move is paused.
    is_paced = False
    stealth_options = ("connection",)

    def run_from_argv(self, argv: list[str]) -> None:
        """As Django does, but a refusal is its sentence and nothing else."""
        try:
            super().run_from_argv([*argv, "--traceback"])  # so that it raises
        except CommandError as error:
            if "--traceback" in argv:
                raise
            self.stderr.write(str(error))
            sys.exit(error.returncode)

    def execute(self, *args: Any, **options: Any) -> Any:
        self.verbosity = options.get("verbosity", 1)
        if not self.is_coloured(**options):
            options["no_color"], options["force_color"] = True, False
        with progress.shown(self.verbosity):
            if self.is_paced:
                tell_orders(self.connection)
            return super().execute(*args, **options)

    def is_coloured(self, **options: Any) -> bool:
        """Whether there may be colours: on a terminal, unless somebody would rather not."""
        if options.get("no_color") or os.environ.get("NO_COLOR"):
            return False
        out: Any = options.get("stdout") or getattr(self.stdout, "_out", sys.stdout)
        return bool(options.get("force_color") or out.isatty())

    @property
    def connection(self) -> Any:
        return connection

    @property
    def console(self) -> Console:
        """Where people read: as wide as the terminal, wide enough in a pipe."""
        out = getattr(self.stdout, "_out", sys.stdout)
        width = None if out.isatty() else 160
        return Console(file=out, highlight=False, width=width)

    def say(self, text: str = "") -> None:
        """A line for people; silent with ``-v 0``."""
        if self.verbosity > 0:
            progress.make_way()
            self.stdout.write(text)

    def mark(self, sign: str) -> str:
        """``✓``, ``!``, ``✗`` or another sign, in its colour where there are colours."""
        styles = {
            "✓": self.style.SUCCESS,
            "!": self.style.WARNING,
            "✗": self.style.ERROR,
        }
        return styles[sign](sign) if sign in styles else sign

    def confirm(self, warning: str, word: str = "yes") -> None:
        """Have the user type a word.  Raises :class:`CannotRun` if nobody can be asked."""
        if not sys.stdin.isatty():
            raise CannotRun(
                f"{warning} Nobody is there to be asked; add --yes if that is meant."
            )
        progress.make_way()
        try:
            typed = input(f"{warning} Type {word} to go on: ").strip()
        except EOFError:
            typed = ""
        if typed != word:
            said = f"{typed!r} was typed" if typed else "nothing was typed"
            raise Refusal(f"Nothing was changed: {said}, and {word} was expected.")

    def print_json(self, document: Any) -> None:
        """The one document of ``--json``."""
        progress.make_way()
        self.stdout.write(
            json.dumps(document, indent=2, default=str, ensure_ascii=False)
        )

    def print_table(
        self, columns: list[str], rows: list[list[Any]], numbers: set[int]
    ) -> None:
        """A table for people; ``numbers`` are the columns set flush right."""
        if self.verbosity == 0:
            return
        table = Table(box=None, pad_edge=False)
        for index, name in enumerate(columns):
            table.add_column(name, justify="right" if index in numbers else "left")
        for row in rows:
            table.add_row(*("" if cell is None else str(cell) for cell in row))
        progress.make_way()
        self.console.print(table)
