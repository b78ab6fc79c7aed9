"""manage.py check: configuration mistakes, each with what to do; clean in production."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as configured

from terrain import checks
from terrain.legacy import configuration
from terrain.legacy.backup import tools
from terrain.legacy.backup.server import Server
from tests.conftest import Database

PRODUCTION = {
    "DATABASE_URL": "postgresql://shop:secret@db.example.com:5432/terrain_builder",
    "SECRET_KEY": "o1Wq7f-a-key-that-is-long-enough-and-has-many-different-letters-4kZ",
    "ALLOWED_HOSTS": "shop.example.com",
    "HTTPS": "true",
}


def checked(*more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``manage.py check`` in a process of its own, with this environment and no other."""
    return subprocess.run(
        [sys.executable, "manage.py", "check", *more],
        cwd=configured.BASE_DIR,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
    )


def ids(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The ids of what was found."""
    return sorted(
        line.partition("(")[2].partition(")")[0]
        for line in done.stderr.splitlines()
        if line.startswith("?: (")
    )


def test_clean_in_production(tmp_path: Path) -> None:
    done = checked(
        "--deploy", "--fail-level", "WARNING", BACKUP_DIR=str(tmp_path), **PRODUCTION
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("System check identified no issues")


def test_clean_for_a_look_around() -> None:
    done = checked("--fail-level", "WARNING", DATABASE_URL="")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("changed", "found", "sentence", "hint"),
    [
        (
            {"DEBUG": "true"},
            "terrain.W001",
            "DEBUG is on, and DATABASE_URL names a real database: whoever makes a page fail is"
            " shown settings and rows.",
            "Unset DEBUG; it is off where DATABASE_URL is set.",
        ),
        (
            {"DATABASE_URL": ""},
            "terrain.W002",
            "DEBUG is off, and DATABASE_URL is not set: the database is the embedded server,"
            " which is made for development and ends with who uses it.",
            "Set DATABASE_URL, of the form"
            " postgresql://user:password@host:5432/terrain_builder.",
        ),
        (
            {"SECRET_KEY": ""},
            "terrain.W003",
            "SECRET_KEY is not set, so that each process makes one of its own: a restart signs"
            " everybody out, and two workers do not know each other's sessions.",
            "Set SECRET_KEY. One can be made with: python -c"
            " 'import secrets; print(secrets.token_urlsafe(50))'",
        ),
        (
            {"BACKUP_DIR": "/dev/null/backups"},
            "terrain.W004",
            "Backups cannot be written to /dev/null/backups: /dev/null is no folder.",
            "Give this user the right to write there, or name another folder in BACKUP_DIR.",
        ),
    ],
)
def test_a_mistake_is_named(
    changed: dict[str, str], found: str, sentence: str, hint: str
) -> None:
    given = {**PRODUCTION, **changed}
    if "DATABASE_URL" in changed:
        given["DEBUG"] = "false"
    done = checked(**given)
    assert ids(done) == [found]
    assert f"?: ({found}) {sentence}\n\tHINT: {hint}\n" in done.stderr


def test_deploying_as_for_a_look_around() -> None:
    """Django's own warnings are there for what the environment leaves out."""
    done = checked("--deploy", **{**PRODUCTION, "HTTPS": "false"})
    assert ids(done) == [
        "security.W004",
        "security.W008",
        "security.W012",
        "security.W016",
    ]


def test_folder_that_may_not_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checks.why_unwritable(tmp_path / "not" / "yet" / "there") is None
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert (
        checks.why_unwritable(tmp_path / "backups")
        == f"{tmp_path} may not be written to"
    )


def test_programs_that_are_missing(
    shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert configuration.programs_of_version(None, databases=["default"]) == []
    assert configuration.programs_of_version(None) == []
    monkeypatch.setattr(tools, "_installed", lambda server: iter(()))
    (found,) = configuration.programs_of_version(None, databases=["default"])
    major = shop.value("SHOW server_version").split(".")[0]
    assert (found.id, found.msg, found.hint) == (
        "legacy.W002",
        f"Backups cannot be made. The server is PostgreSQL {major}, and pg_dump and pg_restore"
        f" of version {major} or newer are not here.",
        f"Type: apt-get install postgresql-client-{major} (if it is not found, from"
        " apt.postgresql.org).",
    )


def test_programs_that_are_missing_altogether(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    def none(server: Server) -> Any:
        return iter(())

    monkeypatch.setattr(tools, "_installed", none)
    given = {"NAME": "x", "OPTIONS": {"sslmode": "require"}}
    monkeypatch.setitem(configuration.connections.databases, "default", given)
    (found,) = configuration.programs(None)
    assert (found.id, found.msg, found.hint) == (
        "legacy.W001",
        "Backups cannot be made: pg_dump and pg_restore are not here.",
        "Type: apt-get install postgresql-client, of the server's version or newer.",
    )
