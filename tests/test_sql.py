"""From the declaration to SQL: what needs no database, and EXPLAIN of every statement."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest
from django.db import connection

from terrain.legacy import catalog, checks, cut_over, engine, search_path, sql
from terrain.legacy.mapping import (
    BY_LEGACY,
    LENSES,
    MAX_INTEGER,
    Key,
    is_plain_integer,
    left_over,
    put_back,
    whole_number,
)
from terrain.legacy.schema import Column, Dropped, Lens, Rule, fingerprint
from terrain.sqlfiles import render
from tests.conftest import Database

#: Of the declaration as it was released.  Triggers, views and rows in people's databases
#: were made from it, so it does not change: what must differ is a new lens, beside it.
FINGERPRINT = "6bf418936520d4caff3e07f2aa54d7d9e552eba9dc859cc6d57b96b142cf313c"


def test_the_declaration_is_frozen() -> None:
    """But for the place of the new tables, which it named then."""
    text = json.dumps([asdict(lens) for lens in LENSES], sort_keys=True)
    assert fingerprint(LENSES) == hashlib.sha256(text.encode()).hexdigest()
    as_released = text.replace("@new.", "public.")
    assert hashlib.sha256(as_released.encode()).hexdigest() == FINGERPRINT


# --- text ----------------------------------------------------------------------------------


def test_render_fills_names_and_leaves_other_braces() -> None:
    assert render("SELECT {a}, '{}', '{x,y}', {b_c}", a="1", b_c="{a}") == (
        "SELECT 1, '{}', '{x,y}', {a}"
    )


def test_render_refuses_what_it_was_not_given() -> None:
    with pytest.raises(KeyError, match="missing"):
        render("SELECT {missing}")


def test_identifiers_and_literals_are_quoted() -> None:
    assert sql.ident("public", 'odd"name') == '"public"."odd""name"'
    assert sql.literal("it's") == "'it''s'"
    assert sql.texts(["a", "it's"]) == "ARRAY['a', 'it''s']::text[]"
    assert sql.texts([]) == "ARRAY[]::text[]"


@pytest.mark.parametrize("name", ["Orders", "1st", "or ders", 'o"', "", "o;drop"])
def test_only_a_plain_name_is_made_into_others(name: str) -> None:
    with pytest.raises(ValueError, match="is not a plain identifier"):
        sql.plain(name)


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("public", ("public",)),
        ('"$user", public', ("$user", "public")),
        ('legacy, "Odd ""Shop""", x', ("legacy", 'Odd "Shop"', "x")),
        ("", ()),
    ],
)
def test_search_paths_are_read_and_written(path: str, names: tuple[str, ...]) -> None:
    assert search_path.split(path) == names
    assert search_path.split(search_path.join(names)) == names


# --- rules ---------------------------------------------------------------------------------

TWO_RULES = replace(
    BY_LEGACY["artists"],
    held=(
        Rule("odd", "l.a = 1", "is odd", "Even it.", forecast="l.b IN ({orders})"),
        Rule("it's", "l.c", "is", "Be it."),
    ),
)


def test_nothing_holds_a_row_of_a_table_without_rules() -> None:
    assert sql.held(BY_LEGACY["artists"]) == "NULL::text"


def test_the_first_rule_that_is_met_holds_a_row() -> None:
    assert sql.held(TWO_RULES) == (
        "(CASE WHEN l.a = 1 THEN 'odd' WHEN l.c THEN 'it''s' ELSE NULL END)"
    )


def test_a_forecast_refers_to_nothing_that_is_not_there_yet() -> None:
    assert sql.held(TWO_RULES, forecast={"orders": "public.orders"}) == (
        "(CASE WHEN l.b IN (public.orders) THEN 'odd' WHEN l.c THEN 'it''s' ELSE NULL END)"
    )
    tables = {lens.legacy: f"old.{lens.legacy}" for lens in LENSES}
    for lens in LENSES:
        assert "public." not in sql.held(lens, forecast=tables)
        assert "public." not in sql.round_trip(lens, TYPES, tables)
    assert "public." not in sql.price_forecast(BY_LEGACY["orders"], tables)


def test_elements_are_looked_at_once_for_all_rules() -> None:
    held = sql.held(BY_LEGACY["orders"])
    assert held.count("jsonb_array_elements") == 1


def test_a_detail_is_a_sentence_about_the_row() -> None:
    assert sql.detail(TWO_RULES, TWO_RULES.held[:1], "why") == (
        "('artists ' || l.id || CASE WHEN why = 'odd' THEN ' is odd. Even it.' END)"
    )


def test_reasons_are_sentences_and_codes_are_unique() -> None:
    for lens in LENSES:
        codes = [
            rule.code
            for rule in (*lens.held, *lens.flagged, *lens.repeats, *sql.price_rules())
        ]
        assert len(codes) == len(set(codes))
        for rule in (*lens.held, *lens.flagged, *lens.repeats, *sql.price_rules()):
            assert rule.sentence.startswith(("has ", "is ")), rule
            assert not rule.sentence.endswith("."), rule
            assert rule.remedy.endswith("."), rule


