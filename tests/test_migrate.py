"""The move itself, from every starting point, killed at every kind of instant, and back."""

from __future__ import annotations

import io
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection

from terrain import locks, pace
from terrain.embedded import OWNER
from terrain.legacy import cleanup, copying, cut_over, engine, ledger, sql
from terrain.legacy.mapping import BY_LEGACY, LENSES
from terrain.legacy.models import Batch, Run
from tests import dumps
from tests.conftest import Database, Result
from tests.legacy import artist, ids, insert, key
from tests.small import SMALL_SHOP

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]
LEGACY_TABLES = [lens.legacy for lens in LENSES]
#: What has pg_dump tell of the legacy tables alone, before a cut-over.
ONLY_LEGACY = [f"--table=public.{name}" for name in LEGACY_TABLES]


@pytest.fixture
def small(shop: Database) -> Database:
    """A legacy database with so few rows that migrating it takes a second."""
    shop.execute(f"TRUNCATE {', '.join(LEGACY_TABLES)}")
    with shop.connect(OWNER, "public") as owner:
        insert(owner, *SMALL_SHOP)
    return shop


@pytest.fixture
def short_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "FIRST_BATCH", 2)
    monkeypatch.setattr(pace, "LARGEST_BATCH", 3)


def killed_at(
    database: Database, last: int, *command: str, **environment: str
) -> tuple[int, str]:
    """Run a command in a process that kills itself at its last commit; exit code, output."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.killed", database.name, str(last), *command],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stdout + done.stderr


def wait_until_gone(database: Database) -> None:
    """Until the server has noticed that the client is no more."""
    deadline = time.monotonic() + 10
    while database.rows(
        "SELECT FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'terrain'"
    ):
        assert time.monotonic() < deadline


def assert_whole(database: Database) -> None:
    """Nothing is missing, nothing differs, nothing waits (laws 2 and 3)."""
    for lens in LENSES:
        table = lens.legacy
        kept = "" if lens.part is None else " OR true"
        before = database.rows(
            f"SELECT l.id FROM @legacy.{table} l LEFT JOIN rebuilt.{table} r ON r.id = l.id"
            f" WHERE (NOT EXISTS (SELECT FROM legacy_quarantine q WHERE q.kind = 'held'"
            f" AND q.legacy_table = '{table}' AND q.legacy_id = l.id){kept}) AND r.id IS NULL"
        )
        assert before == [], table
    with connection.cursor() as cursor:
        for lens in LENSES:
            cursor.execute(sql.differences(lens), {"after": None, "upto": None})
            assert cursor.fetchall() == [], lens.legacy


# --- the four starting points --------------------------------------------------------------


def test_from_a_legacy_database(shop: Database, manage: Manage) -> None:
    before = {name: dumps.rows(shop, f"public.{name}") for name in LEGACY_TABLES}
    assert dumps.schemas(shop) == {"public"}
    assert manage("migrate", "-v0") == Result(0, "", "")
    assert {
        name: dumps.rows(shop, f"public.{name}") for name in LEGACY_TABLES
    } == before
    assert dumps.schemas(shop) == {"public", "terrain", "rebuilt"}
    assert_whole(shop)
    assert shop.value("SELECT count(*) FROM rebuilt.queue") == 0


def test_from_an_empty_database(empty: Database, manage: Manage) -> None:
    """Nothing legacy is left behind, not even a schema."""
    assert manage("migrate", "-v0").code == 0
    assert dumps.schemas(empty) == {"public"}
    assert (
        empty.rows(
            "SELECT FROM pg_db_role_setting WHERE setdatabase ="
            " (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        == []
    )
    assert not [line for line in dumps.schema(empty) if "zz_terrain_sync" in line]


def test_from_one_interrupted_in_python(
    small: Database,
    manage: Manage,
    monkeypatch: pytest.MonkeyPatch,
    short_batches: None,
) -> None:
    """Ctrl-C in the middle of the orders: paused, and gone on with."""
    whole, batches = copying._copy_range, iter(range(100))

    def interrupted(connection: Any, work: copying.Work, *rest: Any) -> None:
        if work.lens.legacy == "orders" and next(batches) == 2:
            raise KeyboardInterrupt
        whole(connection, work, *rest)

    monkeypatch.setattr(copying, "_copy_range", interrupted)
    stopped = manage("migrate", "-v0")
    assert (stopped.code, stopped.err) == (
        130,
        "\nStopped. Run the same command again to go on.\n",
    )
    assert small.value("SELECT count(*) FROM terrain.orders") == 5
    monkeypatch.undo()
    assert manage("migrate", "-v0").code == 0
    assert_whole(small)


def test_from_one_that_was_rolled_back(migrated: Database, manage: Manage) -> None:
    before = dumps.contents(migrated)
    definitions = dumps.schema(migrated)
    assert manage("rollback_migration", "--yes").code == 0
    assert manage("migrate", "-v0") == Result(0, "", "")
    assert dumps.contents(migrated) == before
    assert dumps.schema(migrated) == definitions
    assert dumps.schemas(migrated) == {"public", "terrain", "rebuilt"}


# --- again ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("migrate",), ("settle",)], ids=" ".join)
def test_run_again_it_changes_nothing(
    migrated: Database, manage: Manage, command: tuple[str, ...]
) -> None:
    before = dumps.contents(migrated), dumps.schema(migrated)
    assert manage(*command).code == 0
    assert (dumps.contents(migrated), dumps.schema(migrated)) == before


@pytest.mark.parametrize(
    "first",
    [("cut_over", "--yes"), ("prepare_database",)],
    ids=" ".join,
)
@pytest.mark.parametrize("undo", [(), ("--undo",)], ids=["", "undo"])
def test_done_twice_it_is_as_done_once(
    migrated: Database, manage: Manage, first: tuple[str, ...], undo: tuple[str, ...]
) -> None:
    assert manage(*first).code == 0
    command = (*first, *undo)
    assert manage(*command).code == 0
    before = dumps.contents(migrated), dumps.schema(migrated)
    settings = database_settings(migrated)
    assert manage(*command).code == 0
    assert (dumps.contents(migrated), dumps.schema(migrated)) == before
    assert database_settings(migrated) == settings


def test_an_asset_in_an_order_is_deleted_while_the_shop_is_rolled_back(
    migrated: Database, manage: Manage
) -> None:
    """The line that returns refers to nothing, in a table that is still closed."""
    line = migrated.rows(
        "SELECT i.id, i.model_id FROM terrain.order_items i"
        "  JOIN public.assets a ON a.id = i.model_id LIMIT 1"
    )[0]
    assert manage("rollback_migration", "--yes", "-v0").code == 0
    migrated.execute(f"DELETE FROM assets WHERE id = '{line[1]}'")
    result = manage("migrate", "-v0")
    assert (result.code, result.err) == (0, "")
    assert migrated.rows(
        f"SELECT model_id FROM terrain.order_items WHERE id = '{line[0]}'"
    ) == [(None,)]
    assert manage("verify_migration", "-v0").code == 0


def test_rolled_back_again_it_changes_nothing(
    migrated: Database, manage: Manage
) -> None:
    assert manage("rollback_migration", "--yes").code == 0
    before = dumps.schema(migrated)
    again = manage("rollback_migration", "--yes")
    assert again == Result(0, "There is nothing to roll back.\n", "")
    assert dumps.schema(migrated) == before


# --- killed --------------------------------------------------------------------------------


@pytest.fixture
def undisturbed(small: Database, clone: Callable[[str], Database]) -> Iterator[Any]:
    """What an undisturbed run makes: commits, contents and definitions."""
    database = clone(small.name)
    code, printed = killed_at(database, 0, "migrate", "-v0")
    assert code == 0, printed
    yield int(printed.split()[-1]), dumps.contents(database), dumps.schema(database)


def sampled(commits: int, number: int) -> range:
    """So many of the commits, evenly."""
    number = int(os.environ.get("KILLS", number))
    step = max(1, commits // number)
    return range(1 + step // 2, commits, step)


def test_killed_at_any_commit_and_run_again_it_is_as_if_undisturbed(
    small: Database, undisturbed: Any, clone: Callable[[str], Database]
) -> None:
    """Also when the second run is killed.  KILLS=250 looks at every commit."""
    commits, contents, definitions = undisturbed
    assert commits > 150
    for last in sampled(commits, 3):
        database = clone(small.name)
        for moment in (last, max(1, (commits - last) // 2)):
            code, printed = killed_at(database, moment, "migrate", "-v0")
            assert code == -signal.SIGKILL, f"commit {last}: {printed}"
            wait_until_gone(database)
        code, printed = killed_at(database, 0, "migrate", "-v0")
        assert code == 0, f"commit {last}: {printed}"
        assert dumps.contents(database) == contents, f"commit {last}"
        assert dumps.schema(database) == definitions, f"commit {last}"


def test_killed_at_any_commit_it_can_be_rolled_back(
    small: Database, undisturbed: Any, clone: Callable[[str], Database]
) -> None:
    commits, *_ = undisturbed
    definitions = dumps.schema(small, *ONLY_LEGACY)
    rows = {name: dumps.rows(small, f"public.{name}") for name in LEGACY_TABLES}
    for last in sampled(commits, 2):
        database = clone(small.name)
        assert killed_at(database, last, "migrate", "-v0")[0] == -signal.SIGKILL
        wait_until_gone(database)
        code, printed = killed_at(database, 0, "rollback_migration", "--yes")
        assert code == 0, f"commit {last}: {printed}"
        assert dumps.schema(database, *ONLY_LEGACY) == definitions, f"commit {last}"
        for name in LEGACY_TABLES:
            assert dumps.rows(database, f"public.{name}") == rows[name]


def test_rolled_back_while_the_triggers_are_put_on(
    small: Database, manage: Manage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Django has not written down the migration then that puts them on."""
    definitions = dumps.schema(small, *ONLY_LEGACY)
    puts = engine.keep_in_step

    def interrupted(connection: Any, lens: Any, *rest: Any) -> None:
        if lens.legacy == "orders":
            raise KeyboardInterrupt
        puts(connection, lens, *rest)

    monkeypatch.setattr(engine, "keep_in_step", interrupted)
    assert manage("migrate", "-v0").code == 130
    assert engine.our_triggers(connection, "@legacy.artists")
    assert not engine.our_triggers(connection, "@legacy.orders")
    monkeypatch.undo()
    done = manage("rollback_migration", "--yes")
    assert (done.code, done.err) == (0, "")
    assert dumps.schema(small, *ONLY_LEGACY) == definitions
    assert manage("migrate", "-v0").code == 0
    assert_whole(small)


