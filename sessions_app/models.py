"""Visitors who have not signed in, and what they may keep meanwhile."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

from terrain.fields import TimestampField
from terrain.models import Record

if TYPE_CHECKING:
    from catalogue.models import Table
    from terrain.models import User

#: Active tables a session may have, unless its row says otherwise.
DEFAULT_TABLE_LIMIT = 3


def new_token() -> str:
    """256 random bits, as the text a cookie carries."""
    return secrets.token_urlsafe(32)


class AnonymousSession(Record):
    """A visitor without an account, known by the token in their cookie."""

    tables: models.Manager[Table]

    session_token = models.CharField(max_length=64, default=new_token)
    table_limit = models.PositiveIntegerField(
        default=DEFAULT_TABLE_LIMIT,
        db_default=DEFAULT_TABLE_LIMIT,
        help_text="How many active tables the session may have.",
    )
    created_at = TimestampField(default=timezone.now, db_default=Now(), editable=False)
    last_seen = TimestampField(default=timezone.now, db_default=Now())

    class Meta:
        db_table = "anonymous_sessions"
        ordering = ["-last_seen"]
        indexes = [
            models.Index(fields=["last_seen"], name="anonymous_sessions_seen_idx")
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["session_token"], name="anonymous_sessions_token_key"
            ),
        ]

    def __str__(self) -> str:
        return f"Visitor {str(self.id)[:8]}"

    def claim(self, user: User) -> int:
        """Give the session's tables to ``user``, who has just signed in.

        The tables get the account's plan and, where they carry no address, the
        account's, so that the old application finds them under it.  Returns how many.
        """
        from catalogue.models import Table

        with_address = models.Case(
            models.When(contact_email__isnull=True, then=models.Value(user.email)),
            models.When(contact_email="", then=models.Value(user.email)),
            default=models.F("contact_email"),
        )
        return Table.objects.filter(session=self).update(
            user=user,
            session=None,
            contact_email=with_address,
            plan=models.Case(
                models.When(
                    plan=Table.Plan.ANON_FREE, then=models.Value(Table.Plan.USER_FREE)
                ),
                default=models.F("plan"),
            ),
            updated_at=timezone.now(),
        )
