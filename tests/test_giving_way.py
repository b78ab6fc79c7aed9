"""When both applications want the same rows, the new one gives way (section 3, law 7)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.db import transaction as django_transaction
from psycopg.types.json import Jsonb

from catalogue import assets
from terrain import locks
from terrain.exceptions import TryAgain
from terrain.legacy import reconciling, settling
from terrain.legacy.mapping import LENSES
from terrain.models import User
from tests.both import Both, Connection, assert_in_step
from tests.conftest import Result
from tests.legacy import artist, ids, insert, key, order

pytestmark = [pytest.mark.migration, pytest.mark.both_places]


def in_background(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run something in a thread; its result or exception, and the seconds it took."""
    outcome: list[Any] = []

    def run() -> None:
        started = time.monotonic()
        try:
            outcome.append(call())
        except Exception as error:
            outcome.append(error)
        outcome.append(time.monotonic() - started)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def wait_for(condition: Callable[[], Any]) -> None:
    """Ask until it is so; ten seconds are a failure."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline


def wait_until_blocked(
    both: Both, blocked: Connection, thread: threading.Thread
) -> None:
    """Until the connection waits for a lock, or (80 ms are soon over) has done so."""
    pid = blocked.info.backend_pid
    asked = both.database.superuser
    wait_for(
        lambda: asked.execute(
            "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'",
            [pid],
        ).fetchone()
        or not thread.is_alive()
    )


def test_the_new_side_yields_to_a_row_lock_of_the_old(both: Both) -> None:
    both.does("BEGIN")
    both.does("UPDATE artists SET name = 'Old' WHERE id = '#ann'")
    started = time.monotonic()
    with pytest.raises(psycopg.errors.LockNotAvailable):
        both.newly("UPDATE users SET display_name = 'New' WHERE id = '#ann'")
    assert 0.07 < time.monotonic() - started < 1
    both.does("COMMIT")
    both.newly("UPDATE users SET bio = 'New' WHERE id = '#ann'")
    assert both.sees("SELECT name, bio FROM artists WHERE id = '#ann'") == [
        ("Old", "New")
    ]


def test_both_write_one_row_at_once_and_the_new_one_yields(both: Both) -> None:
    """Old has the legacy row and wants the new one, new the other way round."""
    both.does("BEGIN")
    both.does("SELECT FROM artists WHERE id = '#ann' FOR UPDATE")
    thread, outcome = in_background(
        lambda: both.newly("UPDATE users SET display_name = 'New' WHERE id = '#ann'")
    )
    wait_until_blocked(both, both.new, thread)
    started = time.monotonic()
    both.does("UPDATE artists SET name = 'Old' WHERE id = '#ann'")
    assert time.monotonic() - started < 0.25
    both.does("COMMIT")
    thread.join()
    assert isinstance(outcome[0], psycopg.errors.LockNotAvailable)
    assert str(outcome[0]).startswith(
        both.fill("@legacy.artists #ann is being changed by the old application")
    )
    assert both.has("SELECT display_name FROM users WHERE id = '#ann'") == [("Old",)]


@pytest.mark.parametrize("first", ["old", "new"])
def test_an_old_statement_is_never_a_deadlocks_victim(both: Both, first: str) -> None:
    """Two rows, locked in opposite orders; whoever began to wait first, the new one yields."""
    both.does("BEGIN")
    both.newly("BEGIN")
    both.does("UPDATE artists SET bio = 'old' WHERE id = '#ann'")
    both.newly("UPDATE users SET bio = 'new' WHERE id = '#bob'")
    calls = {
        "old": lambda: both.does("UPDATE artists SET bio = 'old' WHERE id = '#bob'"),
        "new": lambda: both.newly("UPDATE users SET bio = 'new' WHERE id = '#ann'"),
    }
    second = "new" if first == "old" else "old"
    thread, outcome = in_background(calls[first])
    wait_until_blocked(both, both.old if first == "old" else both.new, thread)
    if second == "new":
        with pytest.raises(psycopg.errors.LockNotAvailable):
            calls["new"]()
        both.newly("ROLLBACK")
        thread.join()
        assert isinstance(outcome[0], psycopg.Cursor) and outcome[1] < 0.5
    else:
        other, waited = in_background(calls["old"])
        thread.join()
        assert isinstance(outcome[0], psycopg.errors.LockNotAvailable)
        both.newly("ROLLBACK")
        other.join()
        assert isinstance(waited[0], psycopg.Cursor) and waited[1] < 0.5
    both.does("COMMIT")
    assert (
        both.has("SELECT bio FROM users WHERE id IN ('#ann', '#bob')") == [("old",)] * 2
    )


def test_only_the_statement_waits_no_longer_not_the_session(both: Both) -> None:
    with both.new.transaction():
        both.newly("SET LOCAL lock_timeout = '7s'")
        both.newly("UPDATE users SET bio = 'x' WHERE id = '#ann'")
        both.newly(
            "INSERT INTO users (id, email, role) VALUES ('#ann', 'x', 'artist')"
            " ON CONFLICT (id) DO UPDATE SET bio = 'y'"
        )
        assert both.has("SHOW lock_timeout") == [("7s",)]
    assert both.has("SHOW lock_timeout") == [("0",)]


def test_the_orm_yields_with_a_clear_error_and_tries_again(both: Both) -> None:
    ann = User.objects.get(pk=key("#ann"))
    both.does("BEGIN")
    both.does("UPDATE artists SET name = 'Old' WHERE id = '#ann'")
    with pytest.raises(TryAgain) as refused, django_transaction.atomic():
        ann.bio = "new"
        ann.save()
    assert str(refused.value) == ("Somebody else is changing the same rows. Try again.")
    thread, outcome = in_background(lambda: save_bio(ann.pk, "newer"))
    wait_until_yielded(both)
    both.does("COMMIT")
    thread.join()
    assert outcome[0] is None, outcome
    assert both.sees("SELECT name, bio FROM artists WHERE id = '#ann'") == [
        ("Old", "newer")
    ]


def save_bio(pk: Any, bio: str) -> None:
    """In a thread, with a connection of its own."""
    try:
        user = User.objects.get(pk=pk)
        user.bio = bio
        user.save()
    finally:
        connection.close()


def wait_until_yielded(both: Both) -> None:
    """Until some session of Django's has waited in vain and rolled back."""
    asked = both.database.superuser
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock'"
    )
    for expected in (1, 0):
        wait_for(lambda: asked.execute(waiting).fetchone() == (expected,))  # noqa: B023