def test_killed_at_any_commit_of_the_rollback_it_is_gone_on_with(
    small: Database, undisturbed: Any, clone: Callable[[str], Database]
) -> None:
    """Forward again only from an end of it: half-way back the tables are out of step."""
    _, contents, definitions = undisturbed
    there = clone(small.name)
    assert killed_at(there, 0, "migrate", "-v0")[0] == 0
    wait_until_gone(there)
    back = ("rollback_migration", "--yes")
    code, printed = killed_at(clone(there.name), 0, *back)
    assert code == 0, printed
    for last in sampled(int(printed.split()[-1]), 4):
        database = clone(there.name)
        assert killed_at(database, last, *back)[0] == -signal.SIGKILL
        wait_until_gone(database)
        code, printed = killed_at(database, 0, "migrate", "-v0")
        if code == 1:
            assert printed.partition("\n")[2] == (
                "A rollback was begun and has not ended, so the new tables are out of step"
                " or parked. Finish it with: python manage.py rollback_migration; then run"
                " migrate again.\n"
            ), f"commit {last}"
            assert killed_at(database, 0, *back)[0] == 0, f"commit {last}"
            code, printed = killed_at(database, 0, "migrate", "-v0")
        assert code == 0, f"commit {last}: {printed}"
        assert dumps.schema(database) == definitions, f"commit {last}"
        assert dumps.contents(database) == contents, f"commit {last}"


