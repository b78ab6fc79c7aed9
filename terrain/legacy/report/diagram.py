"""The diagram of a report: old tables to new ones, as SVG that needs nothing else.

Drawn 360 units wide, the width of a phone, so that it can be read on one; on paper and on a
large screen it is the same, larger.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from math import sqrt
from typing import Any

from terrain.legacy.mapping import LENSES
from terrain.words import counted

WIDTH, BOX, HEIGHT, GAP, TOP = 360, 126, 36, 9, 26

#: A colour for each old table, told apart also in grey.
COLOURS = ("#2f6f8f", "#7a5195", "#c06c2b", "#b03a5b", "#2d7d46", "#4a5aa8")


@dataclass(frozen=True)
class _Box:
    x: int
    y: int

    @property
    def middle(self) -> float:
        return self.y + HEIGHT / 2


def drawn(
    moved: list[Mapping[str, Any]], tables: Mapping[str, Mapping[str, Any]]
) -> str:
    """The SVG.  ``moved`` and ``tables`` are as in the document of a report."""
    rows = {each["legacy"]: each for each in moved}
    lenses = [lens for lens in LENSES if lens.legacy in rows]
    targets = list(dict.fromkeys(new for lens in lenses for new in _new(lens)))
    height = TOP + max(len(lenses), len(targets)) * (HEIGHT + GAP) + 4
    left = _column(0, [lens.legacy for lens in lenses], height)
    right = _column(WIDTH - BOX, targets, height)
    return "".join(
        [
            f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="flow">',
            f'<title id="flow">{escape(_told(lenses))}</title>',
            _text(0, 14, "before", "head"),
            _text(WIDTH, 14, "after", "head end"),
            *_flows(lenses, rows, left, right),
            *(
                _box(left[lens.legacy], lens.legacy, rows[lens.legacy]["rows"], colour)
                for lens, colour in zip(lenses, COLOURS, strict=False)
            ),
            *(
                _box(right[new], new, tables.get(f"new.{new}", {}).get("rows"), "")
                for new in targets
            ),
            "</svg>",
        ]
    )


def _new(lens: Any) -> Iterator[str]:
    yield lens.new
    if lens.part is not None:
        yield lens.part.table


def _told(lenses: list[Any]) -> str:
    return "; ".join(f"{lens.legacy} to {' and '.join(_new(lens))}" for lens in lenses)


def _column(x: int, names: list[str], height: int) -> dict[str, _Box]:
    """Boxes one beneath another, spread over the height."""
    free = height - TOP - 4 - len(names) * HEIGHT
    gap = free / len(names) if names else 0
    return {
        name: _Box(x, round(TOP + number * (HEIGHT + gap) + gap / 2))
        for number, name in enumerate(names)
    }


def _flows(
    lenses: list[Any],
    rows: Mapping[str, Mapping[str, Any]],
    left: Mapping[str, _Box],
    right: Mapping[str, _Box],
) -> Iterator[str]:
    """Curves as wide as there are rows, roughly; dashed: only addresses went there."""
    most = max((each["rows"] or 0 for each in rows.values()), default=0) or 1
    for lens, colour in zip(lenses, COLOURS, strict=False):
        width = 2 + 12 * sqrt((rows[lens.legacy]["rows"] or 0) / most)
        for new in _new(lens):
            yield _curve(left[lens.legacy], right[new], colour, width)
        if lens.owner is not None and "users" in right and lens.new != "users":
            yield _curve(left[lens.legacy], right["users"], colour, 1.5, "4 4")


def _curve(from_: _Box, to: _Box, colour: str, width: float, dashes: str = "") -> str:
    x, y, end = from_.x + BOX, from_.middle, to.x
    middle = (x + end) / 2
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    path = f"M{x} {y:g} C{middle:g} {y:g} {middle:g} {to.middle:g} {end} {to.middle:g}"
    return (
        f'<path d="{path}" fill="none" stroke="{colour}"'
        f' stroke-opacity="{0.9 if dashes else 0.45}" stroke-width="{width:.1f}"{dashed}/>'
    )


def _box(box: _Box, name: str, rows: int | None, colour: str) -> str:
    edge = f' stroke="{colour}" stroke-width="1.5"' if colour else ' stroke="#8a939c"'
    count = "rows not known" if rows is None else counted(rows, "row")
    frame = (
        f'<rect x="{box.x + 0.75}" y="{box.y}" width="{BOX - 1.5}" height="{HEIGHT}"'
        f' rx="6" fill="#fff"{edge}/>'
    )
    label = _text(box.x + 9, box.y + 15, name, "name")
    return frame + label + _text(box.x + 9, box.y + 29, count, "count")


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(text)}</text>'
