"""upgrade, killed: nothing half-done looks done, and the next run finishes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests import dumps
from tests.conftest import Database, Result
from tests.test_migrate import killed_at, sampled, small, wait_until_gone

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
    command = ("upgrade", "--no-backup", "-v0")
    undisturbed = clone(small.name)
    code, printed = killed_at(undisturbed, 0, *command)
    assert code == 0, printed
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
        code, printed = killed_at(database, 0, *command)
        assert code == 0, f"commit {last}: {printed}"
        assert dumps.contents(database) == contents, f"commit {last}"
        assert dumps.schema(database) == definitions, f"commit {last}"
