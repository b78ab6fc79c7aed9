"""There and back while both applications work: every acknowledged write is there afterwards.

The clients are the benchmark's; they work throughout, also while tables move.  The new one
is refused, or finds no tables, while they are not its own: what it is told is done has to
be so all the same.
"""

from __future__ import annotations

import os
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.db import connection

from bench import clients, new_side, remembered, shop, traffic
from bench.crew import Hand
from bench.told import Shop, Told, Wrong
from catalogue.models import Model
from terrain import locks
from terrain.embedded import OWNER
from terrain.legacy import cut_over, engine, settling
from terrain.legacy.mapping import LENSES
from tests import dumps
from tests.both import Both
from tests.conftest import OLD_ROLE, Database, Result
from tests.legacy import key

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]

#: Seconds between two acts of a client.
EVERY = 0.02
#: What the new application may be told while its tables are on their way.
ON_THE_WAY = re.compile(
    r"Closed: terrain\.\w+ is closed"
    # Never a column: what has the name of its table is not looked at.
    r"|ProgrammingError: relation "
    # Not copied yet.
    r"|DoesNotExist: \w+ matching query does not exist|LookupError: \w+ \S+ is not there"
)


class Crews:
    """Old clients and new ones in threads of this process, and all they were told."""

    def __init__(self, database: Database, old: int, new: int, seed: int) -> None:
        self.database = database
        with shop.connect(database.name, options="-c search_path=public") as asked:
            self.found = Shop.of(asked)
            asked.execute(f"GRANT CREATE ON SCHEMA public TO {OLD_ROLE}")
        self.told = Told()
        numbers = [*range(old), *range(clients.NUMBER, clients.NUMBER + new)]
        self.hands = [Hand(self._client, number, EVERY) for number in numbers]
        self.seed = seed

    def _client(self, number: int) -> Any:
        if number < clients.NUMBER:
            client: Any = traffic.Client(self.database.old(), self.found, number)
        else:
            client = new_side.Client(self.found, number)
        client.random.seed(self.seed * 100 + number)
        return client

    def __enter__(self) -> Crews:
        for hand in self.hands:
            hand.start()
        return self

    def __exit__(self, *_: Any) -> None:
        for hand in self.hands:
            hand.ended.set()
            if hand.wanted:
                hand.go_on()
        for hand in self.hands:
            hand.join()

    @contextmanager
    def held(self) -> Iterator[Told]:
        """Nobody acts; all that was told so far."""
        for hand in self.hands:
            hand.hold()
        try:
            for hand in self.hands:
                self.told.merge(hand.told())
            yield self.told
        finally:
            for hand in self.hands:
                hand.go_on()


@pytest.fixture
def template(shop: Database, create_database: Any, drop_database: Any) -> Iterator[str]:
    name = create_database(shop.name)
    yield name
    drop_database(name)


def assert_remembered(
    database: Database, before: remembered.Before, told: Told, back: bool
) -> None:
    with database.connect(OWNER, "public") as seen:
        assert [*remembered.faults(seen, "public", before, told)] == []
        for table in new_side.ONLY_NEW:
            where = "legacy_parked" if back else "terrain"
            assert [*remembered.rows(seen, where, table, told)] == []
        if not back:
            late = remembered.late(seen)
            assert [*remembered.disagreements(seen, but=late)] == []


def assert_in_step(database: Database, manage: Manage) -> None:
    """With nobody at work, ``settle`` leaves no row late."""
    assert manage("settle").code == 0
    with database.connect(OWNER, "public") as seen:
        assert remembered.late(seen) == set()
        assert [*remembered.disagreements(seen)] == []


