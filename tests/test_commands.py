"""Every command: its words, its exit code, run twice, in the wrong order, interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import get_commands, load_command_class
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from terrain import locks
from terrain.legacy import catalog, copying, guide
from terrain.legacy.mapping import LENSES
from tests.both import Both
from tests.conftest import OLD_ROLE, Database, Result

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]

TABLES = ", ".join(lens.legacy for lens in LENSES)
HALF_WAY = "The migration is half-way"


def step(manage: Manage, name: str) -> dict[str, Any]:
    """A step of the guide, as migration_status has it."""
    steps = json.loads(manage("migration_status", "--json").out)["steps"]
    (found,) = (each for each in steps if each["name"] == name)
    return dict(found)


@pytest.fixture
def interrupted(shop: Database, manage: Manage) -> Database:
    """A migration somebody stopped while orders were copied."""
    with pytest.MonkeyPatch.context() as patched:
        copy_range = copying._copy_range

        def stop_at_orders(connection: Any, work: Any, *rest: Any) -> None:
            if work.lens.legacy == "orders":
                raise KeyboardInterrupt
            copy_range(connection, work, *rest)

        patched.setattr(copying, "_copy_range", stop_at_orders)
        result = manage("migrate", "-v", "0")
    assert result.code == 130
    assert result.err == "\nStopped. Run the same command again to go on.\n"
    return shop


@pytest.fixture
def rolled_back(migrated: Database, manage: Manage) -> Database:
    assert manage("rollback_migration", "--yes", "-v", "0").code == 0
    return migrated


@pytest.fixture
def cleaned(
    migrated: Database, manage: Manage, settings: Any, tmp_path: Path
) -> Database:
    settings.BACKUP_DIR = tmp_path
    assert manage("backup_database", "-v", "0") == Result(0, "", "")
    assert manage("cleanup_legacy", "--yes", "-v", "0").code == 0
    return migrated


# --- the wrong order -----------------------------------------------------------------------

NOTHING_TO_SETTLE = (
    "There is nothing to settle: the database is not migrated, or its legacy tables have"
    " been cleaned up. See: python manage.py migration_status\n"
)
NO_NEW_TABLES = (
    "There is nothing to verify: the new tables are not there."
    " Run: python manage.py migrate\n"
)
NOT_MIGRATED = (
    "The database is not migrated, so its legacy tables are the only ones."
    " Run: python manage.py migrate\n"
)
NO_MODELS = (
    "There are no models to copy: the tables of the catalogue are not there."
    " Run: python manage.py migrate\n"
)
IN_USE = (
    "flush would empty the tables of a shop that is still in use. Nothing was changed. For"
    " an empty database, make another: createdb NAME\n"
)
PRETENDED = (
    "Whether the legacy tables are moved and copied is not for --fake to say. Nothing was"
    " changed. Run it without: python manage.py migrate\n"
)
NO_TABLE = (
    'A table is not there: relation "{}" does not exist. Run: python manage.py migrate; or'
    " see how far things are with: python manage.py migration_status\n"
)
CLEANED = (
    "The legacy tables have been cleaned up, so there is nothing to go back to, and"
    " unapplying these migrations would drop the only copy of the shop's data. To go back,"
    " restore a backup: python manage.py restore_database PATH\n"
)
SUPERUSER = ("createsuperuser", "--noinput", "--email", "a@example.com")

#: (state, command line) -> (exit code, what it says on standard output or error).
WRONG_ORDER: dict[tuple[str, tuple[str, ...]], tuple[int, str, str]] = {
    ("empty", ("settle",)): (2, "", NOTHING_TO_SETTLE),
    ("empty", ("verify_migration",)): (2, "", NO_NEW_TABLES),
    ("empty", ("verify_migration", "--json")): (2, "", NO_NEW_TABLES),
    ("empty", ("copy_models_to_assets",)): (2, "", NO_MODELS),
    ("empty", ("rollback_migration",)): (0, "There is nothing to roll back.\n", ""),
    ("empty", ("cleanup_legacy",)): (0, "There is nothing to clean up.\n", ""),
    ("empty", ("prepare_database",)): (
        0,
        "There are no legacy tables, so nothing needs preparing.\n",
        "",
    ),
    ("empty", ("prepare_database", "--undo")): (0, "There was nothing to undo.\n", ""),
    ("empty", SUPERUSER): (2, "", NO_TABLE.format("users")),
    ("empty", ("clearsessions",)): (2, "", NO_TABLE.format("django_session")),
    ("shop", ("settle",)): (2, "", NOTHING_TO_SETTLE),
    ("shop", ("settle", "--again")): (2, "", NOTHING_TO_SETTLE),
    ("shop", ("verify_migration",)): (2, "", NO_NEW_TABLES),
    ("shop", ("copy_models_to_assets",)): (2, "", NO_MODELS),
    ("shop", ("rollback_migration",)): (0, "There is nothing to roll back.\n", ""),
    ("shop", ("cleanup_legacy", "--yes")): (1, "", NOT_MIGRATED),
    ("shop", ("load_sample",)): (
        1,
        "",
        "The database is not empty: it has artists. The sample is only loaded into an empty"
        " one; make another with: createdb NAME, and put it into DATABASE_URL.\n",
    ),
    ("shop", SUPERUSER): (2, "", NO_TABLE.format("users")),
    ("shop", ("flush", "--noinput")): (1, "", IN_USE),
    ("shop", ("migrate", "--fake", "-v", "0")): (1, "", PRETENDED),
    ("shop", ("migrate", "orders", "--fake", "-v", "0")): (1, "", PRETENDED),
    ("interrupted", ("verify_migration",)): (
        2,
        "",
        f"{HALF_WAY}, so there is nothing to verify yet. Run: python manage.py migrate\n",
    ),
    ("interrupted", ("cleanup_legacy", "--yes")): (
        1,
        "",
        f"{HALF_WAY}. Run: python manage.py migrate\nNothing has been dropped.\n",
    ),
    ("interrupted", ("flush", "--noinput")): (1, "", IN_USE),
    ("interrupted", ("migrate", "--fake", "-v", "0")): (1, "", PRETENDED),
    ("interrupted", ("prepare_database", "--undo")): (
        1,
        "",
        "The legacy tables stand in the schema legacy, where only this search path lets the"
        " old application find them. Nothing was changed. To go back first:"
        " python manage.py rollback_migration\n",
    ),
    ("migrated", ("flush", "--noinput")): (1, "", IN_USE),
    ("migrated", ("migrate", "terrain", "zero", "-v", "0")): (
        1,
        "",
        "terrain.0001_initial makes the accounts, which are parked when the shop goes back."
        " To go back, run: python manage.py rollback_migration\n",
    ),
    ("migrated", ("migrate", "auth", "zero", "-v", "0")): (
        1,
        "",
        "terrain.0001_initial makes the accounts, which are parked when the shop goes back."
        " To go back, run: python manage.py rollback_migration\n",
    ),
    ("migrated", ("migrate", "legacy", "zero", "-v", "0")): (
        1,
        "",
        "legacy.0001_initial makes the quarantine, which knows things of held rows that"
        " nothing else does. To go back, run: python manage.py rollback_migration\n",
    ),
    ("migrated", ("rollback_migration",)): (
        2,
        "",
        "The new application will find no tables until migrate is run again. Nobody is"
        " there to be asked; add --yes if that is meant.\n",
    ),
    ("rolled_back", ("settle",)): (2, "", NOTHING_TO_SETTLE),
    ("rolled_back", ("verify_migration",)): (2, "", NO_NEW_TABLES),
    ("rolled_back", ("copy_models_to_assets",)): (2, "", NO_MODELS),
    ("rolled_back", ("cleanup_legacy", "--yes")): (1, "", NOT_MIGRATED),
    ("rolled_back", ("rollback_migration",)): (
        0,
        "There is nothing to roll back.\n",
        "",
    ),
    ("rolled_back", SUPERUSER): (2, "", NO_TABLE.format("users")),
    ("rolled_back", ("flush", "--noinput")): (1, "", IN_USE),
    ("rolled_back", ("migrate", "legacy", "zero", "-v", "0")): (
        1,
        "",
        "legacy.0001_initial makes the quarantine, which knows things of held rows that"
        " nothing else does. To go back, run: python manage.py rollback_migration\n",
    ),
    ("cleaned", ("settle",)): (2, "", NOTHING_TO_SETTLE),
    ("cleaned", ("cleanup_legacy",)): (0, "There is nothing to clean up.\n", ""),
    ("cleaned", ("prepare_database",)): (
        0,
        "There are no legacy tables, so nothing needs preparing.\n",
        "",
    ),
    ("cleaned", ("rollback_migration", "--yes")): (
        1,
        "",
        "The legacy tables were dropped by cleanup_legacy, so there is nothing to go back"
        " to. Restore a backup: python manage.py restore_database PATH\n",
    ),
    ("cleaned", ("migrate", "-v", "0")): (0, "", ""),
    ("cleaned", ("migrate", "terrain", "zero", "-v", "0")): (1, "", CLEANED),
    ("cleaned", ("migrate", "orders", "zero", "-v", "0")): (1, "", CLEANED),
    ("cleaned", ("migrate", "legacy", "zero", "-v", "0")): (1, "", CLEANED),
}


def contents(database: Database) -> list[tuple[Any, ...]]:
    """Every table of every schema, and how many rows it has."""
    with database.connect(application_name="terrain") as asked:
        tables = asked.execute(
            "SELECT c.oid::regclass::text FROM pg_class c"
            "  JOIN pg_namespace s ON s.oid = c.relnamespace"
            " WHERE c.relkind = 'r' AND s.nspname !~ '^pg_'"
            "   AND s.nspname <> 'information_schema' ORDER BY s.nspname, c.relname"
        ).fetchall()
        return [
            (name, asked.execute(f"SELECT count(*) FROM {name}").fetchall())
            for (name,) in tables
        ]


@pytest.mark.parametrize("state", dict.fromkeys(state for state, _ in WRONG_ORDER))
def test_the_wrong_order_ends_in_a_sentence_and_changes_nothing(
    request: pytest.FixtureRequest, manage: Manage, state: str
) -> None:
    database: Database = request.getfixturevalue(state)
    before = contents(database)
    for (of_state, command), (code, out, err) in WRONG_ORDER.items():
        if of_state == state:
            result = manage(*command)
            assert (command, result.code, result.err) == (command, code, err)
            # Django's own, here and there, also notes that migrations are not applied.
            assert result.out == out or command == SUPERUSER, command
            assert contents(database) == before, command


def test_unapplying_migrations_by_hand_is_a_way_back(
    migrated: Database, manage: Manage
) -> None:
    """The new tables are parked, the legacy ones are where they were, and it goes on."""
    before = migrated.value("SELECT count(*) FROM public.users")
    assert manage("migrate", "catalogue", "zero", "-v", "0").code == 0
    assert migrated.value("SELECT count(*) FROM legacy_parked.users") == before
    assert manage("rollback_migration", "--yes", "-v", "0").code == 0
    assert migrated.value("SELECT count(*) FROM public.orders") == 500
    assert manage("migrate", "-v", "0").code == 0
    assert migrated.value("SELECT count(*) FROM public.users") == before
    assert manage("verify_migration", "-v", "0").code == 0


def test_faked_migrations_cannot_be_unapplied_onto_the_shop(
    shop: Database, manage: Manage
) -> None:
    """Recorded as applied by hand: Django would drop public.orders, which is the shop's."""
    recorder = MigrationRecorder(connection)
    assert manage("migrate", "auth", "-v", "0").code == 0
    for app, name in MigrationLoader(connection).graph.nodes:
        if app in ("legacy", *catalog.NEW_APPS) and name in (
            "0001_initial",
            "0002_stand_aside",
            "0002_pace",
        ):
            recorder.record_applied(app, name)
    before = contents(shop)
    for app in ("orders", "catalogue"):
        assert manage("migrate", app, "zero", "-v", "0") == Result(
            1,
            "",
            "Unapplying these migrations would drop the legacy tables, which are in public:"
            " the migrations were never really applied. Nothing has been changed. Take back"
            " what was recorded: python manage.py migrate --fake legacy 0001_initial\n",
        )
    assert contents(shop) == before
    assert manage("migrate", "--fake", "legacy", "0001_initial", "-v", "0").code == 0
    assert ("orders", "0001_initial") not in recorder.applied_migrations()


