"""Dates that PostgreSQL can hold and Python cannot: infinity, BC, past the year 9999."""

from __future__ import annotations

import datetime
from typing import Any

from django.db.backends.postgresql.psycopg_any import BaseTzLoader
from psycopg import DataError
from psycopg.abc import AdaptContext
from psycopg.types.datetime import DateLoader, TimestampLoader


class ImpossibleDate(str):
    """The text of a timestamp that has no ``datetime``: ``infinity``, ``0044-03-15 BC``.

    A string, so that pages show it and PostgreSQL takes it back unchanged.
    """

    __slots__ = ()


def _text(data: Any) -> str:
    return bytes(data).decode("ascii")


class TimestampOrText(TimestampLoader):
    def load(self, data: Any) -> Any:
        try:
            return super().load(data)
        except DataError:
            return ImpossibleDate(_text(data))


class DateOrText(DateLoader):
    def load(self, data: Any) -> Any:
        try:
            return super().load(data)
        except DataError:
            return ImpossibleDate(_text(data))


class TimestamptzOrText(BaseTzLoader):  # type: ignore[misc]
    """Subclassed for each timezone; Django keeps it on the class and compares it."""

    def load(self, data: Any) -> Any:
        try:
            return super().load(data)
        except (DataError, OverflowError):
            return ImpossibleDate(_text(data))


def register(timezone: datetime.tzinfo | None, context: AdaptContext) -> None:
    """Let ``context`` (a psycopg connection or cursor) read every date."""
    loader = type("TimestamptzOrText", (TimestamptzOrText,), {"timezone": timezone})
    context.adapters.register_loader("timestamptz", loader)
    context.adapters.register_loader("timestamp", TimestampOrText)
    context.adapters.register_loader("date", DateOrText)
