"""Each race of the sync, stepped by hand: docs/decisions/0008 says what makes it right.

What an old client is not to notice shows in ``does``: it neither waits nor fails.  What is
late is carried over by the next ``settle``; the fixture ``both`` looks whether it is.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection

from terrain import locks, pace
from terrain.legacy import carrying, checks, copying, reconciling, settling
from terrain.legacy.findings import Severity
from terrain.legacy.mapping import BY_LEGACY, LENSES
from tests.both import Both
from tests.conftest import Result
from tests.legacy import artist, insert, key, model, named, order, table
from tests.stepping import NEVER, Command, Outcome, Session, pause_at_commit

pytestmark = [pytest.mark.migration, pytest.mark.both_places]

PAYMENT = (
    "INSERT INTO stripe_transfers (stripe_transfer_id, order_id, artist_id, amount)"
    " VALUES ('tr', '#ord', '#ann', 1)"
)
LINE = '[{"asset_id": "#wall", "quantity": 1}]'
REPEATABLE = "BEGIN ISOLATION LEVEL REPEATABLE READ"


def old(both: Both, name: str = "old") -> Session:
    return Session(both.database.old(), both.database.superuser, name)


def new(both: Both) -> Session:
    path = both.database.new()
    return Session(path, both.database.superuser, "new")


def succeeds(outcome: Outcome) -> Outcome:
    assert not outcome.failed, outcome
    return outcome


def late(both: Both) -> list[Any]:
    """What waits for settle because its trigger could not carry it over: table, id, state."""
    return [
        (table, named(key), why[:5])
        for table, key, why in carrying.still_late(connection)
    ]


def until_it_waits(both: Both, command: Command) -> None:
    """Until a command waits for somebody's lock."""
    asked = both.database.superuser
    deadline = time.monotonic() + NEVER
    while not asked.execute(
        "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'",
        [command.pid],
    ).fetchone():
        assert not command.over and time.monotonic() < deadline, command.error


# --- two old clients: neither waits for the other because of the sync -----------------------


def test_an_asset_deleted_while_an_order_of_it_is_written(both: Both) -> None:
    """The line refers to the model, the JSON to nothing."""
    insert(both.old, model("#wall", "#ann"))
    one, other = old(both), old(both)
    one.does("BEGIN")
    succeeds(one.does(f"UPDATE orders SET items = '{LINE}' WHERE id = '#ord'"))
    succeeds(other.does("DELETE FROM assets WHERE id = '#wall'"))
    assert late(both) == [("assets", "#wall", "55P03")]
    succeeds(one.does("COMMIT"))
    settling.settle(connection)
    assert both.has("SELECT id FROM models WHERE id = '#wall'") == []
    assert both.has("SELECT asset_ref, model_id FROM order_items") == [("#wall", None)]


def test_an_order_written_while_an_asset_of_it_is_deleted(both: Both) -> None:
    insert(both.old, model("#wall", "#ann"))
    one, other = old(both), old(both)
    other.does("BEGIN")
    succeeds(other.does("DELETE FROM assets WHERE id = '#wall'"))
    one.does("BEGIN")
    succeeds(one.does(f"UPDATE orders SET items = '{LINE}' WHERE id = '#ord'"))
    succeeds(one.does("COMMIT"))
    assert late(both) == [("orders", "#ord", "55P03")]
    succeeds(other.does("COMMIT"))
    settling.settle(connection)
    assert both.has("SELECT asset_ref, model_id FROM order_items") == [("#wall", None)]


ASSET = (
    "INSERT INTO assets (artist_id, name, base_price, file_paths)"
    " VALUES ('#ann', 'N', 1, '{}')"
)
ORDER = 'UPDATE orders SET items = \'[{"asset_id": "#bridge", "quantity": 1}]\' WHERE id = \'#ord\''


@pytest.mark.parametrize(
    "held, then",
    [
        # Refers to what is changed then.
        ([PAYMENT], "UPDATE orders SET status = 'x' WHERE id = '#ord'"),
        ([ASSET], "UPDATE artists SET bio = 'x' WHERE id = '#ann'"),
        # Has changed what is referred to then, locked before.
        ([ASSET, "UPDATE artists SET bio = 'x' WHERE id = '#ann'"], ASSET),
        (
            [
                "SELECT FROM assets WHERE id = '#bridge' FOR UPDATE",
                "UPDATE assets SET view_count = 1 WHERE id = '#bridge'",
            ],
            ORDER,
        ),
        (
            [
                "INSERT INTO artists (id, email, password_hash, name)"
                " SELECT id, email, 'h', 'N' FROM artists WHERE id = '#ann'"
                " ON CONFLICT (id) DO UPDATE SET name = excluded.name"
            ],
            ASSET,
        ),
    ],
)
def test_what_refers_to_a_row_and_what_changes_it_do_not_meet_in_the_new_tables(
    both: Both, held: list[str], then: str
) -> None:
    """They do not on the legacy ones: a change takes a weaker lock than a deletion."""
    one, other = old(both), old(both)
    one.does("BEGIN")
    for statement in held:
        succeeds(one.does(statement))
    succeeds(other.does(then))
    assert late(both) == []
    succeeds(one.does("COMMIT"))
    assert late(both) == []


