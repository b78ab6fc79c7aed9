"""restore_database: only what is whole, beside what is there, and in its place at the end."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection as django_connection
from psycopg import sql as pg

from terrain.embedded import OWNER
from terrain.legacy import backup
from terrain.legacy.backup import (
    Damaged,
    dumping,
    loading,
    manifest,
    proof,
    restore,
    scratch,
)
from terrain.legacy.backup.server import Server
from terrain.legacy.backup.telling import Teller
from tests import backups
from tests.backups import only
from tests.conftest import Database, Result, pointed_at
from tests.waiting import until

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]
Administrator = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.BACKUP_DIR = tmp_path / "backups"
    return tmp_path / "backups"


@pytest.fixture(scope="module")
def sound(
    legacy_template: str,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_blocker: Any,
) -> Path:
    """A proven backup, of a shop; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("sound")
    with django_db_blocker.unblock(), pointed_at(legacy_template):
        server = Server.of(django_connection)
        made = dumping.take(server, folder, 2, Teller())
        return proof.prove(server, made, 2, Teller()).path


@pytest.fixture
def kept(sound: Path, folder: Path) -> Path:
    """A proven backup of the shop."""
    folder.mkdir()
    return Path(shutil.copytree(sound, folder / sound.name))


@pytest.fixture
def names(administrator: Administrator) -> Iterator[Callable[[], str]]:
    """Names for databases that are dropped afterwards, with those they have replaced."""
    given: list[str] = []

    def name() -> str:
        given.append(f"restored_{os.getpid()}_{len(given)}")
        return given[-1]

    yield name
    for (there,) in administrator.execute("SELECT datname FROM pg_database").fetchall():
        if any(there.startswith(each) for each in given):
            administrator.execute(
                pg.SQL("DROP DATABASE {} WITH (FORCE)").format(pg.Identifier(there))
            )


# --- there and back ------------------------------------------------------------------------


def test_into_a_database_that_is_not_there(
    shop: Database, kept: Path, manage: Manage, names: Callable[[], str]
) -> None:
    name = names()
    result = manage("restore_database", kept, "--into", name)
    rows = backup.load(kept).rows
    assert (result.code, result.err) == (0, "")
    said = result.out.splitlines()
    assert re.fullmatch(r"Checking [\d.]+ MB against the manifest", said[0])
    assert said[1:] == [
        f"Restoring {rows:,} rows into a new database beside",
        "Compared: every table is as it was",
        f"Restored into {name}: 6 tables with {rows:,} rows, as they were.",
        f"To use it, put {name} into DATABASE_URL.",
    ]
    assert backups.contents(shop.cluster, name) == backups.contents(
        shop.cluster, shop.name
    )
    assert backups.definitions(shop.cluster, name) == backups.definitions(
        shop.cluster, shop.name
    )


def test_database_of_the_url_that_is_gone(
    shop: Database, kept: Path, manage: Manage, administrator: Administrator
) -> None:
    before = backups.contents(shop.cluster, shop.name)
    django_connection.close()
    administrator.execute(f"DROP DATABASE {shop.name}")
    result = manage("restore_database", kept)
    assert result.code == 0
    assert result.out.splitlines()[-1] == "Next: python manage.py migration_status"
    assert backups.contents(shop.cluster, shop.name) == before


def test_migrated_database(
    migrated: Database, manage: Manage, folder: Path, names: Callable[[], str]
) -> None:
    """With its triggers, views and functions: both applications go on as if nothing were."""
    name = names()
    assert manage("backup_database").code == 0
    assert manage("restore_database", only(folder), "--into", name).code == 0
    assert backups.definitions(migrated.cluster, name) == backups.definitions(
        migrated.cluster, migrated.name
    )
    with pointed_at(name):
        restored = Database(migrated.cluster, name)
        restored.execute("UPDATE public.orders SET user_name = 'Somebody else'")
        assert restored.rows("SELECT DISTINCT customer_name FROM terrain.orders") == [
            ("Somebody else",)
        ]
        assert manage("verify_migration").code == 0


