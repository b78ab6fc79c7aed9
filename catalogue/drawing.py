"""A table's layout as a drawing to scale, from whatever its JSON says.

Positions are millimetres: ``x`` along the width, ``z`` along the depth, ``y`` upwards, as
the builder's scene has them; ``rotation`` is degrees.  They count from the table's corner,
or from its middle where that is what fits.  Where something is no number it is left out,
and counted: a layout is shown as far as it can be read.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from terrain.pages.search import as_uuid

#: Things that are drawn, and listed.
MOST = 300
#: Millimetres: the farthest anything is believed to stand, and the largest table.
FARTHEST = 20_000
#: Millimetres that something without measures is drawn with.
UNKNOWN_SIZE = 50.0
#: Millimetres between lines of a grid that can be told apart, at least and at most.
GRID = (10, 1000)

_COLOUR = re.compile(r"#[0-9a-fA-F]{3}(?:[0-9a-fA-F]{3})?\Z")


@dataclass(frozen=True)
class Known:
    """What the catalogue says of an asset: its name, and its measures in mm."""

    name: str
    width: float | None = None
    depth: float | None = None


@dataclass(frozen=True)
class Thing:
    """Something on the table; ``x`` and ``y`` (mm) are where its middle is drawn."""

    number: int
    asset: uuid.UUID | None
    ref: str
    name: str
    x: float
    y: float
    width: float
    depth: float
    rotation: float
    has_measures: bool
    stands_off: bool

    @property
    def transform(self) -> str:
        return f"translate({_mm(self.x)} {_mm(self.y)}) rotate({_mm(self.rotation)})"

    @property
    def where(self) -> str:
        return f"{_mm(self.x)} × {_mm(self.y)}"

    @property
    def size(self) -> str:
        return f"{_mm(self.width)} × {_mm(self.depth)}"

    @property
    def turned(self) -> str:
        return _mm(self.rotation)

    @property
    def box(self) -> dict[str, str]:
        """Its rectangle, around the middle."""
        return {
            "x": _mm(-self.width / 2),
            "y": _mm(-self.depth / 2),
            "width": _mm(self.width),
            "height": _mm(self.depth),
        }

    @property
    def middle(self) -> dict[str, str]:
        return {"x": _mm(self.x), "y": _mm(self.y)}


@dataclass(frozen=True)
class Drawing:
    """The table, ``width`` × ``depth`` mm, with what stands on it.

    ``is_guessed`` if the table's measures are not known; ``unread`` things had no position,
    ``more`` were too many.
    """

    width: float
    depth: float
    is_guessed: bool
    things: tuple[Thing, ...]
    unread: int
    more: int
    grid: int | None
    background: str | None
    from_middle: bool

    @property
    def view(self) -> str:
        """The part of the plane to show: the table, what stands beside it, and a margin."""
        margin = self.unit * 3
        left = min([0.0, *(each.x - each.width / 2 for each in self.things)]) - margin
        top = min([0.0, *(each.y - each.depth / 2 for each in self.things)]) - margin
        right = max([self.width, *(each.x + each.width / 2 for each in self.things)])
        low = max([self.depth, *(each.y + each.depth / 2 for each in self.things)])
        return " ".join(
            map(_mm, (left, top, right + margin - left, low + margin - top))
        )

    @property
    def unit(self) -> float:
        """A length that looks the same on a table of any size: of its letters, in mm."""
        return max(self.width, self.depth) / 50

    @property
    def letters(self) -> str:
        return _mm(self.unit)

    @property
    def across(self) -> str:
        return _mm(self.width)

    @property
    def deep(self) -> str:
        return _mm(self.depth)

    @property
    def half(self) -> dict[str, str]:
        return {"width": _mm(self.width / 2), "depth": _mm(self.depth / 2)}

    @property
    def measures(self) -> str:
        known = f"{_mm(self.width)} × {_mm(self.depth)} mm"
        return f"measures not known, drawn {known}" if self.is_guessed else known


def drawn(
    width: int | None,
    depth: int | None,
    config: Any,
    layout: Any,
    known: Mapping[uuid.UUID, Known],
) -> Drawing | None:
    """The drawing of a layout; None where it has nothing to draw, not even a table."""
    placed = _placed(layout)
    read = [each for each in map(_read, placed[:MOST]) if each is not None]
    size = _size(width), _size(depth)
    if None in size and not read:
        return None
    extent = _extent(read)
    across, deep = size[0] or extent[0], size[1] or extent[1]
    middle = _is_from_middle(read, across, deep)
    shift = (across / 2, deep / 2) if middle else (0.0, 0.0)
    things = tuple(
        _thing(number, each, shift, (across, deep), known)
        for number, each in enumerate(read, 1)
    )
    options = config if isinstance(config, dict) else {}
    return Drawing(
        across,
        deep,
        None in size,
        things,
        len(placed[:MOST]) - len(read),
        max(len(placed) - MOST, 0),
        _grid(options.get("grid_size")),
        _colour(options.get("background_color")),
        middle,
    )


def assets_of(layout: Any) -> set[uuid.UUID]:
    """The ids of what a layout places, as far as they are ids."""
    found = (as_uuid(str(each.get("asset_id"))) for each in _placed(layout)[:MOST])
    return {each for each in found if each is not None}


# --- reading -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Placed:
    ref: str
    x: float
    z: float
    rotation: float
    scale: float


def _placed(layout: Any) -> list[dict[str, Any]]:
    models = layout.get("models") if isinstance(layout, dict) else None
    if not isinstance(models, list):
        return []
    return [each if isinstance(each, dict) else {} for each in models]


def _read(placed: dict[str, Any]) -> _Placed | None:
    x, z = _position(placed.get("position"))
    if x is None or z is None:
        return None
    scale = placed.get("scale")
    if isinstance(scale, dict):
        scale = scale.get("x")
    return _Placed(
        str(placed.get("asset_id") or "")[:100],
        x,
        z,
        _rotation(placed.get("rotation")),
        _number(scale, 100) or 1.0,
    )


def _position(value: Any) -> tuple[float | None, float | None]:
    """Of ``{x, y, z}`` or ``[x, y, z]``."""
    if isinstance(value, dict):
        return _number(value.get("x")), _number(value.get("z"))
    if isinstance(value, list) and len(value) == 3:
        return _number(value[0]), _number(value[2])
    return None, None


def _rotation(value: Any) -> float:
    if isinstance(value, dict):
        value = value.get("y")
    if isinstance(value, list) and len(value) == 3:
        value = value[1]
    return (_number(value, 1e6) or 0.0) % 360


def _number(value: Any, most: float = FARTHEST) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not -most <= value <= most:  # NaN and infinity are not either
        return None
    return float(value)


def _size(value: int | None) -> float | None:
    return float(value) if value is not None and 0 < value <= FARTHEST else None


def _grid(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and GRID[0] <= number <= GRID[1] else None


def _colour(value: Any) -> str | None:
    return value if isinstance(value, str) and _COLOUR.match(value) else None


# --- placing -------------------------------------------------------------------------------


def _extent(read: Iterable[_Placed]) -> tuple[float, float]:
    """A table as large as what stands on it, in whole hundreds of millimetres."""
    placed = list(read)
    return (
        _hundreds(max((abs(each.x) for each in placed), default=0)),
        _hundreds(max((abs(each.z) for each in placed), default=0)),
    )


def _hundreds(length: float) -> float:
    return max(math.ceil(length / 100) * 100.0, 100.0)


def _is_from_middle(read: list[_Placed], width: float, depth: float) -> bool:
    """Whether positions only fit the table if they count from its middle."""
    return any(each.x < 0 or each.z < 0 for each in read) and all(
        abs(each.x) <= width / 2 and abs(each.z) <= depth / 2 for each in read
    )


def _thing(
    number: int,
    placed: _Placed,
    shift: tuple[float, float],
    table: tuple[float, float],
    known: Mapping[uuid.UUID, Known],
) -> Thing:
    asset = as_uuid(placed.ref)
    what = known.get(asset) if asset is not None else None
    has_measures = bool(what and what.width and what.depth)
    x, y = placed.x + shift[0], placed.z + shift[1]
    return Thing(
        number,
        asset if what is not None else None,
        placed.ref,
        what.name if what is not None else "unknown",
        x,
        y,
        _side(what.width if what else None, placed.scale),
        _side(what.depth if what else None, placed.scale),
        placed.rotation,
        has_measures,
        not (0 <= x <= table[0] and 0 <= y <= table[1]),
    )


def _side(length: float | None, scale: float) -> float:
    return min((length or UNKNOWN_SIZE) * abs(scale), FARTHEST)


def measures(value: Any) -> Iterator[float | None]:
    """Width and depth of an asset, from its JSON."""
    document = value if isinstance(value, dict) else {}
    for name in ("width", "depth"):
        number = _number(document.get(name))
        yield number if number is not None and number > 0 else None


def _mm(length: float) -> str:
    """A length as SVG and people read it: no exponent, no more digits than needed."""
    return f"{round(length, 1):.1f}".removesuffix(".0")
