"""What is done with assets is counted as it happens, whichever application does it."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from typing import Any

import pytest
from django import conf
from django.core.management import call_command
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalogue import usage
from catalogue.models import Asset, AssetUsage, DailyUsage, Table, TableAsset, UsageLog
from terrain.models import User
from tests.both import Both
from tests.conftest import Database, Result
from tests.legacy import ids, named

TODAY = "(now() AT TIME ZONE 'UTC')::date"


def layout(*placed: str) -> str:
    """A layout in which the assets named stand, in this order."""
    return ids(json.dumps({"models": [{"asset_id": name} for name in placed]}))


def counted(both: Both) -> dict[tuple[str, str], tuple[int, int, int]]:
    """(asset, source) -> adds, removals, uses, of what waits and what is summed up."""
    rows = usage.by_asset_and_day(
        connection, since=datetime.date.min, until=datetime.date.max
    )
    found: dict[tuple[str, str], tuple[int, int, int]] = {}
    for row in rows:  # one for each day
        adds, removals, uses = found.get((named(row.asset), row.source), (0, 0, 0))
        found[named(row.asset), row.source] = (
            adds + row.adds,
            removals + row.removals,
            uses + row.uses,
        )
    return found


def test_nothing_is_counted_of_what_was_there_before(migrated: Database) -> None:
    call_command("copy_models_to_assets", verbosity=0)
    assert migrated.value("SELECT count(*) FROM terrain.table_assets") > 0
    assert migrated.rows("SELECT * FROM terrain.asset_usage_log") == []


def test_the_old_application_lays_out_a_table(both: Both) -> None:
    """Placing is an add and a use, a second piece a use, the last one's going a removal."""
    both.does(
        "UPDATE user_tables SET layout_data = %s WHERE id = '#den'",
        layout("#tower", "#tower", "#bridge"),
    )
    assert counted(both) == {
        ("#bridge", "layout"): (1, 0, 1),
        ("#tower", "layout"): (1, 0, 2),
    }
    both.does(
        "UPDATE user_tables SET layout_data = %s WHERE id = '#den'", layout("#tower")
    )
    assert counted(both) == {
        ("#bridge", "layout"): (1, 1, 1),
        ("#tower", "layout"): (1, 0, 2),
    }
    both.does("DELETE FROM user_tables WHERE id = '#den'")
    assert counted(both)["#tower", "layout"] == (1, 1, 2)


def test_the_new_application_lays_out_a_table(both: Both) -> None:
    both.newly(
        "UPDATE tables SET layout = %s WHERE id = '#show'", layout("#bridge", "#bridge")
    )
    assert counted(both) == {("#bridge", "layout"): (1, 0, 2)}
    both.newly("DELETE FROM tables WHERE id = '#show'")
    assert counted(both) == {("#bridge", "layout"): (1, 1, 2)}


def test_saving_the_same_layout_is_nothing(both: Both) -> None:
    both.newly("UPDATE tables SET layout = %s WHERE id = '#den'", layout("#tower"))
    both.newly(
        "UPDATE tables SET layout = layout || '{\"camera\": 1}' WHERE id = '#den'"
    )
    both.newly("UPDATE tables SET view_count = 7, name = 'New' WHERE id = '#den'")
    assert both.has("SELECT count(*)::int FROM asset_usage_log") == [(1,)]


@pytest.mark.parametrize(
    "odd",
    [
        '{"models": 7}',
        '{"models": {"asset_id": "#tower"}}',
        '{"models": ["#tower", 3, null, [], {}, {"asset_id": 4}, {"asset_id": "x"}]}',
        '{"models": [{"asset_id": "00000000-0000-0000-0000-000000000000"}]}',
        "{}",
    ],
)
def test_what_is_no_placement_of_an_asset_is_not_counted(both: Both, odd: str) -> None:
    both.does("UPDATE user_tables SET layout_data = %s WHERE id = '#den'", ids(odd))
    assert counted(both) == {}


def test_an_id_is_read_as_postgresql_reads_it(both: Both) -> None:
    (tower,) = both.newly("SELECT id FROM models WHERE id = '#tower'").fetchone()
    spelled = {
        "models": [{"asset_id": tower.hex.upper()}, {"asset_id": f"{{{tower}}}"}]
    }
    both.does(
        "UPDATE user_tables SET layout_data = %s WHERE id = '#den'", json.dumps(spelled)
    )
    assert counted(both) == {("#tower", "layout"): (1, 0, 2)}


