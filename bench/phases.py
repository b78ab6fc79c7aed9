"""What went on while the clients worked, and what they saw of it, phase by phase."""

from __future__ import annotations

import sys
import time
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace

from bench.told import Told


@dataclass(frozen=True)
class Phase:
    """Something that went on meanwhile, by the clock; ``round`` counts from 1."""

    name: str
    began: float
    ended: float
    round: int = 0


@dataclass
class Turn:
    """One way's turn: what went on, what the clients saw of it, and what was wrong.

    ``told`` is the old application's, ``new`` the new one's.  ``again`` are commands that
    had to be run once more, ``late`` counts rows that waited for the next ``settle``, and
    ``slow`` are the statements that took longest.  ``swaps`` are the seconds for which
    each cut-over, or its undoing, had its locks.
    """

    way: str
    phases: list[Phase] = field(default_factory=list)
    told: Told = field(default_factory=Told)
    new: Told = field(default_factory=Told)
    faults: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    late: int = 0
    slow: list[str] = field(default_factory=list)
    copies: dict[str, float] = field(default_factory=dict)
    swaps: list[float] = field(default_factory=list)
    round: int = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.say(name)
        began = time.time()
        try:
            yield
        finally:
            self.add(Phase(name, began, time.time()))

    def add(self, *phases: Phase) -> None:
        self.phases += [replace(phase, round=self.round) for phase in phases]

    def quiet(self, name: str, seconds: float) -> None:
        """Nothing but the clients."""
        with self.phase(name):
            time.sleep(seconds)

    def say(self, what: str) -> None:
        number = f" {self.round}" if self.round else ""
        print(f"{self.way}{number}: {what}", file=sys.stderr)

    def found(self, faults: Iterable[str]) -> None:
        """Note what is wrong, once."""
        self.faults += [fault for fault in faults if fault not in self.faults]


@dataclass(frozen=True)
class Waits:
    """What the clients saw of a phase; times are milliseconds."""

    phase: str
    seconds: float
    statements: int
    per_second: float
    failed: int
    p50: float
    p99: float
    p999: float
    longest: float


def waits(told: Told, phases: Sequence[Phase]) -> list[Waits]:
    """By phase, in order of appearance; phases of one name are one."""
    taken = {phase.name: array("d") for phase in phases}
    failed = dict.fromkeys(taken, 0)
    at = _Clock(phases)
    for moment, seconds in zip(told.started, told.seconds, strict=True):
        phase = at(moment)
        if phase is not None:
            taken[phase.name].append(seconds)
    for moment, _kind, _said in told.refused:
        phase = at(moment)
        if phase is not None:
            failed[phase.name] += 1
    return [
        _waits(
            name,
            sum(phase.ended - phase.began for phase in phases if phase.name == name),
            sorted(seconds),
            failed[name],
        )
        for name, seconds in taken.items()
    ]


class _Clock:
    """Which phase it was at a moment; a statement is of the phase that it began in."""

    def __init__(self, phases: Sequence[Phase]) -> None:
        self.phases = sorted(phases, key=lambda phase: phase.began)
        self.began = [phase.began for phase in self.phases]

    def __call__(self, moment: float) -> Phase | None:
        place = bisect_right(self.began, moment) - 1
        if place < 0 or moment >= self.phases[place].ended:
            return None
        return self.phases[place]


def _waits(name: str, length: float, taken: list[float], failed: int) -> Waits:
    def quantile(part: float) -> float:
        return taken[int(part * (len(taken) - 1))] * 1000 if taken else 0.0

    per_second = len(taken) / length if length else 0.0
    return Waits(
        name,
        length,
        len(taken),
        per_second,
        failed,
        *map(quantile, (0.5, 0.99, 0.999, 1)),
    )


@dataclass(frozen=True)
class Round:
    """Once there and back; waits are milliseconds, ``faults`` what was found so far."""

    number: int
    seconds: float
    statements: int
    per_second: float
    failed: int
    faults: int
    new_acts: int
    gave_way: int
    forward: float
    back: float
    longest_in: str


#: What a round is shown as, each column as wide as its heading.
ROUND_COLUMNS = (
    "round",
    "seconds",
    "statements",
    "/s",
    "failed",
    "wrong",
    "new acts",
    "gave way",
    "longest there",
    "longest back",
    "longest of all in",
)


def headings() -> str:
    return "  ".join(ROUND_COLUMNS)


def line(round: Round) -> str:
    """A round in a line, to be read as it is over."""
    cells = [
        f"{value:,.0f}" if isinstance(value, float) else str(value)
        for value in asdict(round).values()
    ]
    return "  ".join(
        cell.rjust(len(heading))
        for cell, heading in zip(cells, ROUND_COLUMNS, strict=True)
    )


#: Names of phases that are of the way back.
BACK = ("rollback", "back")


def rounds(turn: Turn) -> list[Round]:
    """A summary of each round that has been."""
    numbers = dict.fromkeys(phase.round for phase in turn.phases if phase.round)
    return [round_of(turn, number) for number in numbers]


def round_of(turn: Turn, number: int) -> Round:
    phases = [phase for phase in turn.phases if phase.round == number]
    began, ended = phases[0].began, phases[-1].ended
    seen = waits(turn.told, phases)
    back = max((each.longest for each in seen if each.phase in BACK), default=0.0)
    longest = max(seen, key=lambda each: each.longest)
    statements = sum(each.statements for each in seen)
    return Round(
        number,
        ended - began,
        statements,
        statements / (ended - began),
        sum(each.failed for each in seen),
        len(turn.faults),
        sum(began <= at < ended for at in turn.new.started),
        sum(began <= at < ended for at, _kind in turn.new.gave_way),
        max((each.longest for each in seen if each.phase not in BACK), default=0.0),
        back,
        longest.phase,
    )
