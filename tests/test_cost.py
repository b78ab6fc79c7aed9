"""What a backup is said to cost before it begins, and when it does not begin."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.db import connection as django_connection

from terrain.embedded import OWNER
from terrain.legacy import backup
from terrain.legacy.backup import cost
from terrain.legacy.backup.cost import Cost, Disk
from terrain.legacy.backup.server import Server
from tests import backups
from tests.backups import only
from tests.conftest import Database, Result

Manage = Callable[..., Result]

FITS = Cost(
    dump=Disk(100_000_000, 900_000_000, 1),
    seconds=12.4,
    proof=Disk(600_000_000, 800_000_000, 2),
    proof_seconds=130,
    folder=Path("/backups"),
    is_guess=False,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.BACKUP_DIR = tmp_path / "backups"
    return tmp_path / "backups"


def test_sentence() -> None:
    assert FITS.sentence() == (
        "Expected, by the last backup: 100.0 MB of the 900.0 MB free in /backups, in 12 s;"
        " its proof, 600.0 MB of the 800.0 MB free where the server keeps its data, for 2"
        " minutes."
    )
    elsewhere = replace(FITS, proof=Disk(600_000_000, None), is_guess=True)
    assert elsewhere.sentence() == (
        "Expected, about: 100.0 MB of the 900.0 MB free in /backups, in 12 s; its proof,"
        " 600.0 MB on the server's disk (how much is free there cannot be told from here),"
        " for 2 minutes."
    )


@pytest.mark.parametrize(
    "found, sentence",
    [
        (FITS, None),
        (replace(FITS, dump=Disk(100_000_000, 100_000_000, 1)), None),
        (
            replace(FITS, dump=Disk(100_000_000, 99_000_000, 1)),
            "The backup is expected to have 100.0 MB, and /backups has 99.0 MB free. Make"
            " room there, name another folder with --output, or add --ignore-space if the"
            " estimate is wrong.",
        ),
        (
            replace(FITS, proof=Disk(600_000_000, 599_000_000, 2)),
            "To prove the backup a copy of the database is made, for which 600.0 MB are"
            " needed where the server keeps its data, and 599.0 MB are free. Make room there,"
            " prove it on another server with --prove-on, or add --ignore-space if the"
            " estimate is wrong.",
        ),
        # One disk for both.
        (
            replace(FITS, proof=Disk(600_000_000, 650_000_000, 1)),
            "To prove the backup a copy of the database is made, for which 700.0 MB are"
            " needed where the server keeps its data, and 650.0 MB are free. Make room there,"
            " prove it on another server with --prove-on, or add --ignore-space if the"
            " estimate is wrong.",
        ),
        (replace(FITS, proof=Disk(600_000_000, None)), None),
        (replace(FITS, dump=Disk(100_000_000, None)), None),
    ],
)
def test_whether_it_fits(found: Cost, sentence: str | None) -> None:
    if sentence is None:
        found.check()
        return
    with pytest.raises(cost.DoesNotFit) as error:
        found.check()
    assert str(error.value) == sentence


@pytest.mark.migration
def test_refuses_before_anything_is_written(
    shop: Database, manage: Manage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "RATIO", 1e9)
    result = manage("backup_database")
    assert result.code == 2
    assert re.fullmatch(
        r"The backup is expected to have [\d,.]+ MB, and .+ has [\d,.]+ MB free\. Make room"
        r" there, name another folder with --output, or add --ignore-space if the estimate"
        r" is wrong\.\n",
        result.err,
    )
    assert not folder.exists()
    assert manage("backup_database", "--ignore-space").code == 0


@pytest.mark.migration
def test_by_the_last_backup(shop: Database, manage: Manage, folder: Path) -> None:
    assert manage("backup_database", "-v0").code == 0
    made = backup.load(only(folder))
    server = Server.of(django_connection)
    found = cost.of(server, folder, 2, [made], server)
    growth = (
        shop.value("SELECT pg_database_size(current_database())")
        / made.manifest["database_size"]
    )
    assert not found.is_guess
    assert found.dump.needed == int(made.size * growth * cost.MARGIN)
    assert found.seconds == made.manifest["seconds"] * growth
    assert found.proof_seconds == made.manifest["proof"]["seconds"] * growth
    assert "Expected, by the last backup: " in manage("backup_database").out


@pytest.mark.migration
def test_waits_for_nobody(shop: Database, folder: Path) -> None:
    """Not even for somebody who alters every table."""
    shop.connect().execute("BEGIN; LOCK TABLE public.orders, public.assets")
    server = Server.of(django_connection)
    assert cost.of(server, folder, 2, [], server).is_guess


@pytest.mark.migration
def test_disk_of_a_server_that_does_not_say(shop: Database, folder: Path) -> None:
    """Where the data is, only superusers are told; and only here can it be looked at."""
    with backups.connected_as(OWNER):
        known = Server.of(django_connection)
    unknown = replace(known, cluster=None)
    proof = cost.of(unknown, folder, 2, [], unknown).proof
    assert proof is not None and proof.free is None
    superuser = replace(unknown, params={**known.params, "user": "postgres"})
    proof = cost.of(superuser, folder, 2, [], superuser).proof
    assert proof is not None and proof.free is not None and proof.free > 0