def test_settle_gives_way_to_the_old_application(both: Both) -> None:
    insert(both.old, order("#later", email="late@r.example"))
    both.does("BEGIN")
    both.does("UPDATE orders SET notes = 'x' WHERE id = '#later'")
    thread, outcome = in_background(lambda: settle_in_thread())
    wait_until_yielded(both)
    both.does("UPDATE orders SET notes = 'y' WHERE id = '#later'")
    both.does("COMMIT")
    thread.join()
    assert outcome[0].linked == 1
    assert both.has(
        "SELECT user_id IS NULL, notes FROM orders WHERE id = '#later'"
    ) == [(False, "y")]


def test_a_merge_that_waits_holds_nothing_of_what_is_settled(both: Both) -> None:
    """Or an old client would wait for settle, which waits for another one."""
    insert(both.old, order("#bought", email="cust@x.example"))
    settling.settle(connection)
    insert(both.old, order("#later", email="late@r.example"))
    insert(both.old, artist("#cust", "Cust@X.example"))
    both.does("BEGIN")
    both.does("UPDATE orders SET notes = 'x' WHERE id = '#bought'")
    thread, outcome = in_background(settle_in_thread)
    wait_for(
        lambda: both.has(
            "SELECT 1 FROM orders WHERE id = '#later' AND user_id IS NOT NULL"
        )
    )
    with both.database.old() as another:
        another.execute("SET lock_timeout = '250ms'")
        another.execute("UPDATE orders SET notes = 'y' WHERE id = %s", [key("#later")])
    both.does("COMMIT")
    thread.join()
    assert (outcome[0].linked, outcome[0].merged) == (1, 1)
    assert both.has("SELECT user_id FROM orders WHERE id = '#bought'") == [("#cust",)]


def settle_in_thread() -> Any:
    try:
        return settling.settle(connection)
    finally:
        connection.close()


def test_an_artist_deleted_while_something_of_theirs_is_committed(both: Both) -> None:
    """The deletion sees it, and takes nothing along."""
    both.newly("BEGIN")
    both.newly(
        "INSERT INTO asset_sets (id, name, owner_id)"
        " VALUES (gen_random_uuid(), 'Hills', '#bob')"
    )
    both.newly("SET CONSTRAINTS ALL IMMEDIATE")  # the first thing a commit does
    thread, outcome = in_background(
        lambda: both.does("DELETE FROM artists WHERE id = '#bob'")
    )
    wait_until_blocked(both, both.old, thread)
    both.newly("COMMIT")
    thread.join()
    assert isinstance(outcome[0], psycopg.Cursor)
    settling.settle(connection)
    assert both.has("SELECT owner_id FROM asset_sets") == [("#bob",)]
    assert both.has("SELECT role FROM users WHERE id = '#bob'") == [("customer",)]