def test_nor_where_a_trigger_locks_what_is_changed(both: Both) -> None:
    """As any that is asked before an update does."""
    both.database.execute(
        "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.updated_at := now(); RETURN NEW; END';"
        "CREATE TRIGGER a_stamp BEFORE UPDATE ON @legacy.assets"
        " FOR EACH ROW EXECUTE FUNCTION stamp()"
    )
    one, other = old(both), old(both)
    one.does("BEGIN")
    succeeds(one.does("UPDATE assets SET view_count = 1 WHERE id = '#bridge'"))
    succeeds(other.does(ORDER))
    assert late(both) == []
    succeeds(one.does("COMMIT"))


def test_nor_where_the_new_application_changes_it(both: Both) -> None:
    one, other = new(both), old(both)
    one.does("BEGIN")
    succeeds(one.does("UPDATE models SET view_count = 1 WHERE id = '#bridge'"))
    succeeds(other.does(ORDER))
    assert late(both) == []
    succeeds(one.does("COMMIT"))


def test_the_new_application_s_commit_waits_for_no_change_of_an_artist(
    both: Both,
) -> None:
    """Its foreign keys are looked at then, and nothing limits how long that waits."""
    one, other = old(both), new(both)
    one.does("BEGIN")
    one.does("SELECT FROM artists WHERE id = '#ann' FOR NO KEY UPDATE")
    succeeds(one.does("UPDATE artists SET bio = 'x' WHERE id = '#ann'"))
    succeeds(other.does("INSERT INTO asset_sets (name, owner_id) VALUES ('S', '#ann')"))
    succeeds(one.does("COMMIT"))


def test_no_old_statement_is_the_victim_of_a_deadlock_in_the_sync(both: Both) -> None:
    """One waits for the other's order, the other for the model of the one's line."""
    insert(both.old, model("#wall", "#ann"), order("#o2"))
    one, other = old(both), old(both)
    one.does("BEGIN")
    other.does("BEGIN")
    succeeds(other.does("UPDATE orders SET status = 'x' WHERE id = '#o2'"))
    succeeds(one.does(f"UPDATE orders SET items = '{LINE}' WHERE id = '#ord'"))
    one.waits("UPDATE orders SET status = 'y' WHERE id = '#o2'")
    succeeds(other.does("DELETE FROM assets WHERE id = '#wall'"))
    succeeds(other.does("COMMIT"))
    succeeds(one.until_done())
    succeeds(one.does("COMMIT"))
    assert both.sees("SELECT status FROM orders WHERE id = '#o2'") == [("y",)]


def test_a_transaction_that_has_waited_once_does_not_wait_so_long_again(
    both: Both,
) -> None:
    names = [f"#w{number}" for number in range(30)]
    insert(both.old, *(model(name, "#ann") for name in names))
    one, other = old(both), old(both)
    lines = ",".join('{"asset_id": "%s", "quantity": 1}' % name for name in names)
    one.does("BEGIN")
    succeeds(one.does(f"UPDATE orders SET items = '[{lines}]' WHERE id = '#ord'"))
    succeeds(other.does("SET statement_timeout = '2s'"))  # 30 times 100 ms would be 3
    succeeds(other.does("DELETE FROM assets WHERE name LIKE 'W%'"))
    assert len(late(both)) == 30
    succeeds(one.does("COMMIT"))


def test_nor_does_a_truncation(both: Both) -> None:
    insert(both.old, *(table(f"#t{number}", "") for number in range(30)))
    writer, one = new(both), old(both)
    writer.does("BEGIN")
    succeeds(writer.does("UPDATE tables SET max_assets = 9 WHERE kind = 'user'"))
    succeeds(one.does("SET statement_timeout = '2s'"))
    succeeds(one.does("TRUNCATE user_tables"))
    assert len(late(both)) == 31
    succeeds(writer.does("COMMIT"))


def test_what_settle_has_to_do_is_noted_however_long_that_takes(both: Both) -> None:
    """Somebody rebuilds the queue's index, say: longer than a lock is waited for here."""
    both.database.execute(
        "ALTER FUNCTION rebuilt.on_legacy_artists SET lock_timeout = '1ms'"
    )
    somebody, one = new(both), old(both)
    somebody.does("BEGIN")
    succeeds(somebody.does("LOCK TABLE rebuilt.queue IN SHARE MODE"))
    one.waits("UPDATE artists SET email = 'other@artists.example' WHERE id = '#ann'")
    somebody.does("COMMIT")
    succeeds(one.until_done())