def test_odd_database(
    empty: Database, manage: Manage, folder: Path, names: Callable[[], str]
) -> None:
    backups.make_odd(empty)
    name = names()
    assert manage("backup_database", "--jobs=3").code == 0
    assert (
        manage("restore_database", only(folder), "--into", name, "--jobs=3").code == 0
    )
    assert backups.contents(empty.cluster, name) == backups.contents(
        empty.cluster, empty.name
    )
    assert backups.definitions(empty.cluster, name) == backups.definitions(
        empty.cluster, empty.name
    )
    assert (
        Database(empty.cluster, name).value("SELECT lo_get(4711)")
        == b"\xde\xad\xbe\xef"
    )


def test_what_no_dump_of_one_database_has(
    shop: Database,
    administrator: Administrator,
    manage: Manage,
    folder: Path,
    names: Callable[[], str],
) -> None:
    for statement in (
        'ALTER DATABASE {} SET search_path = legacy, public, "Odd one"',
        "ALTER DATABASE {} SET work_mem = '5MB'",
        "ALTER DATABASE {} SET application_name = 'it''s, or not'",
        f"ALTER ROLE {OWNER} IN DATABASE {{}} SET DateStyle = 'SQL, DMY'",
        "COMMENT ON DATABASE {} IS 'the shop'",
        "REVOKE ALL ON DATABASE {} FROM PUBLIC",
        "GRANT CONNECT ON DATABASE {} TO shop_app WITH GRANT OPTION",
    ):
        with psycopg.connect(
            shop.cluster.dsn("postgres", OWNER), autocommit=True
        ) as owner:
            owner.execute(statement.format(shop.name))  # type: ignore[arg-type]
    assert manage("backup_database").code == 0
    name = names()
    result = manage("restore_database", only(folder), "--into", name)
    assert result.code == 0

    def about(database: str) -> Any:
        return administrator.execute(
            "SELECT pg_get_userbyid(datdba), encoding, datcollate, datacl,"
            "       shobj_description(d.oid, 'pg_database'),"
            "       (SELECT array_agg((r.rolname, s.setconfig)::text ORDER BY r.rolname)"
            "          FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole"
            "         WHERE s.setdatabase = d.oid)"
            "  FROM pg_database d WHERE datname = %s",
            [database],
        ).fetchone()

    assert about(name) == about(shop.name), result.out


def test_again(
    shop: Database, kept: Path, manage: Manage, names: Callable[[], str]
) -> None:
    name = names()
    assert manage("restore_database", kept, "--into", name).code == 0
    result = manage("restore_database", kept, "--into", name)
    assert (result.code, result.err) == (
        1,
        f"The database {name} is not empty, and was not touched. To put the backup in its"
        " place (it is kept under another name), add --replace; to restore beside it, add"
        " --into NAME.\n",
    )


# --- replacing -----------------------------------------------------------------------------


def test_replaces(
    shop: Database, kept: Path, manage: Manage, administrator: Administrator
) -> None:
    before = backups.contents(shop.cluster, shop.name)
    shop.execute("DELETE FROM public.stripe_transfers; CREATE TABLE public.since ()")
    meanwhile = backups.contents(shop.cluster, shop.name)
    result = manage("restore_database", kept, "--replace")
    assert result.code == 0
    old = re.search(r"What was there is now (\S+)\. When it is not needed", result.out)
    assert old is not None
    try:
        assert re.fullmatch(rf"{shop.name}_replaced_\d{{8}}T\d{{6}}Z", old[1])
        assert f'DROP DATABASE "{old[1]}";' in result.out
        assert backups.contents(shop.cluster, shop.name) == before
        assert backups.contents(shop.cluster, old[1]) == meanwhile
    finally:
        administrator.execute(f'DROP DATABASE "{old[1]}" WITH (FORCE)')
    assert backups.scratch_databases(administrator, shop.name) == []