def test_killed_at_any_commit_on_the_way_back_it_can_go_either_way(
    small: Database, undisturbed: Any, clone: Callable[[str], Database]
) -> None:
    """Back, as if undisturbed; or forward again, if need be when it is back."""
    _, contents, definitions = undisturbed
    migrated = clone(small.name)
    assert killed_at(migrated, 0, "migrate", "-v0")[0] == 0
    back = ("rollback_migration", "--yes", "-v0")
    there = clone(migrated.name)
    code, printed = killed_at(there, 0, *back)
    assert code == 0, printed
    commits = int(printed.split()[-1])
    as_back = parked(there), dumps.schema(there)
    for last in sampled(commits, 1):
        for command in (back, ("migrate", "-v0")):
            database = clone(migrated.name)
            assert killed_at(database, last, *back)[0] == -signal.SIGKILL
            wait_until_gone(database)
            code, printed = killed_at(database, 0, *command)
            if command != back and "Finish it with" in printed:
                assert code == 1
                assert killed_at(database, 0, *back)[0] == 0
                code, printed = killed_at(database, 0, *command)
            assert code == 0, f"commit {last}: {printed}"
            if command == back:
                assert parked(database) == as_back[0], f"commit {last}"
                assert dumps.schema(database) == as_back[1], f"commit {last}"
            else:
                assert dumps.contents(database) == contents, f"commit {last}"
                assert dumps.schema(database) == definitions, f"commit {last}"