@pytest.mark.parametrize(
    "statement, table_",
    [
        ("UPDATE assets SET artist_id = '#ann' WHERE id = '#bridge'", "assets"),
        (
            "INSERT INTO stripe_transfers (id, order_id, artist_id, stripe_transfer_id, amount)"
            " VALUES ('#p7', '#ord', '#ann', 't', 1)",
            "stripe_transfers",
        ),
    ],
)
def test_an_account_that_the_new_application_has_for_update(
    both: Both, statement: str, table_: str
) -> None:
    """The foreign key asks for it at the commit, where nothing of ours has a say."""
    writer, one = new(both), old(both)
    writer.does("BEGIN")
    succeeds(writer.does("SELECT FROM users WHERE id = '#ann' FOR UPDATE"))
    succeeds(one.does(statement))
    assert [entry[::2] for entry in late(both)] == [(table_, "55P03")]
    succeeds(writer.does("COMMIT"))
    settling.settle(connection)
    assert late(both) == []


def test_an_artist_whose_orders_a_transaction_cannot_see(both: Both) -> None:
    """Bought since its snapshot: the account stays, as a customer."""
    insert(both.old, artist("#cy", "cy@artists.example"))
    one = old(both)
    one.does(REPEATABLE)
    succeeds(one.does("SELECT count(*) FROM artists"))
    insert(both.old, order("#since", email="cy@artists.example"))
    settling.settle(connection)
    succeeds(one.does("DELETE FROM artists WHERE id = '#cy'"))
    succeeds(one.does("COMMIT"))
    assert late(both) == [("artists", "#cy", "40001")]
    settling.settle(connection)
    assert both.has(
        "SELECT u.id, u.role FROM orders o JOIN users u ON u.id = o.user_id"
        " WHERE o.id = '#since'"
    ) == [("#cy", "customer")]


def test_two_tables_of_one_id_at_once(both: Both) -> None:
    """The second is held, not lost: its id was free when it was looked at."""
    both.database.execute(
        "ALTER FUNCTION rebuilt.on_legacy_example_tables SET lock_timeout = '20s'"
    )
    one, other = old(both), old(both)
    one.does("BEGIN")
    succeeds(
        one.does(
            "INSERT INTO user_tables (id, name, table_config, layout_data)"
            " VALUES ('#twin', 'Twin', '{}', '{}')"
        )
    )
    other.waits(
        "INSERT INTO example_tables (id, artist_id, name, table_config, layout_data)"
        " VALUES ('#twin', '#ann', 'Twin', '{}', '{}')"
    )
    succeeds(one.does("COMMIT"))
    succeeds(other.until_done())
    assert both.held() == [("example_tables", "#twin", "id_taken")]


# --- REPEATABLE READ -----------------------------------------------------------------------


def test_what_settle_has_written_fails_no_repeatable_read(both: Both) -> None:
    one = old(both)
    one.does(REPEATABLE)
    one.does("SELECT FROM orders")
    both.newly("UPDATE orders SET user_id = '#ann' WHERE id = '#ord'")
    succeeds(one.does("UPDATE orders SET status = 'x' WHERE id = '#ord'"))
    succeeds(one.does("COMMIT"))
    assert late(both) == [("orders", "#ord", "40001")]
    settling.settle(connection)
    assert both.has("SELECT status, user_id FROM orders WHERE id = '#ord'") == [
        ("x", "#ann")
    ]


def test_what_another_old_client_has_written_fails_it_as_ever(both: Both) -> None:
    one = old(both)
    one.does(REPEATABLE)
    one.does("SELECT FROM orders")
    both.does("UPDATE orders SET status = 'first' WHERE id = '#ord'")
    outcome = one.does("UPDATE orders SET status = 'x' WHERE id = '#ord'")
    assert outcome.sqlstate == "40001" and outcome.context == ""


def test_a_row_deleted_that_was_copied_since_the_snapshot(
    both: Both, uncopied: Any
) -> None:
    """The transaction cannot see the new row, and could not take it away."""
    uncopied(table("#t1", None))
    one = old(both)
    one.does(REPEATABLE)
    one.does("SELECT FROM user_tables")
    copying.copy(connection, "user_tables")
    succeeds(one.does("DELETE FROM user_tables WHERE id = '#t1'"))
    succeeds(one.does("COMMIT"))
    assert late(both) == [("user_tables", "#t1", "40001")]
    settling.settle(connection)
    assert both.has("SELECT id FROM tables WHERE id = '#t1'") == []


