"""The one place that takes locks and sets time-outs.

A statement that changes a table's definition needs a lock that conflicts with every other
statement on the table, and everybody who comes after it queues behind it.  So nobody here
waits long for one: the attempt gives up after a moment, steps out of the queue, and is
made again a little later.  See docs/decisions/0007-short-locks.md.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import DatabaseError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import errors, sql

from terrain.blockers import Mode, who_blocks
from terrain.pace import breathe
from terrain.waiting import Say, Told, done, named

T = TypeVar("T")

#: Milliseconds one attempt waits for its locks at most, and so delays others.
LOCK_TIMEOUT = 100
#: Milliseconds the first attempt at a table waits; each one after it twice as long.
FIRST_TIMEOUT = 20
#: Milliseconds waited for anything else by an attempt that has its first table already.
NEXT_TIMEOUT = 10
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
#: Advisory lock: summing up what was counted, which two could only do in each other's way.
USAGE_LOCK = 0x7E44A103
#: Advisory lock: a verification, which reads and needs no other command to stand still.
VERIFY_LOCK = 0x7E44A104

_RETRIED = (
    errors.LockNotAvailable,
    errors.DeadlockDetected,
    errors.SerializationFailure,
)


class LockNotObtained(DatabaseError):
    """The locks a step needs were held by others until the limit; nothing was changed.

    ``what`` could not be done within ``limit`` seconds, ``in_the_way`` names the others.
    """

    def __init__(self, what: str, limit: float, in_the_way: str) -> None:
        super().__init__(
            f"{what} could not get its lock within {limit:.0f} s. In the way: {in_the_way}."
            " Nothing was changed by this step; run the same command again to go on."
        )
        self.what = what
        self.limit = limit
        self.in_the_way = in_the_way

    def of(self, what: str) -> LockNotObtained:
        """The same of something that is better known."""
        return LockNotObtained(what, self.limit, self.in_the_way)


def is_retried(error: BaseException) -> bool:
    """Whether the same statement may succeed if it is simply run again."""
    return isinstance(error.__cause__ or error, _RETRIED)


@contextmanager
def lock_timeout(connection: BaseDatabaseWrapper, milliseconds: int) -> Iterator[None]:
    """Within the current transaction, wait no longer than this for any lock."""
    _wait_at_most(connection, milliseconds)
    yield


def _wait_at_most(connection: BaseDatabaseWrapper, milliseconds: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('lock_timeout', %s, true)", [f"{milliseconds}ms"]
        )


def patiently(using: str, action: Callable[[], T], limit: float = PATIENCE) -> T:
    """Run ``action`` in a transaction, and again if it had to give way to somebody else.

    For a write of the new application: it yields at once to the old one, so that nobody
    waits for it between attempts.  It is also run again if our tables have changed schemas since
    the transaction began (``cut_over``).  Within a transaction it runs just once, because only the
    whole transaction can be done again.  ``using`` names the connection, ``limit`` is
    seconds; then what was raised last is raised.
    """
    connection = connections[using]
    if connection.in_atomic_block:
        return action()
    deadline = time.monotonic() + limit
    while True:
        path = getattr(connection, "own_path", None)
        try:
            with transaction.atomic(using=using):
                return action()
        except DatabaseError as error:
            is_elsewhere = (
                isinstance(error.__cause__, errors.UndefinedTable)
                and getattr(connection, "own_path", None) != path
            )
            if not (is_retried(error) or is_elsewhere) or time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(0, 0.1))


# --- briefly -------------------------------------------------------------------------------


def run_briefly(
    connection: BaseDatabaseWrapper,
    action: Callable[[], T],
    *,
    what: str,
    tables: tuple[str, ...] = (),
    mode: Mode | None = None,
    limit: float | None = None,
    say: Say | None = None,
    also: tuple[type[Exception], ...] = (),
    before: Callable[[], object] | None = None,
) -> T:
    """Run ``action`` in a transaction of its own that never waits long for a lock.

    It is retried for lock-not-available, deadlock and serialization failures only, and
    for errors of psycopg that are in ``also``, after random, growing pauses.  With a
    ``mode`` all ``tables`` (qualified names; those that are not there are passed over, and
    views) are locked before ``action`` runs; without, they are only asked about.  ``before`` runs
    in the same transaction before that.  Raises
    :class:`LockNotObtained`, naming who was in the way, when ``limit`` seconds have passed
    (:data:`TOTAL_LIMIT`).  Within a transaction it runs ``action`` once and leaves the rest
    to whoever has begun that: trying again would keep what it has locked already.
    """
    if connection.in_atomic_block:
        return action()
    turn = _Turn(connection, list(tables), mode)

    def run() -> T:
        with transaction.atomic(using=connection.alias):
            if before is not None:
                before()
            turn.lock()
            return action()

    return _again_and_again(turn, run, what, limit, say, also)


def change_briefly(
    connection: BaseDatabaseWrapper,
    statements: Sequence[str],
    *,
    what: str,
    tables: tuple[str, ...],
    mode: Mode,
    limit: float | None = None,
    say: Say | None = None,
) -> None:
    """Run statements that need ``tables`` locked in ``mode``, as :func:`run_briefly` does.

    Locks, statements and commit are one message: however far away or busy this side is,
    what is locked does not wait for it.
    """
    if connection.in_atomic_block:
        _execute(connection, statements)
        return
    turn = _Turn(connection, list(tables), mode)
    _again_and_again(turn, lambda: turn.change(statements), what, limit, say)


def _again_and_again(
    turn: _Turn,
    run: Callable[[], T],
    what: str,
    limit: float | None,
    say: Say | None,
    also: tuple[type[Exception], ...] = (),
) -> T:
    limit = TOTAL_LIMIT if limit is None else limit
    deadline = time.monotonic() + limit
    told = Told(what, say)
    pause = 0.05
    while True:
        try:
            result = run()
        except DatabaseError as error:
            if not is_retried(error) and not isinstance(error.__cause__, also):
                raise
            blockers = who_blocks(turn.connection, tuple(turn.tables), turn.mode)
            if time.monotonic() > deadline:
                raise LockNotObtained(what, limit, named(blockers)) from error
            told.waits_for(blockers)
        else:
            if turn.mode is not None:
                turn.tell(what, told.began)
                breathe(turn.connection)
            return result
        time.sleep(random.uniform(0, pause))
        pause = min(pause * 2, LONGEST_PAUSE)


def _execute(
    connection: BaseDatabaseWrapper, statements: Iterable[str]
) -> list[tuple[Any, ...]]:
    """Run statements as one message, which is one transaction; the rows of all of them."""
    found: list[tuple[Any, ...]] = []
    with connection.cursor() as cursor:
        cursor.execute("\n;\n".join(statements))
        while True:
            if cursor.description is not None:
                found += cursor.fetchall()
            if not cursor.nextset():
                return found


@dataclass
class _Turn:
    """How long is waited for which lock: the first time hardly, then longer.

    Who waits holding nothing delays only those who come to the same table after it.  So
    the wait is for the first table, the others are to be had almost at once; and another
    one is the first the next time.  ``seconds`` is how long the last one had its locks.
    """

    connection: BaseDatabaseWrapper
    tables: list[str]
    mode: Mode | None
    timeout: int = FIRST_TIMEOUT
    attempts: int = 0
    locked_at: float = 0.0
    seconds: float | None = None

    def lock(self) -> None:
        """Take the locks, within the transaction of the attempt."""
        _execute(self.connection, self._locking())
        self.locked_at = time.monotonic()

    def change(self, statements: Sequence[str]) -> None:
        """Take the locks and run the statements."""
        now = "SELECT clock_timestamp()"
        (locked,), (done_at,) = _execute(
            self.connection, [*self._locking(), now, *statements, now]
        )
        self.seconds = (done_at - locked).total_seconds()

    def _locking(self) -> list[str]:
        self.attempts += 1
        if self.mode is None:
            return [f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}"]
        statements = list(self._statements(*self._known()))
        self.timeout = min(self.timeout * 2, LOCK_TIMEOUT)
        self.tables = [*self.tables[1:], *self.tables[:1]]
        return statements

    def _known(self) -> tuple[list[str], int]:
        """The tables that can be locked, and the server's deadlock_timeout in milliseconds.

        A view cannot: what it is made from would be locked as well.
        """
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT array(SELECT t FROM unnest(%s::text[]) WITH ORDINALITY AS u (t, n)"
                "  JOIN pg_class c ON c.oid = to_regclass(t) WHERE c.relkind IN ('r', 'p')"
                "  ORDER BY n),"
                " (SELECT setting::int FROM pg_settings WHERE name = 'deadlock_timeout')",
                [self.tables],
            )
            found: tuple[list[str], int] = cursor.fetchone()
        return found

    def _statements(self, tables: list[str], deadlock_timeout: int) -> Iterator[str]:
        """First behind whoever vacuums, where nobody has to wait behind us.

        An autovacuum makes way for who has waited for ``deadlock_timeout`` (1 s).  The lock
        that it has itself is enough to make it, and lets reads and writes pass, also while
        it is waited for.  Had here, no other vacuum can begin before the attempt ends.
        """
        yield f"SET LOCAL lock_timeout = {deadlock_timeout + 1000}"
        for table in tables:
            yield f"LOCK TABLE {_quoted(table)} IN {Mode.SHARE_UPDATE_EXCLUSIVE} MODE"
        timeout = self.timeout
        for table in tables:
            yield f"SET LOCAL lock_timeout = {timeout}"
            yield f"LOCK TABLE {_quoted(table)} IN {self.mode} MODE"
            timeout = NEXT_TIMEOUT
        yield f"SET LOCAL lock_timeout = {timeout}"

    def tell(self, what: str, began: float) -> None:
        """Let others know how long it took, once it is committed."""
        now = time.monotonic()
        seconds = now - self.locked_at if self.seconds is None else self.seconds
        done.send(
            sender=None,
            connection=self.connection,
            what=what,
            seconds=seconds,
            waited=now - began - seconds,
            attempts=self.attempts,
        )


def _quoted(table: str) -> str:
    """A qualified name, for SQL."""
    return sql.Identifier(*table.split(".")).as_string()


# --- one run at a time ---------------------------------------------------------------------


class Busy(Exception):
    """Another command is at work on this database."""


def ensure_alone(connection: BaseDatabaseWrapper) -> None:
    """Raise :class:`Busy` if another command is at work, before much is looked at."""
    if at_work(connection):
        raise Busy(_who_is_running(connection, RUN_LOCK))


@contextmanager
def exclusive(connection: BaseDatabaseWrapper, lock: int = RUN_LOCK) -> Iterator[None]:
    """Be the only command that changes this database; raises :class:`Busy`.

    ``lock`` may be another one than the run's, of what goes on beside it.

    An advisory lock of the session, so it goes when the process does, however it ends.
    It may be taken again by the same connection.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [lock])
        (is_ours,) = cursor.fetchone()
    if not is_ours:
        raise Busy(_who_is_running(connection, lock))
    try:
        yield
    finally:
        if connection.connection is not None and not connection.connection.closed:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [lock])


def at_work(connection: BaseDatabaseWrapper, lock: int = RUN_LOCK) -> list[str]:
    """Each other session that holds the lock of a run (or another), in words; taking nothing."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT a.pid, a.usename, a.application_name, a.backend_start"
            "  FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE l.locktype = 'advisory' AND l.granted"
            "   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            "   AND l.objid = %s AND l.classid = 0 AND l.pid <> pg_backend_pid()",
            [lock],
        )
        found = cursor.fetchall()
    return [
        (
            f"process {pid} of the server ({application or 'unnamed'}, role {role},"
            f" connected since {since:%H:%M:%S} UTC)"
            if since is not None  # hidden from a plain owner, if another role's
            else f"process {pid} of the server (role {role})"
        )
        for pid, role, application, since in found
    ]


def _who_is_running(connection: BaseDatabaseWrapper, lock: int) -> str:
    who = "; ".join(at_work(connection, lock))
    return (
        f"Another command is at work on this database: {who or 'it has just ended'}."
        " Wait for it, or look with: python manage.py migration_status"
    )
