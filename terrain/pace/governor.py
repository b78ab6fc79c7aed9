"""Keeps a long run at a pace that its operator wants and the shop can bear.

Between two batches a worker asks for its turn.  It gets it at once, after a rest, or when
a pause is over.  Meanwhile a connection of its own looks at what the run does to others;
it has to look while a batch is at work, because between two nobody waits for us.

Too much of anything halves the part of the time that is spent at work, down to ``CRAWL``;
when all is well it grows by a quarter with each look.  So a replica that is stuck slows a
run and does not stop it: it crawls on, and says so.  Only where the WAL of the run would
fill the server's disk does it stop until that is over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from terrain import progress
from terrain.pace import ALONE, BESIDE_OTHERS, Pace, control
from terrain.pace.control import Orders
from terrain.pace.models import PaceState
from terrain.pace.watch import Sign, Watch, usual_of

#: Seconds between two looks at the shop; a run that is over before is not watched.
LOOK_EVERY = 0.5
#: Seconds between two looks at the orders while waiting.
ORDERS_EVERY = 0.5
#: The least part of the time at work, whatever is wrong.
CRAWL = 0.05
#: The least part of its length that a batch is cut down to.
SHORTEST = 1 / 8
#: Seconds a rest between two batches may last.
LONGEST_REST = 60.0
#: Seconds between two changes of a sentence in the database.
TELL_EVERY = 1.0
#: Seconds the next step, which cannot be cut into batches, waits for the shop to recover.
STEP_PATIENCE = 120.0
#: Bytes of a table from which on a step about all of it is worth a look beforehand.
LARGE = 32 * 2**20

State = PaceState.State

#: What Ctrl-C says while paused.
STILL_PAUSED = (
    f"Stopped; the move is still paused. To go on: {control.RESUME}"
    " and then the same command again."
)


class Ungoverned:
    """For what is no long run: a few rows that somebody waits for."""

    def turn(self, connection: BaseDatabaseWrapper, pace: Pace) -> bool:
        """Whether the next batch may begin; returns when it may."""
        return True

    def committing(self) -> None:
        """All of this thread's batch is done but its commit."""