# --- twice ---------------------------------------------------------------------------------


def test_each_command_twice_changes_nothing(
    shop: Database, manage: Manage, settings: Any, tmp_path: Path
) -> None:
    """The way there, back, there again and on, each step said once and done once."""
    settings.BACKUP_DIR = tmp_path
    name = shop.name

    def twice(*command: str) -> tuple[Result, Result]:
        first = manage(*command)
        assert (first.code, first.err) == (0, ""), (command, first)
        once = contents(shop)
        second = manage(*command)
        assert (second.code, second.err) == (0, ""), (command, second)
        assert contents(shop) == once, command
        return first, second

    first, second = twice("prepare_database")
    assert first.out == (
        f"The search path is now legacy, public for: database {name}.\n"
        "Next: python manage.py backup_database\n"
    )
    assert second.out == (
        "The search path was set already.\nNext: python manage.py backup_database\n"
    )
    first, second = twice("migrate")
    assert "Preflight: proving every row before anything is changed …\n" in first.out
    assert "No migrations to apply." in second.out
    first, second = twice("settle")
    assert first.out == second.out == "Nothing was left to settle.\n"
    first, second = twice("copy_models_to_assets")
    assert first.out.startswith("Assets: 50 added, 0 refreshed; 0 edited since")
    assert second.out.startswith("Assets: 0 added, 0 refreshed; 0 edited since")
    first = manage("verify_migration")
    assert first.out.endswith("\nAll 26 checks passed.\n")
    assert manage("verify_migration") == first
    first, second = twice("rollback_migration", "--yes")
    assert first.out.startswith(
        f"Back in public: {TABLES}.\nParked in legacy_parked: 44 "
    )
    assert first.out.endswith(".\nTo go forward again: python manage.py migrate\n")
    assert second.out == "There is nothing to roll back.\n"
    twice("migrate", "-v", "0")
    assert manage("backup_database", "-v", "0") == Result(0, "", "")
    # Counting the rows of every table is use, and is seen as such.
    first, second = twice("cleanup_legacy", "--yes", "--despite-use")
    assert first.out.endswith(
        "and the schemas legacy and rebuilt.\n"
        "The search path is as it was. The move is history.\n"
    )
    assert second.out == "There is nothing to clean up.\n"
    first, second = twice("prepare_database", "--undo")
    assert first.out == second.out == "There was nothing to undo.\n"
    assert (
        shop.rows(
            "SELECT nspname FROM pg_namespace WHERE nspname IN"
            " ('legacy', 'rebuilt', 'legacy_parked')"
        )
        == []
    )