def test_a_layout_that_was_not_committed_was_not_used(both: Both) -> None:
    with pytest.raises(ZeroDivisionError), both.old.transaction():
        both.does(
            "UPDATE user_tables SET layout_data = %s WHERE id = '#den'",
            layout("#tower"),
        )
        raise ZeroDivisionError
    assert counted(both) == {}


def test_clients_that_use_one_asset_do_not_wait_for_each_other(both: Both) -> None:
    """Two old clients and a new one, all in open transactions, about the same asset."""
    both.does(
        "INSERT INTO user_tables (id, user_email, name, table_config, layout_data)"
        " VALUES ('#den2', 'b@shop.example', 'Den', '{}', '{}')"
    )
    other = both.database.old()
    others = both.database.new()
    with both.old.transaction(), other.transaction(), others.transaction():
        for client, table in ((both.old, "#den"), (other, "#den2")):
            client.execute("SET LOCAL lock_timeout = '50ms'")
            client.execute(
                ids(f"UPDATE user_tables SET layout_data = %s WHERE id = '{table}'"),
                [layout("#tower")],
            )
        others.execute(
            ids("UPDATE tables SET layout = %s WHERE id = '#show'"),  # type: ignore[arg-type]
            [layout("#tower")],
        )
    assert counted(both) == {("#tower", "layout"): (3, 0, 3)}


def test_summing_up_does_not_wait_for_a_writer_nor_the_writer_for_it(
    both: Both,
) -> None:
    both.newly("UPDATE tables SET layout = %s WHERE id = '#show'", layout("#tower"))
    with both.old.transaction():
        both.does("SET LOCAL lock_timeout = '50ms'")
        both.does(
            "UPDATE user_tables SET layout_data = %s WHERE id = '#den'",
            layout("#tower"),
        )
        assert usage.roll_up(connection) == 1
        both.does(
            "UPDATE user_tables SET layout_data = %s WHERE id = '#den'",
            layout("#tower", "#bridge"),
        )
    assert counted(both)["#tower", "layout"] == (2, 0, 2)
    assert usage.roll_up(connection) == 2
    assert usage.roll_up(connection) == 0
    assert counted(both) == {
        ("#bridge", "layout"): (1, 0, 1),
        ("#tower", "layout"): (2, 0, 2),
    }


def test_whoever_is_already_summing_up_is_left_to_it(both: Both) -> None:
    both.newly("UPDATE tables SET layout = %s WHERE id = '#show'", layout("#tower"))
    with both.new.transaction():
        both.newly("SELECT pg_advisory_xact_lock(%s)", 0x7E44A103)
        assert usage.roll_up(connection) == 0
    assert usage.roll_up(connection) == 1


def test_a_held_row_takes_its_placements_along_and_brings_them_back(both: Both) -> None:
    both.does(
        "UPDATE user_tables SET layout_data = %s WHERE id = '#den'", layout("#tower")
    )
    both.does("UPDATE user_tables SET table_config = '[]' WHERE id = '#den'")
    assert both.held() == [("user_tables", "#den", "table_config_not_object")]
    assert counted(both) == {("#tower", "layout"): (1, 1, 1)}
    both.does("UPDATE user_tables SET table_config = '{}' WHERE id = '#den'")
    assert counted(both) == {("#tower", "layout"): (2, 1, 2)}


def test_usage_is_parked_and_returns(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conf.settings, "PREFLIGHT_ACCEPT", ["old-sessions"])
    both.does(
        "UPDATE user_tables SET layout_data = %s WHERE id = '#den'", layout("#tower")
    )
    usage.roll_up(connection)
    both.does(
        "UPDATE user_tables SET layout_data = %s WHERE id = '#den'", layout("#bridge")
    )
    before = counted(both)
    assert before["#bridge", "layout"] == (1, 0, 1)
    call_command("rollback_migration", yes=True, verbosity=0)
    both.does(
        "UPDATE user_tables SET layout_data = %s WHERE id = '#den'", layout("#tower")
    )
    assert both.database.rows(
        "SELECT count(*) FROM legacy_parked.asset_usage_log"
        " UNION ALL SELECT count(*) FROM legacy_parked.asset_usage"
        " UNION ALL SELECT count(*) FROM legacy_parked.asset_usage_days"
    ) == [(1,), (1,), (1,)]
    call_command("prepare_database", verbosity=0)
    call_command("migrate", verbosity=0)
    assert counted(both) == before
    both.does("UPDATE user_tables SET layout_data = '{}' WHERE id = '#den'")
    assert counted(both)["#tower", "layout"] == (1, 2, 1)