@dataclass
class Governor(Ungoverned):
    """One long run and its workers, each with a connection and a ``Pace``.

    ``ease`` is the part of the time at work that the shop can bear, ``why`` it is less
    than one, ``stopped_by`` what must be over before anything goes on.
    """

    alias: str
    step: str
    pid: int = 0
    has_orders: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    ease: float = 1.0
    why: str = ""
    stopped_by: str = ""
    alone: bool = False
    watch: Watch = field(default_factory=Watch)
    orders: Orders = field(default_factory=Orders)
    _paces: dict[int, Pace] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)
    _observer: threading.Thread | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _told: tuple[str, str] = ("", "")
    _told_at: float = 0.0
    _row: int | None = None
    _crawled: bool = False
    _stopped_at: float | None = None
    _stopped_for: float = 0.0

    # --- a worker's turn ---

    def turn(self, connection: BaseDatabaseWrapper, pace: Pace) -> bool:
        self._register(connection, pace)
        self._wait_while_stopped(connection)
        self._rest(connection, pace)
        if not self.stop.is_set():
            self._tell(connection)
        beside = BESIDE_OTHERS * max(self.ease, SHORTEST)
        pace.aim(ALONE * self.ease if self.alone else beside)
        return not self.stop.is_set()

    def committing(self) -> None:
        pace = self._paces.get(threading.get_ident())
        if pace is not None:
            pace.committing()

    def _register(self, connection: BaseDatabaseWrapper, pace: Pace) -> None:
        connection.ensure_connection()
        with self._lock:
            if self._paces.get(threading.get_ident()) is not pace:
                self._paces[threading.get_ident()] = pace
                self.watch.ours.add(connection.connection.info.backend_pid)
                self.alone = pace.seconds == ALONE
            if pace.commit is not None:
                self.watch.committed(pace.commit)
                pace.commit = None
            if self._observer is None and time.monotonic() - self._began > LOOK_EVERY:
                self._observer = threading.Thread(target=self._observe, daemon=True)
                self._observer.start()

    def _wait_while_stopped(self, connection: BaseDatabaseWrapper) -> None:
        """Wait for as long as somebody has paused the run, or it must not go on."""
        self._read_orders(connection)
        while self.is_stopped and not self.stop.is_set():
            self._tell(connection)
            self.stop.wait(ORDERS_EVERY)
            self._read_orders(connection)

    @property
    def is_stopped(self) -> bool:
        return self.orders.is_paused or bool(self.stopped_by)

    def _read_orders(self, connection: BaseDatabaseWrapper) -> None:
        if self.has_orders:
            self.orders = control.read(connection)

    @property
    def share(self) -> float:
        """The part of the time that may be spent at work now."""
        return min(self.ease, self.orders.percent / 100)

    def _rest(self, connection: BaseDatabaseWrapper, pace: Pace) -> None:
        """Rest after a batch, for as long as is right now: that may change meanwhile."""
        batch, pace.last = pace.last, 0.0
        began = time.monotonic()
        while not self.stop.is_set():
            rest = min(LONGEST_REST, batch * (1 / self.share - 1))
            left = began + rest - time.monotonic()
            if left <= 0:
                return
            self._tell(connection)
            if self.stop.wait(min(left, ORDERS_EVERY)) or left <= ORDERS_EVERY:
                return
            self._wait_while_stopped(connection)

    # --- what it does to others ---

    def _observe(self) -> None:
        """The observer's thread: look, and judge what was seen."""
        connection = connections[self.alias]  # this thread's own
        try:
            while not self.stop.wait(LOOK_EVERY):
                self.look(connection)
        except Error as error:
            # If the server is gone the workers will say so.
            self.ease, self.why, self.stopped_by = 1.0, "", ""
            if not self.stop.is_set():
                progress.say(f"What {self.step} does to others is not watched: {error}")
        finally:
            connection.close()

    def look(self, connection: BaseDatabaseWrapper) -> None:
        """Look once at what the run does to others, and slow down or speed up by it."""
        committing = [
            time.monotonic() - pace.commit_began
            for pace in list(self._paces.values())
            if pace.commit_began is not None
        ]
        signs = self.watch.look(connection, max(committing, default=0.0))
        self.alone = not self.watch.others_are_here(connection)
        self._judge([sign for sign in signs if sign.kind not in self.orders.ignored])
        for sentence in self.watch.unseen:
            progress.say(sentence)
        self.watch.unseen.clear()

    def _judge(self, signs: list[Sign]) -> None:
        worst = max(signs, key=lambda sign: sign.ratio, default=None)
        ratio = worst.ratio if worst is not None else 0.0
        if worst is not None and ratio > 1:
            self.ease, self.why = max(self.ease / 2, CRAWL), worst.sentence
            self._say_that_it_crawls(worst)
        elif ratio <= 0.5 and self.ease < 1:
            # Between the two it stays as it is, or it would swing to and fro.
            self.ease = min(1.0, self.ease * 1.25)
            self.why = "picking up speed again"
        if self.ease == 1:
            self.why, self._crawled = "", False
        stops = [sign.sentence for sign in signs if sign.stops]
        self.stopped_by = stops[0] if stops else ""

    def _say_that_it_crawls(self, worst: Sign) -> None:
        if self.ease > CRAWL or self._crawled:
            return
        self._crawled = True
        progress.say(
            f"{self.step} crawls, at work {CRAWL * 100:.0f} % of the time, and goes on so:"
            f" {worst.sentence}. To wait until that is over: python manage.py"
            " migration_control pause; not to mind it: python manage.py migration_control"
            f" ignore {worst.kind}"
        )

    # --- telling ---

    def _state(self) -> tuple[str, str]:
        """What is to be said of the run now: the state and the sentence, or nothing."""
        if self.orders.is_paused:
            return State.PAUSED, self.orders.pause
        if self.stopped_by:
            return State.WAITING, f"waits: {self.stopped_by}"
        if self.ease < 1:
            return State.SLOWED, f"slowed: {self.why}"
        if self.orders.percent < 100:
            return State.THROTTLED, self.orders.throttle
        return "", ""

    def _tell(self, connection: BaseDatabaseWrapper) -> None:
        """Say it where people look: progress, the log, ``migration_status``."""
        with self._lock:
            before, told = self._told, self._state()
            soon = time.monotonic() - self._told_at < TELL_EVERY
            if told == before or (told[0] == before[0] and soon):
                return
            self._told, self._told_at = told, time.monotonic()
            progress.remark(told[1])
            self._write(connection, *told)
            self._say_that_it_stops(before[0], *told)

    def _say_that_it_stops(self, before: str, state: str, why: str) -> None:
        stopped = (State.PAUSED, State.WAITING)
        if state in stopped and state != before:
            progress.say(f"{self.step}: {why}")
        elif before in stopped and state not in stopped:
            progress.say(f"{self.step}: goes on")
        if state in stopped:
            self._stopped_at = self._stopped_at or time.monotonic()
        elif self._stopped_at is not None:
            self._stopped_for += time.monotonic() - self._stopped_at
            self._stopped_at = None

    @property
    def stopped_seconds(self) -> float:
        """How long it has waited so far because it was paused or must not go on."""
        now = 0.0 if self._stopped_at is None else time.monotonic() - self._stopped_at
        return self._stopped_for + now

    def _write(self, connection: BaseDatabaseWrapper, state: str, why: str) -> None:
        if not self.has_orders:
            return
        given: dict[str, Any] = {"step": self.step, "state": state, "why": why}
        given |= {"pid": self.pid, "id": self._row}
        with connection.cursor() as cursor:
            if not state:
                cursor.execute(control.query("take_state_away"), given)
                self._row = None
            elif self._row is None:
                cursor.execute(control.query("put_state"), given)
                found = cursor.fetchone()
                self._row = found[0] if found else None
            else:
                cursor.execute(control.query("change_state"), given)

    def _end(self, connection: BaseDatabaseWrapper) -> None:
        """However it ends: no observer, nothing said of it any more."""
        self.stop.set()
        if self._observer is not None:
            self._observer.join(
                LOOK_EVERY * 10
            )  # a server that hangs is not waited for
        progress.remark("")
        # With a connection that is broken, what is left says nothing: its session is gone.
        if self._row is not None:
            with suppress(Error):
                self._write(connection, "", "")


