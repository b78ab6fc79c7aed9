"""Short locks: who is in the way is named, nobody waits behind, and what is left is made anew."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection, connections

from terrain import locks, online, pace, waiting
from terrain.blockers import Kind, Mode, waited_for, who_blocks
from terrain.embedded import OWNER, Cluster
from tests.conftest import Database, Result, connecting
from tests.settings import POSTGRES
from tests.test_giving_way import wait_for


@pytest.fixture
def stall(empty: Database) -> Database:
    """A database with two tables and a few rows."""
    empty.execute("CREATE TABLE public.a (id integer PRIMARY KEY, b text)")
    empty.execute("CREATE TABLE public.b (id integer PRIMARY KEY)")
    empty.execute("INSERT INTO public.a SELECT i, i FROM generate_series(1, 1000) i")
    return empty


def alter(**options: Any) -> None:
    """What is done briefly in these tests."""

    def add() -> None:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE public.a ADD COLUMN c text")

    options = {"tables": ("public.a",), "mode": Mode.ACCESS_EXCLUSIVE, **options}
    locks.run_briefly(connection, add, what="Altering a", **options)


def is_altered(database: Database) -> bool:
    found: bool = database.value(
        "SELECT count(*) = 1 FROM pg_attribute"
        " WHERE attrelid = 'public.a'::regclass AND attname = 'c'"
    )
    return found


def pid(other: psycopg.Connection[Any]) -> int:
    return other.info.backend_pid


# --- who is in the way ---------------------------------------------------------------------


def only(mode: Mode = Mode.ACCESS_EXCLUSIVE) -> str:
    """The one who is in the way, in words, seconds left out."""
    (blocker,) = who_blocks(connection, ("public.a", "public.gone"), mode)
    return re.sub(r"\b\d+ s\b", "N s", str(blocker))


def test_an_open_transaction(stall: Database) -> None:
    other = stall.connect(application_name="report")
    other.execute("BEGIN")
    other.execute("SELECT  count(*)\n FROM public.a")
    assert only() == (
        f"process {pid(other)} (role {OWNER}, report), in its transaction for N s, idle since"
        " N s after: SELECT count(*) FROM public.a (end it:"
        f" SELECT pg_terminate_backend({pid(other)});)"
    )
    assert who_blocks(connection, ("public.a",), Mode.SHARE_ROW_EXCLUSIVE) == []
    assert who_blocks(connection, ("public.a",)) == []
    other.execute("UPDATE public.a SET b = 'x' WHERE id = 1")
    (blocker,) = who_blocks(connection, ("public.a",))
    assert blocker.as_json() | {"seconds": 0, "idle_seconds": 0} == {
        "kind": "idle",
        "process": pid(other),
        "gid": None,
        "role": OWNER,
        "application": "report",
        "seconds": 0,
        "idle_seconds": 0,
        "statement": "UPDATE public.a SET b = 'x' WHERE id = 1",
        "tables": ["a"],
        "advice": f"end it: SELECT pg_terminate_backend({pid(other)});",
    }


def test_a_session_of_another_role(stall: Database) -> None:
    """A plain owner is not told what it does, nor may they end it."""
    other = stall.superuser
    other.execute("BEGIN")
    other.execute("LOCK TABLE public.a IN SHARE MODE")
    assert only() == (
        f"process {pid(other)} (role postgres, unnamed), in its transaction: its statement is"
        " not for this role to see (let it end, or end it: as role postgres or a superuser,"
        f" SELECT pg_terminate_backend({pid(other)});)"
    )


def test_a_dump(stall: Database) -> None:
    other = stall.connect(application_name="pg_dump")
    other.execute("BEGIN")
    other.execute("LOCK TABLE public.a IN ACCESS SHARE MODE")
    assert only() == (
        f"process {pid(other)} (role {OWNER}, pg_dump), a backup by pg_dump for N s (let it"
        " end, and begin no other)"
    )
    assert who_blocks(connection, ("public.a",), Mode.SHARE_ROW_EXCLUSIVE) == []


def test_a_prepared_transaction_has_no_process(stall: Database) -> None:
    other = stall.connect()
    other.execute("BEGIN")
    other.execute("DELETE FROM public.a WHERE id = 1")
    other.execute("PREPARE TRANSACTION 'it''s'")
    try:
        assert only() == (
            f"the prepared transaction 'it''s' (role {OWNER}), waiting to be committed for N s"
            " (end it: COMMIT PREPARED 'it''s'; or ROLLBACK PREPARED 'it''s';)"
        )
        assert who_blocks(connection, ("public.a",))[0].kind == Kind.PREPARED
    finally:
        other.execute("ROLLBACK PREPARED 'it''s'")


def test_an_index_that_is_being_built(stall: Database) -> None:
    reader = stall.connect()
    reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    reader.execute("SELECT count(*) FROM public.b")
    builder = stall.connect(application_name="psql")
    thread = threading.Thread(
        target=builder.execute, args=("CREATE INDEX CONCURRENTLY a_b ON public.a (b)",)
    )
    thread.start()
    wait_for(lambda: waited_for(connection, pid(builder)))
    assert only(Mode.SHARE_UPDATE_EXCLUSIVE) == (
        f"process {pid(builder)} (role {OWNER}, psql), building an index for N s (let it end:"
        " interrupted, it leaves an invalid index behind)"
    )
    (old,) = waited_for(connection, pid(builder))
    assert (old.kind, old.pid) == (Kind.IDLE, pid(reader))
    reader.execute("COMMIT")
    thread.join()


def test_many_are_not_all_named(stall: Database) -> None:
    for _ in range(6):
        other = stall.connect()
        other.execute("BEGIN")
        other.execute("SELECT FROM public.a")
    sentence = waiting.named(
        who_blocks(connection, ("public.a",), Mode.ACCESS_EXCLUSIVE)
    )
    assert sentence.count("; ") == 4
    assert sentence.endswith("; and 2 more")


# --- waiting -------------------------------------------------------------------------------


def test_at_the_limit_it_stops_and_can_be_run_again(stall: Database) -> None:
    other = stall.connect(application_name="report")
    other.execute("BEGIN")
    other.execute("SELECT FROM public.a")
    with pytest.raises(locks.LockNotObtained) as stopped:
        alter(limit=0.2)
    assert re.sub(
        r"\b\d+ s, idle since \d+ s", "N s, idle since N s", str(stopped.value)
    ) == (
        "Altering a could not get its lock within 0 s. In the way:"
        f" process {pid(other)} (role {OWNER}, report), in its transaction for N s, idle since"
        f" N s after: SELECT FROM public.a (end it: SELECT pg_terminate_backend({pid(other)});)."
        " Nothing was changed by this step; run the same command again to go on."
    )
    assert not is_altered(stall)
    other.execute("COMMIT")
    alter(limit=0.2)
    assert is_altered(stall)


def test_what_keeps_it_waiting_is_said_once(
    stall: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And again when somebody else is in the way."""
    monkeypatch.setattr(waiting, "WORTH_SAYING", 0.0)
    monkeypatch.setattr(locks, "LONGEST_PAUSE", 0.01)
    first, second = stall.connect(), stall.connect()
    first.execute("BEGIN")
    first.execute("SELECT FROM public.a")
    said: list[str] = []
    attempts = iter(range(1000))
    who = locks.who_blocks

    def looking(*args: Any) -> Any:
        number = next(attempts)
        if number == 10:
            second.execute("BEGIN")
            second.execute("LOCK TABLE public.a IN ACCESS SHARE MODE")
        if number == 20:
            first.execute("COMMIT")
            second.execute("COMMIT")
        return who(*args)

    monkeypatch.setattr(locks, "who_blocks", looking)
    alter(say=said.append)
    assert is_altered(stall)
    assert [re.findall(r"process (\d+)", sentence) for sentence in said] == [
        [str(pid(first))],
        [str(pid(first)), str(pid(second))],
    ]
    assert re.fullmatch(
        rf"Altering a has waited for \d+ s, now for process {pid(first)} \(role {OWNER},"
        r" unnamed\), in its transaction for \d+ s, idle since \d+ s after: SELECT FROM"
        rf" public\.a \(end it: SELECT pg_terminate_backend\({pid(first)}\);\)\.",
        said[0],
    )


