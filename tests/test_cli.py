"""The command line as it is typed: errors that can be foreseen end in one sentence.

In processes of their own, with the project's own settings and ``DATABASE_URL``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from django.conf import settings
from django.db import OperationalError, connections

from terrain import cli
from terrain.embedded import OWNER, Cluster
from terrain.legacy.management.commands import migration_status
from tests.conftest import Database, Result, connecting

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]

WHERE = "Is the server running, and are host and port in DATABASE_URL right?"
FORM = "It has the form postgresql://user:password@host:5432/terrain_builder."


def environment(url: str, **more: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DJANGO_SETTINGS_MODULE", "DATABASE_URL")
        and not name.startswith("PG")
    }
    return {**kept, "DATABASE_URL": url, "SECRET_KEY": "x", "DEBUG": "0", **more}


def popen(url: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(settings.BASE_DIR / "manage.py"), *arguments],
        env=environment(url, **more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def typed(url: str, *arguments: str, **more: str) -> Result:
    """Run a command line to its end."""
    with popen(url, *arguments, **more) as process:
        out, err = process.communicate(timeout=60)
    return Result(process.returncode, out, err)


def url_of(cluster: Cluster, name: str, user: str = OWNER, password: str = "") -> str:
    word = f"&password={quote(password, safe='')}" if password else ""
    host = quote(str(cluster.socket_dir), safe="")
    return f"postgresql:///{name}?host={host}&user={user}{word}"


# --- no connection -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (
            "mysql://localhost/shop",
            f"DATABASE_URL is not the URL of a PostgreSQL database. {FORM}\n",
        ),
        (
            "terrain_builder",
            f"DATABASE_URL is not the URL of a PostgreSQL database. {FORM}\n",
        ),
        ("postgresql://localhost", f"DATABASE_URL names no database. {FORM}\n"),
        (
            "postgresql://u@h/d?nonsense=1",
            'DATABASE_URL cannot be read: invalid URI query parameter: "nonsense".'
            f" {FORM}\n",
        ),
        (
            "postgresql://localhost:port/shop",
            "DATABASE_URL cannot be read: the port 'port' is no number." f" {FORM}\n",
        ),
        (
            "postgresql:///shop?host=/nowhere",
            "The database cannot be used: connection to server on socket"
            ' "/nowhere/.s.PGSQL.5432" failed: No such file or directory. '
            f"{WHERE}\n",
        ),
        (
            "postgresql://127.0.0.1:1/shop",
            "The database cannot be used: connection to server at"
            ' "127.0.0.1", port 1 failed: Connection refused. '
            f"{WHERE}\n",
        ),
    ],
)
def test_a_url_that_leads_nowhere(url: str, sentence: str) -> None:
    assert typed(url, "migrate") == Result(2, "", sentence)


def test_a_database_that_is_not_there(cluster: Cluster) -> None:
    result = typed(url_of(cluster, "nosuch"), "migration_status")
    assert (result.code, result.out) == (2, "")
    assert result.err.endswith(
        'FATAL:  database "nosuch" does not exist. Check the database name in DATABASE_URL,'
        " or create it.\n"
    )
    assert result.err.count("\n") == 1


def test_a_role_that_is_not_there(cluster: Cluster, legacy_template: str) -> None:
    result = typed(url_of(cluster, legacy_template, "nosuch"), "upgrade")
    assert (result.code, result.out) == (2, "")
    assert result.err.endswith(
        'FATAL:  role "nosuch" does not exist. Check the user name in DATABASE_URL.\n'
    )
    assert result.err.count("\n") == 1


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server that wants a password, which is ``right``."""
    server = Cluster(
        tmp_path_factory.mktemp("guarded") / "pg", settings.CLUSTER.version
    )
    server.start()
    with psycopg.connect(
        server.dsn("postgres", "postgres"), autocommit=True
    ) as superuser:
        superuser.execute(f"ALTER ROLE {OWNER} PASSWORD 'right'")
        (server.folder / "pg_hba.conf").write_text("local all all scram-sha-256\n")
        superuser.execute("SELECT pg_reload_conf()")
        # The reload is under way: wait for the first connection that is asked.
        while True:
            try:
                psycopg.connect(server.dsn("postgres")).close()
            except psycopg.OperationalError:
                break
    yield server
    server.stop()


