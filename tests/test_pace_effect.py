"""What a run does to the shop, seen on real servers: replicas, archives, waits, commits."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, connections, transaction

from catalogue import assets
from catalogue.models import Model
from terrain import pace, progress
from terrain.embedded import OWNER
from terrain.legacy import guide
from terrain.models import User
from terrain.pace import control, governor, watch
from terrain.pace.governor import Governor, between_steps, governed
from tests.conftest import connecting
from tests.servers import Pair, pair
from tests.waiting import until


@pytest.fixture(scope="module")
def servers(
    tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any
) -> Iterator[Pair]:
    """A primary whose database is migrated and empty, and its standby."""
    with pair(tmp_path_factory.mktemp("pair")) as both, django_db_blocker.unblock():
        with at(both):
            call_command("migrate", verbosity=0)
        yield both


def at(both: Pair) -> Any:
    return connecting(
        HOST=str(both.primary.socket_dir), NAME="terrain_builder", OPTIONS={}
    )


@pytest.fixture
def here(
    servers: Pair, django_db_blocker: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pair]:
    """Django is at the primary, as an owner who may monitor; nothing is usual yet."""
    watch._known.clear()
    monkeypatch.setattr(governor, "LOOK_EVERY", 0.02)
    monkeypatch.setattr(governor, "TELL_EVERY", 0.0)
    servers.ask(f"GRANT pg_monitor TO {OWNER}")
    with django_db_blocker.unblock(), at(servers):
        yield servers
        control.resume(connection)
        control.throttle(connection, None)
        control.ignore(connection, ())
        servers.wait_until_replayed()


def write_something() -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS written (id integer)")
        cursor.execute("INSERT INTO written VALUES (1)")


def look_until(run: Governor, condition: Callable[[], Any]) -> None:
    def look() -> Any:
        write_something()
        run.look(connection)
        return condition()

    until(look)


# --- replicas ------------------------------------------------------------------------------


def test_a_replica_that_falls_behind_slows_a_run_until_it_has_caught_up(
    here: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LAG_SECONDS", 1.0)
    with governed(connection, "copy orders") as run:
        run.look(connection)
        assert (run.ease, run.why) == (1.0, "")
        with here.replay_paused():
            look_until(run, lambda: run.ease < 1)
            assert run.why == "replica near is 1 s behind"
            look_until(run, lambda: run.ease == governor.CRAWL)
            assert not run.is_stopped
        look_until(run, lambda: run.ease == 1)
        assert run.why == ""


def test_a_replica_is_behind_in_bytes_too(
    here: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LAG_BYTES", 2**20)
    with governed(connection, "copy orders") as run, here.replay_paused():
        run.look(connection)
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS wide (text text)")
            cursor.execute(
                "INSERT INTO wide SELECT repeat(md5(n::text), 30)"
                " FROM generate_series(1, 5000) n"
            )
        look_until(run, lambda: run.ease < 1)
        assert run.why.startswith("replica near is ")
        assert run.why.endswith(" MB behind")


def test_a_replica_that_has_always_been_behind_slows_nobody(
    here: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LAG_SECONDS", 0.5)
    watch.usual_of(connection)["seconds near"] = 3600.0
    with governed(connection, "copy orders") as run, here.replay_paused():
        run.watch._usual = lambda name, value: 3600.0  # type: ignore[method-assign]
        began = len(run.watch.positions)
        look_until(run, lambda: len(run.watch.positions) > began + 5)
        assert run.ease == 1.0


def test_what_slows_it_is_told_everywhere_and_the_copy_ends_all_the_same(
    here: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On its line, in the ledger, in migration_status; a stuck replica does not stop it."""
    monkeypatch.setattr(watch, "LAG_SECONDS", 0.2)
    monkeypatch.setattr(pace, "FIRST_BATCH", 1)
    monkeypatch.setattr(pace, "LARGEST_BATCH", 1)
    monkeypatch.setattr(progress, "INTERVAL", 0.01)
    artist = User.objects.create(email="a@b.example", role="artist", display_name="A")
    for number in range(60):
        Model.objects.create(
            artist=artist, name=f"M{number}", base_price=1, file_paths={"glb": "m.glb"}
        )
    control.throttle(connection, 10)  # so that it is still there when that is noticed
    log = io.StringIO()
    thread = threading.Thread(target=copy_in_thread, args=[log])
    with here.replay_paused():
        thread.start()
        step = until(lambda: is_slowed(tmp_path))
        ((report),) = control.reports(connection)
        thread.join()
    assert (step.state, report.step) == ("running", "copy_models_to_assets")
    assert report.state == "slowed"
    assert report.why.startswith("slowed: replica near is ")
    assert assets.copy(connection).nothing
    said = log.getvalue()
    assert "(slowed: replica near is " in said
    assert (
        "  … copy_models_to_assets crawls, at work 5 % of the time, and goes on so:"
        " replica near is "
    ) in said
    assert (
        " behind. To wait until that is over: python manage.py migration_control pause;"
        " not to mind it: python manage.py migration_control ignore replicas\n"
    ) in said
    assert control.reports(connection) == []


