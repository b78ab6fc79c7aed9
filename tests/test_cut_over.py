"""The cut-over and its undoing: names change places in one transaction, or nothing happens."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection
from psycopg import errors

from terrain.embedded import OWNER
from terrain.legacy import checks, cut_over, engine, public_schema, sql
from terrain.legacy.mapping import LENSES
from terrain.locks import LockNotObtained
from terrain.postgresql import schemas
from tests import dumps
from tests.conftest import OLD_ROLE, Database, Result

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]

LEGACY_TABLES = sorted(lens.legacy for lens in LENSES)


def schema_of(database: Database) -> dict[str, str]:
    """Schema and table of everything that is not PostgreSQL's own, as ``schema.table``."""
    return {
        f"{schema}.{name}": kind
        for schema, name, kind in database.rows(
            "SELECT s.nspname, c.relname, c.relkind FROM pg_class c"
            "  JOIN pg_namespace s ON s.oid = c.relnamespace"
            " WHERE s.nspname !~ '^pg_' AND s.nspname <> 'information_schema'"
            "   AND c.relkind IN ('r', 'p', 'v', 'S')"
        )
    }


def tables_in(database: Database, schema: str) -> set[str]:
    return {
        name.partition(".")[2]
        for name, kind in schema_of(database).items()
        if name.startswith(f"{schema}.") and kind in "rp"
    }


def exchange() -> cut_over.Done:
    return cut_over.cut_over(connection)


@pytest.fixture
def quiet(migrated: Database) -> Database:
    """A migrated shop whose legacy tables nobody has written to."""
    migrated.execute("DELETE FROM rebuilt.used")
    return migrated


# --- what changes places -------------------------------------------------------------------


def test_all_tables_change_places_and_come_back(migrated: Database) -> None:
    ours, before = tables_in(migrated, "terrain"), schema_of(migrated)
    rows = dumps.contents(migrated)

    done = exchange()
    assert set(done.moved) == ours and done.kept == ()
    assert list(done.legacy) == LEGACY_TABLES
    assert tables_in(migrated, "public") == ours
    assert tables_in(migrated, "legacy") == set(LEGACY_TABLES)
    assert tables_in(migrated, "terrain") == set()
    assert dumps.contents(migrated) == rows
    assert not checks.verify(connection).failures
    assert not public_schema.differences(connection)

    cut_over.undo(connection)
    assert schema_of(migrated) == before
    assert "legacy" not in dumps.schemas(migrated)
    assert dumps.contents(migrated) == rows
    assert not checks.verify(connection).failures


def test_a_second_cut_over_and_a_second_undoing_change_nothing(
    migrated: Database,
) -> None:
    exchange()
    there = schema_of(migrated)
    with pytest.raises(cut_over.Objection, match="have changed places already"):
        exchange()
    assert schema_of(migrated) == there
    cut_over.undo(connection)
    there = schema_of(migrated)
    with pytest.raises(cut_over.Objection, match="nothing to undo"):
        cut_over.undo(connection)
    assert schema_of(migrated) == there


def test_both_sides_stay_in_step_after_it_and_after_its_undoing(
    migrated: Database,
) -> None:
    with migrated.connect(OLD_ROLE) as old, migrated.connect(OWNER) as new:
        for path, ours in (("legacy, public", "public"), ("public", "terrain")):
            if ours == "public":
                exchange()
            else:
                new.close()
                cut_over.undo(connection)
                new = migrated.connect(OWNER)
            old.execute(f"SET search_path = {path}")
            old.execute("UPDATE artists SET bio = %s", [f"seen from {ours}"])
            old.execute(
                "INSERT INTO orders (order_number, user_email, user_name, shipping_address,"
                " items, pricing) VALUES (%s, 'x@example.com', 'x', '{}', '[]', '{}')",
                [f"N-{ours}"],
            )
            assert new.execute(
                f"SELECT DISTINCT bio FROM {ours}.users WHERE role <> 'customer'"
            ).fetchall() == [(f"seen from {ours}",)]
            new.execute(
                f"UPDATE {ours}.orders SET status = 'shipped' WHERE order_number = %s",
                [f"N-{ours}"],
            )
            assert old.execute(
                "SELECT status FROM orders WHERE order_number = %s", [f"N-{ours}"]
            ).fetchone() == ("shipped",)
            assert not checks.verify(connection).failures


