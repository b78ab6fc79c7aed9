"""JSON that comes back as it was: ``1.10`` stays ``1.10``.

PostgreSQL keeps a number in ``jsonb`` digit for digit, and the old application's rows are
compared as text.  Python's ``json`` reads ``1.10`` as 1.1, ``1e400`` as infinity, and gives
up on an integer of five thousand digits or on arrays nested a thousand deep.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any, Self

#: Levels of nesting that are read into lists and dicts.  Deeper ones would meet Python's
#: recursion limit somewhere: in ``json``, in ``copy.deepcopy``, in whoever walks them.
DEEPEST = 150
#: Digits up to which Python reads and writes integers (``sys.int_info``).
LONGEST_INTEGER = 4300

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NOT_BRACKETS = re.compile(r"[^\[\]{}]+")
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}


class Number(float):
    """A number whose float does not say it exactly; ``text`` does."""

    text: str

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.text,)


class Unparsed(str):
    """JSON that is nested too deeply to be anything but text here."""

    __slots__ = ()


def _float(text: str) -> float:
    number = float(text)
    return number if repr(number) == text else Number(text)


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= LONGEST_INTEGER else Number(text)


def _constant(name: str) -> Any:
    raise json.JSONDecodeError(f"{name} is not JSON", name, 0)


def _is_too_deep(text: str) -> bool:
    if text.count("[") + text.count("{") <= DEEPEST:
        return False
    brackets = _NOT_BRACKETS.sub("", _STRING.sub("", text))
    return max(accumulate(_STEP[each] for each in brackets), default=0) > DEEPEST


class Decoder(json.JSONDecoder):
    """For ``json.loads(cls=…)`` and Django's JSON fields."""

    def __init__(self, **kwargs: Any) -> None:
        hooks = {
            "parse_float": _float,
            "parse_int": _integer,
            "parse_constant": _constant,
        }
        super().__init__(**{**hooks, **kwargs})

    def decode(self, s: str, *args: Any) -> Any:
        return Unparsed(s) if _is_too_deep(s) else super().decode(s, *args)


class Encoder(json.JSONEncoder):
    """The inverse, for ``json.dumps(cls=…)``; knows ``indent``, ``sort_keys`` and the like."""

    def encode(self, o: Any) -> str:
        return self._text(o, "\n")

    def _text(self, value: Any, line: str) -> str:
        if isinstance(value, Number):
            return value.text
        if isinstance(value, Unparsed):
            return str(value)
        if isinstance(value, dict):
            return self._object(value, line)
        if isinstance(value, list | tuple):
            inner = self._indented(line)
            parts = [self._text(each, inner) for each in value]
            return self._wrapped("[", parts, "]", line)
        return super().encode(value)

    def _object(self, value: dict[str, Any], line: str) -> str:
        inner = self._indented(line)
        keys = sorted(value) if self.sort_keys else value
        return self._wrapped(
            "{",
            [
                f"{super(Encoder, self).encode(_key(key))}{self.key_separator}"
                f"{self._text(value[key], inner)}"
                for key in keys
            ],
            "}",
            line,
        )

    def _indented(self, line: str) -> str:
        if self.indent is None:
            return line
        step = " " * self.indent if isinstance(self.indent, int) else str(self.indent)
        return line + step

    def _wrapped(self, opening: str, parts: list[str], closing: str, line: str) -> str:
        if self.indent is None or not parts:
            return opening + self.item_separator.join(parts) + closing
        inner = self._indented(line)
        separator = self.item_separator.rstrip() + inner
        return opening + inner + separator.join(parts) + line + closing


def _key(key: Any) -> str:
    """A key as ``json`` writes it: ``True`` becomes ``true``."""
    return key if isinstance(key, str) else next(iter(json.loads(json.dumps({key: 0}))))


def dumps(value: Any, **kwargs: Any) -> str:
    """``json.dumps`` that writes each number as it was read."""
    return json.dumps(value, cls=Encoder, **kwargs)


def loads(text: str) -> Any:
    """``json.loads`` that forgets nothing; :class:`Unparsed` if nested too deeply."""
    return json.loads(text, cls=Decoder)