def test_quiet_commands_say_nothing(
    empty: Database, manage: Manage, settings: Any, tmp_path: Path
) -> None:
    settings.BACKUP_DIR = tmp_path
    for command in (
        ("load_sample", "--scale", "0.001"),
        ("preflight",),
        ("prepare_database",),
        ("migrate",),
        ("settle",),
        ("copy_models_to_assets",),
        ("verify_migration",),
        ("rollback_migration", "--yes"),
        ("upgrade",),
    ):
        assert manage(*command, "-v", "0") == Result(0, "", ""), command
    assert manage("backup_database", "-v", "0") == Result(0, "", "")
    assert manage("cleanup_legacy", "--yes", "-v", "0") == Result(0, "", "")


# --- what was interrupted ------------------------------------------------------------------


def test_an_interrupted_migration_is_gone_on_with(
    interrupted: Database, manage: Manage
) -> None:
    assert step(manage, "migrate")["state"] == "paused"
    orders = step(manage, "copy orders")
    assert (orders["state"], orders["detail"]) == (
        "paused",
        "interrupted; run migrate to go on",
    )
    status = manage("migration_status")
    assert status.code == 0
    assert status.out.endswith("\nNext: python manage.py migrate\n")
    assert manage("migrate", "-v", "0") == Result(0, "", "")
    assert step(manage, "copy orders")["state"] == "done"
    assert manage("verify_migration", "-v", "0").code == 0


