"""The one place that takes locks and sets time-outs.

A statement that changes a table's definition needs a lock that conflicts with every other
statement on the table, and everybody who comes after it queues behind it.  So nobody here
waits long for one: the attempt gives up after ``LOCK_TIMEOUT``, steps out of the queue,
and is made again a little later.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from django.db import DatabaseError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import errors

T = TypeVar("T")
Say = Callable[[str], None]

#: Milliseconds one attempt waits for its locks, and so at most delays others.
LOCK_TIMEOUT = 100
#: Seconds after which a command stops trying.
TOTAL_LIMIT = 60.0
#: Seconds between attempts: doubled each time, drawn at random up to this.
LONGEST_PAUSE = 2.0
#: Seconds a single write of the new application goes on trying.
PATIENCE = 3.0

#: Advisory lock: the run of a command that changes the database.
RUN_LOCK = 0x7E44A101
#: Advisory lock, with the number of a table: deletions share it, a batch of a copy has it alone.
COPY_LOCK = 0x7E44A102

_RETRIED = (
    errors.LockNotAvailable,
    errors.DeadlockDetected,
    errors.SerializationFailure,
)


class LockNotObtained(DatabaseError):
    """The locks a step needs were held by others until the limit; nothing was changed."""


@dataclass(frozen=True)
class Blocker:
    """Another session that holds a lock on one of our tables."""

    pid: int
    role: str
    application: str
    seconds: float
    statement: str

    def __str__(self) -> str:
        what = " ".join(self.statement.split())[:80]
        if what in ("", "<insufficient privilege>"):
            what = "its statement is not for this role to see"
        return (
            f"process {self.pid} (role {self.role}, {self.application or 'unnamed'}),"
            f" in its transaction for {self.seconds:.0f} s: {what}"
        )


def is_retried(error: BaseException) -> bool:
    """Whether the same statement may succeed if it is simply run again."""
    return isinstance(error.__cause__ or error, _RETRIED)


@contextmanager
def lock_timeout(connection: BaseDatabaseWrapper, milliseconds: int) -> Iterator[None]:
    """Within the current transaction, wait no longer than this for any lock."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('lock_timeout', %s, true)", [f"{milliseconds}ms"]
        )
        yield


def patiently(using: str, action: Callable[[], T], limit: float = PATIENCE) -> T:
    """Run ``action`` in a transaction, and again if it had to give way to somebody else.

    For a write of the new application: it yields at once to the old one, so that nobody
    waits for it between attempts.  Within a transaction it runs just once, because only the
    whole transaction can be done again.  ``using`` names the connection, ``limit`` is
    seconds; then what was raised last is raised.
    """
    connection = connections[using]
    if connection.in_atomic_block:
        return action()
    deadline = time.monotonic() + limit
    while True:
        try:
            with transaction.atomic(using=using):
                return action()
        except DatabaseError as error:
            if not is_retried(error) or time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(0, 0.1))


def run_briefly(
    connection: BaseDatabaseWrapper,
    action: Callable[[], T],
    *,
    what: str,
    tables: tuple[str, ...] = (),
    limit: float = TOTAL_LIMIT,
    say: Callable[[str], None] | None = None,
    also: tuple[type[Exception], ...] = (),
) -> T:
    """Run ``action`` in a transaction of its own that never waits long for a lock.

    It is retried for lock-not-available, deadlock and serialization failures only, and
    for errors of psycopg that are in ``also``, after random, growing pauses.  Raises
    :class:`LockNotObtained`, naming who was in the way, when ``limit`` seconds have
    passed.  ``tables`` are the qualified names to ask about.
    """
    deadline = time.monotonic() + limit
    pause = 0.05
    while True:
        try:
            with transaction.atomic(using=connection.alias), lock_timeout(
                connection, LOCK_TIMEOUT
            ):
                return action()
        except DatabaseError as error:
            if not is_retried(error) and not isinstance(error.__cause__, also):
                raise
            blockers = who_blocks(connection, tables)
            named = "; ".join(map(str, blockers)) or "nobody who is still there"
            if time.monotonic() > deadline:
                raise LockNotObtained(
                    f"{what} could not get its lock within {limit:.0f} s. In the way: {named}."
                    " Nothing was changed by this step; run the same command again to go on."
                ) from error
            if say is not None:
                say(f"{what} waits for a lock held by {named}.")
        time.sleep(random.uniform(0, pause))
        pause = min(pause * 2, LONGEST_PAUSE)


def who_blocks(
    connection: BaseDatabaseWrapper, tables: tuple[str, ...]
) -> list[Blocker]:
    """The sessions that hold a lock on any of ``tables``, longest transaction first."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT DISTINCT a.pid, coalesce(a.usename, ''), coalesce(a.application_name, ''),
                   coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float,
                   coalesce(a.query, '')
              FROM pg_locks l
              JOIN pg_stat_activity a USING (pid)
             WHERE l.relation = ANY (SELECT to_regclass(t) FROM unnest(%s::text[]) t)
               AND l.granted
               AND a.pid <> pg_backend_pid()
             ORDER BY 4 DESC
            """,
            [list(tables)],
        )
        return [Blocker(*row) for row in cursor.fetchall()]


# --- one run at a time ---------------------------------------------------------------------


class Busy(Exception):
    """Another command is at work on this database."""


@contextmanager
def exclusive(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Be the only command that changes this database; raises :class:`Busy`.

    An advisory lock of the session, so it goes when the process does, however it ends.
    It may be taken again by the same connection.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [RUN_LOCK])
        (is_ours,) = cursor.fetchone()
    if not is_ours:
        raise Busy(_who_is_running(connection))
    try:
        yield
    finally:
        if connection.connection is not None and not connection.connection.closed:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [RUN_LOCK])


def _who_is_running(connection: BaseDatabaseWrapper) -> str:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT a.pid, a.usename, a.application_name, a.backend_start"
            "  FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE l.locktype = 'advisory' AND l.granted"
            "   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            "   AND l.objid = %s AND l.classid = 0 AND l.pid <> pg_backend_pid()",
            [RUN_LOCK],
        )
        found = cursor.fetchall()
    who = "; ".join(
        (
            f"process {pid} of the server ({application or 'unnamed'}, role {role},"
            f" connected since {since:%H:%M:%S} UTC)"
            if since is not None  # hidden from a plain owner, if another role's
            else f"process {pid} of the server (role {role})"
        )
        for pid, role, application, since in found
    )
    return (
        f"Another command is at work on this database: {who or 'it has just ended'}."
        " Wait for it, or look with: python manage.py migration_status"
    )