@pytest.mark.parametrize("by", ["old", "new"])
@pytest.mark.parametrize("locked", [False, True])
def test_a_key_given_anew_that_was_deleted_since_the_snapshot(
    both: Both, by: str, locked: bool
) -> None:
    """The transaction sees two rows of that key, the deleted one first."""
    one = old(both)
    if locked:
        # A trigger of the shop's has locked it before ours looks at it.
        both.database.execute(
            "CREATE FUNCTION locking() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM FROM @legacy.user_tables WHERE id = NEW.id AND name = NEW.name"
            " FOR UPDATE; RETURN NULL; END';"
            "CREATE TRIGGER a_lock AFTER INSERT ON @legacy.user_tables"
            " FOR EACH ROW EXECUTE FUNCTION locking()"
        )
    one.does(REPEATABLE)
    one.does("SELECT FROM user_tables")
    if by == "old":
        both.does("DELETE FROM user_tables WHERE id = '#den'")
    else:
        both.newly("DELETE FROM tables WHERE id = '#den'")
    succeeds(
        one.does(
            "INSERT INTO user_tables (id, user_email, name, table_config, layout_data)"
            " VALUES ('#den', 'sits@at.example', 'Anew', '{}', '{}')"
        )
    )
    succeeds(one.does("COMMIT"))
    # Then it cannot be told which of the two is locked.
    assert late(both) == ([("user_tables", "#den", "40001")] if locked else [])
    settling.settle(connection)
    assert both.has("SELECT name FROM tables WHERE id = '#den'") == [("Anew",)]


# --- late rows -----------------------------------------------------------------------------


@pytest.fixture
def late_order(both: Both) -> Both:
    one = old(both)
    one.does(REPEATABLE)
    one.does("SELECT FROM orders")
    both.newly("UPDATE orders SET user_id = '#ann' WHERE id = '#ord'")
    succeeds(one.does("UPDATE orders SET status = 'late' WHERE id = '#ord'"))
    succeeds(one.does("COMMIT"))
    return both


def test_the_new_application_does_not_overwrite_a_late_row(late_order: Both) -> None:
    """It would carry the status from before over, with its own note."""
    writer = new(late_order)
    outcome = writer.does("UPDATE orders SET notes = 'new' WHERE id = '#ord'")
    assert (outcome.sqlstate, outcome.message) == (
        "55P03",
        late_order.place.fill("@legacy.orders #ord has changed and waits for settle"),
    )
    settling.settle(connection)
    succeeds(writer.does("UPDATE orders SET notes = 'new' WHERE id = '#ord'"))
    assert late_order.sees("SELECT status, notes FROM orders WHERE id = '#ord'") == [
        ("late", "new")
    ]


def test_a_late_row_that_is_locked_stays_late_and_nobody_waits(
    late_order: Both,
) -> None:
    one = old(late_order)
    one.does("BEGIN")
    one.does("UPDATE orders SET tracking_number = 'x' WHERE id = '#ord'")
    assert carrying.settle_late(connection) == 0
    assert late(late_order) == [("orders", "#ord", "40001")]
    one.does("COMMIT")
    assert carrying.settle_late(connection) == 1


def test_a_late_row_that_is_locked_fails_no_verification(late_order: Both) -> None:
    """It is known, and said; nothing is wrong."""
    one = old(late_order)
    one.does("BEGIN")
    one.does("UPDATE orders SET tracking_number = 'x' WHERE id = '#ord'")
    found = {each.name: each for each in checks.verify(connection).findings}
    assert found["in_step_orders"].severity == Severity.PASSES
    assert found["settled"].sentence == "Rows that wait to be settled: 1."
    one.does("COMMIT")


def test_settle_says_what_it_could_not_carry_over(
    late_order: Both, manage: Callable[..., Result]
) -> None:
    one = old(late_order)
    one.does("BEGIN")
    one.does("UPDATE orders SET tracking_number = 'x' WHERE id = '#ord'")
    done = manage("settle")
    assert (done.code, named(done.out)) == (
        0,
        "Nothing was left to settle.\n"
        "1 row could not be carried over yet, the first orders #ord (40001 could not"
        " serialize access due to concurrent update). If somebody has them locked, run"
        " settle again when their transaction has ended.\n",
    )
    one.does("COMMIT")
    assert manage("settle").out == "late rows carried over: 1.\n"


def test_a_late_row_fails_no_commit_of_what_refers_to_it(both: Both) -> None:
    """An artist that cannot be carried over yet, and then an asset of theirs."""
    writer, one = new(both), old(both)
    writer.does("BEGIN")
    succeeds(
        writer.does(
            "INSERT INTO users (id, email, password_hash, display_name, role)"
            " VALUES ('#cy', 'cy@artists.example', '', 'Cy', 'customer')"
        )
    )
    one.does("BEGIN")
    succeeds(
        one.does(
            "INSERT INTO artists (id, email, password_hash, name)"
            " VALUES ('#cy', 'Cy@artists.example', 'h', 'Cy')"
        )
    )
    succeeds(
        one.does(
            "INSERT INTO assets (id, artist_id, name, file_paths)"
            " VALUES ('#cys', '#cy', 'Of Cy', '{}')"
        )
    )
    succeeds(one.does("COMMIT"))
    assert [entry[:2] for entry in late(both)] == [
        ("artists", "#cy"),
        ("assets", "#cys"),
    ]
    writer.does("ROLLBACK")
    settling.settle(connection)
    assert both.has("SELECT artist_id FROM models WHERE id = '#cys'") == [("#cy",)]


