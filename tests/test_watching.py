"""``settle --watch``: goes on past what somebody has locked, and comes back to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import connection

from terrain import locks
from terrain.legacy import settling, watching
from terrain.legacy.management.commands import settle as settle_command
from terrain.legacy.settling import Settled
from terrain.legacy.watching import Watch
from tests.both import Both
from tests.conftest import Database, Result
from tests.legacy import artist, insert, key, named, order, transfer

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]


@dataclass
class Clock:
    """Tells the time it is told."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watched(both: Both) -> tuple[Watch, Clock, list[str]]:
    """A watch that has begun, its clock, and what it says."""
    said: list[str] = []
    clock = Clock()
    watch = Watch(connection, said.append, clock)
    watch.begin()
    return watch, clock, said


def lock(both: Both, name: str) -> None:
    """The old application's transaction stays at an order."""
    both.does("BEGIN")
    both.does(f"UPDATE orders SET notes = 'x' WHERE id = '{name}'")


def shortened(said: list[str], both: Both) -> list[str]:
    """What was said, ids by name, seconds and the advice left out."""
    pid = both.old.info.backend_pid
    return [
        re.sub(r" \(let it end.*?;\)", "", named(sentence)).replace(str(pid), "PID")
        for sentence in said
    ]


def test_a_merge_that_is_blocked_is_come_back_to(
    both: Both, watched: tuple[Watch, Clock, list[str]]
) -> None:
    watch, clock, said = watched
    insert(both.old, order("#bought", email="cust@x.example"))
    watch.look()
    insert(both.old, artist("#cust", "Cust@X.example"))
    lock(both, "#bought")
    assert watch.look() == Settled()
    customer = both.has("SELECT user_id FROM orders WHERE id = '#bought'")[0][0]
    assert shortened(said, both) == [
        f"Merging customer {customer} into #cust waits for process PID (role shop_app,"
        " unnamed), in its transaction: its statement is not for this role to see. The rest"
        " goes on, and this is tried again."
    ]
    clock.now += watching.AGAIN
    with both.database.old() as another:
        insert(another, order("#later", email="late@r.example"))
    assert watch.look() == Settled(customers=1, linked=1)
    assert len(said) == 1
    both.does("COMMIT")
    assert watch.look() == Settled()
    clock.now += watching.AGAIN
    assert watch.look() == Settled(merged=1)
    assert both.has("SELECT user_id FROM orders WHERE id = '#bought'") == [("#cust",)]


def test_an_entry_that_is_blocked_does_not_hold_up_the_others(
    both: Both, watched: tuple[Watch, Clock, list[str]]
) -> None:
    watch, _, said = watched
    insert(both.old, order("#first", email="first@x.example"))
    insert(both.old, order("#second", email="second@x.example"))
    lock(both, "#first")
    assert watch.look() == Settled(customers=1, linked=1)
    assert watch.look() == Settled()
    assert shortened(said, both) == [
        "Settling orders #first waits for process PID (role shop_app, unnamed), in its"
        " transaction: its statement is not for this role to see. The rest goes on, and this"
        " is tried again."
    ]
    both.does("COMMIT")
    assert watch.look() == Settled(customers=1, linked=1)


def test_a_plain_settle_does_the_rest_and_then_says_what_is_in_the_way(
    both: Both, monkeypatch: pytest.MonkeyPatch, manage: Manage
) -> None:
    monkeypatch.setattr(locks, "TOTAL_LIMIT", 0.2)
    insert(both.old, order("#first", email="first@x.example"))
    insert(both.old, order("#second", email="second@x.example"))
    lock(both, "#first")
    result = manage("settle")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(
        f"Settling orders {key('#first')} could not get its lock within 0 s. In the way:"
        f" process {both.old.info.backend_pid} (role shop_app, unnamed), in its transaction: "
    )
    assert both.has("SELECT count(*) FROM orders WHERE user_id IS NULL") == [(1,)]
    both.does("COMMIT")
    assert manage("settle").code == 0


def test_repeated_ids_are_marked_now_and_then(
    both: Both, watched: tuple[Watch, Clock, list[str]]
) -> None:
    watch, clock, _ = watched
    for name in ("#one", "#two"):
        insert(
            both.old,
            transfer(name, "#ord", "#ann", stripe_transfer_id="tr_twice"),
        )
    repeated = "SELECT count(*) FROM legacy_quarantine WHERE reason LIKE '%repeated'"
    watch.look()
    assert both.has(repeated) == [(0,)]
    clock.now += watching.EVERYTHING
    watch.look()
    assert both.has(repeated) == [(2,)]


def test_a_merge_that_a_kill_has_left_undone_is_found(
    both: Both, watched: tuple[Watch, Clock, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue's entry is gone with the commit before the merge."""
    watch, clock, _ = watched
    insert(both.old, order("#bought", email="cust@x.example"))
    watch.look()
    insert(both.old, artist("#cust", "Cust@X.example"))

    def killed(*_: Any) -> Settled:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(settling, "merge_customers", killed)
        with pytest.raises(KeyboardInterrupt):
            settling.settle_queue(connection)
    assert watch.look() == Settled()
    clock.now += watching.EVERYTHING
    assert watch.look() == Settled(merged=1)


def test_it_ends_when_there_is_nothing_to_settle_any_more(
    migrated: Database, manage: Manage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def roll_back(seconds: float) -> None:
        assert manage("rollback_migration", "--yes", "-v", "0").code == 0

    monkeypatch.setattr(settle_command.time, "sleep", roll_back)
    assert manage("settle", "--watch") == Result(
        0,
        "Nothing was left to settle.\n"
        "There is nothing to settle any more: the database was rolled back, or its legacy"
        " tables have been cleaned up.\n",
        "",
    )
