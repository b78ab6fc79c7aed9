"""Asking the database the same question once, for as long as a block runs.

The guide remembers nothing and asks, step by step, where each table is.  A page that shows
all of it, every few seconds, asks within :func:`remembered`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds for which an answer that hardly ever changes is believed.
LATELY = 60.0

_lately: dict[Hashable, tuple[float, Any]] = {}
_answers: ContextVar[dict[Hashable, Any] | None] = ContextVar("answers", default=None)


@contextmanager
def remembered() -> Iterator[None]:
    """Within the block, what is asked through :func:`once` is asked once."""
    token = _answers.set({})
    try:
        yield
    finally:
        _answers.reset(token)


def is_on() -> bool:
    return _answers.get() is not None


def once(question: Hashable, ask: Callable[[], T]) -> T:
    """The answer: from before, within :func:`remembered`; else ``ask`` is called."""
    answers = _answers.get()
    if answers is None:
        return ask()
    if question not in answers:
        answers[question] = ask()
    answer: T = answers[question]
    return answer


def lately(question: Hashable, ask: Callable[[], T]) -> T:
    """The answer of this process's last :data:`LATELY` seconds; for a page, not to act on."""
    now = time.monotonic()
    when, answer = _lately.get(question, (0.0, None))
    if question not in _lately or now - when > LATELY:
        answer = ask()
        _lately[question] = now, answer
    found: T = answer
    return found
