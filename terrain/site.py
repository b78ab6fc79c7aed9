"""The admin's site: what every page of it has, and pages that are about no one model.

An app adds such a page with :func:`add`, from its ``ready()``; so one that will go away
can, and nothing here knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, URLResolver, path, reverse

View = Callable[..., HttpResponse]


@dataclass(frozen=True)
class Page:
    """A page of the admin, and what belongs to it.

    ``views`` are (route, view, name of the URL); the first is the page itself.  Whoever
    ``may`` not see it gets none of them, and no link.  ``box`` is a template that stands
    in the header in the place of the link.
    """

    title: str
    views: Sequence[tuple[str, View, str]]
    may: Callable[[HttpRequest], bool]
    box: str = ""

    @property
    def url(self) -> str:
        return reverse(f"admin:{self.views[0][2]}")


_added: list[Page] = []


def add(page: Page) -> None:
    """Have the site show the page; before its URLs are asked for the first time."""
    _added.append(page)


class ShopSite(admin.AdminSite):
    """Django's, with a search for anything and with pages that apps have added."""

    site_header = "Terrain builder"
    site_title = "Terrain builder"
    index_title = "The shop"
    site_url = None

    def get_urls(self) -> list[URLPattern | URLResolver]:
        ours: list[URLPattern | URLResolver] = [
            path(route, self.admin_view(_guarded(page, view)), name=name)
            for page in _added
            for route, view, name in page.views
        ]
        return [*ours, *super().get_urls()]

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        return {**super().each_context(request), "pages": list(_for(request))}


def _for(request: HttpRequest) -> Iterator[Page]:
    """The pages that this person may see; none for who may not even sign in here."""
    if admin.site.has_permission(request):
        yield from (page for page in _added if page.may(request))


def _guarded(page: Page, view: View) -> View:
    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not page.may(request):
            raise PermissionDenied
        return view(request, *args, **kwargs)

    return guarded
