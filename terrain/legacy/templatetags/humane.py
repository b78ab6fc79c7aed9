"""Numbers, spans of time and severities, as people read them."""

from __future__ import annotations

from typing import Any

from django import template

from terrain.legacy.findings import Severity

register = template.Library()

_MARKS = {
    Severity.BLOCKS: ("bad", "✗ fails:"),
    Severity.FAILS: ("bad", "✗ fails:"),
    Severity.WARNS: ("odd", "! warns:"),
    Severity.TELLS: ("odd", "· tells:"),
}


@register.filter
def grouped(number: float | None) -> str:
    """``12,345``; nothing for what is not known."""
    return "" if number is None else f"{number:,.0f}"


@register.filter
def unlocal(number: Any) -> str:
    """A number as a drawing or a program reads it."""
    return str(number)


@register.filter
def span(seconds: float | None) -> str:
    """``0.4 s``, ``12 s``, ``3:05 min``, ``1:02 h``; nothing for what is not known."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02} h"


@register.filter
def mark(severity: str) -> str:
    """The class of a finding that is no better than this."""
    return _MARKS.get(Severity(severity), ("good", ""))[0]


@register.filter
def word(severity: str) -> str:
    """What stands before a finding, for those as well who see no colour."""
    return _MARKS.get(Severity(severity), ("", "✓ holds:"))[1]
