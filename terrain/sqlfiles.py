"""SQL written by hand: files of named statements, and how they are filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@cache
def statements(path: Path) -> Mapping[str, str]:
    """Name -> statement, of a file whose statements each follow a line ``-- name: …``."""
    text = path.read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def render(template: str, /, **parts: str) -> str:
    """Fill each ``{name}``; other braces stay.  Raises KeyError for an unknown name."""
    return _PLACEHOLDER.sub(lambda match: parts[match.group(1)], template)
