"""list_backups, and which backups --keep and --keep-days let go."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrain.legacy.backup import manifest, shelf
from terrain.legacy.backup.manifest import Backup
from terrain.legacy.backup.shelf import Keep
from terrain.legacy.management.commands.list_backups import age
from tests.conftest import Database, Result

Manage = Callable[..., Result]

KEPT = Path(__file__).with_name("kept") / f"version-{manifest.MANIFEST_VERSION}"
NOW = datetime.datetime(2026, 11, 24, 15, tzinfo=datetime.UTC)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.BACKUP_DIR = tmp_path / "backups"
    settings.BACKUP_DIR.mkdir()
    return tmp_path / "backups"


def put(
    folder: Path, days: float, database: str = "shop", proven: bool = True, **more: Any
) -> Backup:
    """A backup of so many days ago."""
    taken_at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
    path = folder / f"{database}-{taken_at:%Y%m%dT%H%M%SZ}"
    shutil.copytree(KEPT, path)
    content = {
        **manifest.load(path).manifest,
        "taken_at": taken_at.isoformat(),
        "database": database,
        **more,
    }
    if not proven:
        content["proof"] = None
    return manifest.write_manifest(path, content)


# --- listing -------------------------------------------------------------------------------


def test_list(folder: Path, manage: Manage) -> None:
    old = put(folder, 40)
    new = put(folder, 0.5, "other", proven=False, unproven="why")
    secret = put(
        folder, 3, "third", encryption={"program": "age", "recipient": "age1x"}
    )
    (secret.path / "dump").rename(secret.path / "aside")
    (secret.path / "dump.age").touch()
    shutil.rmtree(secret.path / "aside")
    secret = manifest.write_manifest(
        secret.path, {**secret.manifest, "files": manifest.described(secret.path)}
    )
    (folder / "notes").mkdir()
    (folder / "file").touch()
    dead = folder / "shop-20260101T000000Z.partial"
    dead.mkdir()
    damaged = put(folder, 5)
    (damaged.path / "dump" / "toc.dat").unlink()
    result = manage("list_backups")
    assert (result.code, result.err) == (0, "")
    head, *rows = (line.split() for line in result.out.splitlines()[:4])
    assert head == [
        *("taken", "(UTC)", "age", "MB", "rows", "database", "proven", "encrypted"),
        "folder",
    ]
    size = f"{old.size / 1e6:,.1f}"
    assert [row[2:] for row in rows] == [
        ["12", "h", size, "820", "other", "NOT", "PROVEN", "no", new.path.name],
        ["3", "days", size, "820", "third", "proven", "age", secret.path.name],
        ["40", "days", size, "820", "shop", "proven", "no", old.path.name],
    ]
    assert result.out.splitlines()[4:] == [
        f"! {dead} was never finished: the backup was interrupted.",
        f"! {damaged.path}/dump/toc.dat is missing.",
    ]
    document = json.loads(manage("list_backups", "--json").out)
    assert document["folder"] == str(folder)
    first = document["backups"][0]
    assert 43_000 < first.pop("age") < 44_000
    assert first == {
        "path": str(new.path),
        "trouble": None,
        "database": "other",
        "system": new.system,
        "taken_at": new.manifest["taken_at"],
        "size": new.size,
        "rows": 820,
        "proven": False,
        "unproven": "why",
        "encrypted_to": None,
    }
    assert document["backups"][1]["encrypted_to"] == "age1x"
    assert document["backups"][-2] == {
        "path": str(dead),
        "trouble": f"{dead} was never finished: the backup was interrupted.",
    }
    assert manage("list_backups", "-v0").out == ""


def test_nothing_to_list(folder: Path, manage: Manage, tmp_path: Path) -> None:
    assert manage("list_backups", "--output", tmp_path / "none").out == (
        f"There is no backup in {tmp_path / 'none'}. Next: python manage.py"
        " backup_database\n"
    )
    (tmp_path / "file").touch()
    result = manage("list_backups", "--output", tmp_path / "file")
    assert (result.code, result.err) == (
        2,
        f"{tmp_path / 'file'} cannot be read (Not a directory). Name another folder with"
        " --output.\n",
    )


@pytest.mark.parametrize(
    "seconds, text",
    [
        (-1, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7_199, "120 min"),
        (7_200, "2 h"),
        (172_799, "48 h"),
        (172_800, "2 days"),
    ],
)
def test_age(seconds: int, text: str) -> None:
    assert age(datetime.timedelta(seconds=seconds)) == text


# --- retiring ------------------------------------------------------------------------------


def some(*backups: tuple[float, bool]) -> list[Backup]:
    """Backups that are only thought of: days ago, and whether proven."""
    return [
        Backup(
            Path(f"/{number}"),
            {
                "taken_at": (NOW - datetime.timedelta(days=days)).isoformat(),
                "proof": {"rows": 1} if proven else None,
            },
        )
        for number, (days, proven) in enumerate(backups)
    ]


@pytest.mark.parametrize(
    "keep, gone",
    [
        (Keep(), []),
        (Keep(number=1), [2, 3, 4, 5]),
        (Keep(number=2), [4, 5]),
        (Keep(number=3), []),
        (Keep(number=9), []),
        (Keep(days=1), [2, 3, 4, 5]),
        (Keep(days=3), [3, 4, 5]),
        (Keep(days=30), [5]),
        (Keep(number=2, days=1), [4, 5]),
        (Keep(number=1, days=30), [5]),
    ],
)
def test_which_go(keep: Keep, gone: list[int]) -> None:
    backups = some(
        (0, False), (1.5, True), (2, False), (4, True), (9, False), (31, True)
    )
    found = shelf.retired(backups, keep, NOW)
    assert [int(each.path.name) for each in found] == gone


@given(
    st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=8),
    st.none() | st.integers(1, 5),
    st.none() | st.integers(1, 60),
)
def test_never_the_last_proven_one(
    backups: list[tuple[float, bool]], number: int | None, days: int | None
) -> None:
    all_ = some(*backups)
    gone = shelf.retired(all_, Keep(number, days), NOW)
    left = [each for each in all_ if each not in gone]
    proven = sorted((each.taken_at for each in all_ if each.is_proven), reverse=True)
    still = sorted((each.taken_at for each in left if each.is_proven), reverse=True)
    assert still[: number or 1] == proven[: number or 1]
    for each in gone:
        assert days is None or NOW - each.taken_at > datetime.timedelta(days=days)
        assert not any(other.taken_at < each.taken_at for other in left)


@pytest.mark.migration
def test_keep(shop: Database, manage: Manage, folder: Path) -> None:
    """Of this database on this server, and nothing else that is there."""
    system = shop.value("SELECT system_identifier::text FROM pg_control_system()")
    mine = {"database": shop.name, "system": system}
    first = put(folder, 9, **mine)
    unproven = put(folder, 8, proven=False, **mine)
    second = put(folder, 7, **mine)
    others = [
        put(folder, 90, shop.name, system="another server's"),
        put(folder, 91, "another", system=system),
        put(folder, 92, **mine),
    ]
    (others[-1].path / "dump" / "toc.dat").unlink()  # somebody should look
    foreign = folder / f"{shop.name}-20200101T000000Z"
    foreign.mkdir()
    (foreign / "precious").touch()
    result = manage("backup_database", "--keep", "2")
    assert result.code == 0
    lines = [line for line in result.out.splitlines() if line.startswith("Removed")]
    assert lines == [
        f"Removed {each.path}, which was not to be kept any longer."
        for each in (unproven, first)
    ]
    left = {path.name for path in folder.iterdir()}
    assert {each.path.name for each in others} < left
    assert {foreign.name, second.path.name} < left
    assert len(left) == len(others) + 3


@pytest.mark.migration
def test_unproven_backup_retires_nothing(
    shop: Database, manage: Manage, folder: Path
) -> None:
    system = shop.value("SELECT system_identifier::text FROM pg_control_system()")
    old = put(folder, 9, shop.name, system=system)
    older = put(folder, 10, shop.name, system=system)
    shop.execute(
        "CREATE TABLE public.other (id integer); INSERT INTO public.other VALUES (1);"
        "CREATE FUNCTION public.known(integer) RETURNS boolean LANGUAGE plpgsql"
        " AS 'BEGIN RETURN EXISTS (SELECT FROM other WHERE id = $1); END';"
        "CREATE TABLE public.a (id integer CHECK (public.known(id)));"
        "INSERT INTO public.a VALUES (1)"
    )
    result = manage("backup_database", "--keep", "1")
    assert result.code == 1
    assert old.path.exists() and older.path.exists()


@pytest.mark.parametrize("number", ["0", "-1", "x"])
def test_wrong_number(cluster: Any, manage: Manage, number: str) -> None:
    result = manage("backup_database", f"--keep={number}")
    assert result.code == 2
    assert f"argument --keep: {number!r} is not a number from 1 on" in result.err


def test_killed_while_retiring(
    folder: Path, manage: Manage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is half removed is no backup, and the next run removes the rest."""
    from terrain.legacy.backup import folder as folders

    made = put(folder, 9)

    def killed(path: Path) -> None:
        (path / "dump" / "toc.dat").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        folders.remove(made.path)
    monkeypatch.undo()
    (left,) = folder.iterdir()
    assert folders.is_leftover(left)
    assert manifest.find(folder, "shop") == []
