"""What may be done from the page: each asked for twice, by who may, and written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.backends.base.base import BaseDatabaseWrapper
from django.http import HttpRequest

from terrain.legacy import catalog, ledger, settling, sql
from terrain.legacy.console import verifying
from terrain.legacy.mapping import LENSES
from terrain.legacy.models import Quarantine, Run
from terrain.pace import control

#: Rows looked at again within one request; whoever has more presses again.
RETRIED_AT_ONCE = 500


class NotNow(Exception):
    """It cannot be done as things stand; the sentence says why and what to do."""


@dataclass(frozen=True)
class Action:
    """A button.  ``about`` is what somebody reads before confirming it.

    ``do`` takes the connection and who asks for it, does it and returns a sentence, and the
    run that the log's entry is about; it raises :class:`NotNow`.  ``applies`` says whether
    it makes sense as things stand, given whether the move is paused.
    """

    name: str
    label: str
    about: str
    permission: str
    do: Callable[[BaseDatabaseWrapper, str], tuple[str, Run | None]]
    applies: Callable[[bool], bool] = lambda paused: True

    def is_offered(self, request: HttpRequest, paused: bool) -> bool:
        return self.is_allowed(request) and self.applies(paused)

    def is_allowed(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm(self.permission))


def verify(connection: BaseDatabaseWrapper, by: str) -> tuple[str, Run | None]:
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


def retry(connection: BaseDatabaseWrapper, by: str) -> tuple[str, Run | None]:
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


def pause(connection: BaseDatabaseWrapper, by: str) -> tuple[str, Run | None]:
    if not control.exists(connection):
        raise NotNow("Nothing can be paused yet: run migrate first.")
    before = control.pause(connection, by)
    if before.is_paused:
        raise NotNow(f"The move is {before.pause}.")
    return "Whatever runs waits from its next batch on, until it is resumed.", None


def resume(connection: BaseDatabaseWrapper, by: str) -> tuple[str, Run | None]:
    if not control.exists(connection) or not control.resume(connection).is_paused:
        raise NotNow("The move is not paused.")
    return "Whatever was paused goes on.", None


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
        "pause",
        "Pause",
        "Has whatever copies or settles wait, from its next batch on, and keeps what is begun"
        " later waiting too, until it is resumed. Both applications go on as they are, in step"
        " as far as the copies have come.",
        "legacy.steer_migration",
        pause,
        lambda paused: not paused,
    ),
    Action(
        "resume",
        "Resume",
        "Lets whatever was paused go on where it was.",
        "legacy.steer_migration",
        resume,
        lambda paused: paused,
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


def log(request: HttpRequest, action: Action, told: str, about: Run | None) -> None:
    """An entry of the admin's own log: who pressed what, when, and what came of it."""
    LogEntry.objects.create(
        user_id=request.user.pk,  # type: ignore[misc]
        content_type=ContentType.objects.get_for_model(Run),
        object_id=None if about is None else str(about.pk),
        object_repr=f"The move: {action.label.lower()}"[:200],
        action_flag=CHANGE,
        change_message=told,
    )
