"""The old application through pgbouncer in transaction mode, without prepared statements.

Each of its transactions may be given another of the pool's connections to the server, and
those outlive the clients: what reaches them, and when, is what this is about.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench import remembered, traffic
from bench.told import Shop
from tests import pooler
from tests.conftest import OLD_ROLE, Database, Result
from tests.pooler import Pooler
from tests.test_old_application import answers, assert_in_step

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]


@pytest.fixture
def pool(shop: Database) -> Iterator[Pooler]:
    with pooler.in_front_of(shop.cluster) as made:
        yield made


def wait_for_new_connections(pool: Pooler, pids: set[int]) -> None:
    """Until none of these processes is a connection of the pool's any more."""
    deadline = time.monotonic() + 10
    while pids & {
        int(row["remote_pid"]) for row in pool_servers(pool) if row["remote_pid"]
    }:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def pool_servers(pool: Pooler) -> list[dict[str, Any]]:
    import psycopg
    from psycopg.rows import dict_row

    with psycopg.connect(
        host=str(pool.folder),
        port=pooler.PORT,
        dbname="pgbouncer",
        user=pooler.CONSOLE,
        autocommit=True,
        cursor_factory=psycopg.ClientCursor,
        row_factory=dict_row,
    ) as connection:
        return connection.execute("SHOW SERVERS").fetchall()


def path(connection: Any) -> tuple[str, int]:
    """The search path of whichever connection the pool gives, and its process."""
    found: tuple[str, int] = connection.execute(
        "SELECT current_setting('search_path'), pg_backend_pid()"
    ).fetchone()
    return found


def test_the_path_reaches_a_pools_connections_when_they_are_recycled(
    shop: Database, pool: Pooler, manage: Manage
) -> None:
    """Not by itself, not by the pool's reset query: the setting is read as a session begins."""
    client = pool.connect(shop.name)
    before, pid = path(client)
    assert before == '"$user", public'

    prepared = manage("prepare_database")
    assert prepared.code == 0
    assert f"    process {pid}: role {OLD_ROLE}" in prepared.out
    assert path(client) == (before, pid)
    client.execute("DISCARD ALL")
    assert path(client) == (before, pid)
    asked = manage("preflight")
    assert asked.code == 1
    assert "Sessions are older than the search path" in asked.out
    assert f"process {pid}" in asked.out

    pool.console("RECONNECT")
    wait_for_new_connections(pool, {pid})
    after, other = path(client)
    assert (after, other != pid) == ("legacy, public", True)
    assert manage("preflight").code == 0
    assert manage("migrate", "-v0") == Result(0, "", "")
    assert client.execute("SELECT count(*) FROM orders").fetchone() != (0,)


def test_the_same_answers_before_during_and_after(
    shop: Database,
    pool: Pooler,
    clone: Callable[[str], Database],
    manage: Manage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole script before and after; and a load of its statements meanwhile."""
    monkeypatch.setattr("bench.shop.CLUSTER", shop.cluster)
    template = shop.name
    expected = answers(clone(template).old())
    database = clone(template)
    before = remembered.Before(template)
    client = pool.connect(database.name)
    pids = {path(client)[1]}
    assert manage("prepare_database").code == 0
    pool.console("RECONNECT")
    wait_for_new_connections(pool, pids)

    with database.connect("terrain", "public") as asked:
        found = Shop.of(asked)
    ended = threading.Event()
    clients = [
        traffic.Client(pool.connect(database.name), found, number)
        for number in range(6)
    ]

    def work(client: traffic.Client) -> None:
        while not ended.wait(0.01):
            client.act()

    threads = [threading.Thread(target=work, args=[client]) for client in clients]
    for thread in threads:
        thread.start()
    try:
        for command in ("migrate", "rollback_migration", "migrate", "settle"):
            arguments = ("--yes",) if command == "rollback_migration" else ("-v0",)
            assert manage(command, *arguments).code == 0
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    told = clients[0].told
    for other in clients[1:]:
        told.merge(other.told)
    assert told.refused == []
    assert manage("settle").code == 0  # what has become late since it was run
    with database.connect("terrain", "public") as seen:
        assert [*remembered.faults(seen, "legacy", before, told)] == []
        assert [*remembered.disagreements(seen)] == []

    migrated = clone(template)
    assert manage("migrate", "-v0").code == 0
    assert answers(pool.connect(migrated.name)) == expected
    assert_in_step()