def test_a_wrong_password(guarded: Cluster) -> None:
    assert (
        typed(
            url_of(guarded, "terrain_builder", password="right"), "migration_status"
        ).code
        == 0
    )
    result = typed(url_of(guarded, "terrain_builder", password="wrong"), "migrate")
    assert (result.code, result.out) == (2, "")
    assert result.err.endswith(
        f'FATAL:  password authentication failed for user "{OWNER}". Check the password in'
        " DATABASE_URL.\n"
    )
    assert "wrong" not in result.err
    assert result.err.count("\n") == 1


def test_no_password(guarded: Cluster) -> None:
    result = typed(url_of(guarded, "terrain_builder"), "preflight")
    assert (result.code, result.out) == (2, "")
    assert result.err.endswith(
        "no password supplied. Check the password in DATABASE_URL.\n"
    )


def test_a_database_that_does_not_admit_the_role(
    clone: Callable[[str], Database],
    legacy_template: str,
    administrator: psycopg.Connection[Any],
) -> None:
    shop = clone(legacy_template)
    administrator.execute(f"REVOKE CONNECT ON DATABASE {shop.name} FROM PUBLIC")
    result = typed(url_of(shop.cluster, shop.name, "shop_app"), "preflight")
    assert (result.code, result.out) == (2, "")
    assert result.err.endswith(
        f'permission denied for database "{shop.name}". Ask the owner to grant CONNECT on'
        " the database.\n"
    )


def test_a_role_without_privileges(migrated: Database, manage: Manage) -> None:
    """Commands that need what it has not got say so, Django's own too."""
    for command in (
        ("migration_status",),
        ("verify_migration",),
        ("settle",),
        ("rollback_migration", "--yes"),
        ("cleanup_legacy", "--yes"),
        ("copy_models_to_assets",),
        ("createsuperuser", "--noinput", "--email", "a@example.com"),
    ):
        with connecting(USER="shop_app"):
            result = manage(*command)
        assert result.code == 2, command
        assert result.err.startswith(
            "The database role may not do this: permission denied"
        )
        assert result.err.endswith(
            " Connect as the owner of the database and of the tables, or have it granted.\n"
        )
        assert result.err.count("\n") == 1


def test_a_role_without_privileges_before_the_move(shop: Database) -> None:
    url = url_of(shop.cluster, shop.name, "shop_app")
    result = typed(url, "preflight", "--json")
    assert (result.code, result.err) == (1, "")
    document = json.loads(result.out)
    blocking = [
        each["name"] for each in document["findings"] if each["severity"] == "blocks"
    ]
    assert blocking == ["privileges"]
    result = typed(url, "migrate", "-v", "0")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("The role shop_app lacks CREATE on the database; ")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (
            'could not translate host name "nowhere" to address: Name or service not known',
            "Check the host in DATABASE_URL.",
        ),
        ("connection timeout expired", WHERE),
        (
            "FATAL:  sorry, too many clients already",
            "Close a connection and try again.",
        ),
        (
            "FATAL:  the database system is starting up",
            "Wait until the server is up, then run it again.",
        ),
        (
            'FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "u", database "d"',
            "The server does not admit this user from here: see its pg_hba.conf.",
        ),
        (
            "server does not support SSL, but SSL was required",
            "Check sslmode in DATABASE_URL.",
        ),
        ("something new", "Run the same command again when it can."),
    ],
)
def test_every_refusal_has_advice(text: str, advice: str) -> None:
    assert cli.connection_sentence(OperationalError(f"{text}\n")) == (
        f"The database cannot be used: {text}. {advice}"
    )


# --- settings of the server's --------------------------------------------------------------


