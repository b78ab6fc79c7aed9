"""The flows as a drawing: where each table stands, and the line between two of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from terrain.legacy.console.flows import Flow, Flows, Rows
from terrain.legacy.guide import State

#: Measures of the drawing, in its own units: boxes, the gap beneath one, the columns.
WIDTH, HEIGHT, GAP = 200, 46, 14
COLUMNS = (0, 350, 700)

#: Which new table each table of the catalogue is filled from.
FILLED_FROM = {"assets": "models", "table_assets": "tables"}


@dataclass(frozen=True)
class Box:
    """A table, with the corner it is drawn at."""

    name: str
    rows: Rows
    x: int
    y: int
    note: str = ""

    @property
    def text_x(self) -> int:
        return self.x + 12

    @property
    def right(self) -> int:
        return self.x + WIDTH

    @property
    def middle(self) -> int:
        return self.y + HEIGHT // 2


@dataclass(frozen=True)
class Line:
    """From one box to another; ``arrived`` is how much of 100 has, for a dash as long."""

    path: str
    state: State
    arrived: int


@dataclass(frozen=True)
class Drawing:
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    width: int
    height: int


def drawn(flows: Flows) -> Drawing:
    """The drawing of all flows: legacy tables, new tables, the catalogue's."""
    old = {
        flow.legacy: Box(
            flow.legacy, flow.legacy_rows, COLUMNS[0], _y(row), _note(flow)
        )
        for row, flow in enumerate(flows.each)
    }
    tables = dict(target for flow in flows.each for target in flow.new)
    new = {
        name: Box(name, rows, COLUMNS[1], _y(row))
        for row, (name, rows) in enumerate(tables.items())
    }
    catalogue = {
        name: Box(name, rows, COLUMNS[2], new[FILLED_FROM[name]].y)
        for name, rows in flows.catalogue
    }
    lines = [
        _line(old[flow.legacy], new[name], flow.state, flow.share)
        for flow in flows.each
        for name, _ in flow.new
    ]
    lines += [
        _line(
            new[FILLED_FROM[name]], box, flows.catalogue_state, float(_is_done(flows))
        )
        for name, box in catalogue.items()
    ]
    boxes = (*old.values(), *new.values(), *catalogue.values())
    return Drawing(
        boxes,
        tuple(lines),
        COLUMNS[2] + WIDTH + 2,
        max((box.y for box in boxes), default=0) + HEIGHT + 2,
    )


def _is_done(flows: Flows) -> bool:
    return flows.catalogue_state == State.DONE


def _y(row: int) -> int:
    return 1 + row * (HEIGHT + GAP)


def _note(flow: Flow) -> str:
    return ", ".join(_notes(flow))


def _notes(flow: Flow) -> Iterator[str]:
    if flow.held:
        yield f"{flow.held:,} held"
    if flow.flagged:
        yield f"{flow.flagged:,} flagged"


def _line(start: Box, end: Box, state: State, share: float) -> Line:
    bend = (start.right + end.x) // 2
    path = (
        f"M {start.right} {start.middle} C {bend} {start.middle},"
        f" {bend} {end.middle}, {end.x} {end.middle}"
    )
    return Line(path, state, round(share * 100))
