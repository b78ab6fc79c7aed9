"""Preflight: a planted problem for every question, and that only it is found."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from django.db import connection, connections

from terrain.embedded import OWNER
from terrain.legacy import cut_over, preflight
from terrain.legacy.findings import Severity
from terrain.legacy.mapping import LENSES
from terrain.legacy.preflight.asking import Situation
from terrain.legacy.preflight.rows import forecast_rows
from tests import hostile
from tests.conftest import Database, Result, connecting
from tests.planting import odd, only, plant, wait_until_alone

pytestmark = pytest.mark.migration

Manage = Callable[..., Any]


# --- nothing to find -----------------------------------------------------------------------


def test_a_shop_as_it_is_found_is_fine(shop: Database, manage: Manage) -> None:
    """No other session is connected, and no name is taken."""
    assert odd(preflight.run(connection)) == []
    result = manage("preflight")
    assert result.code == 0
    assert result.err == ""
    assert (
        "✓ No other session with rights on the legacy tables is connected.\n"
        in result.out
    )
    assert "✓ All 1,109 rows can be read back as they are, to the byte.\n" in result.out
    assert (
        "What it locks. Each try waits 20 to 100 ms for its lock, then steps aside; after 60 s"
        " it stops, and can be run again.\n" in result.out
    )
    assert re.findall(
        r"^(\S.*?)  +([A-Z ]+?)  +(\S.*?)  +(\d*)  +(\d+)$", result.out, re.M
    ) == [
        ("put triggers on", "SHARE ROW EXCLUSIVE", "writers", "35", "3"),
        ("copy rows", "ROW EXCLUSIVE", "deletions in one batch", "80", "1"),
        ("build indexes", "SHARE UPDATE EXCLUSIVE", "nobody", "", "1"),
        ("unique constraints", "ACCESS EXCLUSIVE", "readers and writers", "10", "1"),
        ("foreign keys", "SHARE ROW EXCLUSIVE", "writers", "15", "2"),
        ("validate foreign keys", "SHARE UPDATE EXCLUSIVE", "nobody", "", "1"),
        ("limits of the catalogue", "SHARE ROW EXCLUSIVE", "writers", "20", "2"),
        ("open new tables", "ACCESS EXCLUSIVE", "readers and writers", "10", "1"),
        (
            "cut over: exchange names",
            "ACCESS EXCLUSIVE",
            "readers and writers",
            "100",
            f"{len(LENSES) + len(cut_over.our_names())}",
        ),
        (
            "rollback: take triggers off",
            "ACCESS EXCLUSIVE",
            "readers and writers",
            "30",
            "3",
        ),
        (
            "cleanup: drop tables",
            "ACCESS EXCLUSIVE",
            "readers and writers",
            "100",
            "12",
        ),
    ]
    assert "\nNobody would be in the way of these locks now.\n" in result.out
    assert result.out.endswith(
        "Nothing blocks. Next: python manage.py backup_database\n"
    )


def test_an_empty_database_is_fine(empty: Database, manage: Manage) -> None:
    result = manage("preflight")
    assert result.code == 0
    assert (
        "· There are no legacy tables: migrate will make the new schema, empty.\n"
        in result.out
    )


def test_json_is_one_document_and_nothing_else(shop: Database, manage: Manage) -> None:
    plant("ALTER TABLE orders DROP COLUMN notes")
    result = manage("preflight", "--json")
    assert result.code == 1
    assert result.err == ""
    document = json.loads(result.out)
    assert document["blocked"] is True
    assert document["rows"]["orders"] == 500
    _, copying, *_, cleaning = document["locks"]
    assert copying == {
        "step": "copy rows",
        "tables": [f"public.{lens.legacy}" for lens in LENSES],
        "together": 1,
        "mode": "ROW EXCLUSIVE",
        "blocks": "deletions in one batch",
        "seconds": 0.08,
        "in_the_way": [],
    }
    assert cleaning["step"] == "cleanup: drop tables"
    (finding,) = (each for each in document["findings"] if each["severity"] == "blocks")
    assert finding["name"] == "columns"
    assert finding["sentence"] == "The column orders.notes is missing."


def test_quiet_says_nothing(shop: Database, manage: Manage) -> None:
    result = manage("preflight", "-v", "0")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_it_only_reads(shop: Database, manage: Manage) -> None:
    """The server itself sees to it, for the whole connection."""
    before = snapshot(shop)
    options = connections.databases["default"]["OPTIONS"]
    with connecting(
        OPTIONS={**options, "options": "-c default_transaction_read_only=on"}
    ):
        result = manage("preflight")
    assert (result.code, result.err) == (0, "")
    assert snapshot(shop) == before


def snapshot(shop: Database) -> list[tuple[Any, ...]]:
    """Every relation and function of anybody's, with its schema, and the settings."""
    return shop.rows(
        "SELECT s.nspname, c.relname::text FROM pg_class c"
        "  JOIN pg_namespace s ON s.oid = c.relnamespace"
        " WHERE s.nspname !~ '^pg_' AND s.nspname <> 'information_schema'"
        " UNION ALL SELECT 'function', p.oid::regprocedure::text FROM pg_proc p"
        " WHERE p.pronamespace = 'public'::regnamespace"
        " UNION ALL SELECT 'setting', array_to_string(s.setconfig, ' ')"
        "  FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase"
        " WHERE d.datname = current_database() ORDER BY 1, 2"
    )