# --- columns -------------------------------------------------------------------------------

#: As the Django models have it; every column text would do for these tests.
TYPES: sql.Types = {
    table: {name: "text" for name in catalog.new_columns(table)}
    for table in catalog.NEW_TABLES
}


def test_every_column_goes_somewhere_and_comes_back() -> None:
    for lens in LENSES:
        back = sql.down(lens)
        assert list(back) == [column.name for column in lens.mapped]
        for column in lens.mapped:
            part = lens.part is not None and lens.part.column == column.name
            assert column.up or part, column.name
            assert back[column.name].startswith(("(", "coalesce((SELECT"))
            assert set(column.up) <= set(catalog.new_columns(lens.new))


def test_dropped_columns_are_left_out() -> None:
    artists = BY_LEGACY["artists"]
    shorter = replace(
        artists,
        columns=(*artists.columns[:-1], Dropped("updated_at", "timestamp", "not used")),
    )
    assert "updated_at" not in sql.down(shorter)
    assert "updated_at" not in sql.rebuilt_view(shorter, list(sql.down(shorter)))
    assert "updated_at" not in shorter.up


def test_the_key_does_not_change_with_a_row() -> None:
    for lens in LENSES:
        assert lens.key in lens.up
        assert lens.key not in sql.synced(lens)


def test_an_integer_is_typed_only_if_it_comes_back_as_written() -> None:
    key = (Key("width", "width", whole_number, is_plain_integer),)
    assert str(MAX_INTEGER) in whole_number("x")
    assert left_over("l.c", key).startswith(
        "(l.c - ARRAY[CASE WHEN CASE WHEN jsonb_typeof(l.c -> 'width') = 'number'"
    )
    assert put_back("n.c", "n", key).startswith(
        "((n.c - ARRAY[CASE WHEN n.width IS NULL"
    )


def test_a_trigger_for_each_event_fires_always() -> None:
    for lens in LENSES:
        for table, made in (
            (f"@legacy.{lens.legacy}", sql.triggers_on_legacy(lens)),
            (
                f"@new.{lens.new}",
                sql.triggers_on_new(lens.new, [replace(lens, part=None)]),
            ),
        ):
            created = [each for each in made if each.startswith("CREATE OR REPLACE")]
            always = [each for each in made if " ENABLE ALWAYS TRIGGER " in each]
            never = [each for each in made if " DISABLE TRIGGER " in each]
            assert len(always) == len(sql.trigger_names(table))
            assert len(created) == len(always) + len(never)
            assert len(never) == table.startswith("@legacy.")
            for event in ("INSERT", "UPDATE", "DELETE", "TRUNCATE"):
                after = (
                    rf" AFTER (\w+ OR )*{event}( OR \w+)* ON .*"
                    r" EXECUTE FUNCTION rebuilt.on_(?!new_end)"
                )
                assert sum(bool(re.search(after, each)) for each in created) == 1
            names = [
                re.match(r'CREATE OR REPLACE TRIGGER "(\w+)"', each)[1]  # type: ignore[index]
                for each in created
            ]
            assert sorted(names) == sorted(sql.all_triggers(table))


def test_every_deletion_waits_for_every_worker() -> None:
    taken = [sql.copy_lock(worker) for worker in range(sql.WORKERS)]
    assert len(set(taken)) == len(taken)
    (function,) = [
        made for made in sql.common_functions() if "not_beside_a_batch()" in made
    ]
    for arguments in taken:
        assert f"pg_advisory_xact_lock_shared({arguments})" in function
        assert f"pg_try_advisory_xact_lock_shared({arguments})" in function


# --- EXPLAIN -------------------------------------------------------------------------------

KEYS: dict[str, Any] = {
    "after": None,
    "upto": uuid.UUID(int=2**127),
    "end": None,
    "limit": 10,
    "keys": [uuid.UUID(int=1)],
    "ours": [lens.legacy for lens in LENSES],
    "schema": "public",
    "table": "orders",
    "reason": "stripe_id_repeated",
    "ids": [],
    "customer": uuid.UUID(int=1),
    "artist": uuid.UUID(int=2),
    "reasons": ["x"],
    "details": ["x"],
    "rows": ["{}"],
    "since": "2026-01-01",
    "schemas": ["terrain"],
    "tables": ["users"],
    "new": ["terrain.users"],
    "all": [lens.legacy for lens in LENSES],
    "parked": "legacy_parked.orders",
    "own": "terrain",
    "legacy": "public",
    "moving": ["orders"],
    "planned_tables": ["orders"],
    "planned_names": ["orders_pkey"],
    "names": ["orders_number_key"],
}


