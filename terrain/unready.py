"""What visitors see while there is nothing to show: no tables, or no database.

After ``rollback_migration``, and before ``migrate``, this application has no tables.  That
is a state of the guide and no fault, so its pages say so, with status 503, and the log has
one line instead of a traceback for every request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.db import InterfaceError, OperationalError, ProgrammingError, connection
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from psycopg import errors

Respond = Callable[[HttpRequest], HttpResponse]

#: Seconds after which it makes sense to ask again.
RETRY_AFTER = 30

NO_TABLES = (
    "The tables of this application are not here: they have not been made yet, or they"
    " are parked because the move was rolled back. The shop's old application is not"
    " affected. On the server, “python manage.py migration_status” says how things stand,"
    " and “python manage.py migrate” makes the tables or brings them back."
)
NO_DATABASE = (
    "The database does not answer just now. Nothing has been changed. Try again in a"
    " moment; on the server, “python manage.py migration_status” says what is wrong."
)

log = logging.getLogger("terrain.unready")


class UnreadyMiddleware:
    """Answers 503 with a sentence where there are no tables or no database."""

    def __init__(self, get_response: Respond) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponse | None:
        """A page for the two foreseeable errors; None for all others."""
        told = _told(exception)
        if told is None:
            return None
        log.warning("%s %s: %s", request.method, request.path, _first_line(exception))
        # Without the request, whose user would be asked of the database again.
        page = render_to_string("terrain/unready.html", {"told": told})
        response = HttpResponse(page, status=503)
        response["Retry-After"] = str(RETRY_AFTER)
        return response


def _told(error: Exception) -> str | None:
    if isinstance(error, ProgrammingError):
        missing = isinstance(error.__cause__, errors.UndefinedTable)
        return NO_TABLES if missing else None
    if isinstance(error, OperationalError | InterfaceError):
        cause = error.__cause__
        # Without a state it is the connection itself; with one, mostly a statement's.
        lost = getattr(cause, "sqlstate", None) is None or isinstance(
            cause, errors.AdminShutdown | errors.CannotConnectNow
        )
        return NO_DATABASE if lost or not connection.is_usable() else None
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