def test_a_database_that_may_only_be_read(
    shop: Database, administrator: psycopg.Connection[Any]
) -> None:
    administrator.execute(
        f"ALTER DATABASE {shop.name} SET default_transaction_read_only = on"
    )
    url = url_of(shop.cluster, shop.name)
    assert typed(url, "preflight", "-v", "0") == Result(1, "", "")
    assert typed(url, "migrate", "-v", "0") == Result(
        1,
        "",
        "The database, or this role in it, is set to be read only. Unset it: ALTER DATABASE"
        " … RESET default_transaction_read_only; or the same with ALTER ROLE. Nothing has"
        " been changed; see all of it with: python manage.py preflight\n",
    )


def test_a_session_that_may_only_read(migrated: Database, manage: Manage) -> None:
    options = {
        **connections.databases["default"]["OPTIONS"],
        "options": "-c default_transaction_read_only=on",
    }
    for command in ("rollback_migration", "copy_models_to_assets", "settle"):
        more = ("--yes",) if command == "rollback_migration" else ()
        with connecting(OPTIONS=options):
            assert manage("migration_status", "-v", "0").code == 0
            result = manage(command, *more)
        assert (result.code, result.out) == (2, ""), command
        assert result.err.startswith("The database may only be read: cannot execute ")
        assert result.err.endswith(
            " in a read-only transaction. Connect to the primary, or unset"
            " default_transaction_read_only for the role and the database.\n"
        )
        assert result.err.count("\n") == 1


def test_commands_take_the_time_they_need(
    shop: Database, administrator: psycopg.Connection[Any]
) -> None:
    """What is set for the shop's statements would end a copy, a proof or an index."""
    for setting in ("statement_timeout", "idle_session_timeout"):
        administrator.execute(f"ALTER DATABASE {shop.name} SET {setting} = '30s'")
    ask = (
        "from django.db import connection; cursor = connection.cursor();"
        " cursor.execute('SHOW statement_timeout'); print(cursor.fetchone());"
        " cursor.execute('SHOW idle_session_timeout'); print(cursor.fetchone())"
    )
    result = typed(url_of(shop.cluster, shop.name), "shell", "-v", "0", "-c", ask)
    assert result == Result(0, "('0',)\n('0',)\n", "")


# --- interrupted ---------------------------------------------------------------------------


def wait_for_line(process: subprocess.Popen[str], part: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if part in line:
            return
    raise AssertionError(f"{part!r} was never said")


@pytest.fixture
def in_the_way(shop: Database) -> psycopg.Connection[Any]:
    """A transaction of the project's own that has written to orders."""
    other = shop.connect(application_name="terrain")
    other.execute("BEGIN")
    other.execute("LOCK TABLE orders IN ROW EXCLUSIVE MODE")
    return other


def test_ctrl_c_in_the_middle_of_migrate(
    shop: Database, in_the_way: psycopg.Connection[Any], manage: Manage
) -> None:
    """It ends in a sentence; the same command goes on."""
    url = url_of(shop.cluster, shop.name)
    with popen(url, "migrate") as process:
        wait_for_line(
            process, "Putting the triggers on orders and orders has waited for "
        )
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.endswith("\nStopped. Run the same command again to go on.\n")
    assert "Traceback" not in err
    in_the_way.execute("COMMIT")
    result = typed(url, "migrate", "-v", "0")
    assert (result.code, result.out) == (0, "")
    assert "Traceback" not in result.err
    assert manage("verify_migration", "-v", "0").code == 0


def test_ctrl_c_whose_cancellation_comes_late(
    shop: Database, manage: Manage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It meets a statement of the tidying up: that is no failure of the database's."""

    def handle(self: Any, **_: Any) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            with connections["default"].cursor() as cursor:
                cursor.execute(
                    "SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(9)"
                )

    monkeypatch.setattr(migration_status.Command, "handle", handle)
    result = manage("migration_status")
    assert result.code == 130
    assert result.err == "\nStopped. Run the same command again to go on.\n"


def test_a_connection_that_is_lost_in_the_middle_of_migrate(
    shop: Database, in_the_way: psycopg.Connection[Any], manage: Manage
) -> None:
    url = url_of(shop.cluster, shop.name)
    with popen(url, "migrate") as process:
        wait_for_line(
            process, "Putting the triggers on orders and orders has waited for "
        )
        in_the_way.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        _out, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert err.strip().splitlines()[-1].startswith("The database cannot be used: ")
    assert err.endswith("Run the same command again when it can.\n")
    assert "Traceback" not in err
    in_the_way.execute("COMMIT")
    assert typed(url, "migrate", "-v", "0").code == 0
    assert manage("verify_migration", "-v", "0").code == 0


def test_a_killed_migrate_is_gone_on_with(
    shop: Database, in_the_way: psycopg.Connection[Any], manage: Manage
) -> None:
    url = url_of(shop.cluster, shop.name)
    with popen(url, "migrate") as process:
        wait_for_line(
            process, "Putting the triggers on orders and orders has waited for "
        )
        process.kill()
        process.communicate(timeout=30)
    in_the_way.execute("COMMIT")
    assert json.loads(manage("migration_status", "--json").out)["next"] == "migrate"
    assert typed(url, "migrate", "-v", "0").code == 0
    assert manage("verify_migration", "-v", "0").code == 0


# --- what is no business of the database's -------------------------------------------------


def test_a_reader_that_goes_away(legacy_template: str) -> None:
    """lens | head -1"""
    with popen("postgresql:///none?host=/nowhere", "lens") as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "artists → users\n"
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=30)
    assert "Traceback" not in err
    assert "Exception ignored" not in err


def test_lens_needs_no_database() -> None:
    for arguments in (("lens", "artists"), ("lens", "artists", "--sql")):
        result = typed("postgresql:///none?host=/nowhere", *arguments)
        assert (result.code, result.err) == (0, "")
        assert "display_name" in result.out


def test_a_command_that_is_not_there() -> None:
    result = typed("postgresql:///none?host=/nowhere", "migrat")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "Unknown command: 'migrat'. Did you mean migrate?\n"
        "Type 'manage.py help' for usage.\n"
    )