@contextmanager
def governed(connection: BaseDatabaseWrapper, step: str) -> Iterator[Governor]:
    """A long run, called ``step``, that obeys orders and watches its effect."""
    connection.ensure_connection()
    governor = Governor(
        connection.alias,
        step,
        pid=connection.connection.info.backend_pid,
        has_orders=control.exists(connection),
        watch=Watch(usual_of(connection)),
    )
    try:
        yield governor
    except KeyboardInterrupt as stop:
        if governor.orders.is_paused:
            raise KeyboardInterrupt(STILL_PAUSED) from stop
        raise
    finally:
        governor._end(connection)


def between_steps(
    connection: BaseDatabaseWrapper, step: str, table: str | None = None
) -> None:
    """Before a step that cannot be cut into batches: wait while paused.

    If it is about all of a large ``table`` (a qualified name), and the shop still suffers
    from what came before, wait for that too, two minutes at most: nobody can set the pace
    of what is one statement.
    """
    with governed(connection, step) as governor:
        pace = Pace(BESIDE_OTHERS)
        governor.turn(connection, pace)
        if table is None or not _is_large(connection, table):
            return
        deadline = time.monotonic() + STEP_PATIENCE
        while governor.turn(connection, pace):
            governor.look(connection)
            is_late = time.monotonic() > deadline
            if not governor.is_stopped and (governor.ease == 1 or is_late):
                return
            governor.stop.wait(LOOK_EVERY)


def _is_large(connection: BaseDatabaseWrapper, table: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(control.query("size"), {"table": table})
        return bool(cursor.fetchone()[0] > LARGE)