# --- the shape -----------------------------------------------------------------------------

SHAPES: dict[str, tuple[str, list[str], str, str]] = {
    "missing column": (
        "columns",
        ["ALTER TABLE orders DROP COLUMN notes"],
        "The column orders.notes is missing.",
        "Add it: ALTER TABLE orders ADD COLUMN notes text.",
    ),
    "retyped column": (
        "columns",
        ["ALTER TABLE assets ALTER COLUMN view_count TYPE bigint"],
        "The column assets.view_count is bigint, not integer.",
        "Change it back: ALTER TABLE assets ALTER COLUMN view_count TYPE integer; or"
        " declare the new type in mapping.py.",
    ),
    "column of another length": (
        "columns",
        ["ALTER TABLE artists ALTER COLUMN name TYPE varchar(300)"],
        "The column artists.name is character varying(300), not character varying(255).",
        "Change it back: ALTER TABLE artists ALTER COLUMN name TYPE character"
        " varying(255); or declare the new type in mapping.py.",
    ),
    "extra column": (
        "columns",
        ["ALTER TABLE artists ADD COLUMN twitter text"],
        "The column artists.twitter has no place in the new schema.",
        "Say in terrain/legacy/mapping.py where it goes, or that it is dropped and why.",
    ),
    "integer ids": (
        "columns",
        [
            "ALTER TABLE stripe_transfers DROP COLUMN id",
            "ALTER TABLE stripe_transfers ADD COLUMN id serial PRIMARY KEY",
        ],
        "The column stripe_transfers.id is integer, not uuid.",
        "Keys are UUIDs in the new schema; integer keys cannot be kept.",
    ),
    "missing table": (
        "tables",
        ["DROP TABLE stripe_transfers"],
        "The legacy tables stripe_transfers are missing.",
        "Is this the right database? If the shop has renamed or dropped them, make them"
        " again, empty, from the legacy schema.",
    ),
    "partitioned table": (
        "tables",
        [
            "ALTER TABLE stripe_transfers RENAME TO old_transfers",
            "ALTER TABLE old_transfers RENAME CONSTRAINT stripe_transfers_pkey TO old_pkey",
            "CREATE TABLE stripe_transfers (LIKE old_transfers, PRIMARY KEY (id))"
            " PARTITION BY HASH (id)",
        ],
        "The table public.stripe_transfers is partitioned, which the copies do not know of.",
        "Make it an ordinary table first.",
    ),
    "inherited table": (
        "tables",
        ["CREATE TABLE orders_of_old () INHERITS (orders)"],
        "The table public.orders is part of an inheritance tree, which the copies do not"
        " know of.",
        "Make it an ordinary table first.",
    ),
    "rows hidden from the owner": (
        "tables",
        ["ALTER TABLE orders FORCE ROW LEVEL SECURITY"],
        "The table public.orders is under FORCE ROW LEVEL SECURITY, which the copies do"
        " not know of.",
        "Make it an ordinary table first.",
    ),
    "no primary key": (
        "keys",
        ["ALTER TABLE stripe_transfers DROP CONSTRAINT stripe_transfers_pkey"],
        "The table stripe_transfers has no primary key on its id.",
        "Put it back, once no id occurs twice: ALTER TABLE stripe_transfers ADD PRIMARY"
        " KEY (id).",
    ),
    "a schema rebuilt with other tables": (
        "schemas",
        ["CREATE SCHEMA rebuilt", "CREATE TABLE rebuilt.engines (id integer)"],
        "The schema rebuilt, which this project makes and drops, contains other relations:"
        " engines.",
        "Rename it: ALTER SCHEMA rebuilt RENAME TO rebuilt_old; or move what is in it elsewhere"
        " and drop it.",
    ),
    "a schema legacy": (
        "schemas",
        ["CREATE SCHEMA legacy"],
        "The schema legacy, which this project makes and drops, exists already and was not made"
        " by it.",
        "Rename it: ALTER SCHEMA legacy RENAME TO legacy_old; or move what is in it elsewhere and"
        " drop it.",
    ),
    "a schema terrain": (
        "schemas",
        ["CREATE SCHEMA terrain"],
        "The schema terrain, which this project makes and drops, exists already and was not made"
        " by it.",
        "Rename it: ALTER SCHEMA terrain RENAME TO terrain_old; or move what is in it elsewhere"
        " and drop it.",
    ),
    "everybody may create functions": (
        "public-create",
        ["GRANT CREATE ON SCHEMA public TO PUBLIC"],
        "Every role may create objects in the schema public, and so could have the"
        " triggers that keep both sides in step run code of its own as the owner.",
        "Run: REVOKE CREATE ON SCHEMA public FROM PUBLIC; or accept the risk with"
        " PREFLIGHT_ACCEPT=public-create.",
    ),
    "an empty value": (
        "empty-values",
        [
            "ALTER TABLE artists ALTER COLUMN name DROP NOT NULL",
            "UPDATE artists SET name = NULL WHERE email LIKE 'artist2@%%'",
        ],
        "artists.name is empty where it must not be.",
        "Fill it, then: ALTER TABLE artists ALTER COLUMN name SET NOT NULL.",
    ),
    "an empty reference": (
        "empty-values",
        [
            "ALTER TABLE assets ALTER COLUMN artist_id DROP NOT NULL",
            "UPDATE assets SET artist_id = NULL WHERE name LIKE '%% 2'",
        ],
        "assets.artist_id is empty where it must not be.",
        "Fill it, then: ALTER TABLE assets ALTER COLUMN artist_id SET NOT NULL.",
    ),
    "a duplicate": (
        "duplicates",
        [
            "ALTER TABLE orders DROP CONSTRAINT orders_order_number_key",
            "UPDATE orders SET order_number = 'AA-0000001'"
            " WHERE order_number = 'AA-0000002'",
        ],
        "orders.order_number has values that occur more than once.",
        "Correct them, and put the UNIQUE constraint back.",
    ),
    "an orphan": (
        "orphans",
        [
            "ALTER TABLE assets DROP CONSTRAINT assets_artist_id_fkey",
            "UPDATE assets SET artist_id = gen_random_uuid() WHERE name LIKE '%% 2'",
        ],
        "assets.artist_id refers to artists that are not there.",
        "Correct or delete these rows, and put the foreign key on assets.artist_id back.",
    ),
    "an artist of another role": (
        "roles",
        [
            "ALTER TABLE artists DROP CONSTRAINT artists_role_check",
            "UPDATE artists SET role = 'customer' WHERE email LIKE 'artist2@%%'",
        ],
        "Artists have a role that is neither artist nor admin.",
        "Make them one or the other, and put the CHECK constraint on artists.role back.",
    ),
}