@pytest.mark.parametrize("undo", [False, True], ids=["cut over", "undo"])
def test_killed_at_any_commit_of_the_cut_over_it_is_gone_on_with(
    small: Database, undisturbed: Any, clone: Callable[[str], Database], undo: bool
) -> None:
    """All names have changed places, or none has; and then it can go either way."""
    _, contents, _ = undisturbed
    migrated = clone(small.name)
    assert killed_at(migrated, 0, "migrate", "-v0")[0] == 0
    before = dumps.schema(migrated)
    there = clone(migrated.name)
    forth, back = ("cut_over", "--yes"), ("cut_over", "--undo", "--yes")
    assert killed_at(there, 0, *forth)[0] == 0
    after = dumps.schema(there)
    start, command, other = (there, back, forth) if undo else (migrated, forth, back)
    as_done, as_was = (before, after) if undo else (after, before)
    code, printed = killed_at(clone(start.name), 0, *command)
    assert code == 0, printed
    commits = int(printed.split()[-1])
    for last in sampled(commits, 5):
        database = clone(start.name)
        assert killed_at(database, last, *command)[0] == -signal.SIGKILL
        wait_until_gone(database)
        assert dumps.schema(database) in (as_done, as_was), f"commit {last}"
        assert dumps.contents(database) == contents, f"commit {last}"
        assert_whole(database)
        connection.close()
        for again, definitions in ((command, as_done), (other, as_was)):
            code, printed = killed_at(database, 0, *again)
            assert code == 0, f"commit {last}: {printed}"
            assert dumps.schema(database) == definitions, f"commit {last}"
            assert dumps.contents(database) == contents, f"commit {last}"
        code, printed = killed_at(database, 0, "rollback_migration", "--yes")
        assert code == 0, f"commit {last}: {printed}"


def parked(database: Database) -> dict[str, Any]:
    """The rows of a database that was rolled back."""
    tables = database.rows(
        "SELECT schemaname || '.' || tablename FROM pg_tables WHERE"
        " schemaname = 'legacy_parked' OR schemaname = 'public' AND tablename = ANY (%s)",
        LEGACY_TABLES,
    )
    return {table: dumps.rows(database, table) for (table,) in tables}


@pytest.mark.parametrize("workers", [1, 2])
def test_after_a_lost_connection_at_most_one_batch_is_done_again(
    small: Database,
    manage: Manage,
    monkeypatch: pytest.MonkeyPatch,
    short_batches: None,
    administrator: Any,
    workers: int,
) -> None:
    """The server kills the session inside a batch; each worker has its own cursor."""
    monkeypatch.setattr(copying, "WORTH_SHARING", 1 if workers == 2 else 10**9)
    whole, seen, lost = copying._copy_range, [], []

    def losing(connection: Any, work: copying.Work, shard: Any, *rest: Any) -> None:
        if work.lens.legacy == "orders":
            seen.append(rest)
            if len(seen) == 3:
                lost.append(rest)
                pid = connection.connection.info.backend_pid
                administrator.execute("SELECT pg_terminate_backend(%s)", [pid])
        whole(connection, work, shard, *rest)

    monkeypatch.setattr(copying, "_copy_range", losing)
    assert manage("migrate", "-v0").code == 2
    wait_until_gone(small)
    assert manage("migrate", "-v0").code == 0
    twice = {batch for batch in seen if seen.count(batch) > 1}
    assert twice <= set(lost) | set(seen[3:4])
    assert_whole(small)
    run = ledger.last("copy orders")
    assert run is not None and run.state == Run.State.DONE
    assert len(set(run.batches.values_list("shard", flat=True))) == workers
    assert sum(run.batches.values_list("rows", flat=True)) == 10


# --- batches -------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 5, 6])
def test_sizes_that_cross_batches(
    small: Database, manage: Manage, short_batches: None, rows: int
) -> None:
    """Batches of two, then three: every row is copied once, none twice."""
    small.execute(f"TRUNCATE {', '.join(LEGACY_TABLES)}")
    with small.connect(OWNER, "public") as owner:
        insert(owner, *(artist(f"#artist{number}") for number in range(rows)))
    assert manage("migrate", "-v0").code == 0
    assert small.value("SELECT count(*) FROM users") == rows
    run = ledger.last("copy artists")
    assert run is not None
    sizes = list(run.batches.order_by("id").values_list("rows", flat=True))
    assert sum(sizes) == run.rows == rows
    assert all(size <= 3 for size in sizes)


