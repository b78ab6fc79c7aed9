"""Sessions and commands that are stepped: a statement that has to wait is left waiting.

libpq is asked without blocking, so one thread steps them all.  Whether a statement waits
for a lock is asked of the server, over a connection of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
from django.db import connection as django_connection
from psycopg.pq import ExecStatus

from tests.legacy import ids, named

#: Seconds after which something that should have happened never will.
NEVER = 20.0
#: Seconds somebody who waits is looked at before others go on.
PATIENCE = 0.06


@dataclass(frozen=True)
class Outcome:
    """What became of a statement: rows (as text, ids by name), or an error."""

    status: str
    rows: tuple[tuple[Any, ...], ...] = ()
    sqlstate: str | None = None
    message: str = ""
    context: str = ""
    schema: str | None = None

    @property
    def failed(self) -> bool:
        return self.sqlstate is not None


@dataclass
class Session:
    """A connection whose statements are sent and looked after separately."""

    connection: psycopg.Connection[Any]
    monitor: psycopg.Connection[Any]
    name: str = ""
    waiting: str | None = None
    _row: str | None = None
    _got: list[Outcome] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.connection.info.backend_pid

    def send(self, statement: str, row: str | None = None) -> None:
        """Begin a statement, and do not wait for it; ``row`` is what it copies in."""
        assert self.waiting is None, f"{self.name} is still at {self.waiting}"
        self.waiting = statement
        self._row = row
        self._got.clear()
        self.connection.pgconn.send_query(ids(statement).encode())

    def poll(self) -> Outcome | None:
        """The outcome of what was sent, if there is one yet."""
        pgconn = self.connection.pgconn
        pgconn.consume_input()
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                self.waiting = None
                return self._got[-1]
            if result.status == ExecStatus.COPY_IN:
                pgconn.put_copy_data(ids(self._row or "").encode())
                pgconn.put_copy_end()
                continue
            self._got.append(_outcome(result))
        return None

    def blockers(self) -> list[int]:
        """Who holds the lock that the session waits for: process ids."""
        found = self.monitor.execute(
            "SELECT pg_blocking_pids(%s)", [self.pid]
        ).fetchone()
        assert found is not None
        return list(found[0])

    def until_blocked(self) -> Outcome | None:
        """Wait until the statement is over, or waits for a lock (None)."""
        deadline = time.monotonic() + NEVER
        while True:
            outcome = self.poll()
            if outcome is not None or self.blockers():
                return outcome
            assert time.monotonic() < deadline, f"{self.name}: {self.waiting}"

    def until_done(self) -> Outcome:
        """Wait until the statement is over."""
        deadline = time.monotonic() + NEVER
        while True:
            outcome = self.poll()
            if outcome is not None:
                return outcome
            assert time.monotonic() < deadline, f"{self.name}: {self.waiting}"
            time.sleep(0.0005)

    def does(self, statement: str) -> Outcome:
        """A statement from beginning to end, whatever becomes of it."""
        self.send(statement)
        return self.until_done()

    def waits(self, statement: str) -> None:
        """A statement that has to wait for somebody."""
        self.send(statement)
        assert self.until_blocked() is None, f"{statement} did not wait"


def _outcome(result: Any) -> Outcome:
    def diagnosed(name: str) -> str | None:
        value = result.error_field(getattr(psycopg.pq.DiagnosticField, name))
        return value.decode() if value is not None else None

    if result.status in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
        rows = tuple(
            tuple(
                named(value.decode()) if value is not None else None
                for value in (
                    result.get_value(row, column) for column in range(result.nfields)
                )
            )
            for row in range(result.ntuples)
        )
        return Outcome((result.command_status or b"").decode(), rows)
    return Outcome(
        "ERROR",
        sqlstate=diagnosed("SQLSTATE"),
        message=named(diagnosed("MESSAGE_PRIMARY") or ""),
        context=diagnosed("CONTEXT") or "",
        schema=diagnosed("SCHEMA_NAME"),
    )


# --- commands ------------------------------------------------------------------------------


class Command:
    """A command in a thread, which stops between a batch and its commit."""

    def __init__(self, name: str, action: Callable[[], Any]) -> None:
        self.name = name
        self.action = action
        self.gate = threading.Semaphore(0)
        self.stopped = threading.Event()
        self.free = False
        self.error: BaseException | None = None
        self.pid = 0
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        _here.command = self
        try:
            self.gate.acquire()
            django_connection.ensure_connection()
            self.pid = django_connection.connection.info.backend_pid
            self.action()
        except BaseException as error:
            self.error = error
        finally:
            django_connection.close()
            self.stopped.set()

    def pause(self) -> None:
        """Called by the thread: wait to be told to go on."""
        if not self.free:
            self.stopped.set()
            self.gate.acquire()

    def go_on(self) -> None:
        """Until it stops again, is over, or has waited a while for somebody's lock."""
        if self.thread.ident is None:
            self.thread.start()
        elif not self.stopped.is_set():
            self.stopped.wait(PATIENCE)
            return
        if self.over:
            return
        self.stopped.clear()
        self.gate.release()
        self.stopped.wait(PATIENCE)

    @property
    def over(self) -> bool:
        return self.thread.ident is not None and not self.thread.is_alive()

    def finish(self) -> None:
        """Without further stops; its error, if any, is raised."""
        self.free = True
        if self.thread.ident is None:
            self.thread.start()
        self.gate.release()
        self.thread.join(30)
        assert not self.thread.is_alive(), f"{self.name} does not end"
        if self.error is not None:
            raise self.error


_here = threading.local()


def pause_at_commit(store: Callable[..., None]) -> Callable[..., None]:
    """``copying._store_cursor``, which is the last thing a batch does, with a stop after it."""

    def stored(*arguments: Any) -> None:
        store(*arguments)
        command = getattr(_here, "command", None)
        if command is not None:
            command.pause()

    return stored
