"""backup_database: one moment, whole or not there, proven or said not to be."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection as django_connection

from terrain.embedded import OWNER, binaries
from terrain.exceptions import Stopped
from terrain.legacy import backup
from terrain.legacy.backup import (
    Damaged,
    dumping,
    fingerprints,
)
from terrain.legacy.backup import folder as folders
from terrain.legacy.backup import manifest, proof, scratch, tools
from terrain.legacy.backup.server import CannotTell, Server
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


@pytest.fixture
def poor(administrator: Administrator) -> Iterator[str]:
    """A role that may log in and nothing else."""
    name = f"poor_{os.getpid()}"
    administrator.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    administrator.execute(f"DROP ROLE {name}")


# --- what is made --------------------------------------------------------------------------


def test_backs_up_and_proves(shop: Database, manage: Manage, folder: Path) -> None:
    before = datetime.datetime.now(datetime.UTC)
    result = manage("backup_database", "--jobs", "2")
    made = backup.load(only(folder))
    assert (result.code, result.err) == (0, "")
    said = result.out.splitlines()
    version = made.manifest["tools_version"]
    assert re.fullmatch(
        rf"Expected, about: [\d.,]+ MB of the [\d.,]+ MB free in {re.escape(str(folder))}, in"
        r" [\d.]+ s; its proof, [\d.,]+ MB of the [\d.,]+ MB free where the server keeps its"
        r" data, for [\d.]+ s\.",
        said.pop(0),
    )
    assert re.fullmatch(
        rf"Dumping {shop.name} \([\d.]+ MB\) with pg_dump {version}, 2 tables at a time",
        said[0],
    )
    assert re.fullmatch(rf"[\d.]+ MB in {re.escape(str(made.path))}", said[1])
    assert said[2:3] + said[4:] == [
        "Proving it: restoring into a scratch database and comparing all there is",
        f"To restore it: python manage.py restore_database {made.path}",
    ]
    assert re.fullmatch(
        rf"Proven: 6 tables with {made.rows:,} rows and \d+ definitions came back as they were,"
        r" in [\d.]+ s\.",
        said[3],
    )
    assert re.fullmatch(rf"{shop.name}-\d{{8}}T\d{{6}}Z", made.path.name)
    assert {path.name for path in made.path.iterdir()} == {"manifest.json", "dump"}
    assert (made.path.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (
        0o700,
        0o700,
    )
    assert before <= made.taken_at <= datetime.datetime.now(datetime.UTC)
    assert made.taken_at.utcoffset() == datetime.timedelta(0)
    assert made.is_proven
    system = shop.value("SELECT system_identifier::text FROM pg_control_system()")
    assert backup.latest_proven(folder, shop.name, system) == made
    assert backup.latest_proven(folder, "another", system) is None


def test_backup_of_another_server_is_none_of_this_one(
    migrated: Database, manage: Manage, folder: Path
) -> None:
    """The demo's database and the shop's own are called the same."""
    assert manage("backup_database", "-v0").code == 0
    made = backup.load(only(folder))
    assert "backup                 done" in manage("migration_status").out
    elsewhere = {**made.manifest, "system": "7000000000000000000"}
    manifest.write_manifest(made.path, elsewhere)
    steps = json.loads(manage("migration_status", "--json").out)["steps"]
    assert [step["detail"] for step in steps if step["name"] == "backup"] == [
        f"no proven backup in {folder}"
    ]
    assert manage("cut_over", "--yes", "-v0").code == 0
    refused = manage("cleanup_legacy", "--yes")
    assert refused.code == 1
    assert f"There is no proven backup of {migrated.name} in {folder}" in refused.err


def test_server_that_does_not_tell_which_it_is(
    shop: Database, manage: Manage, folder: Path
) -> None:
    """Then the name of the database is all there is to go by."""
    shop.superuser.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    assert manage("backup_database", "-v0").code == 0
    assert backup.load(only(folder)).system is None
    assert "backup                 done" in manage("migration_status").out


def test_folder_that_may_not_be_read(
    shop: Database, manage: Manage, settings: Any, tmp_path: Path
) -> None:
    """A name that is too long fails for whoever asks, the superuser as well."""
    settings.BACKUP_DIR = tmp_path / ("x" * 300)
    said = manage("migration_status", "--json")
    assert (said.code, said.err) == (0, "")
    (step,) = (
        each for each in json.loads(said.out)["steps"] if each["name"] == "backup"
    )
    assert (step["state"], step["detail"]) == (
        "pending",
        f"{settings.BACKUP_DIR} cannot be read (File name too long)",
    )
    refused = manage("restore_database", str(settings.BACKUP_DIR))
    assert refused.code == 1
    assert "cannot be read (File name too long). Give the folder" in refused.err


def test_manifest(migrated: Database, manage: Manage, folder: Path) -> None:
    migrated.execute(
        f"COMMENT ON DATABASE {migrated.name} IS 'the shop';"
        f"ALTER DATABASE {migrated.name} SET search_path = legacy, public;"
        f"ALTER DATABASE {migrated.name} SET work_mem = '5MB'"
    )
    assert manage("backup_database", "-v0").out == ""
    made = backup.load(only(folder))
    manifest = made.manifest
    assert manifest["manifest_version"] == 2
    assert manifest["database"] == migrated.name
    assert manifest["owner"] == OWNER
    assert manifest["comment"] == "the shop"
    major = str(migrated.cluster.version)
    assert manifest["server_version"].split(".")[0] == major
    assert manifest["tools_version"].split(".")[0] == major
    assert manifest["settings"] == [
        [None, "search_path", "legacy, public"],
        [None, "work_mem", "5MB"],
    ]
    assert ["legacy", "0009_settle"] in manifest["migrations"]
    assert len(manifest["migrations"]) == migrated.value(
        "SELECT count(*) FROM terrain.django_migrations"
    )
    tables = manifest["tables"]
    for name in ("public.orders", "terrain.order_items", "terrain.legacy_run"):
        assert tables[name]["rows"] == migrated.value(f"SELECT count(*) FROM {name}")
    assert manifest["size"] == sum(path.stat().st_size for path in made.dump.iterdir())
    assert manifest["proof"]["tables"] == len(tables) - 1


def test_dump_and_fingerprints_are_of_one_moment(shop: Database, folder: Path) -> None:
    """Somebody writes all the while, to every row that a comparison could catch."""
    done = threading.Event()

    def write() -> None:
        with psycopg.connect(shop.cluster.dsn(shop.name, OWNER)) as connection:
            while not done.is_set():
                connection.execute(
                    "UPDATE public.assets SET view_count = view_count + 1, updated_at = now()"
                )
                connection.execute(
                    "INSERT INTO public.artists (email, password_hash, name)"
                    " VALUES (gen_random_uuid()::text, 'x', 'x')"
                )
                connection.commit()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            call_command("backup_database", verbosity=0)
    finally:
        done.set()
        writer.join()
    found = backup.find(folder, shop.name)
    assert len(found) == 3
    rows = [each.manifest["tables"]["public.artists"]["rows"] for each in found]
    assert rows == sorted(rows, reverse=True) and rows[0] > rows[-1]


def test_odd_database(
    empty: Database, administrator: Administrator, manage: Manage, folder: Path
) -> None:
    backups.make_odd(empty)
    assert manage("backup_database").code == 0
    tables = backup.load(only(folder)).manifest["tables"]
    assert {name: each["rows"] for name, each in tables.items()} == {
        '"Odd Schema"."Table ""quoted"""': 3,
        '"per%cent {brace}"."100%s"': 500,
        "public.values_of_all_sorts": 2,
        "public.nothing_in_it": 0,
        "public.no_columns": 1,
        "public.unlogged": 10,
        "public.parent": 1,
        "public.child": 1,
        "public.parts_2025": 300,
        "public.hidden": 2,
        "large objects": 2,
    }
    assert backups.scratch_databases(administrator, empty.name) == []