def test_a_late_row_fails_no_commit_of_what_it_refers_to(both: Both) -> None:
    """An asset that cannot be taken away yet, with its artist, whose deletion took it along."""
    insert(both.old, artist("#cy"), model("#wall", "#cy"))
    writer = new(both)
    writer.does("BEGIN")
    succeeds(writer.does("SELECT FROM models WHERE id = '#wall' FOR UPDATE"))
    succeeds(old(both).does("DELETE FROM artists WHERE id = '#cy'"))
    assert {entry[:2] for entry in late(both)} == {
        ("artists", "#cy"),
        ("assets", "#wall"),
    }
    succeeds(writer.does("COMMIT"))
    settling.settle(connection)
    assert both.has("SELECT id FROM users WHERE id = '#cy'") == []
    assert both.has("SELECT id FROM models WHERE id = '#wall'") == []


def test_a_key_that_changes_late_takes_along_what_only_the_new_row_has(
    both: Both,
) -> None:
    both.newly("UPDATE tables SET max_assets = 9 WHERE id = '#den'")
    writer, one = new(both), old(both)
    writer.does("BEGIN")
    succeeds(writer.does("SELECT FROM tables WHERE id = '#den' FOR UPDATE"))
    succeeds(one.does("UPDATE user_tables SET id = '#den2' WHERE id = '#den'"))
    writer.does("COMMIT")
    settling.settle(connection)
    assert both.has("SELECT id, max_assets FROM tables WHERE kind = 'user'") == [
        ("#den2", 9)
    ]


def test_truncate_does_not_wait_for_the_new_application(both: Both) -> None:
    writer, one = new(both), old(both)
    writer.does("BEGIN")
    succeeds(writer.does("SELECT FROM tables WHERE id = '#den' FOR UPDATE"))
    succeeds(one.does("TRUNCATE user_tables"))
    assert late(both) == [("user_tables", "#den", "55P03")]
    writer.does("COMMIT")


def test_truncate_takes_along_what_its_own_snapshot_does_not_show(both: Both) -> None:
    """One row that fits and one that is held, both committed after the snapshot was taken."""
    one, other = old(both), old(both)
    one.does(REPEATABLE)
    succeeds(one.does("SELECT count(*) FROM artists"))
    insert(both.old, table("#since", ""))
    succeeds(
        other.does(
            "INSERT INTO user_tables (name, table_config, layout_data, share_token)"
            " VALUES ('Held', '5', '{}', 'held')"
        )
    )
    succeeds(one.does("TRUNCATE user_tables"))
    succeeds(one.does("COMMIT"))
    assert ("user_tables", uuid.UUID(int=0), "40001") in late(both)
    with pytest.raises(psycopg.errors.LockNotAvailable, match="waits for settle"):
        both.newly("UPDATE tables SET name = 'x' WHERE id = '#since'")
    settling.settle(connection)
    assert both.has("SELECT id FROM tables WHERE kind = 'user'") == []
    assert both.held() == []
    assert late(both) == []


def test_a_trigger_on_a_new_table_takes_no_old_statement_with_it(both: Both) -> None:
    """What it refuses is held; what fails in another way is late."""
    both.database.execute(
        "CREATE FUNCTION public.odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.bio = 'refused' THEN RAISE EXCEPTION 'not that'; END IF;"
        " IF NEW.bio = 'broken' THEN PERFORM 1 FROM public.no_such_table; END IF;"
        " RETURN NEW; END $$;"
        " CREATE TRIGGER odd AFTER UPDATE ON @new.users FOR EACH ROW"
        " EXECUTE FUNCTION public.odd()"
    )
    one = old(both)
    succeeds(one.does("UPDATE artists SET bio = 'refused' WHERE id = '#ann'"))
    succeeds(one.does("UPDATE artists SET bio = 'broken' WHERE id = '#bob'"))
    assert both.held() == [("artists", "#ann", "refused")]
    assert late(both) == [("artists", "#bob", "42P01")]
    both.database.execute("DROP TRIGGER odd ON @new.users")
    settling.settle(connection)
    assert both.held() == []


# --- a batch -------------------------------------------------------------------------------