def test_runserver_does_not_start_without_a_database() -> None:
    """With its reloader: that would print a traceback and wait for files to change."""
    assert typed("postgresql:///shop?host=/nowhere", "runserver", "0") == Result(
        2,
        "",
        "The database cannot be used: connection to server on socket"
        f' "/nowhere/.s.PGSQL.5432" failed: No such file or directory. {WHERE}\n',
    )


def test_runserver_says_that_migrations_are_not_applied(shop: Database) -> None:
    """Against a shop that has not been migrated it serves, and says so; no traceback."""
    url = url_of(shop.cluster, shop.name)
    with popen(url, "runserver", "--noreload", "0", PYTHONUNBUFFERED="1") as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "Quit the server" in line:
                break
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=30)
    assert "Run 'python manage.py migrate' to apply them." in said
    assert "Traceback" not in said + err


def test_python_without_the_project_s_needs(tmp_path: Path) -> None:
    """Outside the virtual environment: what to type, and no traceback."""
    result = subprocess.run(
        [sys.executable, "-S", str(settings.BASE_DIR / "manage.py"), "migrate"],
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr == (
        "No module named 'django'. Install what the project needs with: make install (or"
        " activate the virtual environment: . .venv/bin/activate).\n"
    )


def test_a_superuser_who_is_there_already(
    migrated: Database, manage: Manage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "a long password")
    command = ("createsuperuser", "--noinput", "--email", "a@example.com")
    assert manage(*command).code == 0
    result = manage(*command)
    assert (result.code, result.err) == (
        1,
        "There is an account with this address already. Give another one, or set its"
        " password with: python manage.py changepassword ADDRESS\n",
    )


@pytest.mark.parametrize(
    ("password", "sentence"),
    [
        ("pass@word", "DATABASE_URL has more than one @."),
        ("50%!secret", "DATABASE_URL cannot be read."),
    ],
)
def test_a_password_with_special_characters(password: str, sentence: str) -> None:
    """What is said shows no part of it."""
    result = typed(f"postgresql://me:{password}@localhost/shop", "migration_status")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"{sentence} If the password has special characters, write @ as %40, / as %2F,"
        f" # as %23 and % as %25. {FORM}\n"
    )
