"""--prove-on: a backup proven on another server than the one it was taken on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings as project

from terrain.embedded import OWNER, Cluster
from terrain.legacy import backup
from terrain.legacy.backup import elsewhere
from tests import backups
from tests.backups import only
from tests.conftest import Database, Result

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]
Administrator = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.BACKUP_DIR = tmp_path / "backups"
    return tmp_path / "backups"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the embedded server for proofs is made; stopped in the end."""
    folder = tmp_path_factory.mktemp("home")
    yield folder
    for made in folder.glob(".postgres-proof-*"):
        Cluster(made, int(made.name.rpartition("-")[2])).stop()


@pytest.fixture
def other(home: Path, settings: Any) -> Cluster:
    """Another server, which has no role of the shop's but its owner."""
    settings.BASE_DIR = home
    version = project.CLUSTER.version
    cluster = Cluster(home / f".postgres-proof-{version}", version)
    cluster.lease()
    return cluster


@pytest.fixture
def poor(shop: Database, administrator: Administrator) -> Iterator[str]:
    """A role that may read everything, and may not create a database."""
    name = f"poor_{os.getpid()}"
    administrator.execute(f"CREATE ROLE {name} LOGIN; GRANT {OWNER} TO {name}")
    yield name
    administrator.execute(f"DROP ROLE {name}")


def url(cluster: Cluster, user: str = OWNER, password: str = "") -> str:
    return f"postgresql://{user}{password}@/postgres?host={cluster.socket_dir}"


def scratch(cluster: Cluster) -> list[str]:
    with psycopg.connect(cluster.dsn("postgres", "postgres")) as connection:
        return [
            name
            for (name,) in connection.execute(
                "SELECT datname FROM pg_database WHERE datname LIKE 'terrain%scratch%'"
            )
        ]


def test_embedded(shop: Database, other: Cluster, poor: str, manage: Manage) -> None:
    """A role without any right proves all the same, owners and grants as well."""
    with backups.connected_as(poor):
        result = manage("backup_database", "--prove-on", "embedded")
    assert (result.code, result.err) == (0, "")
    assert (
        "Proving it: restoring into a scratch database on the embedded server and comparing"
        " all there is"
    ) in result.out
    made = backup.load(only(project.BACKUP_DIR))
    assert made.manifest["roles"] == [OWNER, "shop_app"]
    assert made.manifest["proof"]["not_given_away"] == []
    assert made.manifest["proof"]["objects"] > 20
    assert scratch(other) == []


def test_url(
    shop: Database, other: Cluster, poor: str, manage: Manage, folder: Path
) -> None:
    """Grants to roles that are not there are listed, and the rest is compared."""
    gone = f"gone_{os.getpid()}"
    shop.superuser.execute(f"CREATE ROLE {gone}")
    shop.execute(f"GRANT SELECT ON public.orders TO {gone}")
    try:
        with backups.connected_as(poor):
            result = manage("backup_database", "--prove-on", url(other))
    finally:
        shop.superuser.execute(f"DROP OWNED BY {gone}; DROP ROLE {gone}")
    assert (result.code, result.err) == (0, "")
    assert "a scratch database on the server of --prove-on" in result.out
    proof = backup.load(only(folder)).manifest["proof"]
    assert (
        f'GRANT SELECT ON TABLE public.orders TO {gone}: role "{gone}" does not exist'
        in proof["not_given_away"]
    )
    number = len(proof["not_given_away"])
    assert (
        f" {number} owners and grants could not be tried, for want of a role or of rights;"
        " the manifest lists them."
    ) in result.out


def test_service(
    shop: Database,
    other: Cluster,
    manage: Manage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    services = tmp_path / "services"
    services.write_text(
        f"[prover]\nhost={other.socket_dir}\nuser={OWNER}\npassword=s3cret\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    result = manage("backup_database", "--prove-on", "service=prover")
    assert (result.code, result.err) == (0, "")
    assert "s3cret" not in result.out


def test_variable(
    shop: Database, other: Cluster, manage: Manage, settings: Any, folder: Path
) -> None:
    """There a password may stand, and it goes nowhere else."""
    settings.PROVE_ON = url(other, password=":s3cret")
    result = manage("backup_database")
    assert (result.code, result.err) == (0, "")
    assert "on the server of --prove-on" in result.out
    assert "s3cret" not in (only(folder) / "manifest.json").read_text() + result.out


def test_password_that_everybody_could_read(
    shop: Database, manage: Manage, folder: Path
) -> None:
    result = manage("backup_database", "--prove-on", "postgresql://a:s3cret@b/c")
    assert (result.code, result.err) == (
        2,
        "--prove-on was given a password, which everybody on this machine can read there."
        " Put the URL into the variable PROVE_ON instead, or the password into PGPASSFILE, or"
        " name a service: --prove-on service=NAME.\n",
    )
    assert not folder.exists()


@pytest.mark.parametrize("text", ["postgresql://a:s3cr%et@b/c", "nonsense", "x=1"])
def test_what_cannot_be_read(shop: Database, manage: Manage, text: str) -> None:
    result = manage("backup_database", "--prove-on", text)
    assert (result.code, result.err) == (
        2,
        "What --prove-on was given cannot be read. It has the form"
        " postgresql://user@host:5432/postgres, or service=NAME, or embedded.\n",
    )


def test_server_that_is_down(shop: Database, manage: Manage, tmp_path: Path) -> None:
    result = manage("backup_database", "--prove-on", f"host={tmp_path}")
    assert result.code == 2
    assert result.err.startswith("The server of --prove-on cannot be used: ")
    assert "No such file or directory" in result.err


def test_server_that_is_too_old(other: Cluster) -> None:
    with pytest.raises(elsewhere.NotThere) as error:
        elsewhere.server(url(other), 99, other.folder, is_argument=True)
    assert str(error.value) == (
        f"The server of --prove-on is PostgreSQL {other.version}, and a dump of PostgreSQL 99"
        " needs 99 or newer. Name another one, or: --prove-on embedded"
    )
    with pytest.raises(elsewhere.NotThere) as error:
        elsewhere.server("embedded", 99, other.folder, is_argument=True)
    assert str(error.value) == (
        "The shop's server is PostgreSQL 99, and the embedded one is 18. Name another server"
        " of that version: --prove-on postgresql://user@host/postgres"
    )


def test_no_right_there_either(
    shop: Database, other: Cluster, manage: Manage, folder: Path
) -> None:
    with psycopg.connect(other.dsn("postgres", "postgres")) as connection:
        connection.execute("DROP ROLE IF EXISTS poor_there")
        connection.execute("CREATE ROLE poor_there LOGIN")
    result = manage("backup_database", "--prove-on", url(other, "poor_there"))
    assert result.code == 1
    assert result.err == (
        f"The backup in {only(folder)} is kept but not proven: the role may not create the"
        " scratch database. As a superuser: ALTER ROLE poor_there CREATEDB; or prove it on"
        " another server: python manage.py backup_database --prove-on embedded\n"
    )