def generated(types: sql.Types) -> Iterator[tuple[str, str]]:
    """(name in queries.sql, statement), for all that is made for any lens."""
    tables = {lens.legacy: f"@legacy.{lens.legacy}" for lens in LENSES}
    for name in (
        "quantiles",
        "take_queue",
        "late",
        "take_late",
        "quarantine_models",
        "others_in_legacy",
        "others_on_legacy",
        "others_on_rebuilt",
        "sessions_at_legacy",
        "written_lately",
        "operators",
        "trim_used",
        "scans_of_legacy",
        "writes_of_new",
        "made_later",
        "taken_names",
        "readers",
    ):
        yield name, sql.query(name)
    ours = sql.query("our_functions")
    yield "our_functions", f"SELECT FROM pg_proc p WHERE {ours}"
    for name in ("functions_to_park", "parked_functions"):
        yield name, sql.query(name, ours=ours)
    yield "merges", sql.merges()
    yield "merge_lock", sql.merge_lock()
    for lens in LENSES:
        table = tables[lens.legacy]
        yield "range", sql.next_range(table)
        yield "copy", sql.copy_batch(lens, types, 3)
        yield "copy", sql.copy_batch(lens, types, 3, alone=False)
        yield "stale", sql.stale(lens)
        yield "not_own", sql.not_own(lens)
        yield "to_retry", sql.to_retry(lens)
        yield "differing", sql.differing(lens)
        yield "checksums", sql.checksums(lens)
        yield "differences", sql.differences(lens)
        yield "round trip", sql.round_trip(lens, types, tables)
        yield "held", f"SELECT {sql.held(lens)} FROM {table} l"
        for number in range(len(lens.repeats)):
            yield "repeats", sql.repeats(lens, table, number)
            yield "mark_repeats", sql.mark_repeats(lens, table, number)
        if lens.owner is not None:
            yield "no_account", sql.copy_batch(lens, types, 3, alone=False)
            yield "account", f"SELECT a.id FROM {table} l" + sql.account(
                f"l.{lens.owner.address}"
            )
            yield "customers", sql.customers(lens, f"{table} l")
            yield "customers", sql.customers(lens, f"@new.{lens.new} l", new_side=True)
            yield "link", sql.link(lens)
            yield "queue_waiting", sql.queue_waiting(lens)
            if lens.owner.or_session is not None:
                yield "link_sessions", sql.link_sessions(lens, 3)
                yield "copy_sessions", sql.copy_batch(lens, types, 3)
        if lens.part is not None:
            yield "copy_lines", sql.copy_batch(lens, types, 3)
            yield "price_forecast", sql.price_forecast(lens, tables)


@pytest.mark.migration
@pytest.mark.parametrize("is_cut_over", [False, True])
def test_postgresql_plans_every_statement(
    migrated: Database, is_cut_over: bool
) -> None:
    """With both sides there; functions and triggers are made by ``migrate`` itself."""
    if is_cut_over:
        cut_over.cut_over(connection)
    planned = set()
    with connection.cursor() as cursor:
        for name, statement in generated(catalog.types(connection)):
            cursor.execute(f"EXPLAIN {statement}", KEYS)
            assert cursor.fetchall()
            planned.add(name)
        for check in checks.by_hand():
            cursor.execute(f"EXPLAIN {check.query}")
            assert cursor.fetchall()
    assert set(sql.templates("queries.sql")) <= planned


def test_every_statement_written_by_hand_is_described() -> None:
    for name, text in sql.templates("functions.sql").items():
        assert text.strip(), name
    undescribed = [
        name
        for name, text in sql.templates("queries.sql").items()
        if not text.startswith("-- ")
    ]
    assert undescribed == []
    for check in checks.by_hand():
        assert check.sentence.endswith(".")
        assert check.holds.endswith(".")


def test_a_check_that_does_not_say_when_it_fails_is_none() -> None:
    with pytest.raises(ValueError, match="odd does not say when it fails"):
        checks._parse("odd", "SELECT 1")


@pytest.mark.migration
def test_functions_are_made_again_to_the_same_effect(migrated: Database) -> None:
    """CREATE OR REPLACE throughout: deriving anew changes nothing."""

    def derived() -> list[tuple[Any, ...]]:
        return migrated.rows(
            "SELECT p.oid::regprocedure::text, md5(p.prosrc),"
            "       EXISTS (SELECT FROM aclexplode(coalesce(p.proacl,"
            "               acldefault('f', p.proowner))) a WHERE a.grantee = 0)"
            "  FROM pg_proc p WHERE p.pronamespace = 'rebuilt'::regnamespace"
            " UNION ALL SELECT c.oid::regclass::text, md5(pg_get_viewdef(c.oid)), false"
            "  FROM pg_class c WHERE c.relnamespace = 'rebuilt'::regnamespace"
            "   AND c.relkind = 'v' ORDER BY 1"
        )

    before = derived()
    engine.derive(connection)
    assert derived() == before
    assert not any(open_to_all for _, _, open_to_all in before)


def test_types_of_the_declaration_are_types() -> None:
    lens: Lens = BY_LEGACY["orders"]
    assert all(isinstance(column, Column) for column in lens.mapped)
    assert {column.type for lens in LENSES for column in lens.mapped} == {
        "uuid",
        "text",
        "text[]",
        "jsonb",
        "boolean",
        "integer",
        "timestamp without time zone",
        "numeric(4,3)",
        "numeric(10,2)",
        "character varying(20)",
        "character varying(50)",
        "character varying(64)",
        "character varying(100)",
        "character varying(255)",
    }
