"""What a long run does to the shop, as far as a plain owner of the database can see it.

Each look asks a few cheap questions and returns signs: a measure, its bound, a sentence.
What is so without the run is not its doing, so bounds grow with the least that was seen: a
replica that is an hour behind on purpose slows nobody.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper

from terrain.pace import others_connected
from terrain.pace.control import ARCHIVE, COMMITS, REPLICAS, SLOTS, WAITING, query
from terrain.progress import duration

#: Seconds somebody may wait for a lock of ours.
LONGEST_WAIT = 0.05
#: Seconds a commit may take, and how many times what is usual.
COMMIT_SECONDS, COMMIT_FACTOR = 0.1, 5.0
#: Commits of which the median is what is usual, and of which it is how it is now.
USUAL_COMMITS, LATEST_COMMITS = 40, 5
#: A replica may be this far behind, in seconds and in bytes.
LAG_SECONDS, LAG_BYTES = 10.0, 256 * 2**20
#: Bytes of WAL that may be kept on the server's disk for others, before a run slows down,
#: and before it stops: a full disk would be the end of the shop.
KEPT_BYTES, KEPT_AT_MOST = 256 * 2**20, 4 * 2**30
#: Seconds after which somebody who came and went is no longer counted as connected.
SINCE_OTHERS = 60.0

_WAL_FILE = re.compile(r"[0-9A-F]{24}")


@dataclass(frozen=True)
class Sign:
    """Something measured: ``ratio`` above 1 is too much, ``stops`` far too much."""

    kind: str
    ratio: float
    sentence: str
    stops: bool = False


@dataclass
class Watch:
    """What is usual, and the questions.

    ``usual`` is the least that was seen of each measure.  It is kept from one run to the
    next, or the next would find usual what this one has done.  ``ours`` are the sessions of
    the run, ``unseen`` sentences about what cannot be seen here.
    """

    usual: dict[str, float] = field(default_factory=dict)
    ours: set[int] = field(default_factory=set)
    unseen: list[str] = field(default_factory=list)
    sessions: int | None = None
    positions: deque[tuple[float, int]] = field(default_factory=deque)
    commits: list[float] = field(default_factory=list)
    others_at: float | None = None

    def look(
        self, connection: BaseDatabaseWrapper, committing: float = 0.0
    ) -> list[Sign]:
        """Ask everything once; ``committing`` is how long a commit has been under way."""
        signs = list(self.look_at_commits(committing))
        questions: tuple[Callable[[BaseDatabaseWrapper], Iterator[Sign]], ...] = (
            self.look_at_waiting,
            self.look_at_replicas,
            self.look_at_slots,
            self.look_at_archive,
        )
        for question in questions:
            try:
                signs += question(connection)
            except DatabaseError as error:
                if not connection.is_usable():
                    raise
                what = question.__name__.removeprefix("look_at_")
                self._cannot_see(what, f"{what} cannot be watched: {error}".strip())
        return signs

    def others_are_here(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether anybody else is connected, or has been within a minute.

        An application without a pool comes and goes between two looks; the server counts it.
        """
        (sessions,) = _rows(connection, "sessions")[0]
        if self.sessions is None:
            # Ours too, and each of them is perhaps counted only now.
            self.sessions = sessions + len(self.ours) + 1
        if others_connected(connection) or sessions > self.sessions:
            self.others_at = time.monotonic()
            self.sessions = max(self.sessions, sessions)
        return (
            self.others_at is not None
            and time.monotonic() - self.others_at < SINCE_OTHERS
        )

    def _cannot_see(self, what: str, sentence: str) -> None:
        if f"unseen {what}" not in self.usual:
            self.usual[f"unseen {what}"] = 1.0
            self.unseen.append(sentence)

    def _usual(self, name: str, value: float) -> float:
        self.usual[name] = min(self.usual.get(name, value), value)
        return self.usual[name]

    # --- clients ---

    def look_at_waiting(self, connection: BaseDatabaseWrapper) -> Iterator[Sign]:
        sessions, seconds = _rows(connection, "waiting", {"ours": list(self.ours)})[0]
        if sessions:
            wait = "session waits" if sessions == 1 else "sessions wait"
            yield Sign(
                WAITING,
                seconds / LONGEST_WAIT,
                f"{sessions:,} {wait} for a lock of this run, {seconds * 1000:,.0f} ms so far",
            )

    def committed(self, seconds: float) -> None:
        """A commit took this long."""
        self.commits.append(seconds)
        if len(self.commits) > USUAL_COMMITS + LATEST_COMMITS:
            # What was usual stays so; after that only the latest count.
            del self.commits[USUAL_COMMITS]

    def look_at_commits(self, waiting: float) -> Iterator[Sign]:
        usual = median(self.commits[:USUAL_COMMITS]) if self.commits else 0.0
        bound = max(COMMIT_SECONDS, COMMIT_FACTOR * usual)
        latest = self.commits[-LATEST_COMMITS:]
        if waiting > bound:
            said = f"a commit has waited for {waiting:,.1f} s"
            yield Sign(COMMITS, waiting / bound, said)
        elif len(latest) == LATEST_COMMITS:
            now = median(latest)
            said = f"a commit takes {now * 1000:,.0f} ms, usual were {usual * 1000:,.0f} ms"
            yield Sign(COMMITS, now / bound, said)

    # --- replication and archiving ---

    def look_at_replicas(self, connection: BaseDatabaseWrapper) -> Iterator[Sign]:
        (position,) = _rows(connection, "position")[0]
        now = time.monotonic()
        self.positions.append((now, position))
        hidden = []
        for name, replayed, lag in _rows(connection, "replicas"):
            if replayed is None:
                hidden.append(name)
                continue
            seconds = max(lag or 0.0, now - self._written_at(replayed, now))
            bound = max(LAG_SECONDS, 2 * self._usual(f"seconds {name}", seconds))
            yield Sign(
                REPLICAS,
                seconds / bound,
                f"replica {name} is {duration(seconds)} behind",
            )
            behind = max(0, position - replayed)
            bound = max(LAG_BYTES, 2 * self._usual(f"bytes {name}", behind))
            yield Sign(
                REPLICAS, behind / bound, f"replica {name} is {_size(behind)} behind"
            )
        if hidden:
            self._cannot_see(
                "replicas",
                f"How far {', '.join(sorted(set(hidden)))} is behind is not for this role to"
                " see, so nothing slows down for it; GRANT pg_monitor to the role, or watch"
                " it from elsewhere.",
            )

    def _written_at(self, position: int, now: float) -> float:
        """When the first thing that is not replayed was written, by our own clock.

        The server's measure of it stands still while a replica's replay does.
        """
        while len(self.positions) > 1 and self.positions[0][0] < now - 3600:
            self.positions.popleft()
        return next((at for at, lsn in self.positions if lsn > position), now)

    def look_at_slots(self, connection: BaseDatabaseWrapper) -> Iterator[Sign]:
        for name, active, kept in _rows(connection, "slots"):
            gone = "" if active else ", which nobody reads from"
            said = f"{_size(kept)} of WAL are kept for slot {name}{gone}"
            yield self._kept(SLOTS, f"slot {name}", kept, said)

    def look_at_archive(self, connection: BaseDatabaseWrapper) -> Iterator[Sign]:
        for current, archived, size, failed, failures in _rows(connection, "archive"):
            last = _segment(archived, size)
            if last is None:  # nothing has ever been archived, or a history file last
                last = int(self.usual.setdefault("wal", _segment(current, size) or 0))
            files = max(0, (_segment(current, size) or 0) - last - 1)
            said = f"{files:,} WAL files wait to be archived"
            if failed is not None:
                said += (
                    f" and archiving fails, {duration(failed)} ago for the last time"
                    f" ({failures:,} in all)"
                )
            yield self._kept(ARCHIVE, "archive", files * size, said)

    def _kept(self, kind: str, name: str, kept: int, said: str) -> Sign:
        """WAL that stays on the server's disk: what is added to what there was."""
        more = kept - self._usual(name, kept)
        return Sign(kind, more / KEPT_BYTES, said, stops=more > KEPT_AT_MOST)


_known: dict[tuple[Any, ...], dict[str, float]] = {}


def usual_of(connection: BaseDatabaseWrapper) -> dict[str, float]:
    """What is usual in a database, as far as this process has seen."""
    settings = connection.settings_dict
    key = (settings["HOST"], settings["PORT"], settings["NAME"])
    return _known.setdefault(key, {})


def _rows(
    connection: BaseDatabaseWrapper, name: str, params: dict[str, Any] | None = None
) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query(name), params)
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def _segment(file: str | None, size: int) -> int | None:
    """The number of a WAL file, timelines aside; None if it is another kind of file."""
    if file is None or not _WAL_FILE.fullmatch(file):
        return None
    return int(file[8:16], 16) * (2**32 // size) + int(file[16:], 16)


def _size(bytes_: float) -> str:
    return f"{bytes_ / 2**20:,.0f} MB"