def test_an_interrupted_migration_can_be_rolled_back(
    interrupted: Database, manage: Manage
) -> None:
    result = manage("rollback_migration", "--yes")
    assert result.code == 0
    assert result.out.startswith(f"Back in public: {TABLES}.\n")
    assert manage("migrate", "-v", "0") == Result(0, "", "")
    assert manage("verify_migration", "-v", "0").code == 0


def test_only_one_command_changes_a_database_at_a_time(
    migrated: Database, manage: Manage
) -> None:
    """Reading ones are not kept waiting."""
    other = migrated.connect(application_name="terrain")
    other.execute("SELECT pg_advisory_lock(%s)", [locks.RUN_LOCK])
    started = other.execute(
        "SELECT to_char(backend_start AT TIME ZONE 'UTC', 'HH24:MI:SS')"
        "  FROM pg_stat_activity WHERE pid = pg_backend_pid()"
    ).fetchone()
    assert started is not None
    busy = (
        "Another command is at work on this database: process"
        f" {other.info.backend_pid} of the server (terrain, role terrain, connected since"
        f" {started[0]} UTC). Wait for it, or look with:"
        " python manage.py migration_status\n"
    )
    before = contents(migrated)
    for command in (
        ("rollback_migration", "--yes", "-v", "0"),
        ("copy_models_to_assets",),
        ("migrate", "orders", "zero", "-v", "0"),
        ("prepare_database",),
        ("prepare_database", "--undo"),
        ("settle",),
        ("settle", "--again"),
        ("cleanup_legacy", "--yes"),
    ):
        assert manage(*command) == Result(2, "", busy), command
    assert contents(migrated) == before
    at_work = busy.partition(": ")[2].partition(". Wait")[0]
    assert manage("migration_status").out.endswith(
        f"\nA command is at work: {at_work}.\n"
    )
    assert json.loads(manage("migration_status", "--json").out)["at_work"] == [at_work]
    for command in (("preflight",), ("migration_status",), ("verify_migration",)):
        assert manage(*command, "-v", "0").code == 0


def test_of_another_role_that_is_at_work_not_much_is_known(
    migrated: Database, manage: Manage
) -> None:
    other = migrated.superuser
    other.execute("SELECT pg_advisory_lock(%s)", [locks.RUN_LOCK])
    result = manage("copy_models_to_assets")
    assert result.code == 2
    assert result.err == (
        "Another command is at work on this database: process"
        f" {other.info.backend_pid} of the server (role postgres). Wait for it, or look"
        " with: python manage.py migration_status\n"
    )


