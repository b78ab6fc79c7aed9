"""The page of the move, what keeps it up to date, and its buttons."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.models import Permission
from django.core.exceptions import PermissionDenied
from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
)
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.cache import never_cache

from terrain.legacy.console import actions, board, diagram
from terrain.legacy.console.board import Board
from terrain.legacy.models import Quarantine, Run
from terrain.models import User
from terrain.pages.shown import changelist_url
from terrain.site import Page

#: Parts of the page that are exchanged as they change, each a template of its name.
PARTS = ("act", "steps", "flow", "verified", "quarantine", "backups")
#: Milliseconds until the page asks again: while something runs, and otherwise.
SOON, LATER = 1500, 10_000


def page(request: HttpRequest) -> HttpResponse:
    """How things stand, to begin with; ``move.js`` keeps it so."""
    now = board.read(_connection(), settings.BACKUP_DIR)
    return TemplateResponse(
        request,
        "legacy/move/page.html",
        {
            **admin.site.each_context(request),
            **_context(request, now),
            "title": "The move",
            "every": _every(now),
        },
    )


@never_cache
def now(request: HttpRequest) -> HttpResponse:
    """The parts of the page as they are now: name -> HTML, and a sentence."""
    found = board.read(_connection(), settings.BACKUP_DIR)
    context = _context(request, found)
    parts = {
        name: render_to_string(f"legacy/move/{name}.html", context) for name in PARTS
    }
    return JsonResponse({"parts": parts, "said": found.said, "every": _every(found)})


def act(request: HttpRequest, name: str) -> HttpResponse:
    """Asks whether it is meant, and on POST does it."""
    action = actions.BY_NAME.get(name)
    if action is None:
        raise Http404
    if not action.is_allowed(request):
        raise PermissionDenied
    if request.method != "POST":
        return TemplateResponse(
            request,
            "legacy/move/confirm.html",
            {
                **admin.site.each_context(request),
                "title": action.label,
                "action": action,
            },
        )
    try:
        told, about = action.do(_connection(), str(request.user))
    except actions.NotNow as error:
        messages.warning(request, str(error))
    else:
        actions.log(request, action, told, about)
        messages.success(request, told)
    return HttpResponseRedirect(reverse("admin:move"))


def _connection() -> BaseDatabaseWrapper:
    return connections[router.db_for_write(Run)]


def _every(found: Board) -> int:
    return SOON if found.is_running else LATER


def _context(request: HttpRequest, found: Board) -> dict[str, object]:
    paused = found.orders.is_paused
    return {
        "board": found,
        "actions": [
            each for each in actions.ACTIONS if each.is_offered(request, paused)
        ],
        "drawing": diagram.drawn(found.flows),
        "quarantine_url": changelist_url(Quarantine),
        "backup_dir": settings.BACKUP_DIR,
    }


def _may(request: HttpRequest) -> bool:
    """Who has been given the right; and the shop's admins while there is none to be given.

    Django writes permissions down when ``migrate`` has ended, and the page is there to
    follow it.  Looking is all that this lets anybody do.
    """
    if request.user.has_perm("legacy.view_run"):
        return True
    is_admin = getattr(request.user, "role", None) == User.Role.ADMIN
    return is_admin and not Permission.objects.filter(codename="view_run").exists()


PAGE = Page(
    "The move",
    [
        ("move/", page, "move"),
        ("move/now/", now, "move_now"),
        ("move/<slug:name>/", act, "move_act"),
    ],
    _may,
)