def is_slowed(folder: Path) -> guide.Step | None:
    """The step of the guide, if it says that it is."""
    (step,) = (
        each for each in guide.steps(connection, folder) if each.name == "assets"
    )
    return step if step.detail.startswith("slowed: replica near is ") else None


def copy_in_thread(log: io.StringIO) -> None:
    try:
        with progress.shown(1, log):
            assets.copy(connections["default"])
    finally:
        connections["default"].close()


def test_what_an_operator_ignores_slows_nobody(
    here: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LAG_SECONDS", 0.1)
    control.ignore(connection, (control.REPLICAS,))
    with governed(connection, "copy orders") as run, here.replay_paused():
        run.turn(connection, pace.Pace(0.08))
        signs: list[watch.Sign] = []
        until(
            lambda: write_something()
            or signs.extend(run.watch.look(connection))
            or any(sign.ratio > 1 for sign in signs)
        )
        run.look(connection)
        assert run.ease == 1.0


def test_a_role_that_may_not_see_replicas_is_told_so_once(here: Pair) -> None:
    here.ask(f"REVOKE pg_monitor FROM {OWNER}")
    log = io.StringIO()
    with progress.shown(1, log):
        for _ in range(2):
            with governed(connection, "copy orders") as run:
                run.look(connection)
                assert run.ease == 1.0
    assert log.getvalue() == (
        "  … How far near is behind is not for this role to see, so nothing slows down for"
        " it; GRANT pg_monitor to the role, or watch it from elsewhere.\n"
    )


def test_a_step_that_is_one_statement_waits_for_replicas_before_it_begins(
    here: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LAG_SECONDS", 0.2)
    monkeypatch.setattr(governor, "LARGE", -1)
    with governed(connection, "copy orders") as before:
        before.look(connection)  # so that it is known what is usual
    thread = threading.Thread(target=wait_in_thread)
    with here.replay_paused():
        write_something()
        until(
            lambda: here.ask(
                "SELECT 1 FROM pg_stat_replication"
                " WHERE clock_timestamp() - reply_time < '1 h' AND replay_lag > '0.5 s'"
            )
        )
        thread.start()
        until(lambda: control.reports(connection))
        (report,) = control.reports(connection)
        assert (report.step, report.state) == ("migrate", "slowed")
        assert thread.is_alive()
    thread.join()
    assert control.reports(connection) == []


def wait_in_thread() -> None:
    try:
        between_steps(connections["default"], "migrate", "terrain.models")
    finally:
        connections["default"].close()


# --- what fills the disk -------------------------------------------------------------------


def test_an_archive_that_fails_slows_a_run_and_stops_it_before_the_disk_is_full(
    here: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 16 * 2**20
    monkeypatch.setattr(watch, "KEPT_BYTES", 2.5 * size)
    monkeypatch.setattr(watch, "KEPT_AT_MOST", 4.5 * size)
    archives = here.primary.folder / "data" / "archives"
    with governed(connection, "copy orders") as run:
        control.ignore(connection, (control.SLOTS,))
        run.turn(connection, pace.Pace(0.08))
        run.look(connection)
        assert run.ease == 1.0
        archives.unlink()
        switch_wal(here, run, lambda: run.ease < 1)
        assert run.why.startswith("3 WAL files wait to be archived")
        assert not run.is_stopped
        look_until(run, lambda: "and archiving fails, " in run.why)
        switch_wal(here, run, lambda: run.is_stopped)
        assert run.stopped_by.startswith("5 WAL files wait to be archived")
        assert run._state()[0] == "waiting"
        archives.touch()
        look_until(run, lambda: not run.is_stopped and run.ease == 1)


def switch_wal(here: Pair, run: Governor, condition: Callable[[], Any]) -> None:
    """Fill WAL files, one after the other."""

    def fill() -> Any:
        if condition():
            return True
        write_something()
        here.ask("SELECT pg_switch_wal()")
        run.look(connection)
        return condition()

    until(fill)


def test_wal_kept_for_a_slot_that_nobody_reads_from(
    here: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain owner sees that much of a replica that is gone."""
    monkeypatch.setattr(watch, "KEPT_BYTES", 20 * 2**20)
    here.ask(f"REVOKE pg_monitor FROM {OWNER}")
    here.ask("SELECT pg_create_physical_replication_slot('gone', true)")
    control.ignore(connection, (control.ARCHIVE,))
    try:
        with governed(connection, "copy orders") as run:
            run.turn(connection, pace.Pace(0.08))
            run.look(connection)
            switch_wal(here, run, lambda: run.ease < 1)
            assert run.why.endswith(
                " MB of WAL are kept for slot gone, which nobody reads from"
            )
    finally:
        here.ask("SELECT pg_drop_replication_slot('gone')")


# --- clients -------------------------------------------------------------------------------


def test_a_commit_that_takes_long_is_seen_while_it_does(here: Pair) -> None:
    """A synchronous standby that does not answer holds up the shop's commits too."""
    here.set("synchronous_standby_names", "*")
    try:
        with governed(connection, "copy orders") as run, here.replay_paused():
            own = pace.Pace(0.08)
            run.turn(connection, own)
            thread = threading.Thread(target=commit_in_thread, args=[run])
            thread.start()
            until(lambda: look_in_vain(run) or run.ease < 1)
            assert run.why.startswith("a commit has waited for 0.")
            here.ask_standby("SELECT pg_wal_replay_resume()")
            thread.join()
    finally:
        here.set("synchronous_standby_names", "")


def look_in_vain(run: Governor) -> None:
    run.look(connection)


def commit_in_thread(run: Governor) -> None:
    own = connections["default"]
    try:
        run.turn(own, pace.Pace(0.08))
        with own.cursor() as cursor:
            cursor.execute("SET synchronous_commit = remote_apply")
        with transaction.atomic():
            write_something()
            run.committing()
    finally:
        own.close()


def test_commits_slower_than_usual_slow_a_run() -> None:
    seen = watch.Watch()
    for _ in range(watch.USUAL_COMMITS):
        seen.committed(0.03)
    (sign,) = seen.look_at_commits(0.0)
    assert sign.ratio == pytest.approx(0.2)
    for _ in range(watch.LATEST_COMMITS):
        seen.committed(0.45)
    (sign,) = seen.look_at_commits(0.0)
    assert sign.ratio == pytest.approx(3)
    assert sign.sentence == "a commit takes 450 ms, usual were 30 ms"
    for _ in range(watch.LATEST_COMMITS):
        seen.committed(0.03)
    assert len(seen.commits) == watch.USUAL_COMMITS + watch.LATEST_COMMITS
    (sign,) = seen.look_at_commits(0.0)
    assert sign.ratio == pytest.approx(0.2)
