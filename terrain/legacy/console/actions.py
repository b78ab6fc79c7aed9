"""What may be done from the page: each asked for twice, by who may, and written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.http import HttpRequest

from terrain.legacy import catalog, ledger, settling, sql
from terrain.legacy.console import verifying
from terrain.legacy.mapping import LENSES
from terrain.legacy.models import Quarantine, Run

#: Rows looked at again within one request; whoever has more presses again.
RETRIED_AT_ONCE = 500


class NotNow(Exception):
    """It cannot be done as things stand; the sentence says why and what to do."""


@dataclass(frozen=True)
class Action:
    """A button.  ``about`` is what somebody reads before confirming it.

    ``do`` takes the connection, does it and returns a sentence, and the record that the
    log's entry is about; it raises :class:`NotNow`.
    """

    name: str
    label: str
    about: str
    permission: str
    do: Callable[[BaseDatabaseWrapper], tuple[str, models.Model | None]]

    def is_allowed(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm(self.permission))


def verify(connection: BaseDatabaseWrapper) -> tuple[str, models.Model | None]:
    from terrain.legacy import checks

    try:
        checks.ensure_possible(connection)
        verifying.start(connection)
    except checks.NothingToVerify as error:
        raise NotNow(str(error)) from error
    except verifying.AlreadyRunning as error:
        raise NotNow(
            "A verification is running already; wait for its result."
        ) from error
    run = ledger.last("verify", connection.alias)
    return "The verification has begun. Its result will be shown here.", run


def retry(connection: BaseDatabaseWrapper) -> tuple[str, models.Model | None]:
    if not settling.is_possible(connection):
        raise NotNow(
            "The legacy tables are not beside the new ones (any more), so there is nothing"
            " to look at again."
        )
    entries = [
        (lens.legacy, key)
        for lens in LENSES
        for (key,) in catalog.rows(connection, sql.to_retry(lens))
    ]
    taken = entries[:RETRIED_AT_ONCE]
    released = settling.retry_held(connection, taken)
    waiting = len(entries) - len(taken)
    left = Quarantine.objects.using(connection.alias).count()
    more = f" {waiting:,} more are to be looked at: retry again." if waiting else ""
    return (
        f"{released:,} entries released, {left:,} left in quarantine.{more}",
        None,
    )


ACTIONS = (
    Action(
        "verify",
        "Verify",
        "Compares every legacy row with what the new schema says of it, and asks what must"
        " be true in any case. It reads everything once, in a process of its own, and"
        " changes nothing but what waits to be settled. It may take a minute or more.",
        "legacy.verify_migration",
        verify,
    ),
    Action(
        "retry",
        "Retry quarantine",
        "Looks again at the rows in quarantine whose reason may be gone, and carries over"
        f" those that have been put right, up to {RETRIED_AT_ONCE} at a time. The others"
        " stay where they are.",
        "legacy.change_quarantine",
        retry,
    ),
)
BY_NAME = {action.name: action for action in ACTIONS}


def log(request: HttpRequest, action: Action, told: str, about: object) -> None:
    """An entry of the admin's own log: who pressed what, when, and what came of it."""
    record = about if isinstance(about, Run) else None
    LogEntry.objects.create(
        user_id=request.user.pk,  # type: ignore[misc]
        content_type=ContentType.objects.get_for_model(Run),
        object_id=None if record is None else str(record.pk),
        object_repr=f"The move: {action.label.lower()}"[:200],
        action_flag=CHANGE,
        change_message=told,
    )
