"""How far a step is: one value, which a terminal, a log and JSON each show in their way.

What works reports, and need not know who looks: ``with measured("copy orders", total) as
advance: … advance(rows)``.  What runs a command says where it is shown: ``with
shown(verbosity): …``.  Reports only leave the value behind; a clock of its own shows it, so
that a step which is one long statement is seen to be alive too.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TextIO

#: Seconds between two lines where nobody redraws them: in a pipe, in a log.
INTERVAL = 5.0


@dataclass(frozen=True)
class Progress:
    """How far a step is.

    ``rate`` is units a second while at work, ``left`` seconds, None while unknown.  With
    the unit ``B`` (bytes) ``total`` is an estimate.
    ``note`` is whatever else is to be said of it: why it slows, who it waits for.
    """

    step: str
    done: int
    total: int | None
    seconds: float
    note: str = ""
    unit: str = "rows"

    @property
    def rate(self) -> float:
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def left(self) -> float | None:
        if self.total is None or not self.rate:
            return None
        return max(self.total - self.done, 0) / self.rate

    def as_json(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "done": self.done,
            "total": self.total,
            "unit": self.unit,
            "seconds": round(self.seconds, 1),
            "rate": round(self.rate, 1),
            "left": None if self.left is None else round(self.left, 1),
            "note": self.note,
        }

    def __str__(self) -> str:
        """As a line, without what a bar would show: step, count, rate, time left."""
        return f"{self.step}: {self.figures}"

    @property
    def figures(self) -> str:
        """All but the step.  Time left of a few rows, or a moment, would be a guess."""
        if not self.done:
            said = [duration(self.seconds)]
        else:
            said = [self._amounts]
            if self.unit == "B":
                said.append(f"{self.rate / 1e6:,.1f} MB/s")
            elif self.unit == "rows" or self.rate >= 1:
                said.append(f"{self.rate:,.0f}/s")
            if self.left is not None:
                said.append(f"{duration(self.left)} left")
        return ", ".join(said) + (f" ({self.note})" if self.note else "")

    @property
    def _amounts(self) -> str:
        if self.unit == "B":
            of = f" of about {self.total / 1e6:,.1f}" if self.total else ""
            return f"{self.done / 1e6:,.1f}{of} MB"
        of = f" of {self.total:,}" if self.total else ""
        return f"{self.done:,}{of} {self.unit}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(whole / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


# --- reporting -----------------------------------------------------------------------------

Report = Callable[[Progress], None]

#: Where progress is shown; a command that runs another puts the other's on top.
_displays: list[Display] = []


#: What is to be said of whatever is reported, see :func:`remark`.
_remark = ""


def report(progress: Progress) -> None:
    """Leave word of how far a step is, for whoever looks."""
    if _displays:
        if _remark and not progress.note:
            progress = replace(progress, note=_remark)
        _displays[-1].now(progress)


def remark(text: str) -> None:
    """Add a note to all that is reported from now on: why it slows; empty for none."""
    global _remark
    _remark = text


def say(sentence: str) -> None:
    """Show a sentence on a line of its own, beside the progress."""
    if _displays:
        make_way()
        _displays[-1].say(sentence)


def make_way() -> None:
    """Clear the line that is redrawn, because something else is about to be written."""
    for display in _displays:
        display.clear()


@contextmanager
def measured(
    step: str, total: int | None = None, unit: str = "rows"
) -> Iterator[Callable[[int], None]]:
    """A step that is as long as the block; call what it yields with what is done now."""
    started = time.monotonic()
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        report(Progress(step, done, total, time.monotonic() - started, unit=unit))

    advance(0)
    try:
        yield advance
    finally:
        make_way()


# --- showing -------------------------------------------------------------------------------


@contextmanager
def shown(
    verbosity: int, stream: TextIO | None = None, *, within_line: bool = False
) -> Iterator[None]:
    """Show what is reported meanwhile on ``stream``, standard error unless given.

    On a terminal a line is redrawn, elsewhere there is a line every few seconds, with
    verbosity 0 nothing.  With ``within_line`` each begins with a new line, because what is
    written beside leaves its own unfinished (``Applying …``).
    """
    stream = sys.stderr if stream is None else stream
    display: Display
    if verbosity == 0 or _displays and type(_displays[-1]) is Display:
        display = Display()  # who is run by somebody quiet is quiet
    elif stream.isatty():
        display = Terminal(stream, within_line)
    else:
        display = Lines(stream, within_line)
    _displays.append(display)
    try:
        yield
    finally:
        _displays.remove(display)
        display.clear()


class Display:
    """Shows nothing."""

    def now(self, progress: Progress) -> None:
        """This is how far it is now; called by any thread."""

    def clear(self) -> None:
        """Show nothing until the next word of progress."""

    def say(self, sentence: str) -> None:
        """Show a sentence; called by any thread."""


class Lines(Display):
    """A line every few seconds, so that a log tells what was going on and when."""

    def __init__(self, stream: TextIO, within_line: bool = False) -> None:
        self.stream = stream
        self.form = "\n    … {}" if within_line else "  … {}\n"
        self.latest: Progress | None = None
        self.at = 0.0
        self.over = threading.Event()
        self.lock = threading.Lock()

    def now(self, progress: Progress) -> None:
        with self.lock:
            is_new = self.latest is None
            self.latest, self.at = progress, time.monotonic()
            if is_new:
                self.over = threading.Event()
                threading.Thread(
                    target=self._tick, args=(self.over,), daemon=True
                ).start()

    def clear(self) -> None:
        with self.lock:
            self.latest = None
            self.over.set()

    def say(self, sentence: str) -> None:
        with self.lock:
            self.stream.write(self.form.format(sentence))
            self.stream.flush()

    def _tick(self, over: threading.Event) -> None:
        while not over.wait(INTERVAL):
            with self.lock:
                if over.is_set() or self.latest is None:
                    return
                self.stream.write(self.form.format(aged(self.latest, self.at)))
                self.stream.flush()


class Terminal(Display):
    """A line that is redrawn: step, bar, count, rate, time left."""

    def __init__(self, stream: TextIO, within_line: bool = False) -> None:
        self.stream = stream
        self.form = "\n    {}" if within_line else "  {}\n"
        self.bar: Any = None
        self.lock = threading.Lock()

    def now(self, progress: Progress) -> None:
        with self.lock:
            value = {
                "description": progress.step,
                "completed": progress.done,
                "total": progress.total or None,
                "latest": progress,
                "at": time.monotonic(),
            }
            if self.bar is None:
                self.bar = self._made()
                self.bar.add_task(**value)
                self.bar.start()
            else:
                (task,) = self.bar.task_ids
                self.bar.update(task, **value)

    def clear(self) -> None:
        with self.lock:
            if self.bar is not None:
                self.bar.stop()
                self.bar = None

    def say(self, sentence: str) -> None:
        with self.lock:
            self.stream.write(self.form.format(sentence))
            self.stream.flush()

    def _made(self) -> Any:
        # Not needed by what is run in a pipe, and it takes a while to load.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn
        from rich.text import Text

        class Figures(ProgressColumn):
            def render(self, task: Any) -> Text:
                latest = task.fields["latest"]
                return Text(aged(latest, task.fields["at"]).figures)

        class Step(ProgressColumn):
            def render(self, task: Any) -> Text:
                return Text(f"  {task.description}", no_wrap=True)

        return Progress(
            Step(),
            BarColumn(bar_width=20),
            Figures(),
            console=Console(file=self.stream, highlight=False),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            refresh_per_second=5,
        )


def aged(progress: Progress, at: float) -> Progress:
    """The same, now that time has passed since ``at`` in which nothing was reported.

    Only before the first unit is done: later it would make the rate jump.
    """
    if progress.done:
        return progress
    return replace(progress, seconds=progress.seconds + time.monotonic() - at)