@pytest.mark.parametrize("what", SHAPES)
def test_what_is_planted_is_found_and_nothing_else(shop: Database, what: str) -> None:
    name, statements, sentence, remedy = SHAPES[what]
    plant(*statements)
    found = only(preflight.run(connection), name)
    assert (found.sentence, found.remedy) == (sentence, remedy)
    assert found.severity == Severity.BLOCKS


def test_a_loose_column_without_empty_values_is_fine(shop: Database) -> None:
    plant("ALTER TABLE artists ALTER COLUMN name DROP NOT NULL")
    assert odd(preflight.run(connection)) == []


# --- the server, the role, the disk --------------------------------------------------------


def test_an_older_server_is_refused(shop: Database) -> None:
    found = only(preflight.run(connection, oldest=990000), "server")
    version = shop.value("SHOW server_version")
    assert found.sentence == (
        f"The server is PostgreSQL {version}; 99 is the oldest that will do."
    )
    assert found.remedy == ("Upgrade the server, or restore a backup on a newer one.")


def test_another_encoding_is_refused(
    clone: Callable[[str], Database], administrator: psycopg.Connection[Any]
) -> None:
    administrator.execute(
        "CREATE DATABASE ascii_template TEMPLATE template0 ENCODING 'SQL_ASCII'"
        f" LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER libc OWNER {OWNER}"
    )
    try:
        clone("ascii_template")
        found = only(preflight.run(connection), "server")
    finally:
        connections.close_all()
        administrator.execute("DROP DATABASE ascii_template")
    assert found.sentence == (
        "The database is not encoded in UTF-8, which Django needs."
    )