def test_empty_database_is_no_obstacle(
    shop: Database,
    kept: Path,
    manage: Manage,
    names: Callable[[], str],
    administrator: Administrator,
) -> None:
    name = names()
    administrator.execute(f"CREATE DATABASE {name} OWNER {OWNER}")
    there = backups.databases(administrator, name)
    assert manage("restore_database", kept, "--into", name).code == 0
    assert backups.databases(administrator, name) == there


def test_what_is_not_empty(empty: Database) -> None:
    with empty.connect() as connection:
        for something in (
            "CREATE TABLE public.a ()",
            "CREATE VIEW public.a AS SELECT 1",
            "CREATE SCHEMA a",
            "CREATE FUNCTION public.a() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
            "CREATE TYPE public.a AS ENUM ()",
            "SELECT lo_create(0)",
        ):
            assert scratch.is_empty(connection)
            with connection.transaction(force_rollback=True):
                connection.execute(something)  # type: ignore[arg-type]
                assert not scratch.is_empty(connection), something


def test_database_in_use(shop: Database, kept: Path, manage: Manage) -> None:
    old = shop.old(application_name="shop")
    before = backups.contents(shop.cluster, shop.name)
    result = manage("restore_database", kept, "--replace")
    assert (result.code, result.err) == (
        1,
        f"The database {shop.name} is in use and was not touched: process"
        f" {old.info.backend_pid} of the server (role shop_app, shop). Stop those"
        " applications, or restore beside it with --into NAME.\n",
    )
    assert old.execute("SELECT 1").fetchone() == (1,)
    assert backups.contents(shop.cluster, shop.name) == before


