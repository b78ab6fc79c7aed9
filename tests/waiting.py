"""Waiting for a condition: never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], what: str = "it", seconds: float = 60) -> T:
    """Ask until the answer is true, and give it back; fail if it is not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"in {seconds:.0f} s not: {what}"
        time.sleep(0.005)
    return found
