"""How long batches are, and what an operator orders: pause, resume, throttle, ignore."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, connection, connections

from catalogue import assets
from terrain import locks, pace
from terrain.embedded import OWNER
from terrain.legacy import copying, customers, ledger, reconciling, settling
from terrain.legacy.mapping import LENSES
from terrain.pace import ALONE, BESIDE_OTHERS, Pace, control, governor, watch
from terrain.pace.governor import Governor, governed
from terrain.pace.watch import Sign, Watch
from tests.both import Both, assert_in_step
from tests.conftest import Database, Result
from tests.legacy import artist, insert, key
from tests.test_cli import popen, typed, url_of
from tests.test_giving_way import in_background, wait_until_blocked
from tests.waiting import until

Manage = Callable[..., Result]

pytestmark = pytest.mark.migration


# --- how many rows -------------------------------------------------------------------------


def test_a_batch_shrinks_at_once_and_grows_slowly() -> None:
    own = Pace(0.08, rows=1000)
    own.took(1000, 0.8)
    assert own.rows == 100
    own.took(100, 0.001)
    assert own.rows == 201
    own.took(150, 0.001)  # it was no full one, and says nothing of longer ones
    assert own.rows == 201
    own.took(201, 0.04)
    assert own.rows == 403
    own.halve()
    assert own.rows == 201


def test_a_shorter_aim_holds_from_the_next_batch_on() -> None:
    own = Pace(ALONE, rows=1000)
    own.aim(BESIDE_OTHERS)
    assert own.rows == 160
    own.aim(ALONE)
    assert own.rows == 160
    own.aim(1e-9)
    assert own.rows == 1


# --- what it does to others ----------------------------------------------------------------


def judged(*ratios: float, stops: bool = False) -> Governor:
    """A run after looks that saw these, of which 1 is the bound."""
    run = Governor("default", "copy orders")
    for ratio in ratios:
        run._judge([Sign("waiting", ratio, f"it is at {ratio:g}", stops)])
    return run


@pytest.mark.parametrize(
    ("ratios", "ease", "why"),
    [
        ([0.9], 1, ""),
        ([1.1], 0.5, "it is at 1.1"),
        ([1.1, 2], 0.25, "it is at 2"),
        ([2] * 9, governor.CRAWL, "it is at 2"),
        ([2, 2, 0.9], 0.25, "it is at 2"),  # neither up nor down
        ([2, 0.5], 0.625, "picking up speed again"),
        ([2, *[0.5] * 4], 1, ""),
    ],
)
def test_too_much_halves_the_time_at_work_and_it_grows_back(
    ratios: list[float], ease: float, why: str
) -> None:
    run = judged(*ratios)
    assert (run.ease, run.why, run.is_stopped) == (ease, why, False)


def test_what_would_fill_the_disk_stops_it() -> None:
    run = judged(17, stops=True)
    assert run.is_stopped and run._state() == ("waiting", "waits: it is at 17")
    run._judge([])
    assert not run.is_stopped


def test_whoever_comes_meanwhile_is_noticed(migrated: Database) -> None:
    """Batches are short from the next look on, and for a minute after they have gone."""
    seen = Watch()
    assert not seen.others_are_here(connection)
    old = migrated.old()
    assert seen.others_are_here(connection)
    old.close()
    assert seen.others_are_here(connection)
    assert seen.others_at is not None
    seen.others_at -= watch.SINCE_OTHERS
    until(lambda: not pace.others_connected(connection))
    assert not seen.others_are_here(connection)


def test_who_comes_and_goes_between_two_looks_is_noticed(migrated: Database) -> None:
    """An application without a pool."""
    seen = Watch()
    assert not seen.others_are_here(connection)

    def comes_and_goes() -> bool:
        migrated.old().close()
        until(lambda: not pace.others_connected(connection))
        return seen.others_are_here(connection)

    until(comes_and_goes)


def test_sessions_that_wait_for_a_lock_of_ours_are_seen_by_a_plain_owner(
    both: Both,
) -> None:
    own = both.database.connect(OWNER, "public")
    own.execute("BEGIN")
    own.execute("SELECT FROM public.artists WHERE id = %s FOR UPDATE", [key("#ann")])
    thread, _ = in_background(
        lambda: both.does("UPDATE artists SET bio = 'x' WHERE id = '#ann'")
    )
    wait_until_blocked(both, both.old, thread)
    seen = Watch(ours={own.info.backend_pid})
    sign = until(lambda: next(iter(seen.look(connection)), None))
    assert sign.kind == "waiting"
    assert sign.sentence.startswith("1 session waits for a lock of this run, ")
    until(lambda: seen.look(connection)[0].ratio > 1)
    assert Watch(ours={0}).look(connection) == []
    own.execute("COMMIT")
    thread.join()


def test_a_batch_that_others_wait_for_makes_the_next_ones_shorter(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The observer sees it while the batch is at work; between two nobody would wait."""
    monkeypatch.setattr(governor, "LOOK_EVERY", 0.01)
    with governed(connection, "copy artists") as run:
        own = Pace.beside_others(connection)
        assert own.seconds == BESIDE_OTHERS
        time_passes(run)
        run.turn(connection, own)
        with locks.transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT FROM public.artists WHERE id = %s FOR UPDATE", [key("#ann")]
            )
            thread, _ = in_background(
                lambda: both.does("UPDATE artists SET bio = 'x' WHERE id = '#ann'")
            )
            until(lambda: run.ease < 1)
        thread.join()
        assert " for a lock of this run, " in run.why or "again" in run.why
        run.turn(connection, own)
        assert own.seconds < BESIDE_OTHERS