def test_somebody_comes_at_the_last_moment(
    shop: Database,
    kept: Path,
    manage: Manage,
    administrator: Administrator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = backups.contents(shop.cluster, shop.name)
    there = backups.databases(administrator, shop.name)
    come = loading.load

    def load(*arguments: Any) -> loading.Loaded:
        loaded = come(*arguments)
        shop.connect()
        return loaded

    monkeypatch.setattr(loading, "load", load)
    monkeypatch.setattr(restore, "PATIENCE", 0)
    result = manage("restore_database", kept, "--replace")
    assert result.code == 1
    assert re.fullmatch(
        rf"The database {shop.name} is in use and was not touched: process \d+ of the server"
        rf" \(role {OWNER}, unnamed\)\. Stop those applications, or restore beside it with"
        r" --into NAME\.\n",
        result.err,
    )
    assert backups.contents(shop.cluster, shop.name) == before
    assert backups.databases(administrator, shop.name) == there


# --- rights --------------------------------------------------------------------------------


@pytest.fixture
def poor(administrator: Administrator, names: Callable[[], str]) -> Iterator[str]:
    """A role that may log in and nothing else."""
    name = f"poor_{os.getpid()}"
    administrator.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    for (there,) in administrator.execute(
        "SELECT datname FROM pg_database WHERE pg_get_userbyid(datdba) = %s", [name]
    ).fetchall():
        administrator.execute(f"DROP DATABASE {there} WITH (FORCE)")
    administrator.execute(f"DROP ROLE {name}")


def test_role_that_may_not_create_databases(
    shop: Database,
    kept: Path,
    poor: str,
    manage: Manage,
    administrator: Administrator,
    names: Callable[[], str],
) -> None:
    name = names()
    with backups.connected_as(poor):
        missing = manage("restore_database", kept, "--into", name)
        assert (missing.code, missing.err) == (
            1,
            f"The database {name} is not there and the role {poor} may not create it. As a"
            f' superuser: CREATE DATABASE "{name}" OWNER "{poor}";\n',
        )
        administrator.execute(f'CREATE DATABASE "{name}" OWNER "{poor}"')
        result = manage("restore_database", kept, "--into", name)
        assert (result.code, result.err) == (0, "")
        said = result.out.splitlines()
        assert said[1] == (
            f"Restoring {backup.load(kept).rows:,} rows into {name}, which is empty"
        )
        # What belonged to the owner belongs to whoever restored it, and that is said.
        assert re.fullmatch(
            r"! \d+ owners, grants or settings could not be given back, for want of a role"
            r" or of rights; what they are about belongs to you:",
            said[3],
        )
        assert f"ALTER TABLE public.artists OWNER TO {OWNER}: " in result.out
        full = manage("restore_database", kept, "--into", name, "--replace")
        assert (full.code, full.err) == (
            1,
            f"To replace {name} a new database is made beside it, and the role {poor} may"
            f' not. As a superuser: ALTER ROLE "{poor}" CREATEDB;\n',
        )
    with psycopg.connect(shop.cluster.dsn(name, poor)) as connection:
        assert connection.execute("SELECT count(*) FROM public.orders").fetchone() == (
            shop.rows("SELECT count(*) FROM public.orders")[0]
        )


def test_database_of_somebody_else(
    shop: Database, kept: Path, poor: str, manage: Manage, administrator: Administrator
) -> None:
    administrator.execute(f"ALTER ROLE {poor} CREATEDB")
    with backups.connected_as(poor):
        result = manage("restore_database", kept, "--replace")
    assert (result.code, result.err) == (
        1,
        f"The database {shop.name} belongs to {OWNER}, so the role {poor} may not rename it."
        " Connect as its owner, or restore beside it with --into NAME.\n",
    )


def test_role_that_is_gone(
    shop: Database,
    administrator: Administrator,
    manage: Manage,
    folder: Path,
    names: Callable[[], str],
) -> None:
    gone = f"gone_{os.getpid()}"
    administrator.execute(f"CREATE ROLE {gone}")
    shop.execute(f"GRANT SELECT ON public.orders TO {gone}")
    assert manage("backup_database").code == 0
    shop.execute(f"REVOKE ALL ON public.orders FROM {gone}")
    administrator.execute(f"DROP ROLE {gone}")
    name = names()
    result = manage("restore_database", only(folder), "--into", name)
    assert result.code == 0
    assert result.out.splitlines()[-3:-1] == [
        "! 1 owners, grants or settings could not be given back, for want of a role or of"
        " rights; what they are about belongs to you:",
        f'    GRANT SELECT ON TABLE public.orders TO {gone}: role "{gone}" does not exist',
    ]


@pytest.mark.parametrize("name", ["", "template1", "template0", "x" * 64, "é" * 32])
def test_name_that_cannot_be(
    cluster: Any, kept: Path, manage: Manage, name: str
) -> None:
    result = manage("restore_database", kept, "--into", name)
    assert (result.code, result.err) == (
        1,
        f"{name!r} cannot be the name of a database to restore into.\n",
    )


# --- damaged and unproven ------------------------------------------------------------------


def test_unproven(
    shop: Database, kept: Path, manage: Manage, names: Callable[[], str]
) -> None:
    content = {**backup.load(kept).manifest, "proof": None}
    manifest.write_manifest(kept, content)
    name = names()
    result = manage("restore_database", kept, "--into", name)
    assert (result.code, result.err) == (
        1,
        f"{kept} has not been proven: the run that took it did not end; to restore it all"
        " the same, add --unproven.\n",
    )
    assert manage("restore_database", kept, "--into", name, "--unproven").code == 0


def test_rows_that_come_back_otherwise(
    shop: Database, kept: Path, manage: Manage, administrator: Administrator
) -> None:
    """The last line of defence: a backup whose manifest is wrong from the beginning."""
    content = backup.load(kept).manifest
    content["tables"]["public.orders"]["rows"] += 1
    manifest.write_manifest(kept, content)
    before = backups.contents(shop.cluster, shop.name)
    there = backups.databases(administrator, shop.name)
    rows = before["public.orders"]["rows"]
    result = manage("restore_database", kept, "--replace")
    assert (result.code, result.err) == (
        1,
        "What was restored is not what was backed up: public.orders has"
        f" {rows + 1:,} rows in the backup and {rows:,} restored. Nothing was changed.\n",
    )
    assert backups.contents(shop.cluster, shop.name) == before
    assert backups.databases(administrator, shop.name) == there


def _flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def _truncate(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def _lengthen(path: Path, chance: random.Random) -> None:
    with open(path, "ab") as file:
        file.write(chance.randbytes(chance.randint(1, 100)))


def _remove(path: Path, chance: random.Random) -> None:
    path.unlink()


def _swap(path: Path, chance: random.Random) -> None:
    others = sorted(set(path.parent.glob("*.dat*")) - {path}) or [
        path.parent / "dump/toc.dat"
    ]
    other, aside = chance.choice(others), path.with_name("aside")
    path.rename(aside)
    other.rename(path)
    aside.rename(other)


def _add(path: Path, chance: random.Random) -> None:
    shutil.copy(path, path.with_name(f"{chance.randrange(10**6)}.dat.gz"))


def _link(path: Path, chance: random.Random) -> None:
    """The same bytes, but somebody else's to change."""
    elsewhere = path.parents[2] / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _edit(path: Path, chance: random.Random) -> None:
    """A manifest that is still JSON."""
    file = path.parent / "manifest.json"
    if path.parent.name == "dump":
        file = path.parents[1] / "manifest.json"
    content = json.loads(file.read_text())
    match chance.randrange(5):
        case 0:
            content["taken_at"] = "2030-01-01T00:00:00+00:00"
        case 1:
            content["tables"].popitem()
        case 2:
            content["files"].popitem()
        case 3:
            content["proof"] = {"rows": 1}
        case 4:
            content["database"] += "x"
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


DAMAGES = (_flip, _flip, _truncate, _lengthen, _remove, _swap, _add, _link, _edit)
NUMBER = int(os.environ.get("DAMAGES", "72"))


def test_random_damages(
    shop: Database, sound: Path, tmp_path: Path, administrator: Administrator
) -> None:
    """Each is refused with the name of a file and the next step, and nothing is touched."""
    before = backups.contents(shop.cluster, shop.name)
    there = backups.databases(administrator, shop.name)
    server = Server.of(django_connection)
    for number in range(NUMBER):
        chance = random.Random(number)
        damaged = tmp_path / str(number) / sound.name
        shutil.copytree(sound, damaged)
        path = chance.choice(sorted(p for p in damaged.rglob("*") if p.is_file()))
        damage = DAMAGES[number % len(DAMAGES)]
        damage(path, chance)
        try:
            restore.restore(server, damaged, replace=True, teller=Teller())
        except Damaged as error:
            sentence = str(error)
        else:
            pytest.fail(f"{number}: {damage} of {path} was not noticed")
        assert str(damaged) in sentence, (number, damage, path)
        assert sentence.endswith(
            (f"There is no other backup in {damaged.parent}.", "backup_database named.")
        ), (number, sentence)
        shutil.rmtree(tmp_path / str(number))
    assert backups.contents(shop.cluster, shop.name) == before
    assert backups.databases(administrator, shop.name) == there


@pytest.mark.parametrize(
    "damage, sentence",
    [
        (
            lambda path: (path / "dump" / "toc.dat").unlink(),
            "{path}/dump/toc.dat is missing. Use another one of {folder}: {other}.",
        ),
        (
            lambda path: os.truncate(path / "dump" / "toc.dat", 7),
            "{path}/dump/toc.dat has 7 bytes and should have {size:,}. Use another one of"
            " {folder}: {other}.",
        ),
        (
            lambda path: _flip(path / "dump" / "toc.dat", random.Random(1)),
            "{path}/dump/toc.dat is damaged: its checksum is not the manifest's. Use another"
            " one of {folder}: {other}.",
        ),
        (
            lambda path: (path / "notes").touch(),
            "{path}/notes is not part of the backup. If you put it there, move it away and"
            " run the command again. Use another one of {folder}: {other}.",
        ),
        (
            lambda path: (path / "manifest.json").unlink(),
            "{path} is no backup: {path}/manifest.json cannot be read (No such file or"
            " directory). Give the folder that backup_database named.",
        ),
        (
            lambda path: (path / "manifest.json").write_text("{}"),
            "{path}/manifest.json is damaged: it is not what backup_database wrote. Use"
            " another one of {folder}: {other}.",
        ),
        (
            lambda path: _edit(path / "dump" / "toc.dat", random.Random(3)),
            "{path}/manifest.json has been changed: its digest is not that of its content."
            " Use another one of {folder}: {other}.",
        ),
        (
            lambda path: manifest.write_manifest(
                path, {**backup.load(path).manifest, "manifest_version": 3}
            ),
            "{path}/manifest.json has version 3, and this project reads up to version 2. Use"
            " the version of the project that wrote it.",
        ),
    ],
)
def test_what_is_said_of_damage(
    cluster: Any,
    sound: Path,
    folder: Path,
    manage: Manage,
    damage: Callable[[Path], Any],
    sentence: str,
) -> None:
    path, other = folder / "a-20260101T000000Z", folder / "b-20260101T000000Z"
    shutil.copytree(sound, path)
    shutil.copytree(sound, other)
    size = (path / "dump" / "toc.dat").stat().st_size
    damage(path)
    result = manage("restore_database", path, "--replace")
    said = sentence.format(path=path, folder=folder, other=other.name, size=size)
    assert (result.code, result.err) == (1, f"{said}\n")
    database = backup.load(other).database
    found = [each.path for each in backup.find(folder, database)]
    # A flipped byte is only found by reading everything, which a list does not.
    assert found[:1] == [other] or (len(found) == 2 and "checksum" in sentence)


# --- killed --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_while_restoring(
    shop: Database,
    administrator: Administrator,
    manage: Manage,
    folder: Path,
    how: signal.Signals,
) -> None:
    # Open while the backup is proven, and shut afterwards.
    shut = f"current_setting('{shop.name}.shut', true) = 'yes'"
    shop.execute(backups.GATE.replace("{shut}", shut))
    assert manage("backup_database", "-v0").code == 0
    kept = only(folder)
    before = backups.contents(shop.cluster, shop.name)
    administrator.execute(f"ALTER ROLE {OWNER} SET {shop.name}.shut = 'yes'")
    try:
        process = backups.command(
            shop, "restore_database", str(kept), "--replace", backups=folder
        )
        (restoring,) = until(lambda: backups.at_the_gate(administrator, shop.name))
    finally:
        administrator.execute(f"ALTER ROLE {OWNER} RESET {shop.name}.shut")
    process.send_signal(how)
    _, said = process.communicate()
    assert backups.contents(shop.cluster, shop.name) == before
    if how == signal.SIGINT:
        assert (process.returncode, said) == (130, "Stopped. Nothing was changed.\n")
        assert backups.scratch_databases(administrator, shop.name) == []
        return
    (left,) = backups.scratch_databases(administrator, shop.name)
    backups.open_gate(administrator, shop.name, restoring)
    result = manage("restore_database", kept, "--replace")
    assert result.code == 0
    assert (
        f"Dropped the database {left}, which an interrupted run had left." in result.out
    )
    assert backups.scratch_databases(administrator, shop.name) == []
    assert backups.contents(shop.cluster, shop.name) == before
    _, replaced = backups.databases(administrator, shop.name)
    administrator.execute(f'DROP DATABASE "{replaced}"')
