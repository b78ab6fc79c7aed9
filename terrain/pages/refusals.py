"""What the database turned down, as a sentence for the page it was asked from."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    NotSupportedError,
    OperationalError,
)

from terrain import locks
from terrain.exceptions import Refused

#: What a person at a form can bring about.  Anything else is a fault of the program's.
EXPECTED = (IntegrityError, DataError, OperationalError, NotSupportedError)

#: PostgreSQL's classes of conditions that have a plain reason.
_SENTENCES = {
    "23502": "A value is missing that has to be there.",
    "23503": "Something else still refers to this, or this refers to something that is not there.",
    "23505": "Another row already has this value, which has to be unique.",
    "23514": "The values do not go together.",
    "22P05": "A text holds a character that PostgreSQL cannot store.",
    "22001": "A text is too long.",
    "22003": "A number is too large.",
}


def is_expected(error: DatabaseError) -> bool:
    """Whether the error is about what was to be written, or about who else is writing it."""
    if isinstance(error, OperationalError):
        return locks.is_retried(error)
    return isinstance(error, EXPECTED)


def sentence(error: DatabaseError) -> str:
    """What is wrong, and what to do: from the rule that refused, or from PostgreSQL."""
    if isinstance(error, Refused):
        return " ".join(filter(None, (_ended(str(error)), error.hint)))
    if isinstance(error, OperationalError):
        return (
            "Another application is changing this row just now, so nothing was saved."
            " Save it again."
        )
    cause = error.__cause__ or error
    diagnostic = getattr(cause, "diag", None)
    told = getattr(diagnostic, "message_primary", None) or str(error)
    plain = _SENTENCES.get(getattr(cause, "sqlstate", None) or "", "")
    return f"{plain} Nothing was saved. PostgreSQL says: {_ended(told)}".strip()


def as_form_error(error: DatabaseError) -> ValidationError:
    """The same, as an error of the form as a whole."""
    return ValidationError(sentence(error), code="refused")


def _ended(text: str) -> str:
    text = text.strip()
    if text.partition(" ")[0].isalpha():  # not the name of a table
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
