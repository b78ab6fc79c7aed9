"""Restarting the web server, with clients at it meanwhile: no request fails."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.conftest import Database
from tests.waiting import until
from tests.webserver import PATIENCE, Load, Server, serving

#: One that needs no database, one that asks it, one that renders a page.
PATHS = ["/health/live", "/health/ready", "/admin/login/"]


def workers(process: int) -> set[int]:
    """The processes that answer requests."""
    children = Path(f"/proc/{process}/task/{process}/children")
    return set(map(int, children.read_text().split()))


@pytest.fixture
def server(shared: Database, tmp_path: Path) -> Server:  # type: ignore[misc]
    with serving(shared, tmp_path / "log") as made:
        yield made


def test_reloading_the_code_fails_no_request(server: Server) -> None:
    """What ``systemctl reload terrain`` does: HUP."""
    (process,) = server.processes
    with Load(server, PATHS) as load:
        for _ in range(3):
            load.some_more()
            before = workers(process.pid)
            assert before
            process.send_signal(signal.SIGHUP)
            until(
                lambda before=before: workers(process.pid)  # type: ignore[misc]
                and not workers(process.pid) & before,
                "other workers",
                seconds=PATIENCE,
            )
        load.some_more()
    assert load.failures == []
    assert set(load.answers) == {200}


def test_a_restart_of_the_service_fails_no_request(server: Server) -> None:
    """What ``systemctl restart terrain`` does: the socket stays, and whoever comes waits."""
    with Load(server, PATHS) as load:
        for _ in range(2):
            load.some_more()
            server.processes[-1].terminate()
            assert server.processes[-1].wait(60) == 0
            server.start()
            load.some_more()
    assert load.failures == []
    assert set(load.answers) == {200}


def test_what_it_logs_is_json(server: Server) -> None:
    assert server.get("/health/live")[0] == 200
    until(
        lambda: "terrain.access" in server.log.read_text(),
        "the line of the request",
        seconds=PATIENCE,
    )
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert {"gunicorn.error", "terrain.access"} <= {line["logger"] for line in lines}
    request = next(line for line in lines if line["logger"] == "terrain.access")
    assert request["status"] == 200 and request["request_id"]