def test_empty_database(empty: Database, manage: Manage, folder: Path) -> None:
    assert manage("backup_database").code == 0
    assert list(backup.load(only(folder)).manifest["tables"]) == ["large objects"]


def test_again(shop: Database, manage: Manage, folder: Path) -> None:
    """Two in one second too: neither takes the other's folder."""
    for _ in range(2):
        assert manage("backup_database").code == 0
    one, two = backup.find(folder, shop.name)
    assert one.path != two.path
    assert one.manifest["tables"] == two.manifest["tables"]


def test_elsewhere(
    shop: Database, manage: Manage, folder: Path, tmp_path: Path
) -> None:
    result = manage("backup_database", "--output", tmp_path / "else" / "where")
    assert result.code == 0
    assert (
        f"migration_status and cleanup_legacy look in {folder} only."
        in result.out.splitlines()
    )
    assert backup.load(only(tmp_path / "else" / "where")).is_proven


def test_name_that_is_no_name_of_a_folder(
    django_db_blocker: Any, administrator: Administrator, manage: Manage, folder: Path
) -> None:
    name = "a/b=c 'd' \"e\""
    quoted = psycopg.sql.Identifier(name).as_string(None)
    administrator.execute(f"CREATE DATABASE {quoted} OWNER {OWNER}")
    try:
        with django_db_blocker.unblock(), pointed_at(name):
            assert manage("backup_database").code == 0
    finally:
        administrator.execute(f"DROP DATABASE {quoted}")
    made = backup.load(only(folder))
    assert made.database == name
    assert made.path.name.startswith("a_b_c__d___e_-")


