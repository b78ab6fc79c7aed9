"""Clients at work in processes of their own, held for an instant and asked what they know.

They keep to a rate: each has its moments, and who is late catches up, so what a shop's
visitors would have waited for shows.  They end when told to, when their time is over, and
when whoever started them is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from random import Random
from typing import Any, Protocol

from bench import shop
from bench.told import Told

#: Seconds that a client may be late before it lets go of what it did not do.
LATEST = 1.0
#: Seconds that a process may take to answer: its clients end what they are at.
ANSWER = 60.0


class Client(Protocol):
    """Somebody who acts, and remembers what came of it."""

    random: Random
    told: Told

    def act(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Kind:
    """A kind of act, and how often a client of its class chooses it."""

    name: str
    weight: float
    act: Callable[[Any], None]


@dataclass
class Crew:
    """Clients in ``processes`` of ``each``, working while the ``with`` block lasts.

    ``make(number, *arguments)`` makes the client of a number, in the thread that it will
    work in; ``rate`` is acts a second of all together; after ``limit`` seconds they end,
    whatever happens.  ``told`` is what all of them have said so far: everything once the
    block has ended.  If ``idle``, they begin with the first :meth:`go_on`.
    """

    make: Callable[..., Client]
    arguments: tuple[Any, ...]
    rate: float
    limit: float
    processes: int = 2
    each: int = 4
    first: int = 0
    idle: bool = False
    told: Told = field(default_factory=Told)
    _pipes: list[Pipe] = field(default_factory=list)
    _children: list[Any] = field(default_factory=list)

    def __enter__(self) -> Crew:
        context = multiprocessing.get_context("spawn")
        every = self.processes * self.each / self.rate
        for place in range(self.processes):
            ours, theirs = context.Pipe()
            numbers = [
                self.first + place + self.processes * n for n in range(self.each)
            ]
            child = context.Process(
                target=_work,
                args=(theirs, os.getpid(), self.make, self.arguments),
                kwargs={
                    "numbers": numbers,
                    "every": every,
                    "limit": self.limit,
                    "idle": self.idle,
                },
                daemon=True,
            )
            child.start()
            theirs.close()
            self._pipes.append(ours)
            self._children.append(child)
        try:
            self._listen()  # until everybody is connected
        except BaseException:
            self._let_go()
            raise
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None:
                self._ask("end")
        finally:
            self._let_go()

    def _let_go(self) -> None:
        for pipe in self._pipes:
            pipe.close()  # whoever was not told to end sees this
        for child in self._children:
            child.join(10)

    def hold(self) -> None:
        """Wait until each has ended what it is at; what they know is in ``told`` then."""
        self._ask("hold")
        self.idle = True

    def go_on(self) -> None:
        for pipe in self._pipes:
            pipe.send("go on")
        self.idle = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody acts within the block, and ``told`` is complete."""
        was_idle = self.idle
        self.hold()
        try:
            yield
        finally:
            if not was_idle:
                self.go_on()

    def _ask(self, word: str) -> None:
        for pipe in self._pipes:
            pipe.send(word)
        self._listen()

    def _listen(self) -> None:
        """What each process has to say."""
        for pipe in self._pipes:
            if not pipe.poll(ANSWER):
                raise shop.Failed("The clients do not answer.")
            try:
                told = pipe.recv()
            except EOFError:
                raise shop.Failed("A client's process is gone.") from None
            if isinstance(told, str):
                raise shop.Failed(f"A client could not go on: {told}")
            self.told.merge(told)


# --- in the processes ----------------------------------------------------------------------


class Hand(threading.Thread):
    """One client's thread.  It acts only while it has ``lock``, and lets go of it for others."""

    def __init__(self, make: Callable[[int], Client], number: int, every: float):
        super().__init__(daemon=True)
        self.make, self.number, self.every = make, number, every
        self.lock, self.wanted = threading.Lock(), False
        self.ended = threading.Event()
        self.begun = threading.Event()
        self.client: Client | None = None
        self.failure: BaseException | None = None

    def hold(self) -> None:
        self.wanted = True
        self.lock.acquire()

    def go_on(self) -> None:
        self.wanted = False
        self.lock.release()

    def told(self) -> Told:
        """What the client was told since it was last asked; only while it is held, or over."""
        if self.failure is not None:
            raise self.failure
        if self.client is None:
            return Told()
        told, self.client.told = self.client.told, Told()
        return told

    def run(self) -> None:
        try:
            self.client = self.make(self.number)
            self.begun.set()
            self._keep_pace(self.client)
            self.client.close()
        except BaseException as error:
            self.failure = error
        finally:
            self.begun.set()

    def _keep_pace(self, client: Client) -> None:
        due = time.monotonic() + client.random.uniform(0, self.every)
        while not self.ended.is_set():
            now = time.monotonic()
            if now < due or self.wanted:
                # A lock goes to whoever is quicker, and this thread would be.
                time.sleep(max(due - now, 0.001))
                continue
            if now - due > LATEST:
                due = now
            # Between half and one and a half times the usual, so that no two stay abreast.
            due += self.every * client.random.uniform(0.5, 1.5)
            with self.lock:
                if not self.ended.is_set():
                    client.act()


def _work(
    pipe: Pipe,
    parent: int,
    make: Callable[..., Client],
    arguments: tuple[Any, ...],
    *,
    numbers: list[int],
    every: float,
    limit: float,
    idle: bool,
) -> None:
    """A process: its clients, and what is asked of them through ``pipe``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when it is over

    def client(number: int) -> Client:
        return make(number, *arguments)

    hands = [Hand(client, number, every) for number in numbers]
    for hand in hands:
        if idle:
            hand.hold()
        hand.start()
    for hand in hands:
        hand.begun.wait(ANSWER / 2)
    try:
        failed = [hand.failure for hand in hands if hand.failure is not None]
        pipe.send(repr(failed[0]) if failed else Told())
        _obey(pipe, hands, lambda: os.getppid() == parent, time.monotonic() + limit)
    except (EOFError, OSError):
        pass  # nobody is there to be told
    for hand in hands:
        hand.ended.set()
        if hand.wanted:
            hand.go_on()


def _obey(
    pipe: Pipe, hands: list[Hand], is_wanted: Callable[[], bool], deadline: float
) -> None:
    """Do what comes through the pipe, until it is to end, nobody is there or time is over."""
    while is_wanted() and time.monotonic() < deadline:
        if not pipe.poll(0.2):
            continue
        word = pipe.recv()
        if word == "go on":
            for hand in hands:
                hand.go_on()
            continue
        for hand in hands:
            if not hand.wanted:
                hand.hold()
        if word == "end":
            for hand in hands:
                hand.ended.set()
                hand.go_on()
                hand.join(ANSWER / 2)
        pipe.send(_told(hands))
        if word == "end":
            return


def _told(hands: list[Hand]) -> Told | str:
    told = Told()
    try:
        for hand in hands:
            told.merge(hand.told())
    except BaseException as error:
        return repr(error)
    return told