def test_only_what_may_succeed_is_tried_again(stall: Database) -> None:
    tries = []

    def fail() -> None:
        tries.append(1)
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE public.a DROP COLUMN nothing")

    with pytest.raises(Exception, match="does not exist"):
        locks.run_briefly(
            connection,
            fail,
            what="x",
            tables=("public.a",),
            mode=Mode.ACCESS_EXCLUSIVE,
        )
    assert tries == [1]


def test_the_long_wait_is_for_the_first_table_with_nothing_held(
    stall: Database,
) -> None:
    """What was not to be had at once is the first one the next time."""
    other = stall.connect()
    other.execute("BEGIN")
    other.execute("SELECT FROM public.b")
    ours = connection.cursor().connection.info.backend_pid
    asked = stall.superuser
    seen: list[tuple[str, bool]] = []

    def look_on() -> None:
        """Until it is seen to wait for b, without having a."""
        while ("b", False) not in seen:
            seen.extend(
                asked.execute(
                    "SELECT l.relation::regclass::text, EXISTS (SELECT FROM pg_locks h"
                    "  WHERE h.pid = l.pid AND h.granted AND h.mode = 'AccessExclusiveLock'"
                    "    AND h.relation = 'public.a'::regclass)"
                    "  FROM pg_locks l WHERE l.pid = %s AND NOT l.granted"
                    "   AND l.mode = 'AccessExclusiveLock'",
                    [ours],
                ).fetchall()
            )
        other.execute("COMMIT")

    thread = threading.Thread(target=look_on)
    thread.start()
    alter(tables=("public.a", "public.b"))
    thread.join()
    assert is_altered(stall)