def test_a_lock_that_cannot_be_had(
    shop: Database, manage: Manage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step says who is in the way, and can be run again."""
    monkeypatch.setattr(locks, "TOTAL_LIMIT", 0.0)
    defaults = {**locks.run_briefly.__kwdefaults__, "limit": 0.0}
    monkeypatch.setattr(locks.run_briefly, "__kwdefaults__", defaults)
    other = shop.connect(application_name="terrain")
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM assets")
    result = manage("migrate", "-v", "0")
    assert result.code == 1
    assert result.out == ""
    sentence = result.err.strip().splitlines()[-1]
    assert sentence.startswith(
        "Moving assets aside could not get its lock within 0 s. In the way: process"
        f" {other.info.backend_pid} (role terrain, terrain), in its transaction for "
    )
    assert sentence.endswith(
        " Nothing was changed by this step; run the same command again to go on."
    )
    other.execute("COMMIT")
    assert manage("migrate", "-v", "0").code == 0


# --- asking --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("no\n", "'no' was typed"),
        ("YES\n", "'YES' was typed"),
        ("\n", "nothing was typed"),
        (" \x04", "'\\x04' was typed"),
    ],
)
def test_who_does_not_say_yes_changes_nothing(
    migrated: Database, manage: Manage, typed: str, said: str
) -> None:
    before = contents(migrated)
    result = manage("rollback_migration", stdin=typed)
    assert (result.code, result.err) == (
        1,
        f"Nothing was changed: {said}, and yes was expected.\n",
    )
    assert result.out == (
        "The new application will find no tables until migrate is run again. Type yes to"
        " go on: "
    )
    assert contents(migrated) == before


def test_who_says_yes_goes_back(migrated: Database, manage: Manage) -> None:
    assert manage("rollback_migration", stdin="yes\n").code == 0
    assert migrated.value("SELECT to_regclass('legacy.orders') IS NULL")


def test_cleanup_wants_the_name_of_the_database(
    migrated: Database, manage: Manage, settings: Any, tmp_path: Path
) -> None:
    settings.BACKUP_DIR = tmp_path
    assert manage("backup_database", "-v", "0") == Result(0, "", "")
    result = manage("cleanup_legacy", stdin="yes\n")
    assert (result.code, result.err) == (
        1,
        f"Nothing was changed: 'yes' was typed, and {migrated.name} was expected.\n",
    )
    assert migrated.value("SELECT count(*) FROM legacy.orders") == 500
    result = manage("cleanup_legacy", stdin=f"{migrated.name}\n")
    assert (result.code, result.err) == (0, "")
    assert migrated.value("SELECT to_regclass('legacy.orders') IS NULL")


# --- cleanup refuses -----------------------------------------------------------------------


def test_cleanup_says_all_that_speaks_against_it(
    migrated: Database, manage: Manage, settings: Any, tmp_path: Path
) -> None:
    settings.BACKUP_DIR = tmp_path
    migrated.execute("CREATE TABLE legacy.notes (id integer)")
    migrated.execute("CREATE VIEW public.sales AS SELECT id FROM legacy.orders")
    migrated.execute(
        "UPDATE legacy.user_tables SET layout_data = '1' WHERE name = 'Table 3'"
    )
    migrated.execute("ALTER TABLE public.models ADD COLUMN colour text")
    before = contents(migrated)
    assert manage("cleanup_legacy", "--yes", "--despite-use") == Result(
        1,
        "",
        "The table notes is in the schema legacy. Move it elsewhere or drop it.\n".replace(
            "notes", "legacy.notes"
        )
        + "The view sales depends on legacy.orders. Let it use the new tables, or drop it.\n"
        "Held in quarantine, undecided, and nowhere but in the legacy tables: 1 row."
        " Repair, then run settle; or accept each in the admin.\n"
        f"There is no proven backup of {migrated.name} in {tmp_path} that was taken since"
        " the migration. Run: python manage.py backup_database\n"
        "Verification fails (public_schema). Run: python manage.py verify_migration\n"
        "Nothing has been dropped.\n",
    )
    assert contents(migrated) == before


def test_nobody_else_s_view_goes_with_ours(
    migrated: Database, manage: Manage, settings: Any, tmp_path: Path
) -> None:
    """Back by either way, and cleanup, would drop it with the view it is made from."""
    settings.BACKUP_DIR = tmp_path
    assert manage("backup_database", "-v", "0") == Result(0, "", "")
    migrated.execute("CREATE VIEW public.sales AS SELECT id FROM rebuilt.orders")
    before = contents(migrated)
    sentence = (
        "The view sales would go with the schema rebuilt, which it is in or made from. Move"
        " it elsewhere, make it from the new tables, or drop it."
    )
    for command, end in (
        (("rollback_migration", "--yes"), "\nNothing has been changed.\n"),
        (("migrate", "catalogue", "zero", "-v", "0"), " Nothing has been changed.\n"),
        (("cleanup_legacy", "--yes"), "\nNothing has been dropped.\n"),
    ):
        assert manage(*command) == Result(1, "", sentence + end), command
    assert migrated.value("SELECT count(*) FROM public.sales") == 500
    assert contents(migrated) == before


def test_after_cleanup_upgrade_has_little_to_do(
    cleaned: Database, manage: Manage
) -> None:
    result = manage("upgrade", "--no-backup")
    assert (result.code, result.err) == (0, "")
    assert "\n[1/2] copy_models_to_assets\n" in result.out
    assert "\n[2/2] verify_migration\n" in result.out
    assert manage("upgrade").out == "All is done: nothing was changed.\n"


# --- settle --------------------------------------------------------------------------------


def test_settle_says_what_it_did(migrated: Database, manage: Manage) -> None:
    migrated.execute(
        "INSERT INTO legacy.orders (order_number, user_email, user_name, shipping_address,"
        " pricing) VALUES ('N-1', 'New@x.org', 'Newcomer', '{}', '{}')"
    )
    migrated.execute(
        "INSERT INTO legacy.user_tables (name, table_config, layout_data)"
        " VALUES ('alone', '{}', '{}')"
    )
    assert step(manage, "settle")["state"] == "pending"
    assert step(manage, "settle")["detail"] == "rows that wait: 2"
    result = manage("settle")
    assert (result.code, result.err) == (0, "")
    assert result.out == (
        "customers made: 1, orders and tables linked: 1, sessions made: 1.\n"
    )
    assert step(manage, "settle")["state"] == "done"


def test_settle_watches_until_it_is_stopped(
    migrated: Database, manage: Manage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from terrain.legacy import watching
    from terrain.legacy.management.commands import settle

    looks = iter((True, False))

    def between_looks(seconds: float) -> None:
        assert seconds == watching.INTERVAL
        if not next(looks):
            raise KeyboardInterrupt
        migrated.execute(
            "UPDATE legacy.orders SET user_email = 'moved@x.org'"
            " WHERE order_number = 'AA-0000001'"
        )

    monkeypatch.setattr(settle.time, "sleep", between_looks)
    result = manage("settle", "--watch")
    assert result.code == 130
    assert result.out == (
        "Nothing was left to settle.\n"
        "customers made: 1, orders and tables linked: 1.\n"
    )
    assert result.err == "\nStopped. Run the same command again to go on.\n"


def test_settle_again_puts_things_right(migrated: Database, manage: Manage) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE legacy.orders DISABLE TRIGGER USER")
        cursor.execute(
            "UPDATE legacy.orders SET notes = 'x' WHERE order_number = 'AA-0000001'"
        )
        cursor.execute("DROP TRIGGER zz_terrain_sync_insert ON public.users")
    assert manage("verify_migration", "-v", "0").code == 1
    assert step(manage, "verify")["state"] == "failed"
    assert step(manage, "verify")["detail"] == "in_step_orders, triggers"
    result = manage("settle", "--again")
    assert result.out.startswith(
        "Functions and triggers derived anew; 1 row carried over.\n"
    )
    assert manage("verify_migration", "-v", "0").code == 0
    assert step(manage, "verify")["state"] == "done"


def test_settle_again_brings_an_older_version_up_to_date(
    both: Both, manage: Manage
) -> None:
    """Functions of other arguments, arguments' names or results, triggers of other names."""
    there = (
        "SELECT oid::regprocedure::text FROM pg_proc"
        " WHERE pronamespace = 'rebuilt'::regnamespace"
    )
    on = "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE tgname LIKE 'zz_terrain%'"
    functions, triggers = (sorted(both.database.rows(each)) for each in (there, on))
    result = (
        "DROP FUNCTION {0}; CREATE FUNCTION {0} RETURNS {1} LANGUAGE plpgsql AS '{2}'"
    )
    older = (
        result.format("rebuilt.not_beside_a_batch()", "void", "BEGIN END"),
        result.format("rebuilt.assets_gone(_key uuid)", "int", "BEGIN RETURN 1; END"),
        "DROP FUNCTION rebuilt.assets_put; CREATE FUNCTION rebuilt.assets_put(_key uuid)"
        " RETURNS void LANGUAGE plpgsql AS 'BEGIN END'",
        "DROP FUNCTION rebuilt.note_use; CREATE FUNCTION rebuilt.note_use(named text)"
        " RETURNS void LANGUAGE plpgsql AS 'BEGIN END'",
        "CREATE TRIGGER zz_terrain_sync_update AFTER UPDATE ON legacy.assets"
        " FOR EACH ROW EXECUTE FUNCTION rebuilt.on_legacy_assets()",
        "CREATE TRIGGER zz_terrain_sync_old AFTER INSERT ON public.order_items"
        " FOR EACH ROW EXECUTE FUNCTION rebuilt.on_new_order_items()",
    )
    for statement in older:
        both.database.execute(statement)
    both.does("UPDATE assets SET name = 'Newer' WHERE id = '#tower'")
    done = manage("settle", "--again")
    assert (done.code, done.err) == (0, "")
    assert sorted(both.database.rows(there)) == functions
    assert sorted(both.database.rows(on)) == triggers
    assert both.has("SELECT name FROM models WHERE id = '#tower'") == [("Newer",)]
    both.does("DELETE FROM assets WHERE id = '#bridge'")
    assert both.has("SELECT count(*) FROM models WHERE id = '#bridge'") == [(0,)]


def test_triggers_of_another_version_go_with_a_rollback(
    both: Both, manage: Manage, settings: Any
) -> None:
    """And its functions, put aside, are no hindrance to the way forward."""
    settings.PREFLIGHT_ACCEPT = ["old-sessions"]
    both.database.execute(
        "DROP FUNCTION rebuilt.note_use; CREATE FUNCTION rebuilt.note_use(named text)"
        " RETURNS void LANGUAGE plpgsql SECURITY DEFINER"
        " SET search_path = legacy, public, pg_temp AS 'BEGIN END'"
    )
    both.database.execute(
        "CREATE TRIGGER zz_terrain_sync_update AFTER UPDATE ON legacy.assets"
        " FOR EACH ROW EXECUTE FUNCTION rebuilt.on_legacy_assets()"
    )
    done = manage("rollback_migration", "--yes", "-v", "0")
    assert (done.code, done.err) == (0, "")
    left = "SELECT tgname FROM pg_trigger WHERE tgname LIKE 'zz_terrain%'"
    assert both.database.rows(left) == []
    manage("prepare_database")
    assert manage("migrate", "-v", "0").code == 0


# --- status --------------------------------------------------------------------------------


def test_status_from_the_first_step_to_the_last(
    shop: Database, manage: Manage, settings: Any, tmp_path: Path
) -> None:
    settings.BACKUP_DIR = tmp_path

    def following() -> str | None:
        result = manage("migration_status", "--json")
        assert (result.code, result.err) == (0, "")
        found: str | None = json.loads(result.out)["next"]
        return found

    assert following() == "prepare_database"
    manage("prepare_database")
    assert following() == "backup_database"
    assert manage("backup_database", "-v", "0") == Result(0, "", "")
    assert following() == "migrate"
    manage("migrate", "-v", "0")
    assert following() == "copy_models_to_assets"
    manage("copy_models_to_assets")
    assert following() == "verify_migration"
    manage("verify_migration")
    assert following() == "cleanup_legacy"
    assert manage("backup_database", "-v", "0") == Result(0, "", "")
    assert manage("cleanup_legacy", "--yes").code == 0
    assert following() is None
    assert manage("migration_status").out.endswith("\nAll is done.\n")


def test_status_changes_nothing(shop: Database, manage: Manage) -> None:
    before = contents(shop)
    result = manage("migration_status")
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith("\nNext: python manage.py prepare_database\n")
    assert contents(shop) == before


# --- upgrade -------------------------------------------------------------------------------


def test_upgrade_from_nothing_to_verified(
    empty: Database, manage: Manage, settings: Any, tmp_path: Path
) -> None:
    settings.BACKUP_DIR = tmp_path
    sample = manage("load_sample", "--scale", "0.001")
    assert sample.out == (
        "artists: 4 rows\nassets: 50 rows\nexample_tables: 5 rows\nuser_tables: 200 rows\n"
        "orders: 500 rows\nstripe_transfers: 350 rows\n"
    )
    result = manage("upgrade")
    assert (result.code, result.err) == (0, "")
    for number, command in enumerate(
        (
            "preflight",
            "prepare_database",
            "backup_database",
            "migrate",
            "settle",
            "copy_models_to_assets",
            "verify_migration",
        ),
        1,
    ):
        assert f"\n[{number}/7] {command}\n" in result.out
    lines = [line.split() for line in result.out.splitlines()]
    for lens in LENSES:
        (row,) = (
            line for line in lines if line[:1] == [lens.legacy] and len(line) >= 6
        )
        rows = empty.value(f"SELECT count(*) FROM legacy.{lens.legacy}")
        assert row[-4:-1] == [f"{rows:,}", "0", "0"]
    assert (
        "\nTo look at it in the admin:\n    python manage.py createsuperuser"
        in result.out
    )

    before = contents(empty)
    again = manage("upgrade")
    assert (again.code, again.err) == (0, "")
    assert again.out.startswith("All is done: nothing was changed.\n")
    assert contents(empty) == before


def test_upgrade_goes_on_where_it_was_stopped(
    interrupted: Database, manage: Manage
) -> None:
    result = manage("upgrade", "--no-backup")
    assert (result.code, result.err) == (0, "")
    assert "\n[1/4] migrate\n" in result.out
    assert "preflight" not in result.out
    assert manage("upgrade").out.startswith("All is done: nothing was changed.\n")


def test_upgrade_stops_at_what_blocks(shop: Database, manage: Manage) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE orders DROP COLUMN notes")
    before = contents(shop)
    result = manage("upgrade", "--no-backup")
    assert (result.code, result.err) == (1, "")
    assert "\n✗ The column orders.notes is missing.\n" in result.out
    assert "prepare_database" not in result.out.split("[1/6]")[1]
    assert contents(shop) == before


def test_upgrade_of_an_empty_database(empty: Database, manage: Manage) -> None:
    result = manage("upgrade", "--no-backup")
    assert (result.code, result.err) == (0, "")
    assert manage("upgrade").out == "All is done: nothing was changed.\n"


# --- prepare -------------------------------------------------------------------------------


def test_prepare_names_what_it_cannot_reach(
    shop: Database, manage: Manage, administrator: psycopg.Connection[Any]
) -> None:
    """Sessions that began before, and roles whose path is not for us to set."""
    old = shop.old()
    mine = shop.connect()
    administrator.execute(
        f"ALTER ROLE {OLD_ROLE} IN DATABASE {shop.name} SET search_path = shop, public"
    )
    result = manage("prepare_database")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[:4] == [
        f"The search path is now legacy, public for: database {shop.name}.",
        f"The role {OLD_ROLE} has a path of its own, which this role may not change. As a"
        f" superuser: ALTER ROLE {OLD_ROLE} IN DATABASE {shop.name}"
        " SET search_path = legacy, shop, public;",
        "These sessions began before, and do not have it. Recycle their pools once:",
        f"    process {mine.info.backend_pid}: role terrain, unnamed, local, since"
        f" {lines[3][-23:]}",
    ]
    assert lines[4:] == [
        f"    process {old.info.backend_pid}: role {OLD_ROLE}",
        "Next: python manage.py backup_database",
    ]
    administrator.execute(
        f"ALTER ROLE {OLD_ROLE} IN DATABASE {shop.name}"
        " SET search_path = legacy, shop, public"
    )
    assert step(manage, "prepare")["state"] == "done"
    assert manage("prepare_database", "--undo").out == (
        f"The search path is as it was for: database {shop.name}.\n"
    )


# --- the rest ------------------------------------------------------------------------------


def test_lens_prints_every_column_and_needs_no_database(manage: Manage) -> None:
    result = manage("lens")
    assert (result.code, result.err) == (0, "")
    for lens in LENSES:
        assert f"{lens.legacy} → {lens.new}" in result.out
        for column in lens.columns:
            assert f"  {column.name} ({column.type})\n" in result.out
    one = manage("lens", "artists").out
    assert "    to   display_name: renamed\n    back (n.display_name)" in one
    assert "orders" not in one
    assert "  flagged if it has commission_rate NaN, not a number (amount_nan)\n" in one
    made = manage("lens", "artists", "--sql").out
    for what in ("CREATE OR REPLACE VIEW", "CREATE OR REPLACE TRIGGER", "WITH judged"):
        assert what in made


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (
            ("load_sample", "--scale", "-1"),
            "argument --scale: '-1' is not a number above 0 and up to 100",
        ),
        (
            ("load_sample", "--scale", "much"),
            "argument --scale: 'much' is not a number above 0 and up to 100",
        ),
        (("preflight", "--nonsense"), "unrecognized arguments: --nonsense"),
        (("lens", "customers"), "argument table: invalid choice: 'customers'"),
    ],
)
def test_bad_arguments(
    manage: Manage, command: tuple[str, ...], complaint: str
) -> None:
    result = manage(*command)
    assert (result.code, result.out) == (2, "")
    assert complaint in result.err.splitlines()[-1]