def test_a_role_without_privileges(role: str, shop: Database, manage: Manage) -> None:
    with connecting(USER=role):
        found = only(preflight.run(connection), "privileges")
        result = manage("migrate")
    owner = f"(it belongs to {OWNER})"
    assert found.sentence == (
        f"The role {role} lacks CREATE on the database; "
        + "; ".join(f"ownership of public.{lens.legacy} {owner}" for lens in LENSES)
        + "."
    )
    assert result.code == 1
    assert "Traceback" not in result.err
    assert "Nothing has been changed;" in result.err


def test_tables_of_several_owners(role: str, shop: Database) -> None:
    with shop.superuser as superuser:
        superuser.execute(f"GRANT {role} TO {OWNER}")
        superuser.execute(f"ALTER TABLE orders OWNER TO {role}")
    wait_until_alone(shop)
    found = only(preflight.run(connection), "privileges")
    assert found.sentence == (
        f"The legacy tables belong to several roles: {OWNER}, {role}."
    )


@pytest.mark.migration
def test_tables_of_another_owner_are_kept_in_step(
    role: str, shop: Database, manage: Manage
) -> None:
    """Of whom we are a member: the triggers' functions are that owner's, and nobody else's."""
    with shop.superuser as superuser:
        superuser.execute(f"GRANT {role} TO {OWNER}")
        for lens in LENSES:
            superuser.execute(f"ALTER TABLE {lens.legacy} OWNER TO {role}")
    wait_until_alone(shop)
    assert manage("migrate", "-v0") == Result(0, "", "")
    assert shop.rows(
        "SELECT DISTINCT pg_get_userbyid(proowner), has_function_privilege('public', oid,"
        " 'EXECUTE') FROM pg_proc WHERE pronamespace = 'rebuilt'::regnamespace"
    ) == [(role, False)]
    with shop.connect(role) as old:
        old.execute("UPDATE orders SET user_name = 'Changed'")
    assert shop.rows("SELECT DISTINCT customer_name FROM terrain.orders") == [
        ("Changed",)
    ]
    again = manage("settle", "--again")
    assert again.code == 0, again.err
    assert manage("verify_migration").code == 0
    assert manage("rollback_migration", "--yes").code == 0
    assert (
        shop.value("SELECT tableowner FROM pg_tables WHERE tablename = 'orders'")
        == role
    )


def test_the_disk_is_too_small(shop: Database) -> None:
    found = only(preflight.run(connection, free=1_000_000), "disk")
    assert found.sentence == (
        "The copies need about 2 MB, and the server's disk has 1 MB left."
    )
    assert odd(preflight.run(connection, free=10_000_000)) == []


# --- who uses the tables -------------------------------------------------------------------


