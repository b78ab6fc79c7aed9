"""What /metrics says, to whom, and in every state of the guide."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from terrain.legacy import cut_over
from terrain.monitoring import collector, sources
from tests.both import Both
from tests.conftest import Database
from tests.legacy import ids

TOKEN = "a token of the tests"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(autouse=True)
def _open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "METRICS_TOKEN", TOKEN)
    collector.forget()


def scrape() -> Samples:
    """All samples: (name, labels) -> value."""
    response = Client().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200, response.content
    families = text_string_to_metric_families(response.content.decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


def down(samples: Samples) -> set[str]:
    """The sources that could not be asked."""
    return {
        dict(labels)["source"]
        for (name, labels), found in samples.items()
        if name == "terrain_source_up" and not found
    }


@pytest.mark.parametrize(
    "state", ["empty", "shop", "rolled_back", "migrated", "cut_over", "cleaned"]
)
def test_it_answers_in_every_state(
    state: str,
    request: pytest.FixtureRequest,
) -> None:
    request.getfixturevalue(state if state in ("empty", "shop") else "migrated")
    if state == "rolled_back":
        call_command("rollback_migration", yes=True, verbosity=0)
    if state in ("cut_over", "cleaned"):
        cut_over.cut_over(connection)
    if state == "cleaned":
        _clean_up()
    samples = scrape()
    assert value(samples, "terrain_database_up") == 1
    # The legacy table of orders has the columns that count, and is not counted for ours.
    gone = {"asset_usage", "asset_usage_waiting", "newest_order", "orders"}
    gone |= {"assets", "tables", "sessions", "payments"}
    ledger = {"move_steps", "verification", "quarantine"}
    assert (
        down(samples)
        == {
            "empty": gone | ledger,
            "shop": gone | ledger,
            "rolled_back": gone,
            "migrated": set(),
            "cut_over": set(),
            "cleaned": set(),
        }[state]
    )
    phase = {
        "empty": "none",
        "shop": "before",
        "rolled_back": "before",
        "migrated": "in_step",
        "cut_over": "cut_over",
        "cleaned": "cleaned_up",
    }[state]
    assert value(samples, "terrain_move_phase", phase=phase) == 1
    assert (
        sum(
            found
            for (name, _), found in samples.items()
            if name == "terrain_move_phase"
        )
        == 1
    )


def _clean_up() -> None:
    from terrain.legacy import cleanup

    cleanup.clean_up(connection)


def test_it_answers_without_a_database(migrated: Database) -> None:
    from tests.conftest import connecting

    with connecting(HOST="/nowhere", OPTIONS={}):
        samples = scrape()
    assert value(samples, "terrain_database_up") == 0
    assert len(down(samples)) == len(
        [name for name, _ in samples if name == "terrain_source_up"]
    )
    assert not [name for name, _ in samples if name.startswith("terrain_orders")]


def test_numbers_are_those_of_the_tables(migrated: Database) -> None:
    samples = scrape()
    for status, number in migrated.rows(
        "SELECT status, count(*) FROM terrain.orders GROUP BY 1"
    ):
        assert value(samples, "terrain_orders", status=status) == number
    for status, number, amount in migrated.rows(
        "SELECT status, count(*), sum(amount) FROM terrain.payments GROUP BY 1"
    ):
        assert value(samples, "terrain_payments", status=status) == number
        assert value(samples, "terrain_payments_gbp", status=status) == float(amount)
    total = migrated.value(
        "SELECT sum((pricing ->> 'total')::numeric) FROM terrain.orders"
    )
    assert sum(
        found for (name, _), found in samples.items() if name == "terrain_orders_gbp"
    ) == pytest.approx(float(total))
    tables = {
        (dict(labels)["plan"], dict(labels)["owner"]): found
        for (name, labels), found in samples.items()
        if name == "terrain_tables" and dict(labels)["kind"] == "user"
    }
    assert tables == {
        (plan, owner): number
        for plan, owner, number in migrated.rows(
            "SELECT plan, CASE WHEN user_id IS NULL THEN 'session' ELSE 'user' END, count(*)"
            "  FROM terrain.tables WHERE kind = 'user' GROUP BY 1, 2"
        )
    }
    assert value(samples, "terrain_sessions", seen="ever") == migrated.value(
        "SELECT count(*) FROM terrain.anonymous_sessions"
    )
    assert value(samples, "terrain_settle_waiting") == 0


def test_amounts_that_are_none_are_counted_and_not_summed(both: Both) -> None:
    both.newly("UPDATE orders SET status = 'paid'")
    for number, total in enumerate(
        ('"NaN"', '"Infinity"', '"1e3"', "-1", '"free"', "null", "[]", "1e300")
    ):
        both.does(
            "INSERT INTO orders (id, order_number, user_email, user_name, shipping_address,"
            " items, pricing, status) VALUES (gen_random_uuid(), %s, 'a@b.example', 'B', '{}',"
            " '[]', %s, 'paid')",
            f"odd{number}",
            f'{{"total": {total}}}',
        )
    both.does("UPDATE stripe_transfers SET amount = 'NaN'")
    both.does("UPDATE orders SET created_at = 'infinity' WHERE order_number = 'odd1'")
    both.does("UPDATE orders SET status = 'whatever' WHERE order_number = 'odd2'")
    samples = scrape()
    assert value(samples, "terrain_orders", status="paid") == 8
    assert value(samples, "terrain_orders_without_amount", status="paid") == 7
    assert value(samples, "terrain_orders_gbp", status="paid") == 9.99
    assert value(samples, "terrain_orders", status="other") == 1
    assert value(samples, "terrain_orders", status="shipped") == 0
    assert (
        sum(
            found
            for (name, _), found in samples.items()
            if name == "terrain_payments_without_amount"
        )
        == 1
    )
    newest = value(samples, "terrain_newest_order_timestamp_seconds")
    assert newest is not None and newest < 1e10


def test_usage_is_a_counter(both: Both) -> None:
    def uses() -> float | None:
        return value(scrape(), "terrain_asset_uses_total", source="layout")

    assert uses() == 0
    both.does(
        "UPDATE user_tables SET layout_data = %s WHERE id = '#den'",
        ids('{"models": [{"asset_id": "#tower"}, {"asset_id": "#tower"}]}'),
    )
    assert uses() == 2
    call_command("roll_up_usage", verbosity=0)
    assert uses() == 2


def test_visitors_at_their_limit(both: Both) -> None:
    both.newly(
        "INSERT INTO anonymous_sessions (id, session_token, table_limit)"
        " SELECT gen_random_uuid(), 't' || n, n FROM generate_series(0, 3) n"
    )
    both.newly(
        "INSERT INTO tables (name, session_id)"
        " SELECT 'T', id FROM anonymous_sessions WHERE session_token IN ('t1', 't2')"
    )
    samples = scrape()
    assert value(samples, "terrain_sessions", seen="ever") == 4
    assert value(samples, "terrain_sessions_at_limit", seen="ever") == 2


def test_quarantine_by_reason(both: Both) -> None:
    both.does("UPDATE user_tables SET table_config = '[]' WHERE id = '#den'")
    assert (
        value(
            scrape(),
            "terrain_quarantine_rows",
            table="user_tables",
            kind="held",
            reason="table_config_not_object",
            decided="no",
        )
        == 1
    )


def test_how_far_the_move_is(migrated: Database) -> None:
    samples = scrape()
    for table in ("artists", "orders"):
        step = f"copy {table}"
        assert value(samples, "terrain_move_step_state", step=step, state="done") == 1
        assert value(samples, "terrain_move_step_rows", step=step) == migrated.value(
            f"SELECT count(*) FROM public.{table}"
        )
        assert (value(samples, "terrain_move_step_batch_rows", step=step) or 0) > 0
    assert value(samples, "terrain_move_at_work") == 0
    with migrated.connect() as other:
        other.execute("SELECT pg_advisory_lock(%s)", [0x7E44A101])
        assert value(scrape(), "terrain_move_at_work") == 1


def test_use_of_the_legacy_tables(both: Both) -> None:
    def writes() -> float:
        both.old.execute("SELECT pg_stat_force_next_flush()")
        found = value(
            scrape(),
            "terrain_legacy_table_writes_total",
            table="orders",
            operation="update",
        )
        assert found is not None
        return found

    before = writes()
    both.does("UPDATE orders SET notes = 'seen'")
    both.old.execute("SELECT pg_stat_force_next_flush()")
    assert writes() > before
    samples = scrape()
    assert (value(samples, "terrain_other_sessions", role="shop_app") or 0) >= 1
    last = value(
        samples,
        "terrain_legacy_last_write_timestamp_seconds",
        table="orders",
        role="shop_app",
    )
    assert last is not None and abs(time.time() - last) < 120


def test_backups_and_their_proof(
    both: Both, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "BACKUP_DIR", tmp_path / "backups")
    samples = scrape()
    assert value(samples, "terrain_backups", proven="yes") == 0
    assert value(samples, "terrain_backups_readable") == 1
    assert (
        value(samples, "terrain_backup_newest_timestamp_seconds", proven="any") is None
    )
    call_command("backup_database", verbosity=0)
    collector.forget()
    samples = scrape()
    proven = value(samples, "terrain_backups", proven="yes")
    assert (proven or 0) + (value(samples, "terrain_backups", proven="no") or 0) == 1
    assert value(samples, "terrain_backup_newest_timestamp_seconds", proven="any")


def test_what_is_dear_is_asked_only_now_and_then(both: Both) -> None:
    scrape()
    both.newly("UPDATE orders SET status = 'shipped'")
    assert value(scrape(), "terrain_orders", status="shipped") == 0
    collector.forget()
    assert value(scrape(), "terrain_orders", status="shipped") == 1


def test_one_scrape_asks_one_dear_source_anew(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When all are due, each of them gets its turn, the oldest first."""
    scrape()
    dear = [each.name for each in sources.registered() if each.seconds]
    later = time.monotonic() + 1000
    monkeypatch.setattr(collector.time, "monotonic", lambda: later)
    asked = []
    for _ in dear:
        ages = {
            dict(labels)["source"]: age
            for (name, labels), age in scrape().items()
            if name == "terrain_source_age_seconds" and dict(labels)["source"] in dear
        }
        asked.append({name for name, age in ages.items() if age < 500})
    assert [len(names) for names in asked] == list(range(1, len(dear) + 1))
    assert asked[-1] == set(dear)


