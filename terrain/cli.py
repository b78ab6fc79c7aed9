"""Runs a management command and answers for what can be foreseen to go wrong.

A wrong password or a server that is down is no programming error: it ends in one sentence
with the next step, and exit code 2.  This covers Django's own commands too.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management import BaseCommand, ManagementUtility
from django.db import (
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    connection,
)
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from psycopg import errors

from terrain.embedded import EmbeddedError
from terrain.exceptions import Refused, Stopped
from terrain.locks import LockNotObtained

REFUSED, COULD_NOT_RUN = 1, 2
INTERRUPTED = 130

#: What libpq says -> what to do.  Its own first line is kept: it names host and role.
_CONNECTION_ADVICE = (
    (
        r"password authentication failed|no password supplied",
        "Check the password in DATABASE_URL.",
    ),
    (r"role .* does not exist", "Check the user name in DATABASE_URL."),
    (
        r"database .* does not exist",
        "Check the database name in DATABASE_URL, or create it.",
    ),
    (
        r"could not translate host name|failed to resolve host|Name or service not known",
        "Check the host in DATABASE_URL.",
    ),
    (
        r"Connection refused|No such file or directory|timeout expired|timed out|unreachable",
        "Is the server running, and are host and port in DATABASE_URL right?",
    ),
    (
        r"permission denied for database",
        "Ask the owner to grant CONNECT on the database.",
    ),
    (
        r"no pg_hba.conf entry",
        "The server does not admit this user from here: see its pg_hba.conf.",
    ),
    (
        r"too many (clients|connections)|remaining connection slots",
        "Close a connection and try again.",
    ),
    (
        r"starting up|shutting down|in recovery",
        "Wait until the server is up, then run it again.",
    ),
    (r"SSL", "Check sslmode in DATABASE_URL."),
)


class Utility(ManagementUtility):
    """Django's, but a command that is not there is a bad argument like others."""

    def fetch_command(self, subcommand: str) -> BaseCommand:
        try:
            return super().fetch_command(subcommand)
        except SystemExit:
            raise SystemExit(COULD_NOT_RUN) from None


def run(argv: list[str]) -> int:
    """Run the command line and return its exit code."""
    if os.environ.get("NO_COLOR"):
        os.environ["DJANGO_COLORS"] = "nocolor"  # how Django's own commands are told
    if "runserver" not in argv[1:2]:
        connection_created.connect(take_time)
    try:
        _execute(argv)
    except (OperationalError, InterfaceError) as error:
        return _fail(connection_sentence(error))
    except ProgrammingError as error:
        if isinstance(error.__cause__, errors.InsufficientPrivilege):
            return _fail(privilege_sentence(error))
        if isinstance(error.__cause__, errors.UndefinedTable):
            return _fail(missing_sentence(error, _closed_schema()))
        raise
    except Refused as error:
        return _fail(f"{error}. {error.hint}".strip(" .") + ".")
    except IntegrityError:
        # Addresses are unique among some accounts only, so Django does not look before.
        if "createsuperuser" in argv[1:2]:
            return _refuse(
                "There is an account with this address already. Give another one, or set"
                " its password with: python manage.py changepassword ADDRESS"
            )
        raise
    except InternalError as error:
        if isinstance(error.__cause__, errors.ReadOnlySqlTransaction):
            return _fail(read_only_sentence(error))
        raise
    except LockNotObtained as error:
        return _refuse(str(error))
    except (ImproperlyConfigured, EmbeddedError) as error:
        return _fail(str(error))
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return stop.code
    except KeyboardInterrupt as stop:
        said = str(stop) or "Stopped. Run the same command again to go on."
        print(f"\n{said}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return COULD_NOT_RUN
    return 0


def _execute(argv: list[str]) -> None:
    """What fails because of an interruption, while a command tidies up, is that interruption.

    A statement that Ctrl-C has had cancelled may be over by the time the server hears of it,
    which then cancels the next one.
    """
    try:
        Utility(argv).execute()
    except Error as error:
        before: BaseException | None = error
        while before is not None:
            if isinstance(before, KeyboardInterrupt):
                raise before from error
            before = before.__context__
        raise


def take_time(connection: BaseDatabaseWrapper, **_: Any) -> None:
    """Lift the time limits that are set for the shop's own statements and sessions.

    A copy, a proof or an index takes as long as it takes, and the session that holds the
    lock of a run is idle while its workers copy.  How long a lock is waited for is set
    wherever one is taken that others would wait behind.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN"
            " ('statement_timeout', 'transaction_timeout', 'idle_session_timeout', 'lock_timeout',"
            "  'idle_in_transaction_session_timeout') AND setting <> '0'"
        )


def connection_sentence(error: Exception) -> str:
    """What is wrong with the connection, and what to type next."""
    text = _first_line(str(error))
    for pattern, advice in _CONNECTION_ADVICE:
        if re.search(pattern, text):
            return f"The database cannot be used: {text}. {advice}"
    return (
        f"The database cannot be used: {text}. Run the same command again when it can."
    )


def privilege_sentence(error: Exception) -> str:
    """Which privilege is missing."""
    return (
        f"The database role may not do this: {_first_line(str(error))}."
        " Connect as the owner of the database and of the tables, or have it granted."
    )


def read_only_sentence(error: Exception) -> str:
    """The server is a standby, or the session is told to read only."""
    return (
        f"The database may only be read: {_first_line(str(error))}. Connect to the primary,"
        " or unset default_transaction_read_only for the role and the database."
    )


def _closed_schema() -> str:
    """The schema of this project's tables, if the role may not enter it and so finds none."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT nspname FROM pg_namespace WHERE nspname = ANY (%s)"
                "   AND NOT has_schema_privilege(oid, 'USAGE')",
                [list(connection.own_path)],  # type: ignore[attr-defined]
            )
            (found,) = cursor.fetchone() or ("",)
    except Error:
        return ""
    return str(found)


def missing_sentence(error: Exception, closed: str = "") -> str:
    """A table that the command needs is not there: before migrate, or after a rollback.

    Nor is it for a role that may not enter the schema, which is ``closed`` to it.
    """
    if closed:
        return privilege_sentence(Exception(f"permission denied for schema {closed}"))
    return (
        f"A table is not there: {_first_line(str(error))}. Run: python manage.py migrate;"
        " or see how far things are with: python manage.py migration_status"
    )


def _first_line(text: str) -> str:
    """libpq lists every address it tried; the last line is about the last one."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    line = next(
        (line for line in lines if "failed" in line or "FATAL" in line),
        lines[0] if lines else "",
    )
    return re.sub("^connection (failed|is bad): ", "", line).rstrip(".")


def _refuse(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return REFUSED


def _fail(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return COULD_NOT_RUN
