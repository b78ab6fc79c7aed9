"""upgrade --rehearse: everything is done to a copy, and nothing to the database."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from terrain.embedded import OWNER
from terrain.legacy import rehearsal, rehearsed
from tests import dumps
from tests.backups import command
from tests.conftest import Database, Result
from tests.waiting import until

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]


@pytest.fixture
def backed_up(
    shop: Database, manage: Manage, settings: Any, tmp_path: Path
) -> Database:
    """A shop with a proven backup."""
    settings.BACKUP_DIR = tmp_path
    assert manage("backup_database", "-v", "0") == Result(0, "", "")
    return shop


def copies(administrator: psycopg.Connection[Any], of: str) -> list[tuple[str, str]]:
    """The databases that rehearsals have made of another, and what they say of themselves."""
    return administrator.execute(
        "SELECT datname::text, shobj_description(oid, 'pg_database') FROM pg_database"
        " WHERE starts_with(datname, %s) ORDER BY 1",
        [f"{of}_rehears"],
    ).fetchall()


def test_a_rehearsal_from_backup_to_status(
    backed_up: Database,
    manage: Manage,
    administrator: psycopg.Connection[Any],
    tmp_path: Path,
) -> None:
    """Times, sizes, what was held; and not a change in the database itself."""
    before = dumps.schema(backed_up)
    result = manage("upgrade", "--rehearse", "--json")
    assert (result.code, result.err) == (0, "")
    document = json.loads(result.out)
    assert dumps.schema(backed_up) == before
    assert backed_up.value("SELECT to_regclass('terrain.legacy_run') IS NULL")
    assert copies(administrator, backed_up.name) == []
    assert [each["command"] for each in document["steps"]] == [
        "preflight",
        "migrate",
        "settle",
        "copy_models_to_assets",
        "verify_migration",
        "cut_over",
        "rollback_migration",
    ]
    assert {each["state"] for each in document["steps"]} == {"done"}
    assert (document["stopped"], document["kept"]) == (None, None)
    moved = {each["legacy"]: each["rows"] for each in document["moved"]}
    assert moved["orders"] == 500
    assert document["size_after"] > document["size_before"]
    assert document["forecast"]["bytes"] > 0
    assert document["forecast"]["seconds_beside"] > document["forecast"]["seconds"]

    status = json.loads(manage("migration_status", "--json").out)
    del document["kept"]
    assert status["rehearsal"] == document | {"digest": status["rehearsal"]["digest"]}
    steps = {each["name"]: each for each in status["steps"]}
    assert steps["migrate"]["took"] is None
    assert steps["migrate"]["rehearsed"] == document["steps"][1]["seconds"]
    assert steps["copy orders"]["rehearsed"] == document["times"]["copy orders"]
    assert steps["backup"]["rehearsed"] == document["backup_seconds"]
    assert "\nRehearsed 20" in manage("migration_status").out

    # Then for real: both stand side by side, until cleanup.
    assert manage("upgrade", "-v", "0") == Result(0, "", "")
    steps = {
        each["name"]: each
        for each in json.loads(manage("migration_status", "--json").out)["steps"]
    }
    for name in ("migrate", "settle", "assets", "verify", "copy orders"):
        assert steps[name]["took"] is not None, name
        assert steps[name]["rehearsed"] is not None, name
    head = manage("migration_status").out.splitlines()[0].split("  ")
    assert [each.strip() for each in head if each.strip()][-2:] == [
        "s took",
        "s rehearsed",
    ]
    assert manage("cut_over", "--yes", "-v", "0") == Result(0, "", "")
    assert manage("backup_database", "-v", "0").code == 0
    assert manage("cleanup_legacy", "--yes", "--despite-use", "-v", "0").code == 0
    assert json.loads(manage("migration_status", "--json").out)["rehearsal"] is None
    assert list((tmp_path / rehearsed.FOLDER).iterdir()) == []


def test_what_would_be_held_is_told_beforehand(
    shop: Database, manage: Manage, settings: Any, tmp_path: Path
) -> None:
    settings.BACKUP_DIR = tmp_path
    shop.execute("UPDATE user_tables SET layout_data = '1' WHERE name = 'Table 3'")
    assert manage("backup_database", "-v", "0").code == 0
    result = manage("upgrade", "--rehearse")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert "· 1 row of user_tables held: layout_data_not_object" in lines
    assert lines[-2].startswith("✓ All of it went well. A real run would take about ")
    assert lines[-1] == (
        "Nothing was changed in the database itself. Beside what is done:"
        " python manage.py migration_status"
    )


def test_a_rehearsal_that_is_stopped_says_why(
    shop: Database, manage: Manage, settings: Any, tmp_path: Path
) -> None:
    settings.BACKUP_DIR = tmp_path
    shop.execute("ALTER TABLE orders DROP COLUMN notes")
    assert manage("backup_database", "-v", "0").code == 0
    result = manage("upgrade", "--rehearse")
    assert (result.code, result.err) == (1, "")
    assert result.out.splitlines()[-2:] == [
        "✗ The rehearsal stopped at preflight: The column orders.notes is missing.",
        "Nothing was changed in the database itself.",
    ]
    status = manage("migration_status").out
    assert (
        " UTC: it stopped at preflight: The column orders.notes is missing.\n" in status
    )


def test_a_copy_that_is_kept_is_nobody_s_leftover(
    backed_up: Database,
    manage: Manage,
    administrator: psycopg.Connection[Any],
    drop_database: Callable[[str], None],
) -> None:
    result = manage("upgrade", "--rehearse", "--keep", "--json")
    kept = json.loads(result.out)["kept"]
    try:
        assert copies(administrator, backed_up.name) == [
            (
                kept,
                "A copy that upgrade --rehearse has made (kept: drop it when it is not needed).",
            )
        ]
        with psycopg.connect(backed_up.cluster.dsn(kept, OWNER)) as there:
            found = there.execute("SELECT count(*) FROM public.orders").fetchone()
            assert found == (500,)
        rehearsal.drop_leftovers(_server(), print)
        assert len(copies(administrator, backed_up.name)) == 1
    finally:
        drop_database(kept)


def _server() -> Any:
    from django.db import connection

    from terrain.legacy.backup.server import Server

    return Server.of(connection)


@pytest.mark.parametrize("stage", ["restoring", "migrating"])
def test_killed_nothing_half_done_looks_done(
    backed_up: Database,
    manage: Manage,
    administrator: psycopg.Connection[Any],
    tmp_path: Path,
    stage: str,
) -> None:
    """The copy is recognised and dropped by the next run, which finishes."""
    before = dumps.schema(backed_up)
    process = command(backed_up, "upgrade", "--rehearse", backups=tmp_path)

    def there() -> bool:
        if stage == "restoring":
            return bool(
                administrator.execute(
                    "SELECT FROM pg_database WHERE datname ~ '^terrain_scratch_'"
                    "   AND shobj_description(oid, 'pg_database') ~ %s",
                    [f"{backed_up.name}_rehearsal"],
                ).fetchall()
            )
        found = copies(administrator, backed_up.name)
        return bool(found) and bool(
            administrator.execute(
                "SELECT FROM pg_stat_activity WHERE datname = %s"
                " AND application_name = 'terrain'",
                [found[0][0]],
            ).fetchall()
        )

    until(lambda: there() or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert dumps.schema(backed_up) == before
    assert rehearsed.latest(tmp_path, backed_up.name, None) is None
    assert list((tmp_path / rehearsed.FOLDER).glob("*.json")) == []
    result = manage("upgrade", "--rehearse")
    assert (result.code, result.err) == (0, "")
    assert copies(administrator, backed_up.name) == []
    assert ", which an interrupted rehearsal had left." in result.out


def test_interrupted_by_hand_the_copy_goes(
    backed_up: Database,
    manage: Manage,
    administrator: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from terrain.legacy.management.commands import upgrade

    def interrupted(name: str, arguments: tuple[str, ...]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(upgrade, "_run", interrupted)
    result = manage("upgrade", "--rehearse", "-v", "0")
    assert result == Result(
        130,
        "",
        "Stopped. Nothing was changed in the database itself, and the copy is gone. A"
        " rehearsal begins anew.\n",
    )
    assert copies(administrator, backed_up.name) == []
    assert backed_up.value("SELECT count(*) FROM public.orders") == 500


@pytest.mark.parametrize("arguments", [("--keep",), ("--json",)])
def test_what_is_for_a_rehearsal_only(
    backed_up: Database, manage: Manage, arguments: tuple[str, ...]
) -> None:
    assert manage("upgrade", *arguments) == Result(
        2, "", "--keep and --json are for a rehearsal: add --rehearse.\n"
    )


def test_without_a_backup(
    shop: Database, manage: Manage, settings: Any, tmp_path: Path
) -> None:
    settings.BACKUP_DIR = tmp_path
    assert manage("upgrade", "--rehearse") == Result(
        2,
        "",
        f"There is no proven backup of {shop.name} in {tmp_path} to rehearse on. Run:"
        " python manage.py backup_database\n",
    )


def test_after_the_migration_there_is_nothing_to_rehearse(
    migrated: Database, manage: Manage, settings: Any, tmp_path: Path
) -> None:
    settings.BACKUP_DIR = tmp_path
    assert manage("backup_database", "-v", "0").code == 0
    (name,) = (
        path.name for path in tmp_path.glob("*/manifest.json") for path in [path.parent]
    )
    assert manage("upgrade", "--rehearse").err == (
        f"The newest backup, {name}, was taken after the migration, so there is nothing left"
        " in it to rehearse.\n"
    )


def test_forecast_grows_with_the_database() -> None:
    document: dict[str, Any] = {
        "stopped": None,
        "moved": [{"rows": 100}, {"rows": 100}],
        "rows_now": 300,
        "steps": [
            {"command": "migrate", "seconds": 10.0},
            {"command": "verify_migration", "seconds": 2.0},
            {"command": "rollback_migration", "seconds": 99.0},
        ],
        "times": {"copy orders": 6.0},
        "backup_seconds": 5.0,
        "size_before": 1000,
        "size_after": 3000,
    }
    assert rehearsed.forecast(document) == {
        "growth": 1.5,
        "seconds": 23.0,
        "seconds_beside": 32.0,
        "bytes": 3000,
    }


def test_a_damaged_result_counts_as_none(tmp_path: Path) -> None:
    at = "2026-11-24T12:00:00+00:00"
    (tmp_path / rehearsed.FOLDER).mkdir()
    rehearsed.write(tmp_path, {"database": "a b", "system": "1", "at": at})
    (file,) = (tmp_path / rehearsed.FOLDER).iterdir()
    assert file.name == "a_b-20261124T120000Z.json"
    found = rehearsed.latest(tmp_path, "a b", "1")
    assert found is not None and found["at"] == at
    assert rehearsed.latest(tmp_path, "a b", "2") is None
    file.write_text(file.read_text().replace('"1"', '"2"'))
    assert rehearsed.latest(tmp_path, "a b", "2") is None