def test_two_workers_make_what_one_makes(
    small: Database,
    clone: Callable[[str], Database],
    manage: Manage,
    monkeypatch: pytest.MonkeyPatch,
    short_batches: None,
) -> None:
    source = small.name
    made = []
    for worth_sharing in (10**9, 1):
        database = clone(source)
        monkeypatch.setattr(copying, "WORTH_SHARING", worth_sharing)
        assert manage("migrate", "-v0").code == 0
        made.append(dumps.contents(database))
        shards = Batch.objects.filter(run__step="copy orders").values_list("shard")
        assert len(set(shards)) == (2 if worth_sharing == 1 else 1)
    assert made[0] == made[1]


# --- beside the old application --------------------------------------------------------------


def in_thread(database: Database, statement: str) -> threading.Thread:
    """The old application runs a statement meanwhile."""
    old = database.old()
    thread = threading.Thread(target=old.execute, args=[ids(statement)])
    thread.start()
    return thread


def wait_until_waiting(database: Database) -> None:
    """Until somebody waits for a lock."""
    deadline = time.monotonic() + 10
    asked = database.superuser
    while not asked.execute(
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock'"
    ).fetchone():
        assert time.monotonic() < deadline


def during_the_batch_of(
    monkeypatch: pytest.MonkeyPatch, name: str, happens: Callable[[], None]
) -> None:
    """Something happens when the batch with this row is written and not yet committed."""
    store, upto = copying._store_cursor, key(name)

    def storing(connection: Any, work: copying.Work, shard: Any, *rest: Any) -> None:
        if work.lens.legacy == "artists" and (rest[0] or UUID(int=0)) < upto <= rest[1]:
            happens()
        store(connection, work, shard, *rest)

    monkeypatch.setattr(copying, "_store_cursor", storing)


#: Artists without anything, whose rows are in different batches.
EARLY, LATE = sorted(("#artist4", "#artist5", "#artist6"), key=key)[::2]


def test_a_delete_behind_the_cursor_does_not_come_back_to_life(
    small: Database,
    manage: Manage,
    monkeypatch: pytest.MonkeyPatch,
    short_batches: None,
) -> None:
    """The batch has read the row and not committed: nobody waits, the deletion is late."""
    deleted = []

    def delete() -> None:
        cursor = small.old().execute(ids(f"DELETE FROM artists WHERE id = '{EARLY}'"))
        deleted.append(cursor.rowcount)

    during_the_batch_of(monkeypatch, EARLY, delete)
    assert manage("migrate", "-v0").code == 0
    assert deleted == [1]
    assert small.rows("SELECT 1 FROM users WHERE id = %s", key(EARLY)) == []
    assert_whole(small)


def test_a_batch_beside_an_open_deletion_locks_its_rows_one_by_one(
    small: Database,
    manage: Manage,
    monkeypatch: pytest.MonkeyPatch,
    short_batches: None,
) -> None:
    """Somebody's transaction has deleted one row; another deletes one of the batch."""
    threads, upserts = [], []
    whole = copying._copy_range
    first = small.old()

    def copying_beside(connection: Any, work: copying.Work, *rest: Any) -> None:
        if work.lens.legacy == "artists" and not upserts:
            upserts.append(first.execute("BEGIN"))
            first.execute(ids(f"DELETE FROM artists WHERE id = '{LATE}'"))
        whole(connection, work, *rest)

    def delete() -> None:
        threads.append(in_thread(small, f"DELETE FROM artists WHERE id = '{EARLY}'"))
        wait_until_waiting(small)
        first.execute("COMMIT")

    monkeypatch.setattr(copying, "_copy_range", copying_beside)
    during_the_batch_of(monkeypatch, EARLY, delete)
    done = manage("migrate", "-v0")
    assert (done.code, done.err) == (0, "")
    threads[0].join()
    gone = [key(EARLY), key(LATE)]
    assert small.rows("SELECT 1 FROM users WHERE id = ANY (%s)", gone) == []
    assert_whole(small)


# --- there and back ------------------------------------------------------------------------

