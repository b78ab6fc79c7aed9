"""How the site stands in the world: health, headers, sign-in, logs, settings."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import Client

from terrain import logs
from terrain.embedded import OWNER
from terrain.models import User
from tests.conftest import Database, connecting

ROOT = Path(__file__).resolve().parent.parent

#: An environment as deploy/systemd has it.
PRODUCTION = {
    "DATABASE_URL": f"postgresql://{OWNER}:secret@db.example.com/terrain_builder",
    "SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJKLMNOP-0123456789",
    "ALLOWED_HOSTS": "shop.example.com",
    "PROXY_COUNT": "1",
    "HTTPS": "true",
    "HSTS_SECONDS": "31536000",
}


def in_environment(
    environment: dict[str, str], *command: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with these variables and no other settings of the project's."""
    kept = {
        name: os.environ[name]
        for name in ("PATH", "HOME", "LANG")
        if name in os.environ
    }
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


# --- health ---------------------------------------------------------------------------------


def ready(client: Client | None = None) -> tuple[int, Any]:
    response = (client or Client()).get("/health/ready")
    return response.status_code, response.json()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks may know what is wrong."""
    monkeypatch.setattr(settings, "METRICS_NETWORKS", ["127.0.0.1/32"])


def test_alive_is_alive_without_a_database(migrated: Database) -> None:
    with connecting(HOST="/nowhere", OPTIONS={}):
        response = Client().get("/health/live")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert "no-store" in response["Cache-Control"]


def test_ready_with_all_migrations_applied(migrated: Database, told: None) -> None:
    assert ready() == (
        200,
        {
            "status": "ok",
            "checks": {"database": "ok", "migrations": "ok", "backup": "ok"},
        },
    )
    assert Client().head("/health/ready").status_code == 200
    assert Client().post("/health/ready").status_code == 405


def test_not_ready_without_a_database(migrated: Database, told: None) -> None:
    with connecting(HOST="/nowhere", OPTIONS={}):
        status, found = ready()
    assert status == 503
    assert found["status"] == "unavailable"
    assert found["checks"]["migrations"] == "Unavailable: The database does not answer."
    assert "/nowhere" in found["checks"]["database"] or found["checks"]["database"]


def test_not_ready_after_a_rollback(migrated: Database, told: None) -> None:
    call_command("rollback_migration", yes=True, verbosity=0)
    status, found = ready()
    assert status == 503
    assert re.fullmatch(
        r"Unavailable: Migrations to apply: \d+, the first is legacy\.0002_make_schemas\."
        r" Run: python manage\.py migrate",
        found["checks"]["migrations"],
    )


def test_an_old_backup_is_told_and_takes_nothing_down(
    migrated: Database,
    told: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settings, "BACKUP_DIR", tmp_path)
    monkeypatch.setattr(settings, "BACKUP_MAX_AGE_HOURS", 26)
    status, found = ready()
    assert (status, found["status"]) == (200, "ok")
    assert found["checks"]["backup"] == (
        "Warning: There is no proven backup. Run: python manage.py backup_database"
    )


def test_the_world_learns_the_status_and_no_more(
    migrated: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "METRICS_NETWORKS", [])
    assert ready() == (200, {"status": "ok"})


# --- headers --------------------------------------------------------------------------------


def test_headers_of_a_page(shared: Database) -> None:
    response = Client().get("/admin/login/")
    assert response.status_code == 200
    policy = response["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "object-src 'none'" in policy
    assert "unsafe" not in policy
    assert response["X-Frame-Options"] == "DENY"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Referrer-Policy"] == "same-origin"
    assert re.fullmatch("[0-9a-f]{32}", response["X-Request-ID"])


def test_static_files_are_served_by_the_application(shared: Database) -> None:
    response = Client().get("/static/terrain/pages.css")
    assert response.status_code == 200
    assert b"".join(response.streaming_content)  # type: ignore[attr-defined]
    response.close()


# --- signing in -----------------------------------------------------------------------------


def attempt(name: str, password: str, address: str = "203.0.113.9") -> int:
    client = Client(REMOTE_ADDR="10.0.0.1")
    response = client.post(
        "/admin/login/",
        {"username": name, "password": password},
        headers={"X-Forwarded-For": f"6.6.6.6, {address}"},
    )
    return response.status_code


def test_who_guesses_passwords_is_made_to_wait(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "AXES_ENABLED", True)
    monkeypatch.setattr(settings, "PROXY_COUNT", 1)
    User.objects.create_user(
        "boss@shop.example", "right horse battery", role=User.Role.ADMIN
    )
    for _ in range(settings.AXES_FAILURE_LIMIT - 1):
        assert attempt("boss@shop.example", "wrong") == 200
    assert attempt("boss@shop.example", "wrong") == 429
    # Not even with the right one, and not by spelling the name in another way.
    assert attempt("boss@shop.example", "right horse battery") == 429
    assert attempt(" BOSS@shop.example", "right horse battery") == 429
    # Somebody else at another address is not locked out, nor another name at this one.
    assert attempt("boss@shop.example", "right horse battery", "203.0.113.10") == 302
    assert attempt("other@shop.example", "wrong") == 200


def test_the_page_that_says_so(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "AXES_ENABLED", True)
    monkeypatch.setattr(settings, "AXES_FAILURE_LIMIT", 1)
    response = Client().post(
        "/admin/login/", {"username": "a@b.example", "password": "x"}
    )
    assert response.status_code == 429
    assert "This name and password were wrong too often." in response.content.decode()


# --- logs -----------------------------------------------------------------------------------


@pytest.fixture
def lines() -> Any:
    """What is logged as JSON meanwhile, parsed."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.Json())
    handler.addFilter(logs.AddRequestId())
    root, access = logging.getLogger(), logging.getLogger("terrain.access")
    level = access.level
    root.addHandler(handler)
    access.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    access.setLevel(level)
    root.removeHandler(handler)