# --- fingerprints --------------------------------------------------------------------------


OTHER_VALUES = "public.a has other values restored than in the backup."
CHANGES = {
    "DELETE FROM a WHERE n = 1": "public.a has 4 rows in the backup and 3 restored.",
    "INSERT INTO a VALUES (1, 'x', '')": "public.a has 4 rows in the backup and 5 restored.",
    "UPDATE a SET x = 'Y' WHERE n = 2": OTHER_VALUES,
    "UPDATE a SET x = NULL WHERE x = ''": OTHER_VALUES,
    "UPDATE a SET x = y, y = x WHERE n = 2": OTHER_VALUES,
    "UPDATE a SET n = 5 - n": OTHER_VALUES,
    "ALTER TABLE a ALTER n TYPE numeric(9, 1)": OTHER_VALUES,
    "DROP TABLE a": "public.a was not restored.",
    "CREATE TABLE b ()": "public.b is not in the backup.",
    "SELECT lo_from_bytea(1, 'x')": "large objects has 0 rows in the backup and 1 restored.",
    "UPDATE a SET n = n": None,
    "CREATE INDEX ON a (n)": None,
}


def test_what_a_comparison_sees(empty: Database) -> None:
    empty.execute(
        "CREATE TABLE a (n integer, x text, y text); INSERT INTO a VALUES"
        " (1, '', NULL), (2, 'y', 'x'), (3, 'y', 'x'), (4, 'a,b', 'c')"
    )
    with empty.connect() as connection:
        connection.execute("SET search_path = public")
        before = fingerprints.of(connection)
        for change, sentence in CHANGES.items():
            with connection.transaction(force_rollback=True):
                connection.execute(change)  # type: ignore[arg-type]
                found = fingerprints.differences(before, fingerprints.of(connection))
            assert found == ([sentence] if sentence else []), change


def test_fingerprint_does_not_depend_on_the_session(empty: Database) -> None:
    backups.make_odd(empty)
    before = backups.contents(empty.cluster, empty.name)
    for setting in (
        "TimeZone = 'Asia/Tokyo'",
        "DateStyle = 'German'",
        "IntervalStyle = 'iso_8601'",
        "extra_float_digits = -15",
        "bytea_output = 'escape'",
        "search_path = public",
    ):
        empty.execute(f"ALTER DATABASE {empty.name} SET {setting}")
    assert backups.contents(empty.cluster, empty.name) == before


# --- unproven ------------------------------------------------------------------------------