def test_cleanup_after_it_leaves_the_schema_of_a_fresh_database(
    migrated: Database, manage: Manage, tmp_path: Any, settings: Any
) -> None:
    settings.BACKUP_DIR = tmp_path
    exchange()
    assert manage("backup_database", "--output", str(tmp_path)).code == 0
    # Those of the sample's rows that need a person are decided on.
    migrated.execute("UPDATE public.legacy_quarantine SET decided_at = now()")
    cleaned = manage("cleanup_legacy", "--yes", "--despite-use")
    assert cleaned.code == 0, cleaned.err
    assert dumps.schemas(migrated) == {"public"}
    assert not public_schema.differences(connection)
    assert connection.own_path == ("public",)
    assert manage("migrate", "--check").code == 0
    assert manage("cut_over", "--undo", "--yes").code == 0  # nothing to undo


def test_cleanup_is_refused_before_it(migrated: Database, manage: Manage) -> None:
    refused = manage("cleanup_legacy", "--yes", "--despite-use")
    assert refused.code == 1
    assert "run: python manage.py cut_over" in refused.err


def test_a_rollback_undoes_it_first(migrated: Database, manage: Manage) -> None:
    exchange()
    back = manage("rollback_migration", "--yes")
    assert back.code == 0, back.err
    assert "The cut-over is undone" in back.out
    assert tables_in(migrated, "public") == set(LEGACY_TABLES)
    assert "legacy" not in dumps.schemas(migrated)
    forward = manage("migrate")
    assert forward.code == 0, forward.err
    assert not checks.verify(connection).failures


def test_the_migrations_are_not_unapplied_while_it_stands(
    migrated: Database, manage: Manage
) -> None:
    exchange()
    refused = manage("migrate", "legacy", "0001_initial")
    assert refused.code == 1
    assert "the way back begins with its undoing" in refused.err
    assert not checks.verify(connection).failures
    # What moves no table may be taken back and put there again.
    assert manage("migrate", "catalogue", "0004").code == 0
    assert manage("migrate").code == 0
    assert not checks.verify(connection).failures


# --- who is in the way ---------------------------------------------------------------------


def test_it_is_refused_while_the_old_application_is_connected(
    quiet: Database, manage: Manage
) -> None:
    with quiet.connect(OLD_ROLE, application_name="shop api"):
        refused = manage("cut_over", "--yes")
        assert refused.code == 1
        assert f"role {OLD_ROLE}, shop api" in refused.err
        assert "Nothing was changed." in refused.err
        # One that calls itself as we do is another role's all the same.
    with quiet.connect(OLD_ROLE, application_name="terrain"):
        assert manage("cut_over", "--yes").code == 1
    assert tables_in(quiet, "public") == set(LEGACY_TABLES)
    assert manage("cut_over", "--yes").code == 0


def test_it_is_refused_minutes_after_a_write(quiet: Database, manage: Manage) -> None:
    with quiet.connect(OLD_ROLE, application_name="shop api") as old:
        old.execute("UPDATE artists SET bio = 'just now'")
    refused = manage("cut_over", "--yes")
    assert refused.code == 1
    assert f"the role {OLD_ROLE} (shop api)" in refused.err
    assert "then wait 5 minutes" in refused.err
    quiet.execute("UPDATE rebuilt.used SET at = at - interval '6 minutes'")
    assert manage("cut_over", "--yes").code == 0