OLD_WRITES = (
    "UPDATE artists SET name = name || '!' WHERE id = '#artist{n}'",
    "UPDATE artists SET email = 'new{r}@artists.example' WHERE id = '#artist{n}'",
    "UPDATE artists SET email = 'buys{n}@shop.example' WHERE id = '#artist{n}'",
    "UPDATE assets SET base_price = base_price + 1 WHERE id = '#model{n}'",
    "DELETE FROM stripe_transfers WHERE id = '#transfer{n}'",
    "DELETE FROM orders WHERE id = '#order{n}' AND NOT EXISTS (SELECT FROM"
    " stripe_transfers t WHERE t.order_id = orders.id)",
    "UPDATE orders SET items = items || '[{{\"quantity\": {r}}}]' WHERE id = '#order{n}'",
    "UPDATE orders SET user_email = 'moved{n}@shop.example' WHERE id = '#order{n}'",
    "UPDATE orders SET items = '[{{\"quantity\": 3}}]' WHERE id = '#heldorder'",
    "UPDATE user_tables SET table_config = '{{}}' WHERE id = '#heldtable'",
    "UPDATE user_tables SET table_config = '[]' WHERE id = '#table{n}'",
    "UPDATE user_tables SET user_email = NULL WHERE id = '#table{n}'",
    "DELETE FROM user_tables WHERE id = '#table{n}'",
    "DELETE FROM artists a WHERE id = '#artist{n}' AND NOT EXISTS (SELECT FROM"
    " stripe_transfers t WHERE t.artist_id = a.id)",
    "INSERT INTO artists (id, email, password_hash, name)"
    " VALUES ('#artist{n}', 'again{n}@artists.example', '', 'Again') ON CONFLICT DO NOTHING",
    "INSERT INTO orders (order_number, user_email, user_name, shipping_address, pricing,"
    " items) VALUES ('R{r}', 'buys{r}@shop.example', 'R', '{{}}', '{{}}',"
    " '[{{\"quantity\": 1}}]') ON CONFLICT DO NOTHING",
    "UPDATE artists SET id = gen_random_uuid() WHERE id = '#artist6'",
)
NEW_WRITES = (
    "UPDATE users SET display_name = display_name || '?' WHERE id = '#artist{n}'",
    "UPDATE users SET role = 'artist' WHERE email = 'buys{n}@shop.example'",
    "UPDATE tables SET width = {r}, max_assets = {r} WHERE kind = 'user'"
    " AND id = '#table{n}'",
    "UPDATE order_items SET quantity = quantity + 1 WHERE order_id = '#order{n}'",
    "DELETE FROM order_items WHERE order_id = '#order{n}' AND position = 1",
    "INSERT INTO asset_sets (name, owner_id) SELECT 'Set {r}', id FROM users"
    " WHERE id = '#artist{n}'",
    "INSERT INTO tables (name, contact_email, plan)"
    " VALUES ('T{r}', 'sits{n}@at.example', 'pro')",
    "UPDATE models SET status = 'published' WHERE id = '#model{n}'",
)


def write(
    database: Database, rng: random.Random, statements: tuple[str, ...], user: str
) -> None:
    """A few statements of one application; what the database refuses is refused."""
    path = ", ".join(database.place.own) if user == OWNER else database.place.legacy
    with database.connect(user, path) as application:
        for _ in range(6):
            statement = rng.choice(statements).format(
                n=rng.randrange(5), r=rng.randrange(1, 1000)
            )
            try:
                application.execute(ids(statement))  # type: ignore[arg-type]
            except psycopg.Error as error:
                assert error.sqlstate in ("23505", "23503", "TB002"), statement


@pytest.mark.parametrize("seed", range(int(os.environ.get("WALKS", "2"))))
def test_a_walk_there_and_back(small: Database, manage: Manage, seed: int) -> None:
    """Both applications write; back; the old one writes on; forward again; and again."""
    rng = random.Random(seed)
    fresh = dumps.schema(small, *ONLY_LEGACY)
    for _ in range(2):
        done = manage("migrate", "-v0")
        assert (done.code, done.err) == (0, "")
        assert_settled(small)
        for _ in range(2):
            if rng.random() < 0.5:
                swap(manage)
            write(small, rng, OLD_WRITES, "shop_app")
            write(small, rng, NEW_WRITES, OWNER)
            if rng.random() < 0.5:
                assert manage("settle").code == 0
            assert_whole(small)
        legacy = {n: dumps.rows(small, f"@legacy.{n}") for n in LEGACY_TABLES}
        sets = dumps.rows(small, "@new.asset_sets")
        assert manage("rollback_migration", "--yes").code == 0
        assert fresh == dumps.schema(small, *ONLY_LEGACY)
        for name in LEGACY_TABLES:
            assert dumps.rows(small, f"public.{name}") == legacy[name]
        assert dumps.rows(small, "legacy_parked.asset_sets") == sets
        write(small, rng, OLD_WRITES, "shop_app")
    assert manage("migrate", "-v0").code == 0
    assert dumps.rows(small, "terrain.asset_sets") == sets
    assert_settled(small)


