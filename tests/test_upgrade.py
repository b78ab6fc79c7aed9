"""upgrade, killed: nothing half-done looks done, and the next run finishes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from terrain.legacy import cut_over
from tests import dumps
from tests.conftest import Database, Result
from tests.test_migrate import assert_whole, killed_at, sampled, small, wait_until_gone

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]

__all__ = ["small"]  # a fixture


def test_killed_at_any_commit_the_next_run_finishes(
    small: Database,  # noqa: F811
    clone: Callable[[str], Database],
    manage: Manage,
    settings: Any,
    tmp_path: Any,
) -> None:
    """KILLS=300 looks at every commit."""
    settings.BACKUP_DIR = tmp_path
    command = ("upgrade", "--no-backup", "--cut-over", "-v0")
    undisturbed = clone(small.name)
    code, printed = killed_at(undisturbed, 0, *command)
    assert code == 0, printed
    assert dumps.place_of(undisturbed) == "public"
    commits = int(printed.split()[-1])
    contents, definitions = dumps.contents(undisturbed), dumps.schema(undisturbed)
    for last in [*sampled(commits, 2), commits - 1]:
        database = clone(small.name)
        code, printed = killed_at(database, last, *command)
        assert code == -signal.SIGKILL, f"commit {last}: {printed}"
        wait_until_gone(database)
        status = json.loads(manage("migration_status", "--json").out)
        states = {each["name"]: each["state"] for each in status["steps"]}
        if states["verify"] == "done":
            assert {states[name] for name in ("migrate", "settle", "assets")} == {
                "done"
            }
        connection.close()
        code, printed = killed_at(database, 0, *command)
        assert code == 0, f"commit {last}: {printed}"
        assert dumps.contents(database) == contents, f"commit {last}"
        assert dumps.schema(database) == definitions, f"commit {last}"


@pytest.mark.parametrize(
    ("command", "by_itself", "cuts_over"),
    [
        (("upgrade", "--no-backup"), True, True),
        (("upgrade", "--no-backup"), False, False),
        (("upgrade", "--no-backup", "--cut-over"), False, True),
        (("migrate",), True, True),
        (("migrate",), False, False),
        (("migrate", "--cut-over"), False, True),
        (("migrate", "--no-cut-over"), True, False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_it_cuts_over_on_the_embedded_server_or_when_told_to(
    small: Database,  # noqa: F811
    manage: Manage,
    settings: Any,
    tmp_path: Any,
    command: tuple[str, ...],
    by_itself: bool,
    cuts_over: bool,
) -> None:
    settings.BACKUP_DIR = tmp_path
    settings.CUT_OVER_BY_ITSELF = by_itself
    assert manage(*command, "-v0") == Result(0, "", "")
    assert cut_over.is_done(connection) is cuts_over
    assert_whole(small)
    again = manage(*command, "-v0")
    assert (again.code, again.err) == (0, "")
    assert cut_over.is_done(connection) is cuts_over


def test_the_embedded_server_is_where_no_other_is_named() -> None:
    """The tests' settings are of their own; these are the project's."""
    from terrain import settings

    assert settings.CUT_OVER_BY_ITSELF is not bool(settings.DATABASE_URL)