def test_it_is_refused_while_a_row_is_deferred(quiet: Database, manage: Manage) -> None:
    (key,) = quiet.rows("SELECT id FROM public.artists LIMIT 1")[0]
    with quiet.connect(OWNER) as new, quiet.connect(OLD_ROLE) as old:
        new.autocommit = False
        new.execute("SELECT FROM terrain.users WHERE id = %s FOR UPDATE", [key])
        old.execute("UPDATE artists SET bio = 'late' WHERE id = %s", [key])
        old.close()
        refused = manage("cut_over", "--yes", "--ignore-activity")
        new.rollback()
    assert refused.code == 1
    assert "Deferred rows: 1." in refused.err
    assert manage("cut_over", "--yes", "--ignore-activity").code == 0


def test_it_is_refused_when_verification_fails(quiet: Database, manage: Manage) -> None:
    quiet.execute("ALTER TABLE public.artists DISABLE TRIGGER zz_terrain_sync_row")
    quiet.execute("UPDATE public.artists SET bio = 'unseen'")
    refused = manage("cut_over", "--yes", "--ignore-activity")
    assert refused.code == 1
    assert "Verification fails (in_step_artists, triggers" in refused.err


def test_it_is_refused_before_the_migration_is_complete(
    shop: Database, manage: Manage
) -> None:
    refused = manage("cut_over", "--yes")
    assert refused.code == 1
    assert "Run: python manage.py migrate" in refused.err


@pytest.mark.parametrize(
    "keeper", ["an open transaction", "a dump of the shop's"], ids=["open", "dump"]
)
def test_who_keeps_a_table_makes_it_time_out_without_harm(
    migrated: Database, keeper: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cut_over, "LIMIT", 0.5)
    before = schema_of(migrated)
    with migrated.connect("postgres", "public") as other:
        other.autocommit = False
        if keeper == "an open transaction":
            other.execute("SELECT count(*) FROM public.orders")
        else:
            for table in LEGACY_TABLES:
                other.execute(f"LOCK TABLE public.{table} IN ACCESS SHARE MODE")
        with pytest.raises(
            LockNotObtained, match="Cutting over could not get its lock"
        ):
            exchange()
        assert schema_of(migrated) == before
        other.rollback()
    exchange()
    with migrated.connect("postgres", "public") as other:
        other.autocommit = False
        other.execute("SELECT count(*) FROM legacy.orders")
        after = schema_of(migrated)
        with pytest.raises(LockNotObtained, match="Undoing the cut-over could not"):
            cut_over.undo(connection)
        assert schema_of(migrated) == after
        other.rollback()
    cut_over.undo(connection)
    assert schema_of(migrated) == before
    assert not checks.verify(connection).failures


def test_idle_sessions_with_prepared_statements_do_not_stand_in_its_way(
    migrated: Database,
) -> None:
    """What the old application has prepared fails loudly afterwards, or finds its tables."""
    with migrated.connect(OLD_ROLE) as lost, migrated.connect(OLD_ROLE) as led:
        for session in (lost, led):
            session.execute("PREPARE mine AS SELECT count(*) FROM orders")
            assert session.execute("EXECUTE mine").fetchone() != (0,)
        (count,) = led.execute("EXECUTE mine").fetchone() or (None,)
        exchange()
        led.execute("SET search_path = legacy, public")
        assert led.execute("EXECUTE mine").fetchone() == (count,)
        with pytest.raises(errors.InsufficientPrivilege, match="table orders"):
            lost.execute("EXECUTE mine")


# --- an old application that comes back ----------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM orders",
        "UPDATE orders SET status = 'paid'",
        "SELECT * FROM assets",
        "DELETE FROM assets",
        "SELECT * FROM artists",
        "INSERT INTO user_tables (name, table_config, layout_data) VALUES ('x', '{}', '{}')",
    ],
)
def test_who_comes_back_without_a_path_hears_of_it(
    migrated: Database, statement: str
) -> None:
    exchange()
    with migrated.connect(OLD_ROLE) as old, pytest.raises(
        (errors.InsufficientPrivilege, errors.UndefinedTable)
    ):
        old.execute(statement)


