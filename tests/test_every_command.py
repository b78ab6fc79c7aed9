"""What is so of every command: its help, its quiet, its colours, its JSON, its end by Ctrl-C.

A command that is not in the table below fails a test: say how it is run.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.core.management import get_commands, load_command_class
from django.db.backends.utils import CursorWrapper

from terrain import cli, progress
from terrain.legacy import copying
from tests.conftest import Database, Result, Terminal
from tests.waiting import until

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]


@dataclass(frozen=True)
class Case:
    """In which state of the database a command has something to do, and how it is run.

    ``statement`` is the one during which Ctrl-C is pressed (0: Django is not asked).  ``json``
    is what --json wants besides, None where there is nothing to read.
    """

    state: str
    arguments: tuple[str, ...] = ()
    statement: int = 3
    json: tuple[str, ...] | None = None
    coloured: bool = False


CASES = {
    "load_sample": Case("empty", ("--scale", "0.001"), statement=2),
    "preflight": Case("shop", json=(), coloured=True),
    "prepare_database": Case("shop"),
    "cut_over": Case("migrated", ("--yes",), statement=20),
    "backup_database": Case("shop", statement=2),
    "restore_database": Case(
        "backed_up", ("BACKUP", "--into", "RESTORED"), statement=0
    ),
    "list_backups": Case("backed_up", statement=0, json=()),
    "upgrade": Case("shop", ("--no-backup",), statement=40),
    "settle": Case("migrated"),
    "copy_models_to_assets": Case("migrated"),
    "verify_migration": Case("migrated", statement=20, json=(), coloured=True),
    "migration_status": Case("migrated", json=()),
    "rollback_migration": Case("migrated", ("--yes",), statement=20),
    "cleanup_legacy": Case(
        "backed_up_since", ("--yes", "--despite-use"), statement=20, json=("--dry-run",)
    ),
    "migration_control": Case("migrated", statement=1, json=()),
    "roll_up_usage": Case("migrated", statement=1),
    "lens": Case("shop", statement=0),
}

#: Django's own, with a word of ours: their help and their output are Django's.
DJANGOS = {"flush", "migrate", "runserver"}

#: An SGR sequence that sets a colour.
COLOUR = re.compile(r"\x1b\[[\d;]*[34]\d[\d;]*m")


def test_every_command_is_in_the_table() -> None:
    ours = {
        name
        for name, app in get_commands().items()
        if app.partition(".")[0] in ("terrain", "catalogue", "orders", "sessions_app")
    }
    assert ours - DJANGOS == set(CASES)


@pytest.fixture
def backed_up(shop: Database, manage: Manage) -> Database:
    assert manage("backup_database", "-v", "0") == Result(0, "", "")
    return shop


@pytest.fixture
def backed_up_since(migrated: Database, manage: Manage) -> Database:
    assert manage("cut_over", "--yes", "-v", "0") == Result(0, "", "")
    assert manage("backup_database", "-v", "0") == Result(0, "", "")
    return migrated


@dataclass
class Ready:
    """A command and a database on which it has something to do."""

    case: Case
    line: tuple[str, ...]


@pytest.fixture
def ready(
    request: pytest.FixtureRequest,
    settings: Any,
    tmp_path: Path,
    drop_database: Callable[[str], None],
) -> Iterator[Ready]:
    settings.BACKUP_DIR = tmp_path
    name = request.param
    case = CASES[name]
    database: Database = request.getfixturevalue(case.state)
    restored = f"{database.name}_restored"
    words = {"RESTORED": restored}
    if "BACKUP" in case.arguments:
        words["BACKUP"] = str(next(tmp_path.glob("*/manifest.json")).parent)
    yield Ready(case, (name, *(words.get(each, each) for each in case.arguments)))
    drop_database(restored)


every = pytest.mark.parametrize("ready", CASES, indirect=True)


@pytest.mark.parametrize("name", CASES)
def test_help_says_what_it_changes_and_how_to_undo_it(name: str) -> None:
    text = load_command_class(get_commands()[name], name).help
    assert text.endswith(".")
    assert "  " not in text
    assert re.search(r"undo|undone|changes nothing|reads only|undoes this", text, re.I)


@every
def test_stopped_by_hand_it_says_so_and_goes_on_quietly(
    ready: Ready, manage: Manage, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ready.case.statement:
        with monkeypatch.context() as patched:
            interrupt(patched, ready.case.statement)
            result = manage(*ready.line)
        assert result.code == 130, result
        assert result.err.endswith("Stopped. Run the same command again to go on.\n")
        assert "Traceback" not in result.err
        assert "\x1b" not in result.out + result.err
    assert manage(*ready.line, "-v", "0") == Result(0, "", "")


def interrupt(patched: pytest.MonkeyPatch, statement: int) -> None:
    """Press Ctrl-C while the n-th statement of the command runs."""
    execute = CursorWrapper.execute
    left = iter(range(statement - 1, -1, -1))

    def counting(self: Any, *arguments: Any) -> Any:
        if next(left, -1) == 0:
            raise KeyboardInterrupt
        return execute(self, *arguments)

    patched.setattr(CursorWrapper, "execute", counting)


@every
def test_colours_are_for_terminals_and_for_who_wants_them(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    if ready.case.coloured:
        assert COLOUR.search(on_terminal(ready.line))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("DJANGO_COLORS", "")  # which is set then
    shown = on_terminal(ready.line)
    assert shown and not COLOUR.search(shown)


def on_terminal(line: tuple[str, ...]) -> str:
    """What a command writes to a terminal, output and progress."""
    terminal = Terminal()
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal):
        assert cli.run(["manage.py", *line]) == 0
    return terminal.getvalue()


@pytest.mark.parametrize(
    "ready",
    [name for name, case in CASES.items() if case.json is not None],
    indirect=True,
)
def test_json_is_one_document_and_nothing_else(ready: Ready, manage: Manage) -> None:
    assert ready.case.json is not None
    options = [each for each in ready.line[1:] if each != "--yes"]
    result = manage(ready.line[0], *options, *ready.case.json, "--json")
    assert (result.code, result.err) == (0, "")
    assert isinstance(json.loads(result.out), dict)
    quiet = manage(ready.line[0], *options, *ready.case.json, "--json", "-v", "0")
    assert isinstance(json.loads(quiet.out), dict)


def test_who_has_json_is_in_the_table() -> None:
    for name, case in CASES.items():
        parser = load_command_class(get_commands()[name], name).create_parser("", name)
        has_json = "--json" in parser.format_help()
        assert has_json == (case.json is not None) or name == "upgrade", name


def test_progress_in_a_pipe(shop: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line every few seconds, on standard error, with rate and time left."""
    monkeypatch.setattr(progress, "INTERVAL", 0.001)
    written = copying._store_cursor

    def slowly(*arguments: Any) -> None:
        written(*arguments)
        progress.report(progress.Progress("copy orders", 100, 500, 2.0))
        until(lambda: "copy orders: 100 of 500 rows, 50/s, 8 s left" in err.getvalue())

    monkeypatch.setattr(copying, "_store_cursor", slowly)
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "argv", ["manage.py", "migrate"])
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert cli.run(["manage.py", "migrate"]) == 0
    assert "\n    … copy orders: 100 of 500 rows, 50/s, 8 s left" in err.getvalue()
    assert "\x1b" not in out.getvalue() + err.getvalue()