def test_every_command_says_what_it_does_and_how_to_undo_it() -> None:
    names = [
        name
        for name, app in get_commands().items()
        if app in ("terrain.legacy", "catalogue")
    ]
    assert len(names) > 10
    for name in names:
        text = load_command_class(get_commands()[name], name).help
        assert text.endswith("."), name
        if name not in ("flush", "migrate"):
            assert "  " not in text, name


def test_steps_of_the_guide_are_commands(migrated: Database, tmp_path: Path) -> None:
    known = set(get_commands())
    assert {each.command for each in guide.steps(connection, tmp_path)} <= known


def test_status_counts_what_was_copied_and_not_what_was_estimated(
    shop: Database, manage: Manage
) -> None:
    """The planner's idea of a table may be a thousand rows off."""
    shop.execute(
        "INSERT INTO user_tables (name, table_config, layout_data)"
        " SELECT 'T', '{}', '{}' FROM generate_series(1, 1000)"
    )
    assert manage("migrate", "-v0").code == 0
    copied = step(manage, "copy user_tables")
    assert (copied["rows"], copied["total"]) == (1200, 1200)


def test_status_does_not_take_an_earlier_copy_for_this_one(
    migrated: Database, manage: Manage
) -> None:
    assert manage("rollback_migration", "--yes").code == 0
    # As a migrate leaves it that is killed after the first move.
    migrated.execute(
        "CREATE SCHEMA legacy; ALTER TABLE public.artists SET SCHEMA legacy"
    )
    assert step(manage, "copy orders")["state"] == "pending"
    assert manage("migrate", "-v0").code == 0
    assert step(manage, "copy orders")["state"] == "done"