# --- libraries -----------------------------------------------------------------------------


@pytest.fixture
def asset(db: None) -> Asset:
    artist = User.objects.create_user("artist@example.com", role=User.Role.ARTIST)
    return Asset.objects.create(artist=artist, name="Tower", file_ref="a.stl")


def logged() -> list[tuple[Any, ...]]:
    return list(
        UsageLog.objects.order_by("id").values_list(
            "source", "adds", "removals", "uses"
        )
    )


def test_a_library_edited_by_hand(asset: Asset) -> None:
    table = Table.objects.create(name="Den")
    row = TableAsset.objects.create(table=table, asset=asset, quantity=2)
    assert logged() == [("library", 1, 0, 2)]
    row.quantity = 5
    row.save()
    assert logged()[1:] == [("library", 0, 0, 3)]
    row.quantity = 1
    row.save()
    assert len(logged()) == 2
    row.delete()
    assert logged()[2:] == [("library", 0, 1, 0)]


def test_a_library_that_follows_the_layout_says_nothing_of_its_own(
    asset: Asset,
) -> None:
    table = Table.objects.create(name="Den", layout=json.loads(layout()))
    row = TableAsset.objects.create(table=table, asset=asset, quantity=2, counted=2)
    TableAsset.objects.filter(pk=row.pk).update(quantity=3, counted=3)
    assert logged() == []
    row.refresh_from_db()
    row.quantity = 4  # somebody's hand
    row.save()
    assert logged() == [("library", 1, 0, 1)]
    table.delete()
    assert logged()[1:] == [("library", 0, 1, 0)]


def test_many_at_once_are_one_entry_for_each_asset(asset: Asset) -> None:
    tables = Table.objects.bulk_create(Table(name=str(n)) for n in range(50))
    TableAsset.objects.bulk_create(
        TableAsset(table=table, asset=asset, quantity=2) for table in tables
    )
    assert logged() == [("library", 50, 0, 100)]
    TableAsset.objects.all().delete()
    assert logged()[1:] == [("library", 0, 50, 0)]