# --- a breath ------------------------------------------------------------------------------


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, none of which takes any time."""
    made: list[float] = []
    monkeypatch.setattr("terrain.pace.time.sleep", made.append)
    return made


def test_after_a_change_others_take_it_in_first(
    stall: Database, slept: list[float]
) -> None:
    alter()
    assert slept == []  # nobody is there
    with stall.connect(application_name="shop"):
        change = ["ALTER TABLE public.a DROP COLUMN c"]
        locks.change_briefly(
            connection,
            change,
            what="Altering a",
            tables=("public.a",),
            mode=Mode.ACCESS_EXCLUSIVE,
        )
        assert slept == [pace.BREATH / 2] * 2
        alter()
        assert slept == [pace.BREATH / 2] * 4
        with waiting.waiting_aloud(connection, "Building an index"):
            pass
        assert slept == [pace.BREATH / 2] * 6


def test_who_is_still_at_it_is_waited_for(
    stall: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is at one transaction all through the pause; as long as it takes, or a while."""
    monkeypatch.setattr(pace, "LONGEST_BREATH", 5.0)
    slept: list[float] = []
    with stall.connect(application_name="shop") as shop:
        shop.execute("BEGIN")

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 5:
                shop.execute("COMMIT")

        monkeypatch.setattr("terrain.pace.time.sleep", sleep)
        pace.breathe(connection)
        assert len(slept) == 5
        shop.execute("BEGIN")
        monkeypatch.setattr(pace, "LONGEST_BREATH", 0.02)
        pace.breathe(connection)
        assert len(slept) > 7
        slept.clear()
        pace.breathe(
            connection
        )  # it has something of its own to do, and is not waited for again
        assert slept == [pace.BREATH / 2] * 2
        shop.execute("COMMIT; BEGIN")
        pace.breathe(connection)
        assert len(slept) > 4


@pytest.mark.migration
def test_after_a_migration_that_makes_tables_longer(
    empty: Database, manage: Callable[..., Result], slept: list[float]
) -> None:
    with empty.connect(application_name="shop"):
        assert manage("migrate", "-v0").code == 0
    assert {*slept} == {pace.BREATH / 2, pace.LONG_BREATH / 2}


def test_rows_are_written_without_a_pause(stall: Database, slept: list[float]) -> None:
    with stall.connect(application_name="shop"):
        locks.run_briefly(connection, lambda: None, what="Writing", tables=("a",))
    assert slept == []


# --- vacuum --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vacuuming(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server that vacuums by itself, as soon as it can."""
    cluster = Cluster(
        tmp_path_factory.mktemp("vacuuming") / "pg",
        POSTGRES,
        {
            "fsync": "off",
            "synchronous_commit": "off",
            "autovacuum_naptime": "1s",
            "autovacuum_max_workers": "6",
            "autovacuum_freeze_max_age": "100000",
        },
    )
    cluster.start()
    yield cluster
    cluster.stop()


