"""What befalls a backup or a restore: killed anywhere, full and read-only disks, a lost server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings as project

from terrain.embedded import OWNER, Cluster
from terrain.legacy import backup
from terrain.legacy.backup import manifest
from tests import backups
from tests.backups import only
from tests.conftest import Database, Result
from tests.waiting import until

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]
Administrator = psycopg.Connection[Any]

#: At how many moments a run is killed; they are spread over all there are.
KILLS = int(os.environ.get("KILLS", "8"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.BACKUP_DIR = tmp_path / "backups"
    return tmp_path / "backups"


# --- killed --------------------------------------------------------------------------------


def run(database: Database, kill: int, *command: str, folder: Path) -> Any:
    """Run a command that kills itself, or tells how many moments there are."""
    url = f"postgresql://{OWNER}@/{database.name}?host={database.cluster.socket_dir}"
    return subprocess.run(
        [sys.executable, "-m", "tests.killed_backup", str(kill), *command],
        cwd=project.BASE_DIR,
        env={"PATH": os.defpath, "DATABASE_URL": url, "BACKUP_DIR": str(folder)},
        capture_output=True,
        text=True,
    )


def moments(found: Any) -> list[int]:
    """Numbers spread from the first to the last that a whole run printed."""
    assert found.returncode == 0, found.stderr
    last = int(found.stdout.splitlines()[-1])
    assert last > 60
    return sorted({1 + (last - 1) * number // (KILLS - 1) for number in range(KILLS)})


def no_session_left(administrator: Administrator, of: str) -> bool:
    """Whether the programs that have outlived a killed run have ended too."""
    row = administrator.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = %s OR datname = ANY (%s)",
        [of, backups.scratch_databases(administrator, of)],
    ).fetchone()
    return row == (0,)


def test_backup_killed_at_any_moment(
    shop: Database, administrator: Administrator, folder: Path
) -> None:
    """Nothing half-done looks done, and the next run finishes and tidies up."""
    whole = run(shop, 0, "backup_database", folder=folder)
    for moment in moments(whole):
        killed = run(shop, moment, "backup_database", folder=folder)
        assert killed.returncode == -9, (moment, killed.stderr)
        until(lambda: no_session_left(administrator, shop.name))
        for each in manifest.whole(folder):
            manifest.check(each)  # what looks whole is
    assert run(shop, 0, "backup_database", folder=folder).returncode == 0
    assert not list(folder.glob("*.partial"))
    assert backups.scratch_databases(administrator, shop.name) == []
    found = backup.find(folder, shop.name)
    assert found[0].is_proven and found[-1].is_proven


def test_restore_killed_at_any_moment(
    shop: Database, administrator: Administrator, folder: Path
) -> None:
    """The database is what it was or what it is to be, and never anything between."""
    assert run(shop, 0, "backup_database", folder=folder).returncode == 0
    kept = str(only(folder))
    wanted = backups.contents(shop.cluster, shop.name)
    shop.execute("DELETE FROM public.stripe_transfers")
    before = backups.contents(shop.cluster, shop.name)
    assert before != wanted
    again = ("restore_database", kept, "--replace")
    try:
        there = run(shop, 0, *again, folder=folder)
        _put_back(administrator, shop.name)
        for moment in moments(there):
            killed = run(shop, moment, *again, folder=folder)
            assert killed.returncode == -9, (moment, killed.stderr)
            until(lambda: no_session_left(administrator, shop.name))
            found = backups.contents(shop.cluster, shop.name)
            assert found in (before, wanted), moment
            if found == wanted:
                _put_back(administrator, shop.name)
        assert run(shop, 0, *again, folder=folder).returncode == 0
        assert backups.contents(shop.cluster, shop.name) == wanted
        assert backups.scratch_databases(administrator, shop.name) == []
    finally:
        for name in _replaced(administrator, shop.name):
            administrator.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _replaced(administrator: Administrator, name: str) -> list[str]:
    return [
        there
        for (there,) in administrator.execute(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %s) ORDER BY 1",
            [f"{name}_replaced_"],
        )
    ]


def _put_back(administrator: Administrator, name: str) -> None:
    """Undo a replacement, as the help says: by renaming."""
    (old,) = _replaced(administrator, name)
    administrator.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    administrator.execute(f'ALTER DATABASE "{old}" RENAME TO "{name}"')


# --- disks ---------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Make a small file system."""
    mounted: list[Path] = []

    def make(options: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder],
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def test_full_disk(shop: Database, manage: Manage, disk: Callable[..., Path]) -> None:
    folder = disk("size=64k,mode=700")
    result = manage("backup_database", "--output", folder)
    assert result.code == 2
    assert "The backup is expected to have" in result.err
    result = manage("backup_database", "--output", folder, "--ignore-space")
    assert result.code == 2
    assert "No space left on device" in result.err
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(shutil.which("age") is None, reason="age is not installed")
def test_full_disk_of_an_encrypted_backup(
    shop: Database, manage: Manage, disk: Callable[..., Path], tmp_path: Path
) -> None:
    made = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True)
    public = made.stdout.partition("# public key: ")[2].split()[0]
    folder = disk("size=64k,mode=700")
    more = ("--ignore-space", "--encrypt-to", public)
    result = manage("backup_database", "--output", folder, *more)
    assert result.code == 2
    assert "age failed: " in result.err and "no space left on device" in result.err
    assert list(folder.iterdir()) == []


