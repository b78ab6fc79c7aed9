"""What was run and how far it got, kept in the database so that it can be gone on with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from terrain import locks
from terrain.legacy import catalog
from terrain.legacy.models import Run


class Busy(Exception):
    """Another command is at work on this database."""


@contextmanager
def exclusive(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Be the only command that changes this database; raises :class:`Busy`.

    An advisory lock of the session, so it goes when the process does, however it ends.
    It may be taken again by the same connection.
    """
    if not catalog.value(
        connection, "SELECT pg_try_advisory_lock(%s)", [locks.RUN_LOCK]
    ):
        raise Busy(_who_is_running(connection))
    try:
        yield
    finally:
        if connection.connection is not None and not connection.connection.closed:
            catalog.value(connection, "SELECT pg_advisory_unlock(%s)", [locks.RUN_LOCK])


def _who_is_running(connection: BaseDatabaseWrapper) -> str:
    found = catalog.rows(
        connection,
        "SELECT a.pid, a.usename, a.application_name, a.backend_start"
        "  FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " WHERE l.locktype = 'advisory' AND l.granted"
        "   AND l.objid = %s AND l.classid = 0 AND l.pid <> pg_backend_pid()",
        [locks.RUN_LOCK],
    )
    who = "; ".join(
        f"process {pid} of the server ({application or 'unnamed'}, role {role},"
        f" connected since {since:%H:%M:%S} UTC)"
        for pid, role, application, since in found
    )
    return (
        f"Another command is at work on this database: {who or 'it has just ended'}."
        " Wait for it, or look with: python manage.py migration_status"
    )


def last(step: str, using: str = "default") -> Run | None:
    """The newest run of a step."""
    return Run.objects.using(using).filter(step=step).order_by("-id").first()


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


@dataclass(frozen=True)
class Progress:
    """How far a step is: a value, for terminals, logs and JSON to render.

    ``rate`` is rows a second while at work, ``left`` seconds, None while unknown.
    """

    step: str
    done: int
    total: int | None
    seconds: float
    note: str = ""

    @property
    def rate(self) -> float:
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def left(self) -> float | None:
        if self.total is None or not self.rate:
            return None
        return max(self.total - self.done, 0) / self.rate
