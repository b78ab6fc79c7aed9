"""What other apps add to the change page of a record.

The pages belong to apps that stay; what is shown beside a record may belong to one that
goes.  So that one registers here, and the pages ask here and know nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.db import models
from django.http import HttpRequest

Render = Callable[[HttpRequest, models.Model], str]


@dataclass(frozen=True)
class Panel:
    """Something beneath the form of a record; ``anchor`` and ``title`` make a link to it."""

    anchor: str
    title: str
    html: str


_registered: dict[str, tuple[str, Render]] = {}


def register(anchor: str, title: str, render: Render) -> None:
    """Show what ``render`` returns beneath the form of every record.

    ``render`` takes the request and the record and returns HTML, or nothing if it has
    nothing to say about that record.
    """
    _registered[anchor] = (title, render)


def of(request: HttpRequest, record: models.Model) -> list[Panel]:
    """The panels of a record that have something to say."""
    made = [
        Panel(anchor, title, render(request, record))
        for anchor, (title, render) in _registered.items()
    ]
    return [panel for panel in made if panel.html]