def swap(manage: Manage) -> None:
    """Cut over, or back, while the old application rests."""
    undo = ("--undo",) if cut_over.is_done(connection) else ("--ignore-activity",)
    done = manage("cut_over", "--yes", *undo)
    assert (done.code, done.err) == (0, "")


def assert_settled(database: Database) -> None:
    """In step, everybody who has an address has an account, and nothing waits."""
    assert_whole(database)
    assert database.value("SELECT count(*) FROM rebuilt.queue") == 0
    assert (
        database.rows(
            "SELECT id, customer_email FROM @new.orders"
            " WHERE user_id IS NULL AND customer_email LIKE '%%@%%'"
        )
        == []
    )
    assert (
        database.rows(
            "SELECT id, kind FROM tables WHERE user_id IS NULL AND session_id IS NULL"
        )
        == []
    )
    assert (
        database.rows(
            "SELECT c.email FROM users c JOIN users a ON lower(a.email) = c.email"
            " WHERE c.role = 'customer' AND a.role <> 'customer'"
        )
        == []
    )


def test_what_only_the_new_schema_knows_is_parked_and_returns(
    migrated: Database, manage: Manage
) -> None:
    migrated.execute("INSERT INTO asset_sets (name) VALUES ('Hills')")
    migrated.execute("UPDATE tables SET max_assets = 7 WHERE kind = 'user'")
    customers = dumps.rows(migrated, "users")
    assert manage("rollback_migration", "--yes").code == 0
    assert "users" not in {
        name
        for (name,) in migrated.rows(
            "SELECT tablename FROM pg_tables WHERE schemaname IN ('public', 'terrain')"
        )
    }
    assert manage("migrate", "-v0").code == 0
    assert dumps.rows(migrated, "users") == customers
    assert migrated.rows("SELECT name FROM asset_sets") == [("Hills",)]
    assert migrated.rows(
        "SELECT DISTINCT max_assets FROM tables WHERE kind = 'user'"
    ) == [(7,)]


# --- convergence ---------------------------------------------------------------------------


def test_migrated_and_cleaned_up_is_as_fresh(
    migrated: Database, clone: Callable[[str], Database], manage: Manage
) -> None:
    """Law 5, by pg_dump: columns in order, defaults, indexes, constraints, grants."""
    cut_over.cut_over(connection)
    cleanup.clean_up(connection)
    cleaned, settings = dumps.schema(migrated), database_settings(migrated)
    fresh = clone("template0")
    assert manage("migrate", "-v0").code == 0
    assert cleaned == dumps.schema(fresh)
    assert settings == database_settings(fresh) == []
    assert dumps.schemas(migrated) == {"public"}


def database_settings(database: Database) -> list[Any]:
    return database.rows(
        "SELECT s.setconfig FROM pg_db_role_setting s JOIN pg_database d"
        " ON d.oid = s.setdatabase WHERE d.datname = current_database()"
    )


def test_cleaned_up_migrate_has_nothing_to_do(
    migrated: Database, manage: Manage
) -> None:
    cut_over.cut_over(connection)
    cleanup.clean_up(connection)
    before = dumps.contents(migrated)
    assert manage("migrate", "-v0").code == 0
    assert dumps.contents(migrated) == before


def test_makemigrations_has_nothing_to_do(empty: Database) -> None:
    out = io.StringIO()
    call_command("makemigrations", "--check", "--dry-run", stdout=out)
    assert out.getvalue() == "No changes detected\n"