def test_a_transaction_that_migrate_would_wait_for(shop: Database) -> None:
    other = shop.connect(application_name="report")
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM orders")
    found = only(preflight.run(connection, patience=0), "transactions")
    assert found.severity == Severity.WARNS
    (row,) = found.rows
    assert row["process"] == other.info.backend_pid
    assert row["application"] == "report"
    assert row["locks"] == "public.orders"
    assert odd(preflight.run(connection, patience=3600)) == []


def test_who_is_in_the_way_now_is_named_with_what_they_hold_up(
    shop: Database, manage: Manage
) -> None:
    other = shop.connect(application_name="pg_dump")
    other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    other.execute("LOCK TABLE orders IN ACCESS SHARE MODE")
    other.execute("SELECT count(*) FROM orders")
    result = manage("preflight")
    assert re.sub(
        r"for \d+ s", "for N s", result.out.partition("\n  In the way now: ")[2]
    ) == (
        f"process {other.info.backend_pid} (role {OWNER}, pg_dump), a backup by pg_dump for N s"
        " (let it end, and begin no other)\n"
        "    of: build indexes, unique constraints, open new tables,"
        " cut over: exchange names, rollback: take triggers off, cleanup: drop tables\n"
        "Nothing blocks. Next: python manage.py backup_database\n"
    )
    locked = {
        lock["step"]: [each["kind"] for each in lock["in_the_way"]]
        for lock in json.loads(manage("preflight", "--json").out)["locks"]
    }
    assert locked["cut over: exchange names"] == ["backup"]
    assert locked["foreign keys"] == []


def test_who_holds_a_new_table_is_in_the_way_of_the_cut_over(
    migrated: Database, manage: Manage
) -> None:
    other = migrated.connect(application_name="web")
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM terrain.asset_sets")
    report = preflight.run(connection, patience=0)
    assert report.outlook is not None
    (cutting_over,) = (
        lock for lock in report.outlook.locks if lock.step == "cut over: exchange names"
    )
    assert [each.pid for each in cutting_over.in_the_way] == [other.info.backend_pid]


def test_what_locks_took_the_last_time_is_what_is_foretold(
    migrated: Database, manage: Manage
) -> None:
    migrated.execute(
        "DELETE FROM legacy_run WHERE step LIKE 'lock: Putting the triggers %'"
    )
    migrated.execute(
        "INSERT INTO legacy_run (step, state, seconds) VALUES"
        " ('lock: Putting the triggers on artists and users', 'done', 0.25),"
        " ('lock: Putting the triggers on artists and users', 'done', 0.5),"
        " ('lock: Putting the triggers on orders and orders', 'done', 0.125)"
    )
    for command in (
        ("cut_over", "--yes"),
        ("cut_over", "--undo", "--yes"),
        ("rollback_migration", "--yes"),
    ):
        result = manage(*command, "-v", "0")
        assert result.code == 0, result.err
    noted = {
        what.removeprefix("lock: "): seconds
        for what, seconds in migrated.rows(
            "SELECT step, seconds FROM legacy_run WHERE step LIKE 'lock: %%' ORDER BY id"
        )
    }
    taken_off = max(
        seconds
        for what, seconds in noted.items()
        if what.startswith("Taking the triggers off ")
    )
    seconds = {
        lock["step"]: lock["seconds"]
        for lock in json.loads(manage("preflight", "--json").out)["locks"]
    }
    assert seconds["put triggers on"] == 0.5
    assert seconds["cut over: exchange names"] == round(noted["Cutting over"], 4)
    assert seconds["rollback: take triggers off"] == round(taken_off, 4)


def test_an_isolation_in_which_the_sync_is_noticed(shop: Database) -> None:
    plant(
        f"ALTER DATABASE {shop.name} SET default_transaction_isolation = 'serializable'",
        f"ALTER ROLE CURRENT_USER IN DATABASE {shop.name}"
        " SET default_transaction_isolation = 'read committed'",
    )
    found = only(preflight.run(connection), "isolation")
    assert found.severity == Severity.WARNS
    assert found.rows == ({"role": "everybody", "isolation": "serializable"},)