def test_role_that_may_not_create_databases(
    shop: Database,
    administrator: Administrator,
    poor: str,
    manage: Manage,
    folder: Path,
) -> None:
    administrator.execute(f"GRANT {OWNER} TO {poor}")
    with backups.connected_as(poor):
        result = manage("backup_database")
    made = backup.load(only(folder))
    why = (
        "the role may not create the scratch database. As a superuser: ALTER ROLE"
        f" {poor} CREATEDB; or prove it on another server: python manage.py backup_database"
        " --prove-on embedded"
    )
    assert result.code == 1
    assert result.err == (f"The backup in {made.path} is kept but not proven: {why}\n")
    assert not made.is_proven
    assert made.manifest["unproven"] == why
    manifest.check(made)
    assert not any(each.is_proven for each in backup.find(folder, shop.name))


def test_dump_that_cannot_be_restored(
    empty: Database, administrator: Administrator, manage: Manage, folder: Path
) -> None:
    """A constraint that asks another table by its bare name: every dump of such fails."""
    empty.execute(
        "CREATE TABLE public.other (id integer); INSERT INTO public.other VALUES (1);"
        "CREATE FUNCTION public.known(integer) RETURNS boolean LANGUAGE plpgsql"
        " AS 'BEGIN RETURN EXISTS (SELECT FROM other WHERE id = $1); END';"
        "CREATE TABLE public.a (id integer CHECK (public.known(id)));"
        "INSERT INTO public.a VALUES (1)"
    )
    result = manage("backup_database")
    made = backup.load(only(folder))
    assert result.code == 1
    assert result.err == (
        f"The backup in {made.path} is kept but not proven: it could not be restored:"
        ' pg_restore failed: COPY failed for table "a": ERROR:  relation "other" does not'
        " exist\n"
    )
    assert not made.is_proven
    assert backups.scratch_databases(administrator, empty.name) == []


def test_restored_otherwise(shop: Database, manage: Manage, folder: Path) -> None:
    assert manage("backup_database").code == 0
    made = backup.load(only(folder))
    tables = json.loads(json.dumps(made.manifest["tables"]))
    tables["public.orders"]["rows"] += 1
    tables["public.assets"]["fingerprint"] = "7"
    made = manifest.write_manifest(made.path, {**made.manifest, "tables": tables})
    with pytest.raises(proof.Unproven) as error:
        proof.prove(Server.of(django_connection), made, 1, Teller())
    assert str(error.value) == (
        f"The backup in {made.path} is kept but not proven: what was restored differs:"
        " public.assets has other values restored than in the backup. And 1 more."
    )
    assert not backup.load(made.path).is_proven


# --- could not run -------------------------------------------------------------------------


def test_table_that_may_not_be_read(
    shop: Database,
    administrator: Administrator,
    poor: str,
    manage: Manage,
    folder: Path,
) -> None:
    with backups.connected_as(poor):
        result = manage("backup_database")
    assert (result.code, result.err) == (
        2,
        "The database role may not do this: permission denied for table artists. Connect as"
        " the owner of the database and of the tables, or have it granted.\n",
    )
    assert list(folder.iterdir()) == []


def test_folder_that_is_a_file(shop: Database, manage: Manage, folder: Path) -> None:
    folder.write_text("")
    result = manage("backup_database")
    assert (result.code, result.err) == (
        2,
        f"{folder} cannot be written (File exists). Name another folder with --output, or"
        " in BACKUP_DIR.\n",
    )


@pytest.mark.parametrize("jobs", ["0", "65", "x", "-1", "1.5"])
def test_wrong_number_of_jobs(cluster: Any, manage: Manage, jobs: str) -> None:
    result = manage("backup_database", f"--jobs={jobs}")
    assert result.code == 2
    assert f"argument --jobs: '{jobs}' is not a number from 1 to 64" in result.err


def test_no_programs_of_the_version(cluster: Any) -> None:
    with pytest.raises(tools.Missing) as error:
        tools.find(Server.of(django_connection), 99)
    assert str(error.value) == (
        "The server is PostgreSQL 99, and pg_dump and pg_restore of version 99 or newer are"
        " not here. Type: apt-get install postgresql-client-99 (if it is not found, from"
        " apt.postgresql.org)."
    )


def test_programs_no_newer_than_need_be(cluster: Any) -> None:
    server = Server.of(django_connection)
    for major, at_least, found in (
        (16, None, 16),
        (16, 16, 16),
        (16, 18, 18),
        (18, 16, 18),
    ):
        assert tools.find(server, major, at_least).major == found
    own = tools.find(server, cluster.version)
    assert own.folder == binaries(cluster.version)