#: As slow as can be, and begun by a single row; not before it is wanted.
SLOWLY = (
    "autovacuum_enabled = off, autovacuum_vacuum_cost_delay = 100,"
    " autovacuum_vacuum_cost_limit = 1, autovacuum_vacuum_threshold = 1,"
    " autovacuum_vacuum_scale_factor = 0"
)


@pytest.fixture
def vacuumed(vacuuming: Cluster, django_db_blocker: Any) -> Iterator[Database]:
    """A table that autovacuum is at for minutes, once it is let."""
    with psycopg.connect(
        vacuuming.dsn("postgres", "postgres"), autocommit=True
    ) as administrator:
        administrator.execute(f"CREATE DATABASE stall OWNER {OWNER}")
        database = Database(vacuuming, "stall")
        database.execute(
            f"CREATE TABLE public.a (id integer PRIMARY KEY, b text) WITH ({SLOWLY})"
        )
        database.execute(
            "INSERT INTO public.a"
            " SELECT i, repeat('x', 500) FROM generate_series(1, 20000) i"
        )
        parameters = {
            "HOST": str(vacuuming.socket_dir),
            "NAME": "stall",
            "OPTIONS": {"embedded": vacuuming},
        }
        with django_db_blocker.unblock(), connecting(**parameters):
            yield database
        database.close()
        administrator.execute("DROP DATABASE stall WITH (FORCE)")


def autovacuum(database: Database) -> int:
    """Wait for the process that vacuums the table, until it has its lock."""
    asked = database.superuser
    pause = threading.Event()
    for _ in range(1200):
        found = asked.execute(
            "SELECT a.pid FROM pg_stat_activity a JOIN pg_locks l USING (pid)"
            " WHERE a.backend_type = 'autovacuum worker' AND l.granted"
            "   AND l.relation = 'public.a'::regclass"
        ).fetchone()
        if found is not None:
            worker: int = found[0]
            return worker
        pause.wait(0.05)
    raise AssertionError("autovacuum has not come within a minute")


def test_an_autovacuum_makes_way_and_nobody_waits_meanwhile(vacuumed: Database) -> None:
    """As a plain owner, who may set no deadlock_timeout."""
    vacuumed.execute("DELETE FROM public.a WHERE id % 2 = 0")
    vacuumed.execute("ALTER TABLE public.a SET (autovacuum_enabled = on)")
    worker = autovacuum(vacuumed)
    (blocker,) = who_blocks(connection, ("public.a",), Mode.SHARE_ROW_EXCLUSIVE)
    assert str(blocker) == (
        f"process {worker} (autovacuum), vacuuming or analysing of a (it makes way by itself"
        " when it is asked again)"
    )
    ours = connection.cursor().connection.info.backend_pid
    asked, old = vacuumed.superuser, vacuumed.connect()
    waited: list[str] = []

    def write_beside() -> None:
        """As soon as we wait for the autovacuum: the write is not behind us."""
        while not waited:
            waited.extend(
                mode
                for (mode,) in asked.execute(
                    "SELECT mode FROM pg_locks WHERE pid = %s AND NOT granted", [ours]
                )
            )
        old.execute("SET lock_timeout = '1ms'")
        old.execute("UPDATE public.a SET b = 'y' WHERE id = 1")

    thread = threading.Thread(target=write_beside)
    thread.start()
    alter()
    thread.join()
    assert waited[0] == "ShareUpdateExclusiveLock"
    assert is_altered(vacuumed)
    assert vacuumed.value("SELECT b FROM public.a WHERE id = 1") == "y"


def test_an_autovacuum_against_wraparound_is_named(vacuumed: Database) -> None:
    """It makes way for nobody, and comes even where there is no other."""
    vacuumed.execute(
        "DO $$ BEGIN FOR i IN 1..110000 LOOP"
        " PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
    )
    worker = autovacuum(vacuumed)
    with pytest.raises(locks.LockNotObtained) as stopped:
        alter(limit=0)
    assert str(stopped.value) == (
        "Altering a could not get its lock within 0 s. In the way: process"
        f" {worker} (autovacuum), vacuuming of a against transaction id wraparound, for which"
        " it never makes way (let it end). Nothing was changed by this step; run the same"
        " command again to go on."
    )
    assert autovacuum(vacuumed) == worker