def test_each_request_is_one_object_on_one_line(shared: Database, lines: Any) -> None:
    response = Client().get("/health/live?q=secret%0asearch", REMOTE_ADDR="192.0.2.1")
    (line,) = lines()
    assert line.pop("time")
    assert line.pop("milliseconds") >= 0
    assert line == {
        "level": "INFO",
        "logger": "terrain.access",
        "message": "GET /health/live 200",
        "request_id": response["X-Request-ID"],
        "method": "GET",
        "path": "/health/live",
        "status": 200,
        "client": "192.0.2.1",
    }


def test_whatever_is_logged_meanwhile_has_the_requests_id(
    migrated: Database, lines: Any
) -> None:
    call_command("rollback_migration", yes=True, verbosity=0)
    response = Client().get("/admin/login/", {"next": "/admin/"})
    Client().post("/admin/login/", {"username": "a@b.example", "password": "x"})
    found = lines()
    assert {line["logger"] for line in found} >= {"terrain.access", "terrain.unready"}
    assert all(line.get("request_id") for line in found if "terrain" in line["logger"])
    assert [
        line for line in found if line.get("request_id") == response["X-Request-ID"]
    ]


@pytest.mark.parametrize(
    ("proxies", "given", "taken"),
    [
        (1, "abcdef0123456789", True),
        (0, "abcdef0123456789", False),
        (1, "short", False),
        (1, 'forged" , "level": "INFO', False),
        (1, "x" * 65, False),
    ],
)
def test_an_id_is_taken_from_a_proxy_of_ours(
    shared: Database,
    monkeypatch: pytest.MonkeyPatch,
    proxies: int,
    given: str,
    taken: bool,
) -> None:
    monkeypatch.setattr(settings, "PROXY_COUNT", proxies)
    response = Client().get("/health/live", headers={"X-Request-ID": given})
    assert (response["X-Request-ID"] == given) is taken


# --- settings -------------------------------------------------------------------------------


def test_a_production_environment_has_nothing_to_be_warned_of() -> None:
    checked = in_environment(
        PRODUCTION, "manage.py", "check", "--deploy", "--fail-level", "WARNING"
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.startswith("System check identified no issues")


@pytest.mark.parametrize(
    ("name", "setting", "sentence"),
    [
        (
            "METRICS_NETWORKS",
            "10.0.0.1/8",
            "METRICS_NETWORKS cannot be read: 10.0.0.1/8 has host bits set. Write networks"
            " with commas between them: 127.0.0.1/32,10.0.0.0/8.",
        ),
        ("LOG_FORMAT", "xml", "LOG_FORMAT is 'xml'. It is either json or text."),
    ],
)
def test_a_setting_that_cannot_be_read_is_a_sentence(
    name: str, setting: str, sentence: str
) -> None:
    checked = in_environment({**PRODUCTION, name: setting}, "manage.py", "check")
    assert (checked.returncode, checked.stderr) == (2, sentence + "\n")


def test_every_variable_is_in_the_example_and_no_other() -> None:
    read = set()
    for file in ("terrain/settings.py", "deploy/gunicorn.conf.py"):
        source = (ROOT / file).read_text()
        read |= set(re.findall(r"env\.\w+\(\s*\"([A-Z_]+)\"", source))
        read |= set(re.findall(r"environ\.(?:get|setdefault)\(\"([A-Z_]+)\"", source))
    example = (ROOT / ".env.example").read_text()
    assert set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE)) == read