def test_an_artist_deleted_while_settle_links_something_to_them(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settle finds out when it commits, and begins again."""
    insert(both.old, artist("#cy", "cy@x.example"))
    insert(both.old, order("#cys", email="cy@x.example"))
    link = settling._settle_rows

    def link_and_delete(*arguments: Any) -> settling.Settled:
        done = link(*arguments)
        both.does("DELETE FROM artists WHERE id = '#cy'")
        return done

    monkeypatch.setattr(settling, "_settle_rows", link_and_delete)
    settling.settle(connection)
    assert both.has(
        "SELECT u.email, u.role FROM orders o JOIN users u ON u.id = o.user_id"
        " WHERE o.id = '#cys'"
    ) == [("cy@x.example", "customer")]


def test_two_artists_of_one_address_deleted_at_once(both: Both) -> None:
    """Both become that customer; neither deletion fails because of the other."""
    insert(both.old, artist("#c1", "Cy@x.example"), artist("#c2", "cY@x.example"))
    both.newly(
        "INSERT INTO asset_sets (id, name, owner_id) VALUES"
        " (gen_random_uuid(), 'one', '#c1'), (gen_random_uuid(), 'two', '#c2')"
    )
    another = both.database.old()
    both.does("BEGIN")
    both.does("DELETE FROM artists WHERE id = '#c1'")
    thread, outcome = in_background(
        lambda: another.execute(ids("DELETE FROM artists WHERE id = '#c2'"))
    )
    wait_until_blocked(both, another, thread)
    both.does("COMMIT")
    thread.join()
    assert isinstance(outcome[0], psycopg.Cursor)
    settling.settle(connection)
    assert both.has("SELECT name, owner_id FROM asset_sets ORDER BY 1") == [
        ("one", "#c1"),
        ("two", "#c1"),
    ]


def test_rows_are_carried_over_in_short_transactions(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a row takes, nobody waits for hundreds of them."""
    clock, sizes = [0.0], []

    def slowly(_connection: Any, _lens: Any, keys: list[Any]) -> None:
        sizes.append(len(keys))
        clock[0] += 0.02 * len(keys)

    monkeypatch.setattr(reconciling, "carry_over", slowly)
    monkeypatch.setattr(
        reconciling, "time", SimpleNamespace(monotonic=lambda: clock[0])
    )
    keys = [key(f"#k{number}") for number in range(50)]
    assert reconciling.carry_over_all(connection, LENSES[0], keys) == 50
    assert sizes[0] == 20 and max(sizes[1:]) <= 5 and sum(sizes) == 50


def test_carrying_over_does_not_overwrite_what_is_just_being_written(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a rollback: the rows differ, and the old application is at work on one."""
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", 10_000)
    with both.new.transaction():
        both.newly("SELECT set_config('terrain.echo', 'users:*@0', true)")
        both.newly("UPDATE users SET bio = 'parked' WHERE id = '#ann'")
    both.does("BEGIN")
    both.does("UPDATE artists SET bio = 'later' WHERE id = '#ann'")
    thread, outcome = in_background(lambda: carry_over_in_thread("#ann"))
    waiting = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock'"
    )
    asked = both.database.superuser
    wait_for(lambda: asked.execute(waiting).fetchone())
    both.does("COMMIT")
    thread.join()
    assert outcome[0] == 1, outcome
    assert both.has("SELECT bio FROM users WHERE id = '#ann'") == [("later",)]


def carry_over_in_thread(name: str) -> Any:
    try:
        return reconciling.carry_over_all(connection, LENSES[0], [key(name)])
    finally:
        connection.close()


def test_manage_settle_watch_is_not_needed_for_law_two(
    both: Both, manage: Callable[..., Result]
) -> None:
    insert(both.old, order("#unsettled", email="un@settled.example"))
    assert_in_step(both)
    done = manage("settle")
    assert (done.code, done.out) == (
        0,
        "customers made: 1, orders and tables linked: 1.\n",
    )


@pytest.mark.parametrize(
    "busy, then",
    [
        ("DELETE FROM user_tables WHERE id = '#den'", "tables"),
        ("DELETE FROM assets WHERE id = '#tower'", "models"),
    ],
)
def test_what_is_deleted_while_the_catalogue_is_copied(
    both: Both, busy: str, then: str
) -> None:
    """The batch has seen the row, waits for the deletion, and finds nothing to refer to."""
    both.does(
        "UPDATE user_tables SET layout_data = %s WHERE id = '#den'",
        Jsonb({"models": [{"asset_id": str(key("#tower"))}]}),
    )
    assets.copy(connection)
    both.newly("DELETE FROM table_assets")
    both.newly("DELETE FROM assets")
    both.does("BEGIN")
    both.does(busy)
    thread, outcome = in_background(copy_in_thread)
    wait_until_yielded(both)
    both.does("COMMIT")
    thread.join()
    assert isinstance(outcome[0], assets.Copied), outcome
    assert both.has(f"SELECT count(*) FROM {then} WHERE id IN ('#den', '#tower')") == [
        (0,)
    ]
    assert both.has("SELECT count(*) FROM table_assets") == [(0,)]


def copy_in_thread() -> Any:
    try:
        return assets.copy(connection)
    finally:
        connection.close()
