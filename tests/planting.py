"""Problems planted in a shop, and what preflight says of them."""

from __future__ import annotations

import time

from django.db import connection

from terrain.legacy import preflight, search_path
from terrain.legacy.findings import Finding, Severity
from tests.conftest import Database


def plant(*statements: str) -> None:
    """As the owner, over Django's connection, so that no other session is left behind.

    Names are the shop's meanwhile.
    """
    with connection.cursor() as cursor:
        cursor.execute("SET search_path = public")
        try:
            for statement in statements:
                cursor.execute(statement)
        finally:
            cursor.execute(f"SET search_path = {', '.join(connection.own_path)}")


def odd(report: preflight.Report) -> list[Finding]:
    """What is neither fine nor merely told."""
    return [
        each
        for each in report.findings
        if each.severity not in (Severity.PASSES, Severity.TELLS)
    ]


def only(report: preflight.Report, name: str) -> Finding:
    """The one finding there is."""
    found = odd(report)
    assert [each.name for each in found] == [name], found
    return found[0]


def told(report: preflight.Report, name: str) -> Finding:
    """The one finding of that name, which blocks nothing."""
    assert report.blockers == ()
    (found,) = (each for each in report.findings if each.name == name)
    return found


def wait_until_alone(shop: Database) -> None:
    """Close the test's connections; a server process ends a moment after its client has gone."""
    shop.close()
    deadline = time.monotonic() + 10
    while search_path.other_sessions(connection):
        assert time.monotonic() < deadline