def test_who_would_not_hear_of_it_is_named(quiet: Database, manage: Manage) -> None:
    """The owner of the tables is refused nothing, so that is said beforehand."""
    with quiet.connect(OWNER, application_name="shop api") as old:
        old.execute("UPDATE public.orders SET status = status, updated_at = now()")
    done = manage("cut_over", "--yes", "--ignore-activity")
    assert done.code == 0, done.err
    assert (
        f"! shop api has written as the role {OWNER}, which owns the tables."
        in done.out
    )


def test_who_comes_back_with_a_path_works_and_is_in_step(
    migrated: Database, manage: Manage
) -> None:
    exchange()
    assert manage("prepare_database").code == 0
    with migrated.connect(OLD_ROLE) as old:
        assert old.execute("SELECT current_schema()").fetchone() == ("legacy",)
        old.execute("UPDATE orders SET status = 'delivered'")
    assert migrated.rows("SELECT DISTINCT status FROM public.orders") == [
        ("delivered",)
    ]
    assert not checks.verify(connection).failures


# --- names that are taken ------------------------------------------------------------------

TAKEN = {
    "a table": ("CREATE TABLE public.users (id int)", {"users"}),
    "a view": ("CREATE VIEW public.payments AS SELECT 1", {"payments"}),
    "a type": ("CREATE TYPE public.payments AS ENUM ('a')", {"payments"}),
    "an index": (
        "CREATE TABLE public.other (i int); CREATE INDEX users_pkey ON public.other (i)",
        {"users"},
    ),
    "a sequence": (
        "CREATE SEQUENCE public.legacy_run_id_seq",
        {"legacy_run"},
    ),
    "another Django's": (
        "CREATE TABLE public.django_migrations (id int PRIMARY KEY, app text, name text,"
        " applied timestamptz);"
        " INSERT INTO public.django_migrations VALUES (1, 'blog', '0001_initial', now())",
        {"django_migrations"},
    ),
}


@pytest.mark.parametrize("taken", TAKEN.values(), ids=TAKEN)
def test_a_table_whose_name_is_taken_stays_for_good(
    shop: Database, manage: Manage, taken: tuple[str, set[str]]
) -> None:
    statements, kept = taken
    for statement in statements.split(";"):
        shop.execute(statement)
    others = {
        name: shop.rows(f"SELECT * FROM public.{name}")
        for name in ("users", "payments", "django_migrations")
        if shop.value(f"SELECT to_regclass('public.{name}') IS NOT NULL")
    }
    assert manage("migrate").code == 0
    done = exchange()
    assert set(done.kept) == kept
    assert connection.own_path == ("terrain", "public")
    assert tables_in(shop, "terrain") == kept
    for name, rows in others.items():
        assert shop.rows(f"SELECT * FROM public.{name}") == rows
    verified = manage("verify_migration")
    assert verified.code == 0, verified.out
    # The migrations that are applied are known, and both applications go on.
    assert manage("migrate", "--check").code == 0
    with shop.connect(OLD_ROLE, "legacy,public") as old:
        old.execute("UPDATE artists SET bio = 'still here'")
    from terrain.models import User

    assert set(User.objects.exclude(role="customer").values_list("bio", flat=True)) == {
        "still here"
    }
    cut_over.undo(connection)
    assert connection.own_path == ("terrain",)
    assert manage("verify_migration").code == 0
    for name, rows in others.items():
        assert shop.rows(f"SELECT * FROM public.{name}") == rows


