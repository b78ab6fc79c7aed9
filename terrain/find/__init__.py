"""Find anything: one box that takes an address, a number, a code or an id.

What is a key of a record its admin class says (``key_conditions``), and what belongs to a
record too (``belongings``).  An app whose rows have no admin class adds a *source*.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from django.db import models
from django.http import HttpRequest

#: Takes the request, the term and the records found; returns HTML, or nothing.
Source = Callable[[HttpRequest, str, Sequence[models.Model]], str]

sources: list[Source] = []


def add_source(source: Source) -> None:
    """Have the page of what was found show what ``source`` has to say as well."""
    sources.append(source)