def test_a_prepared_transaction(shop: Database) -> None:
    plant(
        "BEGIN",
        "LOCK TABLE orders IN ROW EXCLUSIVE MODE",
        "PREPARE TRANSACTION 'pay-7'",
    )
    try:
        found = only(preflight.run(connection), "prepared-transactions")
    finally:
        plant("ROLLBACK PREPARED 'pay-7'")
    assert [row["gid"] for row in found.rows] == ["pay-7"]


# --- accepting -----------------------------------------------------------------------------


def test_what_blocks_can_be_accepted_by_name(
    shop: Database, manage: Manage, settings: Any
) -> None:
    plant("GRANT CREATE ON SCHEMA public TO PUBLIC")
    settings.PREFLIGHT_ACCEPT = ["public-create", "publik-create", "columns"]
    result = manage("preflight")
    assert result.code == 0
    assert "run code of its own as the owner. (Accepted.)\n" in result.out
    for name in ("publik-create", "columns"):
        assert (
            f"! PREFLIGHT_ACCEPT names {name}, which cannot be accepted.\n"
            in result.out
        )
    assert manage("migrate", "-v", "0").code == 0


def test_migrate_stops_before_the_first_change(shop: Database, manage: Manage) -> None:
    plant(
        "ALTER TABLE orders DROP COLUMN notes",
        "ALTER TABLE orders ADD COLUMN remarks text",
    )
    before = snapshot(shop)
    wait_until_alone(shop)
    result = manage("migrate")
    assert result.code == 1
    assert result.err == (
        "The column orders.notes is missing. Add it: ALTER TABLE orders ADD COLUMN notes"
        " text. (Findings that block: 2.) Nothing has been changed; see all of it with:"
        " python manage.py preflight\n"
    )
    assert snapshot(shop) == before


# --- the rows ------------------------------------------------------------------------------


def test_a_wrong_declaration_does_not_pass_the_proof(shop: Database) -> None:
    """Every row is read back, by PostgreSQL, before anything moves."""
    artists = LENSES[0]
    wrong = replace(
        artists,
        columns=tuple(
            (
                replace(column, down="lower(n.display_name)")
                if column.name == "name"
                else column
            )
            for column in artists.mapped
        ),
    )
    found = only(preflight.run(connection, lenses=(wrong, *LENSES[1:])), "round-trip")
    assert found.sentence == "Rows of artists would not be read back as they are."
    assert found.count == 4
    row = found.rows[0]
    assert "Artist" in str(row["is"])
    assert "artist" in str(row["would be"])


def test_the_forecast_is_what_migrate_does(shop: Database, manage: Manage) -> None:
    """Held and flagged rows are named beforehand, one by one, by reason."""
    hostile.fill(shop)
    wait_until_alone(shop)

    report = preflight.run(connection)
    assert report.blockers == ()
    situation = Situation(connection, {lens.legacy: "public" for lens in LENSES})
    foreseen = {
        (lens.legacy, kind, code): set(ids)
        for lens in LENSES
        for (kind, code), ids in forecast_rows(situation, lens).items()
    }
    told = {
        sentence.split("(")[1].split(")")[0]: (each.count, each.rows)
        for each in report.findings
        if (sentence := each.sentence) and each.name in ("held", "flagged")
    }

    result = manage("migrate", "-v", "0")
    assert result.code == 0, result.err
    came: dict[tuple[str, str, str], set[Any]] = {}
    for table, kind, reason, key in shop.rows(
        "SELECT legacy_table, kind, reason, legacy_id FROM legacy_quarantine"
    ):
        came.setdefault((table, kind, reason), set()).add(key)
    assert came == foreseen
    assert {code for _, _, code in came} == set(told)
    every_code = {
        rule.code
        for lens in LENSES
        for rule in (*lens.held, *lens.flagged, *lens.repeats)
    }
    assert every_code | {"subtotal_missing", "prices_disagree"} == set(told)
    for each in report.findings:
        if each.name in ("held", "flagged"):
            code = each.sentence.split("(")[1].split(")")[0]
            ids = came[str(each.rows[0]["table"]), each.name, code]
            assert each.count == len(ids)
            assert len(each.rows) == min(5, len(ids))
            assert {row["id"] for row in each.rows} <= ids
