"""Two runs at once: the second says who is running, and ends."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from terrain import locks
from terrain.embedded import OWNER
from terrain.legacy import closing, watching
from terrain.legacy.settling import Settled
from tests.both import Both
from tests.conftest import Database, Result
from tests.legacy import insert, order

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]

SENTENCE = (
    r"Another command is at work on this database: process {pid} of the server"
    rf" \(terrain, role {OWNER}, connected since \d\d:\d\d:\d\d UTC\)\. Wait for it, or"
    r" look with: python manage\.py migration_status\n"
)


@pytest.mark.parametrize("command", ["migrate", "upgrade"])
def test_a_second_run_says_who_is_running(
    shop: Database, manage: Manage, command: str
) -> None:
    """Before anything is changed; of a migrated database, test_commands.py says the rest."""
    with shop.connect(OWNER, "public", application_name="terrain") as first:
        first.execute("SELECT pg_advisory_lock(%s)", [locks.RUN_LOCK])
        refused = manage(command, "-v0")
        pid = first.info.backend_pid
    assert refused.code == 2
    assert re.fullmatch(SENTENCE.format(pid=pid), refused.err)
    assert shop.value("SELECT to_regnamespace('terrain')") is None


def test_what_is_closed_is_not_settled(both: Both, manage: Manage) -> None:
    """A rollback was killed on its way: settle says so, and a watch goes on looking."""
    watch = watching.Watch(connection, print)
    assert watch.begin().nothing
    insert(both.old, order("#late", email="late@at.example"))
    closing.close(connection, "orders")
    refused = manage("settle")
    assert refused.code == 2
    assert refused.err == (
        "terrain.orders is closed while the shop is on its way between the old application and"
        " this one. It is opened at the end of: python manage.py migrate.\n"
    )
    assert watch.look() == Settled()
    closing.open_all(connection)
    looked: Any = watch.look()
    assert looked.linked == 1