def test_read_only_folder(
    shop: Database, manage: Manage, disk: Callable[..., Path]
) -> None:
    folder = disk("size=1m,mode=700,ro")
    result = manage("backup_database", "--output", folder, "--ignore-space")
    assert result.code == 2
    assert result.err.endswith(
        "cannot be written (Read-only file system). Name another folder with --output, or in"
        " BACKUP_DIR.\n"
    )


def test_restores_from_a_read_only_folder(
    shop: Database,
    administrator: Administrator,
    manage: Manage,
    folder: Path,
    disk: Callable[..., Path],
) -> None:
    assert manage("backup_database", "-v0").code == 0
    elsewhere = disk("size=20m,mode=700")
    shutil.copytree(only(folder), elsewhere / "kept")
    subprocess.run(["mount", "-o", "remount,ro", elsewhere], check=True)
    name = f"{shop.name}_too"
    try:
        result = manage("restore_database", elsewhere / "kept", "--into", name)
        assert (result.code, result.err) == (0, "")
    finally:
        administrator.execute(f"DROP DATABASE IF EXISTS {name}")


# --- the server ----------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cluster]:
    """A server that may be stopped."""
    cluster = Cluster(tmp_path / "server", project.CLUSTER.version, {"fsync": "off"})
    cluster.start()
    yield cluster
    cluster.stop()


def test_server_restarts_in_mid_dump(own: Cluster, folder: Path) -> None:
    database = Database(own, "terrain_builder")
    database.execute(
        "CREATE TABLE public.orders (id integer); INSERT INTO public.orders VALUES (1)"
    )
    database.connect().execute("BEGIN; LOCK TABLE public.orders")
    process = backups.command(database, "backup_database", backups=folder)
    until(
        lambda: database.value(
            "SELECT count(*) >= 2 FROM pg_locks WHERE NOT granted AND relation IS NOT NULL"
        )
    )
    database.close()
    own.stop()
    _, said = process.communicate()
    assert process.returncode == 2
    assert len(said.splitlines()) == 1, said
    assert "terminating connection due to administrator command" in said or (
        "server closed the connection" in said
    )
    assert list(folder.iterdir()) == []
    own.start()
    process = backups.command(database, "backup_database", backups=folder)
    _, said = process.communicate()
    assert (process.returncode, said) == (0, "")
    assert backup.load(only(folder)).is_proven


def test_server_restarts_in_mid_proof(own: Cluster, folder: Path) -> None:
    database = Database(own, "terrain_builder")
    database.execute(backups.GATE.replace("{shut}", "true"))
    with psycopg.connect(own.dsn("postgres", "postgres"), autocommit=True) as asking:
        process = backups.command(database, "backup_database", backups=folder)
        until(lambda: backups.at_the_gate(asking, database.name))
    own.stop()
    _, said = process.communicate()
    made = backup.load(only(folder))
    manifest.check(made)
    assert process.returncode == 1
    assert said.startswith(f"The backup in {made.path} is kept but not proven: "), said
    assert len(said.splitlines()) == 1, said
    assert not made.is_proven
    own.start()
    database.execute("DROP TABLE public.gate")
    process = backups.command(database, "backup_database", backups=folder)
    assert process.communicate()[1] == ""
    with psycopg.connect(own.dsn("postgres", "postgres"), autocommit=True) as asking:
        assert backups.scratch_databases(asking, database.name) == []


# --- passwords -----------------------------------------------------------------------------


def test_no_process_is_ever_given_a_password(
    shop: Database, administrator: Administrator, folder: Path
) -> None:
    """The arguments of all processes of the machine, looked at all the while."""
    secret = "s3cret-of-this-test"
    seen: dict[str, str] = {}
    ours: set[str] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            for number in filter(str.isdecimal, os.listdir("/proc")):
                each = Path("/proc", number, "cmdline")
                try:
                    said = (
                        each.read_bytes()
                        .replace(b"\0", b" ")
                        .decode("utf-8", "replace")
                    )
                except OSError:
                    continue  # it has ended
                if shop.name in said:
                    ours.add(Path(said.split(" ")[0]).name)
                if secret in said:
                    seen[each.parent.name] = said

    url = f"postgresql://{OWNER}:{secret}@/{shop.name}?host={shop.cluster.socket_dir}"
    environment = {"DATABASE_URL": url, "PROVE_ON": url}
    name = f"{shop.name}_too"
    looking = threading.Thread(target=look)
    looking.start()
    said = ""
    try:
        process = backups.command(
            shop, "backup_database", backups=folder, **environment
        )
        said += "".join(process.communicate())
        assert process.returncode == 0, said
        restore = ("restore_database", str(only(folder)), "--into", name)
        process = backups.command(shop, *restore, backups=folder, **environment)
        said += "".join(process.communicate())
        assert process.returncode == 0, said
    finally:
        done.set()
        looking.join()
        administrator.execute(f"DROP DATABASE IF EXISTS {name}")
    assert seen == {}
    assert {"pg_dump", "pg_restore"} <= ours  # it was looked at the right time
    assert secret not in said
    assert secret not in (only(folder) / "manifest.json").read_text()