def test_the_reverse_of_each_migration_is_real(
    migrated: Database, manage: Manage
) -> None:
    """Down one by one, and up again: the same database."""
    before, definitions = dumps.contents(migrated), dumps.schema(migrated)
    steps = (
        ("legacy", "0008"),
        ("orders", "0001"),
        ("legacy", "0005"),
        ("legacy", "0003"),
        ("legacy", "0002"),
        ("legacy", "0001"),
    )
    for app, name in steps:
        done = manage("migrate", app, name, "-v0")
        assert (done.code, done.err) == (0, ""), name
    assert dumps.schemas(migrated) == {"public", "terrain", "legacy_parked"}
    assert manage("migrate", "-v0").code == 0
    assert dumps.contents(migrated) == before
    assert dumps.schema(migrated) == definitions


# --- what is others' ------------------------------------------------------------------------


def test_what_others_have_put_into_legacy_stays(migrated: Database) -> None:
    cut_over.cut_over(connection)
    migrated.execute("CREATE TABLE legacy.notes (note text)")
    cleanup.clean_up(connection)
    assert dumps.schemas(migrated) == {"public", "legacy"}
    assert migrated.rows("SELECT * FROM legacy.notes") == []


def in_the_way(old: psycopg.Connection[Any], what: str) -> str:
    """What is said of a transaction of the old application that keeps a lock."""
    pid = old.info.backend_pid
    return (
        rf"{what} has waited for \d+ s, now for process {pid} \(role shop_app,"
        r" unnamed\), in its transaction: its statement is not for this role to see \(let it"
        r" end, or end it: as role shop_app or a superuser,"
        rf" SELECT pg_terminate_backend\({pid}\);\)\."
    )


def test_putting_triggers_on_waits_for_nobody_longer_than_its_timeout(
    migrated: Database,
) -> None:
    """A transaction of the old application is in the way: it steps back and says so."""
    old = migrated.old()
    said: list[str] = []

    def finish(sentence: str) -> None:
        said.append(sentence)
        old.execute("COMMIT")

    artists = BY_LEGACY["artists"]
    engine.let_go(connection, artists)
    old.execute("BEGIN")
    old.execute("UPDATE artists SET bio = bio")
    engine.keep_in_step(connection, artists, finish)
    what = "Putting the triggers on artists and users"
    assert re.fullmatch(in_the_way(old, what), said[0])
    assert engine.stands_beside(connection)


def test_cutting_over_waits_for_nobody_longer_than_its_timeout(
    migrated: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is with the cut-over and its undoing, for a transaction that has only read."""
    old = migrated.old(options="-c search_path=legacy,public")
    for swap, what in (
        (cut_over.cut_over, "Cutting over"),
        (cut_over.undo, "Undoing the cut-over"),
    ):
        said: list[str] = []

        def finish(sentence: str) -> None:
            said.append(sentence)  # noqa: B023
            old.execute("COMMIT")

        old.execute("BEGIN")
        old.execute("SELECT FROM artists LIMIT 1")
        before = cut_over.is_done(connection)
        swap(connection, finish)
        assert re.fullmatch(in_the_way(old, what), said[0])
        assert cut_over.is_done(connection) is not before

        old.execute("BEGIN")
        old.execute("SELECT FROM artists LIMIT 1")
        monkeypatch.setattr(cut_over, "LIMIT", 0.2)
        other = cut_over.undo if swap is cut_over.cut_over else cut_over.cut_over
        definitions = dumps.schema(migrated)
        with pytest.raises(locks.LockNotObtained, match=" Nothing was changed by this"):
            other(connection)
        assert dumps.schema(migrated) == definitions
        monkeypatch.undo()
        old.execute("COMMIT")


#: Commits at the end of a rollback: migrations taken back, tables back in their place.
LAST_STRETCH = 26


def test_killed_near_the_end_of_the_rollback_the_next_one_finishes(
    small: Database, clone: Callable[[str], Database]
) -> None:
    """Of two tables with one name only the old application's is there, and it is left alone."""
    there = clone(small.name)
    assert killed_at(there, 0, "migrate", "-v0")[0] == 0
    wait_until_gone(there)
    back = ("rollback_migration", "--yes")
    undisturbed = clone(there.name)
    code, printed = killed_at(undisturbed, 0, *back)
    assert code == 0, printed
    definitions = dumps.schema(undisturbed)
    commits = int(printed.split()[-1])
    for number in sampled(LAST_STRETCH, 5):
        last = commits - LAST_STRETCH + number
        database = clone(there.name)
        assert killed_at(database, last, *back)[0] == -signal.SIGKILL
        wait_until_gone(database)
        code, printed = killed_at(database, 0, *back)
        assert code == 0, f"commit {last} of {commits}: {printed}"
        assert dumps.schema(database) == definitions, f"commit {last} of {commits}"