def test_cleanup_keeps_terrain_where_a_name_is_taken(
    shop: Database, manage: Manage, tmp_path: Any, settings: Any
) -> None:
    settings.BACKUP_DIR = tmp_path
    shop.execute("CREATE TABLE public.users (id int)")
    assert manage("migrate").code == 0
    exchange()
    assert manage("backup_database", "--output", str(tmp_path)).code == 0
    shop.execute("UPDATE public.legacy_quarantine SET decided_at = now()")
    cleaned = manage("cleanup_legacy", "--yes", "--despite-use")
    assert cleaned.code == 0, cleaned.err
    assert dumps.schemas(shop) == {"public", "terrain"}
    assert tables_in(shop, "terrain") == {"users"}
    connection.close()
    assert manage("migrate", "--check").code == 0
    assert not public_schema.differences(connection)


# --- partitions, publications, grants ------------------------------------------------------


def test_partitions_go_where_their_table_goes(migrated: Database) -> None:
    """preflight blocks a partitioned legacy table; one that became so later is moved whole."""
    migrated.execute(
        "ALTER TABLE public.stripe_transfers RENAME TO was_transfers;"
        "CREATE TABLE public.stripe_transfers (LIKE public.was_transfers INCLUDING DEFAULTS)"
        " PARTITION BY HASH (id);"
        "CREATE TABLE public.transfers_0 PARTITION OF public.stripe_transfers"
        " FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
        "CREATE TABLE public.transfers_1 PARTITION OF public.stripe_transfers"
        " FOR VALUES WITH (MODULUS 2, REMAINDER 1);"
        "INSERT INTO public.stripe_transfers SELECT * FROM public.was_transfers;"
        "DROP TABLE public.was_transfers"
    )
    rows = migrated.value("SELECT count(*) FROM public.stripe_transfers")
    done = exchange()
    partitions = {"transfers_0", "transfers_1"}
    assert set(done.legacy) == {*LEGACY_TABLES, *partitions}
    assert tables_in(migrated, "legacy") == {*LEGACY_TABLES, *partitions}
    assert migrated.value("SELECT count(*) FROM legacy.stripe_transfers") == rows
    cut_over.undo(connection)
    assert {*LEGACY_TABLES, *partitions} <= tables_in(migrated, "public")
    assert "legacy" not in dumps.schemas(migrated)


def test_a_publication_for_tables_follows_the_legacy_tables(shop: Database) -> None:
    shop.execute("CREATE PUBLICATION theirs FOR TABLE public.orders, public.artists")
    call_command("migrate", verbosity=0)
    published = "SELECT schemaname, tablename FROM pg_publication_tables ORDER BY 1, 2"
    assert shop.rows(published) == [("public", "artists"), ("public", "orders")]
    exchange()
    assert shop.rows(published) == [("legacy", "artists"), ("legacy", "orders")]
    cut_over.undo(connection)
    assert shop.rows(published) == [("public", "artists"), ("public", "orders")]


def test_grants_stay_with_the_legacy_tables_and_are_mirrored_on_request(
    shop: Database, manage: Manage, administrator: psycopg.Connection[Any]
) -> None:
    administrator.execute(
        "DO $$ BEGIN CREATE ROLE reporting LOGIN;"
        " EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    )
    shop.execute("GRANT SELECT ON public.orders TO reporting")
    assert manage("migrate").code == 0
    listed = manage("cut_over", "--yes", "--ignore-activity")
    assert 'GRANT SELECT ON public.orders TO "reporting";' in listed.out
    with shop.connect("reporting") as report:
        with pytest.raises(errors.InsufficientPrivilege):
            report.execute("SELECT FROM orders")
        report.execute("SELECT FROM legacy.orders")
    assert manage("cut_over", "--undo", "--yes").code == 0
    mirrored = manage("cut_over", "--yes", "--ignore-activity", "--mirror-grants")
    assert mirrored.code == 0, mirrored.err
    # The old application, which may write, is not let in.
    assert OLD_ROLE not in mirrored.out
    with shop.connect(OLD_ROLE) as old, pytest.raises(errors.InsufficientPrivilege):
        old.execute("SELECT FROM assets")
    assert cut_over.grants_to_mirror(connection) == []  # granted already
    with shop.connect("reporting") as report:
        report.execute("SELECT FROM orders")
        with pytest.raises(errors.InsufficientPrivilege):
            report.execute("SELECT FROM users")


def test_who_may_enter_legacy_is_who_has_a_right_there(migrated: Database) -> None:
    migrated.execute(
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} GRANT ALL ON SCHEMAS TO PUBLIC"
    )
    exchange()
    who = migrated.rows(
        "SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC'"
        "                ELSE pg_get_userbyid(a.grantee) END, a.privilege_type"
        "  FROM pg_namespace s, aclexplode(s.nspacl) a"
        " WHERE s.nspname = 'legacy' AND a.grantee <> s.nspowner ORDER BY 1, 2"
    )
    assert who == [(OLD_ROLE, "USAGE")]


