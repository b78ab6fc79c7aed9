"""Says for whom is waited: once for each who stays, and not a hundred times."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from django.db import DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.dispatch import Signal

from terrain import progress
from terrain.blockers import Blocker, waited_for
from terrain.pace import breathe

Say = Callable[[str], None]

#: Sent when something is done that has kept, or might have kept, others or us waiting:
#: ``connection``, ``what`` in words, ``seconds`` it took (with its locks, where those keep
#: others waiting), and the ``waited`` seconds and ``attempts`` before it had them.
done = Signal()

#: Seconds somebody is in the way before it is worth a word, and before it is said again.
WORTH_SAYING, SAY_AGAIN = 1.0, 15.0
#: How many are named in one sentence.
NAMED = 4


def aloud(sentence: str) -> None:
    """Say something on the terminal, below the line that ``migrate`` has begun."""
    progress.make_way()
    print(f"\n    {sentence}", end="", flush=True, file=sys.stderr)


def named(blockers: list[Blocker]) -> str:
    """The first of them, for a sentence."""
    shown = [str(each) for each in blockers[:NAMED]]
    if len(blockers) > NAMED:
        shown.append(f"and {len(blockers) - NAMED:,} more")
    return "; ".join(shown) or "nobody who is still there"


@dataclass
class Told:
    """What has been said of one wait."""

    what: str
    say: Say | None = None
    began: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)
    first_seen: dict[str, float] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)

    def waits_for(self, blockers: list[Blocker]) -> None:
        """Say it of whoever stays as soon as that is seen, and of all now and then."""
        now = time.monotonic()
        staying = {
            each.transaction
            for each in blockers
            if (each.seconds or 0) >= WORTH_SAYING
            or now - self.first_seen.setdefault(each.transaction, now) >= WORTH_SAYING
        }
        if now - self.began < WORTH_SAYING:
            return
        if staying <= self.known and now - self.last < SAY_AGAIN:
            return
        self.known |= staying
        self.last = now
        (self.say or aloud)(
            f"{self.what} has waited for {now - self.began:.0f} s, now for"
            f" {named(blockers)}."
        )


@contextmanager
def waiting_aloud(
    connection: BaseDatabaseWrapper, what: str, say: Say | None = None
) -> Iterator[None]:
    """Say for whom the block's statements wait, where they may wait as long as it takes.

    An index built concurrently waits for every transaction that is older than it, and
    nobody waits behind it.  A second connection looks on.
    """
    connection.ensure_connection()
    pid = connection.connection.info.backend_pid
    began = time.monotonic()
    over = threading.Event()
    thread = threading.Thread(
        target=_look_on, args=(connection.alias, pid, Told(what, say), over)
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    seconds = time.monotonic() - began
    done.send(
        sender=None,
        connection=connection,
        what=what,
        seconds=seconds,
        waited=0.0,
        attempts=1,
    )
    breathe(connection)


def _look_on(alias: str, pid: int, told: Told, over: threading.Event) -> None:
    connection = connections[alias]  # this thread's own
    try:
        while not over.wait(WORTH_SAYING):
            blockers = waited_for(connection, pid)
            if blockers:
                told.waits_for(blockers)
    except DatabaseError:
        pass  # it is a courtesy; what is wrong the statement itself will say
    finally:
        connection.close()