@pytest.fixture
def uncopied(both: Both, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Rows that were there before the triggers; and a copy that stops before each commit."""
    store = pause_at_commit(copying._store_cursor)
    monkeypatch.setattr(copying, "_store_cursor", store)
    monkeypatch.setattr(pace, "LARGEST_BATCH", 200)

    def make(*rows: Any) -> None:
        with both.old.transaction():
            for into in {into for into, _ in rows}:
                both.does(
                    f"SELECT set_config('terrain.echo', 'legacy.{into}:*@0', true)"
                )
                insert(both.old, *(row for row in rows if row[0] == into))

    yield make


@pytest.fixture
def copy_of(both: Both) -> Iterator[Any]:
    """A copy that has read its rows, and has not committed."""
    begun: list[Command] = []

    def begin(table_: str) -> Command:
        command = Command("copy", lambda: copying.copy(connection, table_))
        begun.append(command)
        command.go_on()
        command.stopped.wait(10)
        assert not command.over, command.error
        return command

    yield begin
    for command in begun:
        if not command.over:
            command.finish()


def test_a_delete_just_behind_the_cursor_stays_deleted(
    both: Both, uncopied: Any, copy_of: Any
) -> None:
    """And waits for nobody; the batch's worker takes the row away again."""
    uncopied(table("#t1", None))
    batch = copy_of("user_tables")
    one = old(both)
    succeeds(one.does("DELETE FROM user_tables WHERE id = '#t1'"))
    assert late(both) == [("user_tables", "#t1", "55P03")]
    batch.finish()
    assert late(both) == []
    assert both.has("SELECT id FROM tables WHERE id = '#t1'") == []


def test_a_row_that_is_to_be_held_behind_the_cursor(
    both: Both, uncopied: Any, copy_of: Any
) -> None:
    uncopied(table("#t1", None))
    batch = copy_of("user_tables")
    succeeds(
        old(both).does("UPDATE user_tables SET layout_data = '[]' WHERE id = '#t1'")
    )
    batch.finish()
    assert both.held() == [("user_tables", "#t1", "layout_data_not_object")]
    assert both.has("SELECT id FROM tables WHERE id = '#t1'") == []


def test_a_row_repaired_behind_the_cursor(
    both: Both, uncopied: Any, copy_of: Any
) -> None:
    """The batch has read that it is to be held."""
    uncopied(table("#t1", None, []))
    batch = copy_of("user_tables")
    succeeds(
        old(both).does("UPDATE user_tables SET table_config = '{}' WHERE id = '#t1'")
    )
    batch.finish()
    assert both.held() == []
    assert both.has("SELECT id FROM tables WHERE id = '#t1'") == [("#t1",)]


def test_items_repaired_behind_the_cursor(
    both: Both, uncopied: Any, copy_of: Any
) -> None:
    uncopied(order("#o2", [{}]))
    batch = copy_of("orders")
    one = old(both)
    one.send("UPDATE orders SET items = '[{\"quantity\": 1}]' WHERE id = '#o2'")
    one.until_blocked()
    batch.finish()
    succeeds(one.until_done())
    settling.settle(connection)
    assert both.held() == []
    assert both.has("SELECT quantity FROM order_items WHERE order_id = '#o2'") == [(1,)]


def flags(both: Both, name: str) -> list[Any]:
    return both.has(
        "SELECT reason FROM legacy_quarantine WHERE kind = 'flagged'"
        f" AND legacy_id = '{key(name)}' ORDER BY 1"
    )


def test_a_flag_of_the_batch_the_trigger_waits_for(
    both: Both, uncopied: Any, copy_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not there yet when the trigger begins."""
    uncopied(table("#t1", None, created_at="infinity"))
    batch = copy_of("user_tables")
    one = old(both)
    one.send("UPDATE user_tables SET created_at = now() WHERE id = '#t1'")
    one.until_blocked()
    batch.finish()
    succeeds(one.until_done())
    settling.settle(connection)
    assert flags(both, "#t1") == []


def test_a_flag_the_batch_would_write_after_the_trigger(
    both: Both, uncopied: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch has read the row as it was, and waits for whoever has put it there."""
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", 10_000)
    uncopied(table("#t1", None, created_at="infinity"))
    one = old(both)
    one.does("BEGIN")
    succeeds(one.does("UPDATE user_tables SET created_at = now() WHERE id = '#t1'"))
    batch = Command("copy", lambda: copying.copy(connection, "user_tables"))
    batch.go_on()
    until_it_waits(both, batch)
    succeeds(one.does("COMMIT"))
    batch.finish()
    assert flags(both, "#t1") == []


def test_a_copy_goes_on_without_a_row_that_is_locked_for_long(
    both: Both, uncopied: Any
) -> None:
    """And comes back to it: the transaction may roll back."""
    uncopied(table("#t1", None), table("#t2", None))
    one = old(both)
    one.does("BEGIN")
    succeeds(one.does("UPDATE user_tables SET name = 'x' WHERE id = '#t1'"))
    copying.copy(connection, "user_tables")
    assert both.has("SELECT id FROM tables WHERE id IN ('#t1', '#t2')") == [("#t2",)]
    one.does("ROLLBACK")
    settling.settle(connection)
    assert both.has("SELECT name FROM tables WHERE id = '#t1'") == [("T1",)]


@pytest.mark.parametrize("outcome", ["COMMIT", "ROLLBACK"])
def test_a_copy_beside_an_open_deletion(
    both: Both, uncopied: Any, outcome: str
) -> None:
    """It locks what it reads, row by row, and leaves alone what is being deleted."""
    insert(both.old, model("#wall", "#ann"))
    uncopied(
        order("#o1", ({"asset_id": "#wall", "quantity": 1},)),
        order("#o2", ({"asset_id": "#tower", "quantity": 1},), email="who@x.example"),
        order("#o3"),
    )
    one = old(both)
    one.does("BEGIN")
    succeeds(one.does("DELETE FROM assets WHERE id = '#wall'"))
    succeeds(one.does("DELETE FROM orders WHERE id = '#o3'"))
    copying.copy(connection, "orders")
    assert both.has("SELECT id FROM orders WHERE order_number LIKE 'o_'") == [("#o2",)]
    succeeds(one.does(outcome))
    settling.settle(connection)
    there = [("#o1",), ("#o2",), *([("#o3",)] if outcome == "ROLLBACK" else [])]
    assert sorted(
        both.has("SELECT id FROM orders WHERE order_number LIKE 'o_'")
    ) == sorted(there)


def test_a_value_emptied_while_it_is_copied(
    both: Both, uncopied: Any, copy_of: Any
) -> None:
    """NULL is a value: no coalesce() of what was read and what is there."""
    uncopied(artist("#cy", bio="read"))
    batch = copy_of("artists")
    one = old(both)
    one.send("UPDATE artists SET bio = NULL WHERE id = '#cy'")
    one.until_blocked()
    batch.finish()
    succeeds(one.until_done())
    settling.settle(connection)
    assert both.has("SELECT bio FROM users WHERE id = '#cy'") == [(None,)]


def test_a_value_that_a_row_of_the_new_schema_alone_has(
    both: Both, uncopied: Any
) -> None:
    """Only the key says that a row is there already; any other conflict is one, and is held."""
    both.newly("UPDATE tables SET share_code = 'abc' WHERE id = '#show'")
    uncopied(table("#t1", None, share_token="abc"), table("#t2", None))
    Command("copy", lambda: copying.copy(connection, "user_tables")).finish()
    assert both.held() == [("user_tables", "#t1", "refused")]
    assert both.has("SELECT id FROM tables WHERE id IN ('#t1', '#t2')") == [("#t2",)]


# --- carrying over -------------------------------------------------------------------------


def test_a_key_made_again_while_its_row_is_taken_away(both: Both) -> None:
    """As after a rollback: nobody saw the old row go.  The new one has a trigger."""
    with both.old.transaction():
        both.does("SELECT set_config('terrain.echo', 'legacy.user_tables:*@0', true)")
        both.does("DELETE FROM user_tables WHERE id = '#den'")
    both.newly("UPDATE tables SET max_assets = 9 WHERE id = '#den'")
    one = old(both)
    taker = Session(both.database.new(), both.database.superuser)
    one.does("BEGIN")
    succeeds(
        one.does(
            "INSERT INTO user_tables (id, name, table_config, layout_data)"
            " VALUES ('#den', 'Again', '{}', '{}')"
        )
    )
    taker.waits("SELECT rebuilt.user_tables_to_new('#den')")
    one.does("COMMIT")
    succeeds(taker.until_done())
    assert both.has("SELECT name, max_assets FROM tables WHERE id = '#den'") == [
        ("Again", 9)
    ]


def test_a_value_taken_from_a_row_that_is_just_being_changed(both: Both) -> None:
    """After a rollback: the new rows have the values from before, the legacy ones others.

    Whoever carries the first over takes the value from the second, and carries that over,
    too: without its legacy row, but with its new row, for which the second's own trigger
    waits, and comes after.
    """
    insert(
        both.old,
        table("#t1", None, share_token="a"),
        table("#t2", None, share_token="b"),
    )
    with both.old.transaction():
        both.does("SELECT set_config('terrain.echo', 'legacy.user_tables:*@0', true)")
        both.does("UPDATE user_tables SET share_token = 'c' WHERE id = '#t2'")
        both.does("UPDATE user_tables SET share_token = 'b' WHERE id = '#t1'")
    taker = Session(both.database.new(), both.database.superuser)
    one = old(both)
    taker.does("BEGIN")
    succeeds(taker.does("SELECT rebuilt.user_tables_to_new('#t1')"))
    one.send("UPDATE user_tables SET share_token = 'd' WHERE id = '#t2'")
    one.until_blocked()
    succeeds(taker.does("COMMIT"))
    succeeds(one.until_done())
    settling.settle(connection)
    assert both.has(
        "SELECT id, share_code FROM tables WHERE id IN ('#t1', '#t2') ORDER BY 2"
    ) == [("#t1", "b"), ("#t2", "d")]


def test_what_is_in_step_is_not_written_again(both: Both) -> None:
    insert(both.old, table("#odd", "x@at.example", {"width": 2.5}))
    settling.settle(connection)
    rows = (
        "SELECT id, xmin::text FROM users UNION ALL SELECT id, xmin::text FROM models"
        " UNION ALL SELECT id, xmin::text FROM tables UNION ALL SELECT id, xmin::text FROM orders"
        " UNION ALL SELECT id, xmin::text FROM order_items"
        " UNION ALL SELECT id, xmin::text FROM payments ORDER BY 1, 2"
    )
    before = both.has(rows)
    for lens in LENSES:
        keys = [id_ for (id_,) in both.database.rows(f"SELECT id FROM {lens.legacy}")]
        reconciling.carry_over_all(connection, lens, keys)
    assert both.has(rows) == before


def test_a_trigger_of_the_shops_that_comes_first_has_the_last_word(both: Both) -> None:
    """Its change of the same row is there before NEW, which is older, arrives here."""
    both.database.execute(
        "CREATE FUNCTION public.again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.bio = 'first' THEN UPDATE artists SET bio = 'second' WHERE id = NEW.id; END IF;"
        " RETURN NULL; END $$;"
        " CREATE TRIGGER aaa_again AFTER UPDATE ON artists FOR EACH ROW"
        " EXECUTE FUNCTION public.again()"
    )
    succeeds(old(both).does("UPDATE artists SET bio = 'first' WHERE id = '#ann'"))
    assert both.has("SELECT bio FROM users WHERE id = '#ann'") == [("second",)]


@pytest.mark.parametrize("first", ["old", "new"])
def test_a_counter_raised_on_both_sides_at_once(both: Both, first: str) -> None:
    """None is lost: whoever comes second reads what the first has written."""
    one, writer = old(both), new(both)
    raised = "UPDATE assets SET view_count = view_count + 1 WHERE id = '#tower'"
    newly = raised.replace("assets", "models")
    one.does("BEGIN")
    writer.does("BEGIN")
    if first == "old":
        succeeds(one.does(raised))
        assert writer.does(newly).sqlstate == "55P03"
        writer.does("ROLLBACK")
        one.does("COMMIT")
        succeeds(writer.does(newly))
    else:
        succeeds(writer.does(newly))
        one.waits(raised)
        writer.does("COMMIT")
        succeeds(one.until_done())
        one.does("COMMIT")
    assert both.sees("SELECT view_count FROM assets WHERE id = '#tower'") == [(2,)]
    assert both.has("SELECT view_count FROM models WHERE id = '#tower'") == [(2,)]


# --- settle --------------------------------------------------------------------------------


def settled_beside(both: Both, during: str) -> None:
    """Settle, while an open transaction has done ``during``; it commits when settle waits."""
    one = old(both)
    one.does("BEGIN")
    succeeds(one.does(during))
    command = Command("settle", lambda: settling.settle(connection))
    command.go_on()
    until_it_waits(both, command)
    succeeds(one.does("COMMIT"))
    command.finish()
    settling.settle(connection)


def test_an_address_that_changes_while_settle_waits_for_the_order(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account it has found is that of the address from before."""
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", 10_000)
    insert(both.old, order("#later", email="ann@artists.example"))
    settled_beside(
        both,
        "UPDATE orders SET user_email = 'bob@artists.example' WHERE id = '#later'",
    )
    assert both.has("SELECT user_id FROM orders WHERE id = '#later'") == [("#bob",)]


def test_a_table_that_gets_an_address_while_settle_makes_it_a_session(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", 10_000)
    insert(both.old, table("#later", None))
    settled_beside(
        both,
        "UPDATE user_tables SET user_email = 'bob@artists.example' WHERE id = '#later'",
    )
    assert both.has("SELECT user_id, session_id FROM tables WHERE id = '#later'") == [
        ("#bob", None)
    ]


@pytest.mark.parametrize(
    "during, owner",
    [
        ("UPDATE artists SET email = 'other@x.example' WHERE id = '#cy'", "customer"),
        ("DELETE FROM artists WHERE id = '#cy'", "customer"),
    ],
)
def test_an_artist_who_goes_while_a_customer_is_merged_into_them(
    both: Both, monkeypatch: pytest.MonkeyPatch, during: str, owner: str
) -> None:
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", 10_000)
    settling.settle(connection)
    insert(both.old, artist("#cy", "Buyer@shop.example"))
    settled_beside(both, during)
    assert both.has(
        "SELECT u.role, u.email FROM orders o JOIN users u ON u.id = o.user_id"
        " WHERE o.id = '#ord'"
    ) == [(owner, "buyer@shop.example")]


def test_marking_repeats_gives_way(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """It wants an entry that an old transaction has just taken away."""
    monkeypatch.setattr(locks, "TOTAL_LIMIT", 0.2)
    insert(
        both.old,
        order("#r1", stripe_payment_id="pi"),
        order("#r2", stripe_payment_id="pi"),
    )
    settling.settle(connection)
    one = old(both)
    one.does("BEGIN")
    succeeds(one.does("DELETE FROM orders WHERE id = '#r1'"))
    both.does("UPDATE orders SET stripe_payment_id = NULL WHERE id = '#r2'")
    with pytest.raises(locks.LockNotObtained):
        locks.run_briefly(
            connection,
            lambda: settling._mark(
                connection, BY_LEGACY["orders"], 0, "stripe_id_repeated"
            ),
            what="Looking for repeated values in orders",
            limit=0.2,
        )
    one.does("ROLLBACK")