# --- functions -----------------------------------------------------------------------------


def functions(database: Database) -> dict[str, tuple[str, str]]:
    """Function of ``rebuilt`` -> its body and its path."""
    return {
        name: (body, path)
        for name, body, path in database.rows(
            "SELECT p.oid::regprocedure::text, p.prosrc, array_to_string(p.proconfig, '|')"
            "  FROM pg_proc p WHERE p.pronamespace = 'rebuilt'::regnamespace"
        )
    }


def names(schema: str, body: str) -> bool:
    """Whether a function's body names a table of a schema: not a setting, nor the loop guard."""
    return (
        re.search(rf"(?<![\w'_]){schema}\.\w|'{schema}\.\w+'::regclass", body)
        is not None
    )


def test_no_function_names_a_schema_that_its_tables_are_not_in(
    migrated: Database,
) -> None:
    before = functions(migrated)
    assert before and not any(names("legacy", body) for body, _ in before.values())
    assert {path.split("|")[0] for _, path in before.values()} == {
        "search_path=public, pg_temp"
    }
    exchange()
    after = functions(migrated)
    assert len(after) == len(before)
    assert not any(names("terrain", body) for body, _ in after.values())
    assert {path.split("|")[0] for _, path in after.values()} == {
        "search_path=legacy, public, pg_temp"
    }
    cut_over.undo(connection)
    assert functions(migrated) == before
    # What is derived anew is the same: an upgrade changes nothing.
    engine.derive(connection)
    assert functions(migrated) == before


def test_a_session_that_has_the_functions_in_its_cache_uses_the_new_ones(
    migrated: Database,
) -> None:
    with migrated.connect(OLD_ROLE) as old:
        old.execute("UPDATE artists SET bio = 'compiled'")
        exchange()
        old.execute("SET search_path = legacy, public")
        old.execute("UPDATE artists SET bio = 'and again'")
        old.execute("UPDATE orders SET status = 'paid'")
        assert migrated.rows(
            "SELECT DISTINCT bio FROM public.users WHERE role <> 'customer'"
        ) == [("and again",)]
        cut_over.undo(connection)
        old.execute("SET search_path = public")
        old.execute("UPDATE artists SET bio = 'back'")
        assert migrated.rows(
            "SELECT DISTINCT bio FROM terrain.users WHERE role <> 'customer'"
        ) == [("back",)]
    assert not checks.verify(connection).failures


# --- killed --------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Have the server end our session at a statement that contains a text."""

    def arm(text: str) -> None:
        def wrap(
            execute: Any, statement: Any, params: Any, many: Any, context: Any
        ) -> Any:
            if text in str(statement):
                context["connection"].connection.close()
                raise Killed
            return execute(statement, params, many, context)

        connection.execute_wrappers.append(wrap)

    yield arm
    connection.execute_wrappers[:] = connection.execute_wrappers[:1]
    connection.close()


