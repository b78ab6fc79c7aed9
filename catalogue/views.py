"""Usage of assets, for whoever may know: a program's view, in JSON."""

from __future__ import annotations

import datetime
import uuid

from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from catalogue import usage
from terrain.models import User

#: Days that are told if none are asked for.
DAYS = 30

SIGN_IN = "Sign in to see how assets are used."
NOT_YOURS = (
    "Artists see how their own assets are used, and administrators with the permission"
    " “Can view asset usage” all of them."
)


class _Unreadable(Exception):
    """A parameter that is not what it should be; the sentence says which."""


@never_cache
@require_safe
def asset_usage(request: HttpRequest) -> HttpResponse:
    """Adds, removals and uses by asset and day: ``?asset=…&since=2026-01-01&until=…``.

    The newest day first, a thousand rows at most; ``complete`` says whether that is all.
    """
    user = request.user
    if not user.is_authenticated:
        return _refusal(SIGN_IN, 401)
    sees_all = user.has_perm("catalogue.view_assetusage") and user.is_staff
    if not sees_all and user.role not in (User.Role.ARTIST, User.Role.ADMIN):
        return _refusal(NOT_YOURS, 403)
    today = datetime.datetime.now(datetime.UTC).date()
    try:
        until = _day(request, "until", today)
        since = _day(
            request, "since", max(until, _FIRST) - datetime.timedelta(days=DAYS - 1)
        )
        asset = _asset(request)
    except _Unreadable as error:
        return _refusal(str(error), 400)
    rows = usage.by_asset_and_day(
        connection,
        since=since,
        until=until,
        asset=asset,
        artist=None if sees_all else user.pk,
        limit=usage.ROWS + 1,
    )
    return JsonResponse(
        {
            "since": since.isoformat(),
            "until": until.isoformat(),
            "complete": len(rows) <= usage.ROWS,
            "usage": [row.as_json() for row in rows[: usage.ROWS]],
        }
    )


#: The first day from which so many days can be counted back.
_FIRST = datetime.date.min + datetime.timedelta(days=DAYS)


def _refusal(sentence: str, status: int) -> JsonResponse:
    return JsonResponse({"error": sentence}, status=status)


def _day(request: HttpRequest, name: str, default: datetime.date) -> datetime.date:
    given = request.GET.get(name)
    if not given:
        return default
    try:
        return datetime.date.fromisoformat(given)
    except ValueError as error:
        raise _Unreadable(f"{name} is a day, written like 2026-01-31.") from error


def _asset(request: HttpRequest) -> uuid.UUID | None:
    given = request.GET.get("asset")
    if not given:
        return None
    try:
        return uuid.UUID(given)
    except ValueError as error:
        raise _Unreadable(
            "asset is the id of an asset: 32 hexadecimal digits."
        ) from error
