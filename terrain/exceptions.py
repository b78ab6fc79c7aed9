"""What the database refuses, as exceptions with a sentence."""

from __future__ import annotations

from django.db import DatabaseError, IntegrityError, OperationalError


class Stopped(Exception):
    """A command stops, for a reason that is a sentence for its user; ``code`` is its exit code.

    For what is no ``CommandError``: raised beneath Django's own commands, whose output
    would put a class name before the sentence.
    """

    def __init__(self, sentence: str, code: int = 1) -> None:
        super().__init__(sentence)
        self.code = code


class Refused(IntegrityError):
    """The database turned a write down by one of the project's own rules.

    ``str()`` is the sentence the rule raised; ``hint`` says what to do, or is empty.
    """

    hint: str = ""


class LimitExceeded(Refused):
    """A session has its tables, or a table its assets, and may not have more."""


class TryAgain(OperationalError):
    """A write gave way to somebody who is changing the same rows; the same may succeed now.

    ``TracksChanges.save`` does try again; :func:`terrain.locks.patiently` is for the rest.
    """


#: SQLSTATE -> exception.  Class ``TB`` is used by neither PostgreSQL nor the standard.
_BY_SQLSTATE: dict[str, type[Refused]] = {"TB001": LimitExceeded}
LOCK_NOT_AVAILABLE = "55P03"


def register_sqlstate(sqlstate: str, exception: type[Refused]) -> None:
    """Have the SQLSTATE arrive in Python as ``exception``."""
    _BY_SQLSTATE[sqlstate] = exception


def from_sqlstate(error: BaseException | None) -> DatabaseError | None:
    """The exception for a psycopg error of one of the known states, or None."""
    sqlstate = getattr(error, "sqlstate", None) or ""
    if sqlstate == LOCK_NOT_AVAILABLE:
        return TryAgain("Somebody else is changing the same rows. Try again.")
    exception = _BY_SQLSTATE.get(sqlstate)
    if exception is None:
        return None
    diagnostic = getattr(error, "diag", None)
    refused = exception(getattr(diagnostic, "message_primary", None) or str(error))
    refused.hint = getattr(diagnostic, "message_hint", None) or ""
    return refused