@pytest.mark.parametrize(
    "text",
    [
        "check_function_bodies",
        "CREATE OR REPLACE FUNCTION",
        "LOCK TABLE",
        "SET SCHEMA",
        "legacy_run",
    ],
)
@pytest.mark.parametrize("way", ["there", "back"])
def test_killed_at_any_statement_it_has_happened_or_not(
    migrated: Database, kill_at: Callable[[str], None], text: str, way: str
) -> None:
    rows = dumps.contents(migrated)
    if way == "back":
        exchange()
    act = exchange if way == "there" else (lambda: cut_over.undo(connection))
    kill_at(text)
    with pytest.raises(Killed):
        act()
    connection.execute_wrappers[:] = connection.execute_wrappers[:1]
    connection.close()
    where = tables_in(migrated, "public")
    assert where == set(LEGACY_TABLES) or "users" in where and "artists" not in where
    assert dumps.contents(migrated) == rows
    is_done = (where != set(LEGACY_TABLES)) == (way == "there")
    if not is_done:
        act()
    assert not checks.verify(connection).failures


# --- the new application meanwhile ---------------------------------------------------------


def in_thread(action: Callable[[], Any]) -> Any:
    """What ``action`` returns in a thread, and so on a connection of its own."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(action()))
    thread.start()
    thread.join()
    return found[0]


def test_a_session_of_ours_follows_the_tables(migrated: Database) -> None:
    from orders.models import Order

    stay, go = threading.Event(), threading.Event()
    counted: list[int] = []

    def count() -> None:
        counted.append(Order.objects.count())
        stay.set()
        go.wait(30)
        counted.append(Order.objects.count())
        connection.close()

    thread = threading.Thread(target=count)
    thread.start()
    stay.wait(30)
    exchange()
    go.set()
    thread.join()
    assert counted[0] == counted[1] > 0


def test_no_session_of_ours_that_looks_in_public_survives_the_undoing(
    migrated: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``public.assets`` is a legacy table again: such a session would write to it."""
    from catalogue.models import Model

    monkeypatch.setattr(cut_over, "PATIENCE", 0.3)
    exchange()
    stay, go = threading.Event(), threading.Event()
    seen: list[Any] = []

    def work() -> None:
        seen.append(Model.objects.count())
        stay.set()
        go.wait(30)
        try:
            Model.objects.update(name="written by a session from before")
        except Exception as error:
            seen.append(type(error).__name__)
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    stay.wait(30)
    cut_over.undo(connection)
    go.set()
    thread.join()
    assert seen[1:] == ["OperationalError"]
    assert not checks.verify(connection).failures


def test_a_session_that_begins_during_the_undoing_waits_for_its_end(
    migrated: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange()
    paths: list[Any] = []
    begun = threading.Event()
    run = cut_over._Swap.run

    def begin() -> None:
        begun.set()
        connection.ensure_connection()
        paths.append(connection.own_path)
        connection.close()

    thread = threading.Thread(target=begin)

    def slowly(self: Any, what: str, say: Any) -> None:
        thread.start()
        begun.wait(30)
        run(self, what, say)

    monkeypatch.setattr(cut_over._Swap, "run", slowly)
    cut_over.undo(connection)
    thread.join()
    assert paths == [("terrain",)]


def test_a_stranger_who_takes_the_lock_delays_no_session_of_ours(
    migrated: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange()
    connection.close()
    # It would be waited for longer than this test may take.
    monkeypatch.setattr(schemas, "PLACE_PATIENCE", 3600.0)
    with migrated.connect(OLD_ROLE) as stranger:
        stranger.execute("SELECT pg_advisory_lock(%s)", [schemas.PLACE_LOCK])
        connection.ensure_connection()
    assert connection.own_path == ("public",)


def test_what_is_written_down_says_for_how_long_the_tables_were_locked(
    migrated: Database,
) -> None:
    exchange()
    assert migrated.value(
        "SELECT seconds BETWEEN 0 AND 5 FROM public.legacy_run WHERE step = %s",
        cut_over.CUT_OVER,
    )
    assert sql.TRIGGER_PREFIX  # the triggers are the same ones, moved with their tables
    assert not engine.missing_triggers(connection)
