"""The old application through pgbouncer in transaction mode, without prepared statements.

Each of its transactions may be given another of the pool's connections to the server, and
those outlive the clients: what reaches them, and when, is what this is about.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench import remembered, traffic
from bench.told import Shop
from terrain.embedded import OWNER
from terrain.legacy.mapping import LENSES
from tests import pooler
from tests.conftest import OLD_ROLE, Database, Result
from tests.pooler import Pooler
from tests.test_old_application import answers, assert_in_step

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]
LEGACY_TABLES = [lens.legacy for lens in LENSES]


@pytest.fixture
def pool(shop: Database) -> Iterator[Pooler]:
    with pooler.in_front_of(shop.cluster) as made:
        yield made


def place(connection: Any) -> tuple[str, str, int]:
    """The search path and the schema of whichever connection the pool gives, and its process."""
    found: tuple[str, str, int] = connection.execute(
        "SELECT current_setting('search_path'), current_schema(), pg_backend_pid()"
    ).fetchone()
    return found


def test_a_pools_connections_live_through_all_of_it(
    shop: Database, pool: Pooler, manage: Manage
) -> None:
    """Nothing is recycled, nor reset: there and back, cut over and back."""
    client = pool.connect(shop.name)
    before = place(client)
    assert before[:2] == ('"$user", public', "public")
    counts = {
        table: client.execute(f"SELECT count(*) FROM {table}").fetchone()  # type: ignore[arg-type]
        for table in LEGACY_TABLES
    }
    # The pool keeps its connection, idle, and that is all that a plain owner sees.
    for command in (
        ("preflight",),
        ("migrate", "-v0"),
        ("rollback_migration", "--yes"),
        ("migrate", "-v0"),
        ("cut_over", "--yes", "--ignore-activity"),
        ("cut_over", "--undo", "--yes"),
    ):
        done = manage(*command)
        assert (done.code, done.err) == (0, ""), command
        if "--ignore-activity" in command:
            continue
        assert place(client) == before, command
        for table, count in counts.items():
            asked = client.execute(f"SELECT count(*) FROM {table}")  # type: ignore[arg-type]
            assert asked.fetchone() == count, (command, table)


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
    assert place(client)[:2] == ('"$user", public', "public")

    with database.connect(OWNER, "public") as asked:
        found = Shop.of(asked)
        asked.execute(f"GRANT CREATE ON SCHEMA public TO {OLD_ROLE}")
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
    with database.connect(OWNER, "public") as seen:
        assert [*remembered.faults(seen, "public", before, told)] == []
        assert [*remembered.disagreements(seen)] == []

    migrated = clone(template)
    assert manage("migrate", "-v0").code == 0
    assert answers(pool.connect(migrated.name)) == expected
    assert_in_step()
