"""Signing in does not fail for the note of when somebody last did.

Django writes ``users.last_login`` at each sign-in.  While the shop is moved that table is
closed to this application, and at any time the other one may be writing the same row: the
note is then left out, and the person is in.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import update_last_login
from django.contrib.auth.signals import user_logged_in
from django.db import DatabaseError, transaction

from terrain.pages import refusals


def connect() -> None:
    """Take the place of Django's own receiver, which is connected later, by its name."""
    user_logged_in.connect(note, dispatch_uid="update_last_login")


def note(sender: Any, user: Any, **kwargs: Any) -> None:
    """Write ``last_login``, if that can be done now."""
    before = user.last_login
    try:
        with transaction.atomic():
            update_last_login(sender, user, **kwargs)
    except DatabaseError as error:
        if not refusals.is_expected(error):
            raise
        user.last_login = before
