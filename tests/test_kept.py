"""Every manifest the project has ever written: tests/kept has a backup of each version."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from django.db import connection as django_connection
from psycopg import sql as pg

from terrain.embedded import OWNER
from terrain.legacy.backup import manifest, restore
from terrain.legacy.backup.server import Server
from terrain.legacy.backup.telling import Teller
from tests.conftest import Database

pytestmark = pytest.mark.migration

KEPT = Path(__file__).with_name("kept")
VERSIONS = range(1, manifest.MANIFEST_VERSION + 1)


@pytest.fixture
def name(administrator: psycopg.Connection[object]) -> Iterator[str]:
    name = f"kept_{os.getpid()}"
    yield name
    administrator.execute(
        pg.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(pg.Identifier(name))
    )


def test_one_of_each_version_is_kept() -> None:
    assert {path.name for path in KEPT.glob("version-*")} == {
        f"version-{version}" for version in VERSIONS
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_is_restored(empty: Database, name: str, version: int) -> None:
    """Taken on PostgreSQL 16, of a database of all sorts; see tests/backups.py.

    It belonged to ``terrain``, as the owner was called then, and belongs to whoever restores.
    """
    path = KEPT / f"version-{version}"
    kept = manifest.load(path)
    assert kept.manifest["manifest_version"] == version
    manifest.check(kept)
    assert kept.is_proven and kept.encryption is None
    server = Server.of(django_connection)
    done = restore.restore(server, path, into=name, teller=Teller())
    assert (done.tables, done.rows) == (10, 820)
    assert done.unlike == ()
    nobody = r'ALTER .+ OWNER TO "?terrain"?: role "terrain" does not exist'
    assert [each for each in done.beyond if not re.fullmatch(nobody, each)] == []
    restored = Database(empty.cluster, name)
    assert restored.value("SELECT lo_get(4711)") == b"\xde\xad\xbe\xef"
    assert restored.value("SHOW work_mem") == "5MB"
    assert restored.rows(
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE oid >= 16384"
    ) == [(OWNER,)]
