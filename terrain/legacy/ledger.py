"""What was run and how far it got, kept in the database so that it can be gone on with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections
from django.utils import timezone

from terrain.legacy.models import Run
from terrain.legacy.remembering import is_on, once
from terrain.locks import Busy, exclusive

__all__ = [
    "Busy",
    "begin",
    "exclusive",
    "finish",
    "last",
    "locks_before",
    "note_lock",
    "recorded",
]


def last(step: str, using: str = "default") -> Run | None:
    """The newest run of a step."""
    if is_on():  # one question for all steps
        return once((using, "newest runs"), lambda: _newest(using)).get(step)
    return Run.objects.using(using).filter(step=step).order_by("-id").first()


def _newest(using: str) -> dict[str, Run]:
    newest = Run.objects.using(using).order_by("step", "-id").distinct("step")
    return {run.step: run for run in newest}


def begin(step: str, *, total: int | None = None, using: str = "default") -> Run:
    """The unfinished run of a step, to be gone on with, or a new one."""
    run = last(step, using)
    if run is None or run.state in (Run.State.DONE, Run.State.FAILED):
        run = Run(step=step, total=total)
    run.state = Run.State.RUNNING
    if total is not None:
        run.total = total
    run.save(using=using)
    return run


def finish(run: Run, *, state: str = Run.State.DONE, **detail: Any) -> None:
    """Close a run."""
    run.state = state
    run.finished_at = timezone.now()
    run.detail = {**run.detail, **detail}
    run.save()


@contextmanager
def recorded(step: str, using: str = "default", **detail: Any) -> Iterator[Run]:
    """A run that is as long as the block; failed if that raises, paused if interrupted."""
    run = begin(step, using=using)
    started = time.monotonic()
    try:
        yield run
    except BaseException as error:
        run.seconds += time.monotonic() - started
        stopped = isinstance(error, KeyboardInterrupt)
        if connections[using].connection is not None and connections[using].is_usable():
            finish(
                run, state=Run.State.PAUSED if stopped else Run.State.FAILED, **detail
            )
        raise
    run.seconds += time.monotonic() - started
    finish(run, **detail)


#: What the names of locks begin with, among the steps.
LOCK = "lock: "


def note_lock(
    using: str, what: str, seconds: float, waited: float, attempts: int
) -> None:
    """Remember how long something was locked, or took beside the traffic."""
    Run(
        step=f"{LOCK}{what}"[:100],
        state=Run.State.DONE,
        finished_at=timezone.now(),
        seconds=seconds,
        detail={"waited": round(waited, 4), "attempts": attempts},
    ).save(using=using)


def locks_before(using: str = "default") -> dict[str, float]:
    """What was locked -> how many seconds it took, the last time."""
    runs = Run.objects.using(using).filter(step__startswith=LOCK).order_by("id")
    return {run.step.removeprefix(LOCK): run.seconds for run in runs}