def test_a_vacuum_by_hand_is_waited_for_where_nobody_waits_behind(
    vacuumed: Database,
) -> None:
    vacuumed.execute("DELETE FROM public.a WHERE id % 2 = 0")
    somebody = vacuumed.connect(application_name="psql")
    somebody.execute("SET vacuum_cost_delay = 100")
    somebody.execute("SET vacuum_cost_limit = 1")

    def vacuum() -> None:
        with pytest.raises(psycopg.errors.QueryCanceled):
            somebody.execute("VACUUM public.a")

    thread = threading.Thread(target=vacuum)
    thread.start()
    wait_for(lambda: who_blocks(connection, ("public.a",), Mode.SHARE_UPDATE_EXCLUSIVE))
    with pytest.raises(locks.LockNotObtained) as stopped:
        alter(limit=0)
    somebody.cancel()
    thread.join()
    assert re.sub(r"for \d+ s \(", "for N s (", str(stopped.value)) == (
        "Altering a could not get its lock within 0 s. In the way: process"
        f" {pid(somebody)} (role {OWNER}, psql), VACUUM or ANALYZE of a for N s (let it end, or"
        f" end it: SELECT pg_terminate_backend({pid(somebody)});). Nothing was changed by"
        " this step; run the same command again to go on."
    )


# --- indexes -------------------------------------------------------------------------------


def build(statement: str = "CREATE INDEX CONCURRENTLY a_b ON public.a (b)") -> None:
    """Build the index ``a_b`` beside the traffic."""
    with connection.schema_editor(atomic=False) as editor:
        online.build_index(
            editor, "public.a", "a_b", lambda concurrently: editor.execute(statement)
        )


def validity(database: Database) -> list[Any]:
    return database.rows(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('public.a_b')"
    )


@pytest.fixture
def beside(stall: Database) -> psycopg.Connection[Any]:
    """Somebody else is connected, so nothing is built at once; with an old snapshot."""
    other = stall.connect(application_name="report")
    other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    other.execute("SELECT count(*) FROM public.b")
    return other


def test_a_build_says_for_whom_it_waits(
    stall: Database,
    beside: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "WORTH_SAYING", 0.01)
    said: list[str] = []

    def hear(sentence: str) -> None:
        said.append(sentence)
        beside.execute("COMMIT")

    monkeypatch.setattr(waiting, "aloud", hear)
    build()
    assert re.fullmatch(
        rf"Building index a_b has waited for \d+ s, now for process {pid(beside)} \(role"
        rf" {OWNER}, report\), in its transaction for \d+ s, idle since \d+ s after: SELECT"
        rf" count\(\*\) FROM public\.b \(end it: SELECT pg_terminate_backend\({pid(beside)}\);"
        r"\)\.",
        said[0],
    )
    assert validity(stall) == [(True,)]


def killed_while_it_waits(stall: Database, call: Callable[[], None]) -> None:
    """Run something that waits for the old snapshot, and end its session there."""
    ours = connection.cursor().connection.info.backend_pid
    asked = stall.superuser

    def kill() -> None:
        wait_for(
            lambda: asked.execute("SELECT pg_blocking_pids(%s)", [ours]).fetchone()
            != ([],)
        )
        asked.execute("SELECT pg_terminate_backend(%s)", [ours])

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(Exception, match="terminating connection|closed|lost"):
        call()
    thread.join()
    connections.close_all()


def test_a_build_killed_in_the_middle_is_made_anew(
    stall: Database, beside: psycopg.Connection[Any]
) -> None:
    killed_while_it_waits(stall, build)
    assert validity(stall) == [(False,)]
    killed_while_it_waits(stall, build)  # while the invalid one is being dropped
    assert validity(stall) == [(False,)]
    beside.execute("COMMIT")
    build()
    assert validity(stall) == [(True,)]
    before = stall.value("SELECT 'public.a_b'::regclass::oid")
    build()
    assert stall.value("SELECT 'public.a_b'::regclass::oid") == before


def test_a_build_that_fails_leaves_an_index_that_the_next_one_replaces(
    stall: Database,
) -> None:
    stall.connect()
    stall.execute("UPDATE public.a SET b = 'same'")
    unique = "CREATE UNIQUE INDEX CONCURRENTLY a_b ON public.a (b)"
    with pytest.raises(Exception, match="could not create unique index"):
        build(unique)
    assert validity(stall) == [(False,)]
    stall.execute("UPDATE public.a SET b = id")
    build(unique)
    assert validity(stall) == [(True,)]