def test_a_locked_table_does_not_hold_up_the_rest(both: Both) -> None:
    with both.new.transaction():
        both.newly("LOCK TABLE payments")
        samples = scrape()
    assert down(samples) == {"payments"}
    assert value(samples, "terrain_orders", status="paid") is not None


def test_labels_do_not_multiply_with_what_people_write(both: Both) -> None:
    both.does("UPDATE orders SET status = left(id::text, 20)")
    names = {name for name, _ in scrape()}
    assert len([n for n, _ in scrape() if n == "terrain_orders"]) == 9
    assert names


# --- who may --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "address", "networks", "token", "status"),
    [
        ({}, "127.0.0.1", [], TOKEN, 403),
        ({}, "127.0.0.1", [], "", 403),
        ({"Authorization": "Bearer "}, "127.0.0.1", [], "", 403),
        ({"Authorization": "Bearer wrong"}, "127.0.0.1", [], TOKEN, 403),
        ({"Authorization": TOKEN}, "127.0.0.1", [], TOKEN, 403),
        ({"Authorization": f"bearer {TOKEN}"}, "8.8.8.8", [], TOKEN, 200),
        ({"Authorization": "Bearer caf\xe9"}, "8.8.8.8", [], TOKEN, 403),
        ({}, "127.0.0.1", ["127.0.0.0/8"], "", 200),
        ({}, "::ffff:10.1.2.3", ["10.0.0.0/8"], "", 200),
        ({}, "11.1.2.3", ["10.0.0.0/8"], "", 403),
        ({}, "", ["10.0.0.0/8"], "", 403),
        ({"X-Forwarded-For": "10.1.2.3"}, "8.8.8.8", ["10.0.0.0/8"], "", 403),
    ],
)
def test_it_is_closed_but_to_a_token_or_a_network(
    migrated_once: None,
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
    address: str,
    networks: list[str],
    token: str,
    status: int,
) -> None:
    monkeypatch.setattr(settings, "METRICS_TOKEN", token)
    monkeypatch.setattr(settings, "METRICS_NETWORKS", networks)
    response = Client(REMOTE_ADDR=address).get("/metrics", headers=headers)
    assert response.status_code == status
    if status == 403:
        assert response.content.decode() == (
            "This is closed. Set METRICS_TOKEN and send it as “Authorization: Bearer …”, or"
            " name the networks that may ask in METRICS_NETWORKS.\n"
        )


@pytest.fixture
def migrated_once(shared: Database) -> None:
    """Any migrated database."""


@pytest.mark.parametrize(
    ("forwarded", "status"),
    [
        ("10.1.2.3", 200),
        ("8.8.8.8, 10.1.2.3", 200),  # what a client says of itself stands in front
        ("10.1.2.3, 8.8.8.8", 403),
        ("", 403),
        ("nonsense", 403),
    ],
)
def test_behind_a_proxy_its_word_counts(
    migrated_once: None,
    monkeypatch: pytest.MonkeyPatch,
    forwarded: str,
    status: int,
) -> None:
    monkeypatch.setattr(settings, "METRICS_TOKEN", "")
    monkeypatch.setattr(settings, "METRICS_NETWORKS", ["10.0.0.0/8"])
    monkeypatch.setattr(settings, "PROXY_COUNT", 1)
    response = Client(REMOTE_ADDR="10.9.9.9").get(
        "/metrics", headers={"X-Forwarded-For": forwarded}
    )
    assert response.status_code == status


def test_it_is_only_to_be_read(migrated_once: None) -> None:
    assert Client().post("/metrics").status_code == 405
