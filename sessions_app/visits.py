"""Signing in: what a visitor has laid out becomes the account's."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from sessions_app.models import AnonymousSession

#: The cookie that carries a session's token.
COOKIE = "terrain_session"


def claim_tables(sender: Any, request: HttpRequest, user: Any, **_: Any) -> None:
    """Receiver of ``user_logged_in``: claim the tables of the visitor who signs in."""
    token = request.COOKIES.get(COOKIE, "")
    if not token.isprintable():  # PostgreSQL takes no NUL, and no token has one
        return
    session = AnonymousSession.objects.filter(session_token=token).first()
    if session is not None:
        session.claim(user)