@pytest.mark.parametrize(
    "said, method",
    [
        ('connection to server on socket "/nonexistent" failed', "zstd"),
        ("this build does not support compression with ZSTD", "gzip"),
        ('pg_dump: error: invalid value "zstd" for option -Z/--compress', "gzip"),
    ],
)
def test_which_compression(tmp_path: Path, said: str, method: str) -> None:
    """As pg_dump of 16 with zstd says it, of 16 without, and of 15."""
    program = tmp_path / "pg_dump"
    program.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    program.chmod(0o755)
    assert tools.Tools(tmp_path, "16.1").compression() == method


def test_dump_in_zstd_and_no_program_that_reads_it(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server.of(django_connection)
    monkeypatch.setattr(tools.Tools, "compression", lambda self: "gzip")
    with pytest.raises(tools.Missing) as error:
        tools.find(server, 16, zstd=True)
    assert str(error.value) == (
        "The server is PostgreSQL 16, and pg_dump and pg_restore of version 16 or newer,"
        " built with zstd, are not here. Type: apt-get install postgresql-client-16 (if it"
        " is not found, from apt.postgresql.org)."
    )
    monkeypatch.setattr(tools.Tools, "compression", lambda self: "zstd")
    assert tools.find(server, 16, zstd=True).major == 16


def test_pg_dump_that_fails(
    shop: Database, manage: Manage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dumping, "LOCK_WAIT", 200)
    other = shop.connect()
    other.execute("BEGIN; LOCK TABLE public.orders")
    result = manage("backup_database")
    assert result.code == 2
    assert result.err == (
        "pg_dump failed: somebody held a lock on a table for more than 0.2 s. Nothing"
        " is left of this backup; run the command again when that is put right.\n"
    )
    assert list(folder.iterdir()) == []


def _waits(database: Database, number: int = 1) -> bool:
    return bool(
        database.value(
            "SELECT count(*) >= %s FROM pg_locks WHERE NOT granted AND relation IS NOT NULL",
            number,
        )
    )


# --- killed --------------------------------------------------------------------------------


def _free(path: Path) -> bool:
    """Whether nobody writes to a folder any more."""
    lock = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(lock)


def test_killed_while_dumping(shop: Database, manage: Manage, folder: Path) -> None:
    other = shop.connect()
    other.execute("BEGIN; LOCK TABLE public.orders")
    process = backups.command(shop, "backup_database", backups=folder)
    until(lambda: _waits(shop, 2))  # pg_dump, and the run itself
    process.kill()
    process.communicate()
    partial = only(folder)
    assert partial.name.endswith("Z.partial")
    assert backup.find(folder, shop.name) == []
    with pytest.raises(Damaged) as error:
        backup.load(partial)
    assert str(error.value) == (
        f"{partial} was never finished: the backup was interrupted. There is no other"
        f" backup in {folder}."
    )
    # pg_dump has outlived us, and still writes there.
    teller = backups.Said()
    folders.remove_leftovers(folder, teller)
    assert teller.said == [f"Left {partial} alone: another run is writing it."]
    other.execute("ROLLBACK")
    until(lambda: _free(partial))
    result = manage("backup_database")
    assert result.code == 0
    assert (
        f"Removed {partial}, which an interrupted run had left."
        in result.out.splitlines()
    )
    assert backup.load(only(folder)).is_proven


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_while_proving(
    shop: Database,
    administrator: Administrator,
    manage: Manage,
    folder: Path,
    how: signal.Signals,
) -> None:
    shop.execute(backups.GATE.replace("{shut}", "true"))
    process = backups.command(shop, "backup_database", backups=folder)
    (restoring,) = until(lambda: backups.at_the_gate(administrator, shop.name))
    process.send_signal(how)
    _, said = process.communicate()
    made = backup.load(only(folder))
    manifest.check(made)
    assert not made.is_proven
    left = backups.scratch_databases(administrator, shop.name)
    if how == signal.SIGINT:
        assert (process.returncode, left) == (130, [])
        assert said == (
            f"Stopped. The backup in {made.path} is whole, and not proven; take another:"
            " python manage.py backup_database\n"
        )
        return
    (name,) = left
    shop.execute("DROP TABLE public.gate")
    # Somebody is still at work there, so it is left alone.
    assert manage("backup_database").code == 0
    assert backups.scratch_databases(administrator, shop.name) == left
    backups.open_gate(administrator, shop.name, restoring)
    result = manage("backup_database")
    assert result.code == 0
    assert (
        f"Dropped the database {name}, which an interrupted run had left."
        in result.out.splitlines()
    )
    assert backups.scratch_databases(administrator, shop.name) == []


def _databases_named(administrator: Administrator, names: list[str]) -> list[str]:
    found = administrator.execute(
        "SELECT datname FROM pg_database WHERE datname = ANY (%s) ORDER BY 1", [names]
    )
    return [name for (name,) in found]


def test_leftovers_that_are_not_ours(
    shop: Database, administrator: Administrator, manage: Manage, cluster: Any
) -> None:
    """Of another database, with things in it and no comment, of another role, named alike."""
    born = f"{scratch.PREFIX}{'0' * 12}"
    kept = {
        f"{scratch.PREFIX}{'1' * 12}": scratch.comment("another"),
        f"{scratch.PREFIX}{'2' * 12}": None,
        f"{scratch.PREFIX}{'3' * 12}": scratch.comment(shop.name),
        f"{scratch.PREFIX}of_mine": scratch.comment(shop.name),
    }
    try:
        for name, comment in {born: None, **kept}.items():
            owner = "postgres" if "3333" in name else OWNER
            administrator.execute(f"CREATE DATABASE {name} OWNER {owner}")
            if comment:
                administrator.execute(
                    psycopg.sql.SQL("COMMENT ON DATABASE {} IS {}").format(
                        psycopg.sql.Identifier(name), psycopg.sql.Literal(comment)
                    )
                )
        with psycopg.connect(cluster.dsn(f"{scratch.PREFIX}{'2' * 12}")) as connection:
            connection.execute("CREATE TABLE public.precious ()")
        assert manage("backup_database").code == 0
        assert _databases_named(administrator, [born, *kept]) == sorted(kept)
    finally:
        for name in (born, *kept):
            administrator.execute(f"DROP DATABASE IF EXISTS {name}")


def test_scratch_database_that_autovacuum_is_in(
    shop: Database, administrator: Administrator
) -> None:
    """A superuser's session, which we may not end, stands for it: it goes when told."""
    teller = backups.Said()
    locale = {"encoding": "UTF8", "collate": "C", "ctype": "C"}
    locale |= {"provider": "c", "locale": None, "rules": None}
    server = Server.of(django_connection)
    with scratch.database(server, shop.name, locale, teller) as made:
        vacuum = psycopg.connect(shop.cluster.dsn(made.name, "postgres"))

        def leave() -> None:
            until(
                lambda: administrator.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
                    " AND query LIKE 'DROP DATABASE IF EXISTS%%' || %s || '\"'",
                    [made.name],
                ).fetchone()
                == (1,)
            )
            vacuum.close()

        leaving = threading.Thread(target=leave)
        leaving.start()
    leaving.join()
    assert backups.scratch_databases(administrator, shop.name) == []
    assert teller.said == []


