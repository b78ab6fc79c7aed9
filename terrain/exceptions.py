"""What the database refuses, as exceptions with a sentence."""

from __future__ import annotations

from django.db import IntegrityError


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


#: SQLSTATE -> exception.  Class ``TB`` is used by neither PostgreSQL nor the standard.
_BY_SQLSTATE: dict[str, type[Refused]] = {"TB001": LimitExceeded}


def register_sqlstate(sqlstate: str, exception: type[Refused]) -> None:
    """Have the SQLSTATE arrive in Python as ``exception``."""
    _BY_SQLSTATE[sqlstate] = exception


def from_sqlstate(error: BaseException | None) -> Refused | None:
    """The exception for a psycopg error of one of the registered states, or None."""
    exception = _BY_SQLSTATE.get(getattr(error, "sqlstate", None) or "")
    if exception is None:
        return None
    diagnostic = getattr(error, "diag", None)
    refused = exception(getattr(diagnostic, "message_primary", None) or str(error))
    refused.hint = getattr(diagnostic, "message_hint", None) or ""
    return refused