def test_moving_a_row_to_another_asset_is_a_removal_and_an_add(asset: Asset) -> None:
    other = Asset.objects.create(artist=asset.artist, name="Bridge", file_ref="b.stl")
    row = TableAsset.objects.create(
        table=Table.objects.create(name="Den"), asset=asset, quantity=2
    )
    UsageLog.objects.all().delete()
    TableAsset.objects.filter(pk=row.pk).update(asset=other)
    assert {
        (entry.asset_id, entry.adds, entry.removals, entry.uses)
        for entry in UsageLog.objects.all()
    } == {(asset.pk, 0, 1, 0), (other.pk, 1, 0, 2)}


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("lay"), st.integers(0, 2), st.lists(st.integers(0, 2), max_size=5)
        ),
        st.tuples(
            st.just("own"), st.integers(0, 2), st.integers(0, 2), st.integers(1, 4)
        ),
        st.tuples(
            st.just("follow"), st.integers(0, 2), st.integers(0, 2), st.integers(1, 4)
        ),
        st.tuples(st.just("off"), st.integers(0, 2), st.integers(0, 2)),
        st.tuples(st.just("drop"), st.integers(0, 2)),
        st.tuples(st.just("roll")),
    ),
    max_size=25,
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(STEPS)
def test_adds_less_removals_are_what_is_there(asset: Asset, steps: list[Any]) -> None:
    """Whatever is done: the sums are the tables that have an asset now, in each source."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM tables; DELETE FROM assets WHERE name <> 'Tower';"
            " DELETE FROM asset_usage_log; DELETE FROM asset_usage;"
            " DELETE FROM asset_usage_days"
        )
    assets = [
        asset,
        *Asset.objects.bulk_create(
            Asset(artist=asset.artist, name=str(n), file_ref="x.stl") for n in range(2)
        ),
    ]
    tables: dict[int, Table] = {}
    for what, *args in steps:
        if what == "roll":
            usage.roll_up(connection)
            continue
        number, *rest = args
        if what == "drop":
            Table.objects.filter(pk=tables.pop(number, Table()).pk).delete()
            continue
        table = tables.setdefault(number, Table.objects.create(name="Den"))
        if what == "lay":
            placed = [{"asset_id": str(assets[n].pk)} for n in rest[0]]
            Table.objects.filter(pk=table.pk).update(layout={"models": placed})
            continue
        library = TableAsset.objects.filter(table=table, asset=assets[rest[0]])
        if what == "off":
            library.delete()
            continue
        values = {"quantity": rest[1], "counted": rest[1] if what == "follow" else None}
        if not library.update(**values):
            TableAsset.objects.create(table=table, asset=assets[rest[0]], **values)
    there: Counter[Any] = Counter()
    for table in Table.objects.all():
        there.update(
            {(entry["asset_id"], "layout") for entry in table.layout.get("models", [])}
        )
    there.update(
        (str(row.asset_id), "library")
        for row in TableAsset.objects.all()
        if row.quantity != row.counted
    )
    rows = usage.by_asset_and_day(
        connection, since=datetime.date.min, until=datetime.date.max
    )
    net = Counter(
        {(str(row.asset), row.source): row.adds - row.removals for row in rows}
    )
    assert +net == there
    assert {
        each.source: (each.adds, each.removals, each.uses)
        for each in usage.totals(connection)
    } == {
        source: tuple(
            sum(getattr(row, name) for row in rows if row.source == source)
            for name in ("adds", "removals", "uses")
        )
        for source in {row.source for row in rows}
    }


# --- reading and summing up ----------------------------------------------------------------


def test_the_command_sums_up(both: Both, manage: Any) -> None:
    both.newly("UPDATE tables SET layout = %s WHERE id = '#show'", layout("#tower"))
    assert usage.waiting(connection) == 1
    assert manage("roll_up_usage") == Result(0, "Summed up 1 changes.\n", "")
    assert manage("roll_up_usage") == Result(0, "Nothing was waiting.\n", "")
    assert usage.waiting(connection) == 0
    (row,) = AssetUsage.objects.all()
    assert (named(row.asset_id), row.adds, row.removals, row.uses) == (
        "#tower",
        1,
        0,
        1,
    )
    (day,) = DailyUsage.objects.all()
    assert (day.source, day.adds, day.uses) == ("layout", 1, 1)


def test_usage_is_read_by_asset_and_by_artist(asset: Asset) -> None:
    other = Asset.objects.create(
        artist=User.objects.create_user("b@example.com", role=User.Role.ARTIST),
        name="Bridge",
        file_ref="b.stl",
    )
    table = Table.objects.create(name="Den")
    for each in (asset, other):
        TableAsset.objects.create(table=table, asset=each)
    usage.roll_up(connection)
    today = datetime.datetime.now(datetime.UTC).date()
    span = {"since": today, "until": today}
    both = usage.by_asset_and_day(connection, **span)  # type: ignore[arg-type]
    assert {row.asset for row in both} == {asset.pk, other.pk}
    for only in ({"asset": asset.pk}, {"artist": asset.artist_id}):
        rows = usage.by_asset_and_day(connection, **span, **only)  # type: ignore[arg-type]
        assert [row.as_json() for row in rows] == [
            {
                "asset": str(asset.pk),
                "day": today.isoformat(),
                "source": "library",
                "adds": 1,
                "removals": 0,
                "uses": 1,
            }
        ]
    AssetUsage.objects.update(day=today - datetime.timedelta(days=2))
    assert usage.by_asset_and_day(connection, **span) == []  # type: ignore[arg-type]


def test_an_asset_that_goes_is_still_counted_where_it_was_used(both: Both) -> None:
    """What is taken off a table after it has gone is a removal of what was summed up."""
    both.newly("UPDATE tables SET layout = %s WHERE id = '#show'", layout("#bridge"))
    usage.roll_up(connection)
    both.newly("DELETE FROM models WHERE id = '#bridge'")
    both.newly("UPDATE tables SET layout = '{}' WHERE id = '#show'")
    assert counted(both) == {("#bridge", "layout"): (1, 1, 1)}
    assert usage.roll_up(connection) == 1
    assert counted(both) == {("#bridge", "layout"): (1, 1, 1)}


def test_what_was_counted_stays_when_the_asset_goes(asset: Asset) -> None:
    row = TableAsset.objects.create(table=Table.objects.create(name="Den"), asset=asset)
    row.delete()
    key = asset.pk
    asset.delete()
    usage.roll_up(connection)
    assert [entry.asset_id for entry in AssetUsage.objects.all()] == [key]
    assert named(key) == key
