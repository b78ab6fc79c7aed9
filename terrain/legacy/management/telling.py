"""How a command shows what a backup or a restore is doing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from terrain.legacy.backup.telling import Teller

#: Seconds between two lines where nobody watches.
INTERVAL = 5.0


class Shown(Teller):
    """Lines; and how far things are, as a bar on a terminal, as a line now and then in a pipe."""

    def __init__(self, say: Callable[[str], None], bar: Progress | None) -> None:
        self._say = say
        self._bar = bar
        self._task: TaskID | None = None
        self._what = ""
        self._began = self._shown = time.monotonic()

    def say(self, text: str) -> None:
        self._end()
        self._say(text)

    def progress(self, what: str, done: int, total: int | None, unit: str) -> None:
        now = time.monotonic()
        if what != self._what:
            self._end()
            self._what, self._began, self._shown = what, now, now
        text = told(done, total, unit, now - self._began)
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task(what, detail="")
            # Never full before the work is: what is expected is a guess.
            self._bar.update(
                self._task,
                total=total,
                completed=done if total is None else min(done, total * 0.99),
                detail=text,
            )
        elif now - self._shown >= INTERVAL:
            self._shown = now
            self._say(f"  … {what}: {text}")

    def _end(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
        self._task, self._what = None, ""


@contextmanager
def shown(say: Callable[[str], None], verbosity: int) -> Iterator[Teller]:
    """A teller for the length of a command."""
    if verbosity == 0 or not sys.stderr.isatty():
        yield Shown(say, None)
        return
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield Shown(say, bar)


def told(done: int, total: int | None, unit: str, seconds: float) -> str:
    """How far something is, how fast it goes, and how long that will take."""
    rate = done / seconds if seconds > 0 else 0.0
    text = (
        f"{_amount(done, unit)} of about {_amount(total, unit)}"
        if total
        else _amount(done, unit)
    )
    if rate:
        text += f", {_amount(rate, unit)}/s"
    if rate and total and total > done:
        text += f", {(total - done) / rate:,.0f} s left"
    return text


def _amount(number: float, unit: str) -> str:
    return f"{number / 1e6:,.1f} MB" if unit == "B" else f"{number:,.0f} {unit}"