@pytest.mark.parametrize("seed", range(int(os.environ.get("WALKS", "1"))))
def test_there_and_back_with_both_applications_at_work(
    shop: Database,
    template: str,
    manage: Manage,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    """WALKS=20 for more: other clients, and other commands between the moves, each time."""
    monkeypatch.setattr("bench.shop.CLUSTER", shop.cluster)
    before = remembered.Before(template)
    rng = random.Random(seed)
    with Crews(shop, 2, 2, seed) as crews:
        for _ in range(2):
            for command in forward(rng):
                done = manage(*command)
                assert (done.code, done.err) == (0, ""), command
            with crews.held() as told:
                assert_remembered(shop, before, told, back=False)
                assert_in_step(shop, manage)
            done = manage("rollback_migration", "--yes")
            assert done.code == 0, done.err
            with crews.held() as told:
                assert_remembered(shop, before, told, back=True)
        assert manage("migrate", "-v0").code == 0
    with crews.held() as told:
        assert_remembered(shop, before, told, back=False)
        assert_in_step(shop, manage)
    said = {refusal for _at, _kind, refusal in told.refused}
    assert [each for each in said if not ON_THE_WAY.match(each)] == []
    assert manage("verify_migration").code == 0


def forward(rng: random.Random) -> Iterator[tuple[str, ...]]:
    yield ("migrate", "-v0")
    for command in ("settle", "copy_models_to_assets", "verify_migration"):
        if rng.random() < 0.6:
            yield (command,)


def test_a_client_notices_when_what_is_its_own_is_not_what_it_was(
    shop: Database,
) -> None:
    """Another schema to live in, another right there, another table by the name of its own."""
    owner = shop.connect(path="public")
    owner.execute(
        f"GRANT CREATE ON SCHEMA public TO {OLD_ROLE};"
        f"CREATE SCHEMA elsewhere; GRANT ALL ON SCHEMA elsewhere TO {OLD_ROLE}"
    )
    session = shop.connect(OLD_ROLE)
    client = traffic.Client(session, Shop.of(owner), 0)
    for _ in range(2):
        client.start()
        client.make_report()
    session.execute("SET search_path = elsewhere, public")
    for act in (client.start, client.make_report):
        with pytest.raises(Wrong, match="not .'public', "):
            act()
    session.execute("RESET search_path")
    session.execute("ALTER TABLE session_0 RENAME TO shadowed")
    with pytest.raises(Wrong):
        client.start()
    session.execute("DROP TABLE session_0; ALTER TABLE shadowed RENAME TO session_0")
    client.start()
    owner.execute(f"REVOKE CREATE ON SCHEMA public FROM {OLD_ROLE}")
    with pytest.raises(Wrong, match="False.*, not .*True"):
        client.make_report()


@pytest.fixture
def between_steps(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What is to happen after each step of a command that takes a lock."""
    happens: list[Callable[[], None]] = []
    again_and_again = locks._again_and_again

    def stepping(*args: Any, **options: Any) -> Any:
        done = again_and_again(*args, **options)
        for happen in happens:
            happen()
        return done

    monkeypatch.setattr(locks, "_again_and_again", stepping)
    return happens


def test_what_the_new_application_is_told_is_so_at_every_step(
    both: Both,
    manage: Manage,
    between_steps: list[Callable[[], None]],
) -> None:
    """It writes between any two steps back and forth: each write is carried over, or refused."""
    told, refused = {"#tower": 0, "#den": 0}, set()
    writes = {
        "#tower": "UPDATE models SET view_count = view_count + 1 WHERE id = '#tower'",
        "#den": "UPDATE tables SET width = coalesce(width, 0) + 1 WHERE id = '#den'",
        None: "INSERT INTO assets (id, artist_id, name, file_ref)"
        " VALUES (gen_random_uuid(), '#ann', 'A', 'a.stl')",
    }

    def write() -> None:
        for row, statement in writes.items():
            try:
                both.newly(statement)
            except psycopg.Error as error:
                refused.add(error.sqlstate)
            else:
                told[row] = told.get(row, 0) + 1

    def seen() -> list[Any]:
        return both.newly(
            "SELECT a.name, a.view_count, (t.table_config ->> 'width')::int"
            " FROM public.assets a, public.user_tables t"
            " WHERE a.id = '#tower' AND t.id = '#den'"
        ).fetchall()

    between_steps.append(write)
    assert manage("rollback_migration", "--yes").code == 0
    between_steps.clear()
    # Closed as long as anything is done to them, then gone.
    assert told["#tower"] > 0 and refused == {"TB003"}
    refused.clear()
    write()
    assert refused == {"42P01"}
    assert seen() == [("Tower", told["#tower"], 1200 + told["#den"])]
    both.does("UPDATE assets SET name = 'Old' WHERE id = '#tower'")
    refused.clear()

    between_steps.append(write)
    assert manage("migrate", "-v0").code == 0
    between_steps.clear()
    assert refused == {"TB003"}
    write()
    assert seen() == [("Old", told["#tower"], 1200 + told["#den"])]
    assert both.has("SELECT count(*) FROM assets") == [(told[None],)]
    assert dumps.schemas(both.database) == {"public", "terrain", "rebuilt"}


def test_a_write_that_the_cut_over_overtakes_is_made_again(both: Both) -> None:
    """Its transaction has begun before the tables change schemas, and has used none of them."""
    attempts = []

    def cut_over_elsewhere() -> None:
        try:
            cut_over.cut_over(connection)
        finally:
            connection.close()

    def count() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        if not attempts:
            thread = threading.Thread(target=cut_over_elsewhere)
            thread.start()
            thread.join()
        attempts.append(connection.own_path)
        return Model.objects.filter(pk=key("#tower")).update(view_count=7)

    assert locks.patiently("default", count) == 1
    assert attempts == [("terrain",), ("public",)]
    assert both.database.rows(
        "SELECT view_count FROM legacy.assets WHERE id = %s", key("#tower")
    ) == [(7,)]


def test_the_old_application_writes_while_all_is_derived_anew(
    both: Both, between_statements: list[Callable[[], None]]
) -> None:
    """``settle --again``, with the triggers on: what cannot be carried over meanwhile is late."""

    written: list[str] = []

    def write() -> None:
        written.append(f"status {len(written)}")
        both.does("SET statement_timeout = '5s'")
        both.does(f"UPDATE orders SET status = '{written[-1]}' WHERE id = '#ord'")

    between_statements.append(write)
    engine.derive(connection)
    assert (
        len(written) == 1 + len(LENSES) + 1
    )  # what all share, each lens, the new side
    assert both.sees("SELECT status FROM orders WHERE id = '#ord'") == [(written[-1],)]
    settling.settle(connection)


def test_a_session_that_lives_on_keeps_the_plans_of_one_migration(
    shop: Database, manage: Manage
) -> None:
    """PL/pgSQL forgets a function that is replaced, not one that is dropped."""
    session = shop.connect("postgres", "public")

    def kept() -> Counter[str]:
        """What the session has compiled, but for the functions of triggers."""
        for number in range(2):
            session.execute("UPDATE orders SET status = %s", [f"status {number}"])
            session.execute("UPDATE artists SET bio = %s", [f"bio {number}"])
        session.execute(
            "INSERT INTO user_tables"
            " (user_email, name, table_config, layout_data, share_token)"
            " VALUES ('sits@at.example', 'T', '{}', '{}', 'gone')"
        )
        session.execute("DELETE FROM user_tables WHERE share_token = 'gone'")
        found = session.execute(
            "SELECT ident FROM pg_backend_memory_contexts"
            " WHERE name = 'PL/pgSQL function' AND ident LIKE 'rebuilt.%'"
            "   AND ident NOT LIKE 'rebuilt.on\\_%'"
        )
        return Counter(name for (name,) in found.fetchall())

    assert manage("migrate", "-v0").code == 0
    before = kept()
    assert {
        "rebuilt.orders_put(uuid,boolean,boolean,boolean)",
        "rebuilt.user_tables_gone(uuid)",
    } < {*before}
    for _ in range(2):
        assert manage("rollback_migration", "--yes").code == 0
        assert manage("migrate", "-v0").code == 0
        assert kept() == before
    assert dumps.schemas(shop) == {"public", "terrain", "rebuilt"}


def test_what_another_version_has_put_aside_goes_and_what_is_others_stays(
    migrated: Database, manage: Manage
) -> None:
    assert manage("rollback_migration", "--yes").code == 0
    ours, theirs = "public, pg_temp", "public"
    for name, path in (
        ("legacy_parked.older(key uuid)", ours),
        ("legacy_parked.theirs(key uuid)", theirs),
        # An older version, which knows of nothing that is put aside, has made its own.
        ("rebuilt.note_use(_table text)", ours),
    ):
        migrated.execute(
            f"CREATE SCHEMA IF NOT EXISTS rebuilt; CREATE FUNCTION {name} RETURNS void"
            f" LANGUAGE sql SECURITY DEFINER SET search_path = {path} AS ''"
        )
    assert manage("migrate", "-v0").code == 0
    assert migrated.rows(
        "SELECT p.oid::regprocedure::text FROM pg_proc p"
        " WHERE p.pronamespace = 'legacy_parked'::regnamespace"
    ) == [("legacy_parked.theirs(uuid)",)]


def test_a_table_that_returns_later_is_no_reason_to_derive_again(both: Both) -> None:
    assert engine.stands_beside(connection)
    both.newly("CREATE SCHEMA legacy_parked")
    both.newly("ALTER TABLE asset_usage SET SCHEMA legacy_parked")
    assert engine.stands_beside(connection)
    both.newly("ALTER TABLE payments SET SCHEMA legacy_parked")
    assert not engine.stands_beside(connection)
    both.newly("ALTER TABLE legacy_parked.payments SET SCHEMA terrain")
    both.newly("ALTER TABLE legacy_parked.asset_usage SET SCHEMA terrain")


@pytest.fixture
def between_statements(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What is to happen when some views and functions have been derived and not committed."""
    happens: list[Callable[[], None]] = []
    give = engine._give_to_owner

    def giving(*args: Any) -> None:
        give(*args)
        for happen in list(happens):
            happen()

    monkeypatch.setattr(engine, "_give_to_owner", giving)
    return happens