def test_scratch_database_that_somebody_stays_in(
    shop: Database, administrator: Administrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "ATTEMPTS", 1)
    teller = backups.Said()
    locale = {"encoding": "UTF8", "collate": "C", "ctype": "C"}
    locale |= {"provider": "c", "locale": None, "rules": None}
    server = Server.of(django_connection)
    with scratch.database(server, shop.name, locale, teller) as made:
        stays = psycopg.connect(shop.cluster.dsn(made.name, "postgres"))
    assert teller.said == [
        f"! The database {made.name} could not be dropped: somebody is connected. The next"
        " run drops it."
    ]
    stays.close()
    with server.maintenance(besides=shop.name) as connection:
        scratch.drop_leftovers(server, connection, shop.name, teller)
    assert backups.scratch_databases(administrator, shop.name) == []


def test_stopped_while_dumping(
    shop: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C at the moment the dump is through."""

    def stop(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(manifest, "described", stop)
    with pytest.raises(Stopped) as stopped:
        call_command("backup_database", verbosity=0)
    assert (str(stopped.value), stopped.value.code) == (
        "Stopped. Nothing is left of the unfinished backup.",
        130,
    )
    assert list(folder.iterdir()) == []


def test_disk_full(
    shop: Database, manage: Manage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as a limit on the size of a file shows it."""
    run = subprocess.Popen

    def limited(command: Any, **options: Any) -> Any:
        if Path(command[0]).name == "pg_dump" and "--compress=zstd" not in command:
            command = [
                "sh",
                "-c",
                'trap "" XFSZ; ulimit -f 4; exec "$@"',
                "pg_dump",
                *command,
            ]
        return run(command, **options)

    monkeypatch.setattr(subprocess, "Popen", limited)
    result = manage("backup_database")
    assert result.code == 2
    assert re.fullmatch(
        r"\w+ failed: .*File too large\. Nothing is left of this backup; run the command"
        r" again when that is put right\.\n",
        result.err,
    )
    assert list(folder.iterdir()) == []


# --- secrets -------------------------------------------------------------------------------


def test_password_is_never_an_argument(
    shop: Database, manage: Manage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = "s3cret'; of \\ the shop"
    started: list[tuple[list[str], dict[str, str]]] = []
    run = subprocess.Popen

    class Recorded(run):  # type: ignore[type-arg, misc, valid-type]
        def __init__(self, command: Any, **options: Any) -> None:
            started.append(([str(word) for word in command], options.get("env") or {}))
            super().__init__(command, **options)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    with backups.connected_as(OWNER, PASSWORD=password):
        taken = manage("backup_database")
        given = manage("restore_database", only(folder), "--into", f"{shop.name}_too")
    try:
        assert (taken.code, given.code) == (0, 0), taken.err + given.err
        programs = [
            (command, environment)
            for command, environment in started
            if any(word.startswith("--dbname=") for word in command)
            and Path(command[0]).name in ("pg_dump", "pg_restore")
        ]
        assert len(programs) == 5
        for command, environment in programs:
            assert environment["PGPASSWORD"] == password
        assert not [
            word for command, _ in started for word in command if "s3cret" in word
        ]
        assert "s3cret" not in taken.out + taken.err + given.out + given.err
        assert "s3cret" not in (only(folder) / "manifest.json").read_text()
        assert "s3cret" not in repr(Server.of(django_connection))
    finally:
        shop.superuser.execute(f"DROP DATABASE {shop.name}_too")


def test_options_reach_the_programs(cluster: Any) -> None:
    options = {
        **django_connection.settings_dict["OPTIONS"],
        "sslmode": "prefer",
        "sslrootcert": "/etc/ca.pem",
        "keepalives_idle": "30",
        "options": "-c work_mem=5MB",
    }
    with backups.connected_as(OWNER, OPTIONS=options):  # type: ignore[arg-type]
        server = Server.of(django_connection)
    environment = server.environment()
    assert environment["PGSSLMODE"] == "prefer"
    assert environment["PGSSLROOTCERT"] == "/etc/ca.pem"
    assert "-c work_mem=5MB" in environment["PGOPTIONS"]
    assert environment["PGUSER"] == OWNER
    assert server.target("a b") == "dbname='a b' keepalives_idle=30"


def test_secret_that_only_an_argument_could_carry(cluster: Any, manage: Manage) -> None:
    options = {**django_connection.settings_dict["OPTIONS"], "sslpassword": "x"}
    with backups.connected_as(OWNER, OPTIONS=options):  # type: ignore[arg-type]
        with pytest.raises(CannotTell):
            Server.of(django_connection)
        result = manage("backup_database")
    assert (result.code, result.err) == (
        2,
        "DATABASE_URL has sslpassword, which pg_dump and pg_restore only take as an"
        " argument, where everybody on this machine can read it. Use a key without a"
        " password, or a password in PGPASSFILE.\n",
    )
