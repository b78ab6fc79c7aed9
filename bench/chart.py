"""What the clients waited, drawn over time: an SVG, written by hand."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

from bench.told import Told

WIDTH, HEIGHT, GAP, LEFT, TOP = 1000, 190, 62, 64, 60
#: Milliseconds at the bottom and the top of a panel; the scale is logarithmic.
LEAST, MOST = 0.1, 60_000
#: Points across.
STEPS = 500
#: Steps without a statement after which a line is broken.
GAP_STEPS = 4

STYLE = """
text { font: 12px sans-serif; fill: #333 } .title { font-size: 14px; font-weight: bold }
.grid { stroke: #ddd } .wanted { stroke: #c33; stroke-dasharray: 5 4 }
.longest { fill: #d1495b } .p99 { stroke: #edae49 } .p50 { stroke: #2e6f95 }
path { fill: none; stroke-width: 1.4 } .phase0 { fill: #f4f4f4 } .phase1 { fill: #e3ecf3 }
.small { font-size: 10px }
"""


class Span(Protocol):
    """A phase: a name, and from when to when."""

    @property
    def name(self) -> str: ...
    @property
    def began(self) -> float: ...
    @property
    def ended(self) -> float: ...


class Numbered(Span, Protocol):
    """A phase of a round."""

    @property
    def round(self) -> int: ...


@dataclass(frozen=True)
class Named:
    """A phase under another name."""

    name: str
    began: float
    ended: float


class Rounds(Protocol):
    """A turn whose phases have rounds."""

    @property
    def way(self) -> str: ...
    @property
    def phases(self) -> Sequence[Numbered]: ...
    @property
    def told(self) -> Told: ...


class Turn(Protocol):
    """One panel: whose it is, what went on, and every statement's time."""

    @property
    def way(self) -> str: ...
    @property
    def phases(self) -> Sequence[Span]: ...
    @property
    def told(self) -> Told: ...


@dataclass(frozen=True)
class Part:
    """A panel for a part of a turn."""

    way: str
    phases: Sequence[Span]
    told: Told


def panels(turns: Sequence[Rounds]) -> list[Turn]:
    """The turns; one of several rounds is drawn to the end of the first, and as a whole."""
    drawn: list[Turn] = []
    for turn in turns:
        last = max(phase.round for phase in turn.phases)
        if last > 1:
            ends = [n for n, phase in enumerate(turn.phases) if phase.round == 1]
            first = turn.phases[: ends[-1] + 1]
            drawn.append(Part(f"{turn.way}, there and back", first, turn.told))
            whole = [_of_a_round(phase) for phase in turn.phases]
            drawn.append(Part(f"{turn.way}, {last} times", whole, turn.told))
        else:
            drawn.append(turn)
    return drawn


def _of_a_round(phase: Numbered) -> Span:
    """A phase under the number of its round, where its own name would not find room."""
    name = f"{phase.round}" if phase.round else phase.name
    return Named(name, phase.began, phase.ended)


def draw(turns: Sequence[Turn], wanted: float) -> str:
    """A panel for each turn; ``wanted`` is the line of what is allowed, in seconds."""
    height = TOP + len(turns) * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 20} {height}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{LEFT + WIDTH + 20}" height="{height}" fill="#fff"/>',
        f'<text class="title" x="{LEFT}" y="20">What each statement of the old application'
        " waited, in milliseconds</text>",
        *_key(),
    ]
    for number, turn in enumerate(turns):
        parts += _panel(turn, TOP + 16 + number * (HEIGHT + GAP), wanted)
    return "\n".join([*parts, "</svg>", ""])


def _key() -> Iterator[str]:
    for place, (name, colour) in enumerate(
        [("median", "#2e6f95"), ("p99", "#edae49"), ("longest", "#d1495b")]
    ):
        x = LEFT + WIDTH - 250 + place * 90
        yield f'<rect x="{x}" y="12" width="12" height="8" fill="{colour}"/>'
        yield f'<text x="{x + 17}" y="20">{name}</text>'


def _height(milliseconds: float) -> float:
    """How far up in a panel."""
    inside = min(max(milliseconds, LEAST), MOST)
    return HEIGHT * math.log(inside / LEAST) / math.log(MOST / LEAST)


def _panel(turn: Turn, top: float, wanted: float) -> Iterator[str]:
    began, ended = turn.phases[0].began, turn.phases[-1].ended
    length = ended - began

    def across(moment: float) -> float:
        return LEFT + WIDTH * (moment - began) / length

    yield f'<g transform="translate(0 {top:.0f})">'
    yield f'<text class="title" x="{LEFT}" y="-24">{escape(turn.way)}</text>'
    yield from _phases(turn.phases, across)
    for power in range(-1, 5):
        y = HEIGHT - _height(10**power)
        yield f'<line class="grid" x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10**power:g}</text>'
    y = HEIGHT - _height(wanted * 1000)
    yield f'<line class="wanted" x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
    yield from _times(turn.told, began, length)
    every = max(5, round(length / 10 / 5) * 5)
    for second in range(0, int(length) + 1, every):
        x = across(began + second)
        yield f'<text class="small" x="{x:.0f}" y="{HEIGHT + 14}">{second} s</text>'
    yield "</g>"


def _phases(phases: Sequence[Span], across: object) -> Iterator[str]:
    assert callable(across)
    free, shade, last = 0.0, 0, ""
    for phase in phases:
        left, right = across(phase.began), across(phase.ended)
        shade = shade if phase.name == last else 1 - shade
        yield (
            f'<rect class="phase{shade}" x="{left:.1f}" width="{right - left:.1f}"'
            f' height="{HEIGHT}"><title>{escape(phase.name)}</title></rect>'
        )
        # Names that would run into each other are left to the tooltip.
        if phase.name != last and left >= free and right - left > 14:
            yield f'<text class="small" x="{left + 1:.1f}" y="-6">{escape(phase.name)}</text>'
            free = left + 6.2 * len(phase.name)
        last = phase.name


def _times(told: Told, began: float, length: float) -> Iterator[str]:
    steps: dict[int, list[float]] = defaultdict(list)
    for at, seconds in zip(told.started, told.seconds, strict=True):
        steps[int((at - began) / length * STEPS)].append(seconds * 1000)
    lines: dict[str, list[str]] = {"p50": [], "p99": []}
    last = -GAP_STEPS - 1
    for step in sorted(steps):
        if not 0 <= step < STEPS:
            continue
        taken = sorted(steps[step])
        x = LEFT + (step + 0.5) * WIDTH / STEPS
        for name, part in (("p50", 0.5), ("p99", 0.99)):
            y = HEIGHT - _height(taken[int(part * (len(taken) - 1))])
            # Where nothing was begun for a while, there is nothing to draw.
            pen = "L" if step - last <= GAP_STEPS else "M"
            lines[name].append(f"{pen}{x:.1f} {y:.1f}")
        y = HEIGHT - _height(taken[-1])
        last = step
        yield f'<circle class="longest" cx="{x:.1f}" cy="{y:.1f}" r="1.4"/>'
    for name, points in lines.items():
        yield f'<path class="{name}" d="{" ".join(points)}"/>'