def time_passes(run: Governor) -> None:
    """It has lasted long enough to be watched."""
    run._began -= 60


# --- time-outs -----------------------------------------------------------------------------


def test_batches_are_halved_on_a_statement_timeout_down_to_one_row(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows that take their time are copied one by one, and those take it."""
    insert(both.old, *(artist(f"#a{number}") for number in range(7)))
    both.newly("SELECT set_config('terrain.sync', 'on', false)")
    both.newly("DELETE FROM legacy_batch")
    both.newly("DELETE FROM legacy_run WHERE step = 'copy artists'")
    whole, sizes = copying._copy_range, []

    def slow(connection: Any, work: Any, shard: Any, after: Any, upto: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM public.artists WHERE id <= %s"
                " AND (%s::uuid IS NULL OR id > %s)",
                [upto, after, after],
            )
            (rows,) = cursor.fetchone()
            sizes.append(rows)
            if sum(size == 1 for size in sizes) < 3:
                cursor.execute("SELECT pg_sleep(0.05)")
        whole(connection, work, shard, after, upto)

    monkeypatch.setattr(copying, "_copy_range", slow)
    monkeypatch.setattr(pace, "FIRST_BATCH", 8)
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = '20ms'")
    copying.copy(connection, "artists")
    with connection.cursor() as cursor:
        cursor.execute("RESET statement_timeout")
    assert sizes[:5] == [8, 4, 2, 1, 1]  # the last without a limit
    run = ledger.last("copy artists")
    assert run is not None and run.rows == 9


def test_a_batch_that_cannot_have_its_lock_is_halved_and_tried_again(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    both.newly("DELETE FROM legacy_batch")
    both.newly("DELETE FROM legacy_run WHERE step = 'copy artists'")
    whole, failed = copying._copy_range, []

    def locked(connection: Any, *rest: Any) -> None:
        if len(failed) < 2:
            failed.append(rest)
            error = DatabaseError()
            error.__cause__ = psycopg.errors.LockNotAvailable()
            raise error
        whole(connection, *rest)

    monkeypatch.setattr(copying, "_copy_range", locked)
    monkeypatch.setattr(pace, "FIRST_BATCH", 2)
    copying.copy(connection, "artists")
    assert len(failed) == 2
    run = ledger.last("copy artists")
    assert run is not None and (run.state, run.rows) == ("done", 2)


# --- orders --------------------------------------------------------------------------------


def test_orders_are_kept_and_told(migrated: Database, manage: Manage) -> None:
    assert manage("migration_control").out == "No orders are in force.\n"
    assert manage("migration_control", "throttle", "25").out == (
        "At work 25 % of the time from the next batch on.\n"
    )
    assert manage("migration_control", "ignore", "replicas", "archive").out == (
        "Nothing slows down for replicas or archive any more.\n"
    )
    assert manage("migration_control", "pause").out == (
        "Paused. No command is at work just now: the next one will wait before its first"
        " batch, and so does settle --watch. Resume with: python manage.py"
        " migration_control resume\n"
    )
    orders = control.read(connection)
    since = f"{orders.paused_at:%Y-%m-%d %H:%M} UTC"
    told = (
        f"The move is paused by role {OWNER} since {since}, resume with:"
        " python manage.py migration_control resume\n"
        f"The move is throttled to 25 % of the time by role {OWNER}; end that with:"
        " python manage.py migration_control throttle off\n"
        "The move does not slow down for archive or replicas; end that with:"
        " python manage.py migration_control ignore off\n"
    )
    assert manage("migration_control").out == told
    assert manage("migration_control", "pause").out == (
        f"It is paused by role {OWNER} since {since}, resume with:"
        " python manage.py migration_control resume\n"
    )
    status = manage("migration_status")
    assert told.replace("\n", "\n\n").strip() in status.out
    assert status.out.endswith("\nNext: python manage.py migration_control resume\n")
    document = json.loads(manage("migration_status", "--json").out)
    assert document["next"] == "migration_control resume"
    assert document["pace"]["orders"]["paused_by"] == f"role {OWNER}"
    assert document["pace"]["runs"] == []
    assert (
        manage("migration_control", "throttle", "off").out == "No longer throttled.\n"
    )
    assert manage("migration_control", "ignore", "off").out == (
        "It slows down again for whatever needs it.\n"
    )
    assert manage("migration_control", "resume").out == (
        "Resumed. No command is at work just now; run it again to go on.\n"
    )
    assert manage("migration_control", "resume").out == "It was not paused.\n"
    assert control.read(connection) == control.Orders()


def test_before_the_first_migration_there_is_nothing_to_pause(
    shop: Database, manage: Manage
) -> None:
    result = manage("migration_control", "pause")
    assert (result.code, result.err) == (
        2,
        "Nothing can be paused yet: the tables for it come with the first migration."
        " Run: python manage.py migrate\n",
    )
    assert manage("migration_status").code == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        *(
            (
                ("throttle", share),
                f"'{share}' is neither a number from 1 to 100, percent of the time, nor off."
                " Type for instance: python manage.py migration_control throttle 25\n",
            )
            for share in ("0", "101", "x", "²", "")
        ),
        (
            ("ignore", "weather"),
            "'weather' is nothing that a run slows down for. It is one or more of waiting,"
            " commits, replicas, slots, archive; or off.\n",
        ),
        (("pause", "now"), "pause takes no more words, and not 'now'.\n"),
    ],
)
def test_orders_that_make_no_sense(
    shared: Database, manage: Manage, words: tuple[str, ...], sentence: str
) -> None:
    assert manage("migration_control", *words) == Result(2, "", sentence)
    assert control.read(connection) == control.Orders()


@pytest.fixture
def paused(both: Both, monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    """A shop whose move somebody has paused."""
    monkeypatch.setattr(governor, "ORDERS_EVERY", 0.01)
    monkeypatch.setattr(pace, "FIRST_BATCH", 1)
    monkeypatch.setattr(pace, "LARGEST_BATCH", 1)
    control.pause(connection, "anna")
    yield both


def copy_artists_again(own: Any) -> Any:
    with own.cursor() as cursor:
        cursor.execute("DELETE FROM legacy_batch")
        cursor.execute("DELETE FROM legacy_run WHERE step = 'copy artists'")
    return copying.copy(own, "artists")


def carry_over_all(own: Any) -> Any:
    with governed(own, "settle") as run:
        keys = [key("#ann"), key("#bob")]
        return reconciling.carry_over_all(own, LENSES[0], keys, governor=run)


LONG_RUNS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "tables": ("copy artists", copy_artists_again),
    "customers": ("copy customers", customers.copy_customers),
    "reconcile": ("settle", carry_over_all),
    "queue": ("settle", settling.settle_queue),
    "settle": ("settle", settling.settle),
    "catalogue": ("copy_models_to_assets", assets.copy),
}


@pytest.mark.parametrize("what", LONG_RUNS)
def test_every_long_run_waits_while_paused_and_holds_nothing(
    paused: Both, what: str
) -> None:
    step, run = LONG_RUNS[what]
    if what == "catalogue":
        control.resume(connection)
        settling.settle(connection)  # it would wait there
    outcome: list[Any] = []
    thread = threading.Thread(target=in_thread, args=[run, outcome])
    if what == "catalogue":
        assets.before_copy.connect(pause_again)
    thread.start()
    try:
        (report,) = until(lambda: control.reports(connection))
        assert (report.step, report.state) == (step, "paused")
        assert report.why.startswith("paused by anna since ")
        assert holds_nothing(paused, report.pid)
        assert thread.is_alive()
        control.resume(connection)
        thread.join()
    finally:
        assets.before_copy.disconnect(pause_again)
    assert not isinstance(outcome[0], BaseException), outcome
    assert control.reports(connection) == []
    assert_in_step(paused)


def pause_again(sender: Any, **_: Any) -> None:
    """What comes before the catalogue's own batches is done by now, or it would wait there."""
    settling.settle(connections["default"])
    control.pause(connections["default"], "anna")


def in_thread(run: Callable[[Any], Any], outcome: list[Any]) -> None:
    try:
        outcome.append(run(connections["default"]))
    except BaseException as error:
        outcome.append(error)
    finally:
        connections["default"].close()


def holds_nothing(both: Both, pid: int) -> bool:
    """Neither a transaction nor a lock on a table."""
    asked = both.database.superuser

    def idle() -> Any:
        return asked.execute(
            "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND state = 'idle'"
            " AND xact_start IS NULL AND NOT EXISTS (SELECT FROM pg_locks l"
            " WHERE l.pid = %s AND l.locktype <> 'advisory')",
            [pid, pid],
        ).fetchone()

    return bool(until(idle))


def test_a_retry_from_the_admin_does_not_wait_for_a_pause(paused: Both) -> None:
    assert settling.retry_held(connection, [("artists", key("#ann"))]) == 0


def test_a_copy_of_a_paused_database_has_no_orders(paused: Both) -> None:
    """upgrade --rehearse would wait for somebody to let the live database go on."""
    control.forget(connection)
    assert control.in_force(connection) == control.Orders()


def test_whoever_begins_something_is_told_that_it_is_paused(
    paused: Both, manage: Manage, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, reads = control.read, iter(range(100))

    def interrupted(connection: Any) -> control.Orders:
        if next(reads) == 2:  # at the beginning, before the first batch, while it waits
            raise KeyboardInterrupt
        return read(connection)

    monkeypatch.setattr(control, "read", interrupted)
    result = manage("settle")
    assert result.code == 130
    since = f"{read(connection).paused_at:%Y-%m-%d %H:%M} UTC"
    pause = (
        f"paused by anna since {since}, resume with:"
        " python manage.py migration_control resume"
    )
    assert result.err == (
        f"  … The move is {pause}\n"
        f"  … settle: {pause}\n"
        "\nStopped; the move is still paused. To go on: python manage.py migration_control"
        " resume and then the same command again.\n"
    )


def test_at_work_a_tenth_of_the_time(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It rests nine times as long as the batch took, and no longer than it must."""
    control.throttle(connection, 10)
    rests: list[float] = []
    with governed(connection, "copy artists") as run:
        own = Pace(BESIDE_OTHERS)
        monkeypatch.setattr(run.stop, "wait", rests.append)
        assert run.turn(connection, own)
        assert rests == []
        own.took(1, 0.04)
        run.turn(connection, own)
        assert rests == [pytest.approx(0.36, abs=0.1)]
        assert control.reports(connection)[0].why == (
            f"throttled to 10 % of the time by role {OWNER}"
        )
        control.throttle(connection, None)
        own.took(1, 0.04)
        run.turn(connection, own)
        assert len(rests) == 1
        assert control.reports(connection) == []


# --- two processes -------------------------------------------------------------------------


def status(manage: Manage, name: str) -> dict[str, Any]:
    steps = json.loads(manage("migration_status", "--json").out)["steps"]
    (found,) = (each for each in steps if each["name"] == name)
    return dict(found)


@pytest.fixture
def crawling(shop: Database, manage: Manage) -> Iterator[tuple[str, Any]]:
    """A migration by another process, in the middle of the orders, which takes long.

    So many that several batches are left when the first is seen, however fast the machine.
    """
    shop.execute(
        "INSERT INTO orders SELECT (jsonb_populate_record(o, jsonb_build_object("
        " 'id', gen_random_uuid(), 'order_number', o.order_number || '-' || n,"
        " 'stripe_payment_id', NULL))).* FROM orders o, generate_series(1, 9) n"
    )
    assert manage("migrate", "terrain", "-v0").code == 0
    control.throttle(connection, 4)
    url = url_of(shop.cluster, shop.name)
    with popen(url, "migrate") as process:
        until(lambda: batches_of_orders(shop) or process.poll() is not None)
        yield url, process
        if process.poll() is None:
            process.kill()


def batches_of_orders(shop: Database) -> int:
    if not shop.value("SELECT to_regclass('terrain.legacy_batch') IS NOT NULL"):
        return 0
    found: int = shop.value(
        "SELECT count(*) FROM terrain.legacy_batch b JOIN terrain.legacy_run r ON r.id = b.run_id"
        " WHERE r.step = 'copy orders'"
    )
    return found


def test_pause_resume_and_ctrl_c_from_another_terminal(
    shop: Database, crawling: tuple[str, subprocess.Popen[str]], manage: Manage
) -> None:
    url, process = crawling
    assert typed(url, "migration_control", "pause") == Result(
        0, "Paused; what runs waits from its next batch on.\n", ""
    )
    until(lambda: status(manage, "copy orders")["state"] == "paused")
    assert status(manage, "copy orders")["detail"].startswith(
        f"paused by role {OWNER} since "
    )
    before = batches_of_orders(shop)
    (report,) = control.reports(connection)
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.endswith(
        "\nStopped; the move is still paused. To go on: python manage.py migration_control"
        " resume and then the same command again.\n"
    )
    assert "Traceback" not in err
    assert f"\n    … copy orders: paused by role {OWNER} since " in err
    assert batches_of_orders(shop) == before
    assert control.reports(connection) == []
    assert status(manage, "copy orders")["state"] == "paused"
    assert typed(url, "migration_control", "resume").out == (
        "Resumed. No command is at work just now; run it again to go on.\n"
    )
    control.throttle(connection, None)
    assert typed(url, "migrate", "-v0").code == 0
    assert manage("verify_migration", "-v0").code == 0
    assert report.step == "copy orders"


def test_killed_while_paused_the_next_run_is_paused_too(
    shop: Database, crawling: tuple[str, subprocess.Popen[str]], manage: Manage
) -> None:
    url, process = crawling
    control.pause(connection)
    until(lambda: control.reports(connection)[0].state == "paused")
    process.kill()
    process.communicate(timeout=30)
    until(lambda: control.reports(connection) == [])  # nobody says so any more
    assert shop.value("SELECT count(*) FROM terrain.terrain_pace_state") == 1
    with popen(url, "migrate") as again:
        until(lambda: control.reports(connection))
        before = batches_of_orders(shop)
        control.throttle(connection, None)
        assert typed(url, "migration_control", "resume").out == (
            "Resumed; what waited goes on.\n"
        )
        _out, err = again.communicate(timeout=60)
    assert again.returncode == 0
    assert err.startswith(f"  … The move is paused by role {OWNER} since ") or (
        f"\n    … The move is paused by role {OWNER} since " in err
    )
    assert "\n    … migrate: goes on" in err
    assert batches_of_orders(shop) > before
    assert manage("verify_migration", "-v0").code == 0
    assert shop.value("SELECT count(*) FROM terrain.terrain_pace_state") == 0


def test_ctrl_c_in_the_middle_of_a_copy(
    shop: Database, crawling: tuple[str, subprocess.Popen[str]], manage: Manage
) -> None:
    url, process = crawling
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=30)
    assert err.endswith("\nStopped. Run the same command again to go on.\n"), err
    assert process.returncode == 130
    control.throttle(connection, None)
    assert typed(url, "migrate", "-v0").code == 0
    assert manage("verify_migration", "-v0").code == 0


def test_time_that_was_paused_is_no_time_at_work(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(governor.time, "monotonic", lambda: clock[0])
    with governed(connection, "copy artists") as run:
        run._say_that_it_stops("", "paused", "paused")
        clock[0] += 3600
        assert run.stopped_seconds == 3600
        run._say_that_it_stops("paused", "slowed", "slowed")
        clock[0] += 5
        assert run.stopped_seconds == 3600
