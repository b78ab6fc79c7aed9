"""Every command: its words, its exit code, run twice, in the wrong order, interrupted."""

from __future__ import annotations

import json
import re
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
from terrain.embedded import OWNER
from terrain.legacy import catalog, copying, cut_over, guide
from terrain.legacy.mapping import LENSES
from tests.both import Both
from tests.conftest import OLD_ROLE, Database, Result

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]

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
def fresh(empty: Database, manage: Manage) -> Database:
    """A database that never had legacy tables."""
    assert manage("migrate", "-v", "0") == Result(0, "", "")
    return empty


@pytest.fixture
def swapped(migrated: Database, manage: Manage) -> Database:
    """A shop that is cut over."""
    assert manage("cut_over", "--yes", "-v", "0") == Result(0, "", "")
    return migrated


@pytest.fixture
def cleaned(
    swapped: Database, manage: Manage, settings: Any, tmp_path: Path
) -> Database:
    settings.BACKUP_DIR = tmp_path
    assert manage("backup_database", "-v", "0") == Result(0, "", "")
    assert manage("cleanup_legacy", "--yes", "-v", "0").code == 0
    return swapped


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
    "Whether the legacy tables are copied is not for --fake to say. Nothing was changed."
    " Run it without: python manage.py migrate\n"
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
NOTHING_TO_EXTEND = "There are no legacy tables, so no search path needs extending.\n"
NOTHING_TO_CUT_OVER = "There is nothing to cut over: there are no legacy tables.\n"
IS_CUT_OVER = "There is nothing to cut over: the new tables are in public already.\n"
NOTHING_TO_UNDO = "There is nothing to undo: the names have not changed places.\n"
TOO_EARLY = "The migration is not complete. Run: python manage.py migrate\nNothing was changed.\n"
UNDO_FIRST = (
    "The names have changed places (cut_over), so the way back begins with its undoing."
    " Nothing has been changed. Run: python manage.py rollback_migration\n"
)
NOT_CUT_OVER = (
    "The names have not changed places yet: the legacy tables are in public. When the old"
    " application has been stopped, run: python manage.py cut_over\n"
    "Nothing has been dropped.\n"
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
        NOTHING_TO_EXTEND,
        "",
    ),
    ("empty", ("prepare_database", "--undo")): (0, "There was nothing to undo.\n", ""),
    ("empty", ("cut_over",)): (0, NOTHING_TO_CUT_OVER, ""),
    ("empty", ("cut_over", "--undo")): (0, NOTHING_TO_UNDO, ""),
    ("empty", SUPERUSER): (2, "", NO_TABLE.format("users")),
    ("empty", ("clearsessions",)): (2, "", NO_TABLE.format("django_session")),
    ("fresh", ("cut_over",)): (0, NOTHING_TO_CUT_OVER, ""),
    ("fresh", ("cut_over", "--undo", "--yes")): (0, NOTHING_TO_UNDO, ""),
    ("fresh", ("rollback_migration",)): (0, "There is nothing to roll back.\n", ""),
    ("fresh", ("cleanup_legacy",)): (0, "There is nothing to clean up.\n", ""),
    ("fresh", ("prepare_database",)): (0, NOTHING_TO_EXTEND, ""),
    ("fresh", ("migrate", "--cut-over", "-v", "0")): (0, "", ""),
    ("shop", ("cut_over", "--yes")): (1, "", TOO_EARLY),
    ("shop", ("cut_over", "--yes", "--ignore-activity")): (1, "", TOO_EARLY),
    ("shop", ("cut_over", "--undo", "--yes")): (0, NOTHING_TO_UNDO, ""),
    ("shop", ("settle",)): (2, "", NOTHING_TO_SETTLE),
    ("shop", ("settle", "--again")): (2, "", NOTHING_TO_SETTLE),
    ("shop", ("verify_migration",)): (2, "", NO_NEW_TABLES),
    ("shop", ("copy_models_to_assets",)): (2, "", NO_MODELS),
    ("shop", ("rollback_migration",)): (0, "There is nothing to roll back.\n", ""),
    ("shop", ("cleanup_legacy", "--yes")): (1, "", NOT_MIGRATED),
    ("shop", ("load_sample",)): (
        1,
        "",
        "The database is not empty: it has public.artists. The sample is only loaded into an empty"
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
    ("interrupted", ("cut_over", "--yes")): (1, "", TOO_EARLY),
    ("interrupted", ("cut_over", "--undo", "--yes")): (0, NOTHING_TO_UNDO, ""),
    ("interrupted", ("prepare_database", "--undo")): (
        0,
        "There was nothing to undo.\n",
        "",
    ),
    ("migrated", ("flush", "--noinput")): (1, "", IN_USE),
    ("migrated", ("cleanup_legacy", "--yes")): (1, "", NOT_CUT_OVER),
    ("migrated", ("cut_over", "--undo")): (0, NOTHING_TO_UNDO, ""),
    ("migrated", ("cut_over",)): (
        2,
        "",
        "The old application will not find its tables in public any more. Has it been"
        " stopped for good, everywhere it runs? Nobody is there to be asked; add --yes if"
        " that is meant.\n",
    ),
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
    ("swapped", ("cut_over",)): (0, IS_CUT_OVER, ""),
    ("swapped", ("cut_over", "--yes", "--mirror-grants")): (0, IS_CUT_OVER, ""),
    ("swapped", ("cut_over", "--undo")): (
        2,
        "",
        "The new tables go back to the schema terrain, and requests of the new application"
        " that are under way may fail. Nobody is there to be asked; add --yes if that is"
        " meant.\n",
    ),
    ("swapped", ("flush", "--noinput")): (1, "", IN_USE),
    ("swapped", ("migrate", "-v", "0")): (0, "", ""),
    ("swapped", ("migrate", "--cut-over", "-v", "0")): (0, "", ""),
    ("swapped", ("migrate", "orders", "zero", "--fake", "-v", "0")): (1, "", PRETENDED),
    ("swapped", ("migrate", "terrain", "zero", "-v", "0")): (1, "", UNDO_FIRST),
    ("swapped", ("migrate", "catalogue", "zero", "-v", "0")): (1, "", UNDO_FIRST),
    ("swapped", ("migrate", "legacy", "zero", "-v", "0")): (1, "", UNDO_FIRST),
    ("swapped", ("rollback_migration",)): (
        2,
        "",
        "The new application will find no tables until migrate is run again. Nobody is"
        " there to be asked; add --yes if that is meant.\n",
    ),
    ("swapped", ("prepare_database", "--undo")): (
        0,
        "There was nothing to undo.\n",
        "",
    ),
    ("rolled_back", ("cut_over", "--yes")): (1, "", TOO_EARLY),
    ("rolled_back", ("cut_over", "--undo", "--yes")): (0, NOTHING_TO_UNDO, ""),
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
    ("cleaned", ("cut_over",)): (0, NOTHING_TO_CUT_OVER, ""),
    ("cleaned", ("cut_over", "--undo", "--yes")): (0, NOTHING_TO_UNDO, ""),
    ("cleaned", ("prepare_database",)): (
        0,
        NOTHING_TO_EXTEND,
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
    before = migrated.value("SELECT count(*) FROM terrain.users")
    assert manage("migrate", "catalogue", "zero", "-v", "0").code == 0
    assert migrated.value("SELECT count(*) FROM legacy_parked.users") == before
    assert manage("rollback_migration", "--yes", "-v", "0").code == 0
    assert migrated.value("SELECT count(*) FROM public.orders") == 500
    assert manage("migrate", "-v", "0").code == 0
    assert migrated.value("SELECT count(*) FROM terrain.users") == before
    assert manage("verify_migration", "-v", "0").code == 0


def test_faked_migrations_cannot_be_unapplied_onto_the_shop(
    shop: Database, manage: Manage
) -> None:
    """Recorded as applied by hand: Django would drop what was never made."""
    recorder = MigrationRecorder(connection)
    assert manage("migrate", "auth", "-v", "0").code == 0
    for app, name in MigrationLoader(connection).graph.nodes:
        if app in ("legacy", *catalog.NEW_APPS) and name in (
            "0001_initial",
            "0002_make_schemas",
            "0002_pace",
        ):
            recorder.record_applied(app, name)
    # Django records what a migration replaces with it.
    recorder.record_applied("legacy", "0002_stand_aside")
    before = contents(shop)
    for line in (("orders", "zero"), ("catalogue", "zero"), ()):
        assert manage("migrate", *line, "-v", "0") == Result(
            1,
            "",
            "Migrations were recorded as applied and never were: nothing of the new schema is"
            " there. Nothing has been changed. Take back what was recorded:"
            " python manage.py migrate --fake legacy 0001_initial\n",
        )
    assert contents(shop) == before
    assert manage("migrate", "--fake", "legacy", "0001_initial", "-v", "0").code == 0
    assert ("orders", "0001_initial") not in recorder.applied_migrations()


#: How long the locks were held.
WITHIN = re.compile(r"\b\d+ ms")
BACK = "The legacy tables are as they were, with all rows written since.\n"
OURS = len(cut_over.our_names())
CUT_OVER = (
    f"✓ {OURS} tables of the new schema are in public, 6 legacy tables in legacy; all were"
    " locked for NOW.\n"
    "An old application that must run on finds its tables if its role's path begins with"
    " legacy: python manage.py prepare_database\n"
    "To go back: python manage.py cut_over --undo\n"
    "Next: python manage.py cleanup_legacy\n"
)
UNDONE = (
    f"✓ 6 legacy tables are back in public, {OURS} tables of the new schema in terrain; all"
    " were locked for NOW.\n"
    "To go forward again: python manage.py cut_over\n"
)


# --- twice ---------------------------------------------------------------------------------


def test_each_command_twice_changes_nothing(
    shop: Database, manage: Manage, settings: Any, tmp_path: Path
) -> None:
    """The way there, back, there again and on, each step said once and done once."""
    settings.BACKUP_DIR = tmp_path

    def twice(*command: str) -> tuple[Result, Result]:
        first = manage(*command)
        assert (first.code, first.err) == (0, ""), (command, first)
        once = contents(shop)
        second = manage(*command)
        assert (second.code, second.err) == (0, ""), (command, second)
        assert contents(shop) == once, command
        return first, second

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
    assert first.out.startswith(f"{BACK}Parked in legacy_parked: 44 ")
    assert first.out.endswith(".\nTo go forward again: python manage.py migrate\n")
    assert second.out == "There is nothing to roll back.\n"
    twice("migrate", "-v", "0")
    first, second = twice("cut_over", "--yes")
    assert WITHIN.sub("NOW", first.out) == CUT_OVER
    assert second.out == IS_CUT_OVER
    first, second = twice("cut_over", "--undo", "--yes")
    assert WITHIN.sub("NOW", first.out) == UNDONE
    assert second.out == NOTHING_TO_UNDO
    twice("cut_over", "--yes", "-v", "0")
    first, second = twice("rollback_migration", "--yes")
    assert first.out.startswith(
        "The cut-over is undone: the legacy tables are back in public.\n"
        f"{BACK}Parked in legacy_parked: 44 "
    )
    assert second.out == "There is nothing to roll back.\n"
    twice("migrate", "-v", "0")
    twice("cut_over", "--yes", "-v", "0")
    first, second = twice("prepare_database")
    assert first.out.splitlines()[0] == (
        f'database {shop.name}: search_path = legacy, "$user", public'
    )
    assert second.out.splitlines()[0] == "The search path was extended already."
    assert manage("backup_database", "-v", "0") == Result(0, "", "")
    # Counting the rows of every table is use, and is seen as such.
    first, second = twice("cleanup_legacy", "--yes", "--despite-use")
    assert first.out.endswith(
        "and the schemas legacy, rebuilt and terrain.\nThe move is complete.\n"
    )
    assert second.out == "There is nothing to clean up.\n"
    first, second = twice("prepare_database", "--undo")
    assert first.out == second.out == "There was nothing to undo.\n"
    assert (
        shop.rows(
            "SELECT nspname FROM pg_namespace WHERE nspname IN"
            " ('legacy', 'rebuilt', 'legacy_parked', 'terrain')"
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
        ("migrate",),
        ("settle",),
        ("copy_models_to_assets",),
        ("verify_migration",),
        ("cut_over", "--yes"),
        ("cut_over", "--undo", "--yes"),
        ("rollback_migration", "--yes"),
        ("upgrade",),
        ("cut_over", "--yes", "--mirror-grants"),
        ("prepare_database",),
        ("prepare_database", "--undo"),
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
    assert result.out.startswith(f"{BACK}Parked in legacy_parked: ")
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
        f" {other.info.backend_pid} of the server (terrain, role {OWNER}, connected since"
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
        ("cut_over", "--yes"),
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
    other.execute("LOCK TABLE assets IN ROW EXCLUSIVE MODE")  # as a write does
    result = manage("migrate", "-v", "0")
    assert result.code == 1
    assert result.out == ""
    sentence = result.err.strip().splitlines()[-1]
    assert sentence.startswith(
        "Putting the triggers on assets and models could not get its lock within 0 s. In"
        " the way: process"
        f" {other.info.backend_pid} (role {OWNER}, terrain), in its transaction for "
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
    assert migrated.value("SELECT to_regclass('terrain.orders') IS NULL")


def test_cleanup_wants_the_name_of_the_database(
    swapped: Database, manage: Manage, settings: Any, tmp_path: Path
) -> None:
    settings.BACKUP_DIR = tmp_path
    assert manage("backup_database", "-v", "0") == Result(0, "", "")
    result = manage("cleanup_legacy", stdin="yes\n")
    assert (result.code, result.err) == (
        1,
        f"Nothing was changed: 'yes' was typed, and {swapped.name} was expected.\n",
    )
    assert swapped.value("SELECT count(*) FROM legacy.orders") == 500
    result = manage("cleanup_legacy", stdin=f"{swapped.name}\n")
    assert (result.code, result.err) == (0, "")
    assert swapped.value("SELECT to_regclass('legacy.orders') IS NULL")


# --- cleanup refuses -----------------------------------------------------------------------


def test_cleanup_says_all_that_speaks_against_it(
    swapped: Database, manage: Manage, settings: Any, tmp_path: Path
) -> None:
    settings.BACKUP_DIR = tmp_path
    swapped.execute("CREATE TABLE legacy.notes (id integer)")
    swapped.execute("CREATE VIEW public.sales AS SELECT id FROM legacy.orders")
    swapped.execute(
        "UPDATE legacy.user_tables SET layout_data = '1' WHERE name = 'Table 3'"
    )
    swapped.execute("ALTER TABLE public.models ADD COLUMN colour text")
    before = contents(swapped)
    assert manage("cleanup_legacy", "--yes", "--despite-use") == Result(
        1,
        "",
        "The table legacy.notes is in the schema legacy. Move it elsewhere or drop it.\n"
        "The view sales depends on legacy.orders. Let it use the new tables, or drop it.\n"
        "Held in quarantine, undecided, and nowhere but in the legacy tables: 1 row."
        " Repair, then run settle; or accept each in the admin.\n"
        f"There is no proven backup of {swapped.name} in {tmp_path} that was taken since"
        " the migration. Run: python manage.py backup_database\n"
        "Verification fails (public_schema). Run: python manage.py verify_migration\n"
        "Nothing has been dropped.\n",
    )
    assert contents(swapped) == before


def test_nobody_else_s_view_goes_with_ours(
    migrated: Database, manage: Manage, settings: Any, tmp_path: Path
) -> None:
    """Back by either way, and cleanup, would drop it with the view it is made from."""
    settings.BACKUP_DIR = tmp_path
    migrated.execute("CREATE VIEW public.sales AS SELECT id FROM rebuilt.orders")

    def refused(view: str, *commands: tuple[tuple[str, ...], str]) -> None:
        sentence = (
            f"The view {view} would go with the schema rebuilt, which it is in or made from."
            " Move it elsewhere, make it from the new tables, or drop it."
        )
        before = contents(migrated)
        for command, end in commands:
            assert manage(*command) == Result(1, "", sentence + end), command
        assert migrated.value("SELECT count(*) FROM public.sales") == 500
        assert contents(migrated) == before

    back = (("rollback_migration", "--yes"), "\nNothing has been changed.\n")
    refused(
        "public.sales",
        back,
        (("migrate", "catalogue", "zero", "-v", "0"), " Nothing has been changed.\n"),
    )
    assert manage("cut_over", "--yes", "-v", "0") == Result(0, "", "")
    assert manage("backup_database", "-v", "0") == Result(0, "", "")
    refused(
        "sales", back, (("cleanup_legacy", "--yes"), "\nNothing has been dropped.\n")
    )


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
        "INSERT INTO public.orders (order_number, user_email, user_name, shipping_address,"
        " pricing) VALUES ('N-1', 'New@x.org', 'Newcomer', '{}', '{}')"
    )
    migrated.execute(
        "INSERT INTO public.user_tables (name, table_config, layout_data)"
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
            "UPDATE public.orders SET user_email = 'moved@x.org'"
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
        cursor.execute("ALTER TABLE public.orders DISABLE TRIGGER USER")
        cursor.execute(
            "UPDATE public.orders SET notes = 'x' WHERE order_number = 'AA-0000001'"
        )
        cursor.execute("DROP TRIGGER zz_terrain_sync_insert ON terrain.users")
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
        "CREATE TRIGGER zz_terrain_sync_update AFTER UPDATE ON public.assets"
        " FOR EACH ROW EXECUTE FUNCTION rebuilt.on_legacy_assets()",
        "CREATE TRIGGER zz_terrain_sync_old AFTER INSERT ON terrain.order_items"
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
    both: Both, manage: Manage
) -> None:
    """And its functions, put aside, are no hindrance to the way forward."""
    both.database.execute(
        "DROP FUNCTION rebuilt.note_use; CREATE FUNCTION rebuilt.note_use(named text)"
        " RETURNS void LANGUAGE plpgsql SECURITY DEFINER"
        " SET search_path = legacy, public, pg_temp AS 'BEGIN END'"
    )
    both.database.execute(
        "CREATE TRIGGER zz_terrain_sync_update AFTER UPDATE ON public.assets"
        " FOR EACH ROW EXECUTE FUNCTION rebuilt.on_legacy_assets()"
    )
    done = manage("rollback_migration", "--yes", "-v", "0")
    assert (done.code, done.err) == (0, "")
    left = "SELECT tgname FROM pg_trigger WHERE tgname LIKE 'zz_terrain%'"
    assert both.database.rows(left) == []
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

    assert following() == "backup_database"
    assert manage("backup_database", "-v", "0") == Result(0, "", "")
    assert following() == "migrate"
    manage("migrate", "-v", "0")
    assert following() == "copy_models_to_assets"
    manage("copy_models_to_assets")
    assert following() == "verify_migration"
    manage("verify_migration")
    assert following() == "cut_over"
    assert manage("cut_over", "--yes").code == 0
    assert following() == "cleanup_legacy"
    assert manage("cut_over", "--undo", "--yes").code == 0
    assert following() == "cut_over"
    assert manage("cut_over", "--yes").code == 0
    assert manage("backup_database", "-v", "0") == Result(0, "", "")
    assert manage("cleanup_legacy", "--yes").code == 0
    assert following() is None
    assert manage("migration_status").out.endswith("\nAll is done.\n")


def test_status_changes_nothing(shop: Database, manage: Manage) -> None:
    before = contents(shop)
    result = manage("migration_status")
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith("\nNext: python manage.py backup_database\n")
    assert contents(shop) == before


#: The end of what upgrade says when the names have not changed places.
CUT_OVER_NEXT = (
    "Next: python manage.py settle --watch, beside the old application; when that has been"
    " stopped: python manage.py cut_over\n"
)


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
            "backup_database",
            "migrate",
            "settle",
            "copy_models_to_assets",
            "verify_migration",
        ),
        1,
    ):
        assert f"\n[{number}/6] {command}\n" in result.out
    lines = [line.split() for line in result.out.splitlines()]
    for lens in LENSES:
        (row,) = (
            line for line in lines if line[:1] == [lens.legacy] and len(line) >= 6
        )
        rows = empty.value(f"SELECT count(*) FROM public.{lens.legacy}")
        assert row[-4:-1] == [f"{rows:,}", "0", "0"]
    assert (
        "\nTo look at it in the admin:\n    python manage.py createsuperuser"
        in result.out
    )
    assert result.out.endswith(CUT_OVER_NEXT)

    before = contents(empty)
    again = manage("upgrade")
    assert (again.code, again.err) == (0, "")
    assert again.out.startswith(
        "All is done up to the cut-over: nothing was changed.\n"
    )
    assert again.out.endswith(CUT_OVER_NEXT)
    assert contents(empty) == before

    last = manage("upgrade", "--cut-over")
    assert (last.code, last.err) == (0, "")
    assert last.out.startswith("\n[1/1] cut_over\n✓ ")
    assert CUT_OVER_NEXT not in last.out
    before = contents(empty)
    again = manage("upgrade", "--cut-over")
    assert (again.code, again.err) == (0, "")
    assert again.out.startswith("All is done: nothing was changed.\n")
    assert contents(empty) == before


def test_upgrade_cuts_over_by_itself_where_no_old_application_can_be(
    shop: Database, manage: Manage, settings: Any
) -> None:
    settings.CUT_OVER_BY_ITSELF = True
    result = manage("upgrade", "--no-backup")
    assert (result.code, result.err) == (0, "")
    assert "\n[6/6] cut_over\n✓ " in result.out
    assert CUT_OVER_NEXT not in result.out
    assert shop.value("SELECT count(*) FROM legacy.orders") == 500


def test_upgrade_goes_on_where_it_was_stopped(
    interrupted: Database, manage: Manage
) -> None:
    result = manage("upgrade", "--no-backup")
    assert (result.code, result.err) == (0, "")
    assert "\n[1/4] migrate\n" in result.out
    assert "preflight" not in result.out
    assert manage("upgrade").out.startswith("All is done up to the cut-over: ")


def test_upgrade_stops_at_what_blocks(shop: Database, manage: Manage) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE public.orders DROP COLUMN notes")
    before = contents(shop)
    result = manage("upgrade", "--no-backup")
    assert (result.code, result.err) == (1, "")
    assert "\n✗ The column orders.notes is missing.\n" in result.out
    assert "migrate" not in result.out.split("[1/5]")[1].splitlines()
    assert "\n[2/5]" not in result.out
    assert contents(shop) == before


def test_upgrade_of_an_empty_database(empty: Database, manage: Manage) -> None:
    result = manage("upgrade", "--no-backup")
    assert (result.code, result.err) == (0, "")
    assert manage("upgrade").out == "All is done: nothing was changed.\n"


# --- cutting over --------------------------------------------------------------------------

STOPPED_FOR_GOOD = (
    "The old application will not find its tables in public any more. Has it been stopped"
    " for good, everywhere it runs? Type yes to go on: "
)
#: What is said of the time, which is now.
WHEN = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d")
#: After the sessions that are connected.
SESSIONS_HINT = (
    "If none of these is the old application, or if it is to run on with the search path of"
    " prepare_database, add --ignore-activity.\n"
)


def cutting_over_is_refused(database: Database, manage: Manage, *more: str) -> str:
    """What cut_over says, the times left out; it has changed nothing."""
    before = contents(database)
    result = manage("cut_over", "--yes", *more)
    assert (result.code, result.out) == (1, "")
    assert contents(database) == before
    assert result.err.endswith("Nothing was changed.\n")
    return WHEN.sub("NOW", result.err).removesuffix("Nothing was changed.\n")


def test_cut_over_names_the_sessions_that_are_connected(
    migrated: Database, manage: Manage
) -> None:
    """As far as a plain owner is told: process, role and application; a superuser is none."""
    plain = migrated.old().info.backend_pid
    named = migrated.old(application_name="node").info.backend_pid
    assert migrated.superuser.execute("SELECT 1").fetchall() == [(1,)]
    assert cutting_over_is_refused(migrated, manage) == (
        f"Another session is connected: process {plain}: role {OLD_ROLE}, unnamed. Stop what"
        " it belongs to.\n"
        f"Another session is connected: process {named}: role {OLD_ROLE}, node. Stop what it"
        f" belongs to.\n{SESSIONS_HINT}"
    )
    result = manage("cut_over", "--yes", "--ignore-activity")
    assert (result.code, result.err) == (0, "")
    assert WITHIN.sub("NOW", result.out) == CUT_OVER


def test_cut_over_waits_until_nothing_has_been_written_for_some_minutes(
    migrated: Database, manage: Manage
) -> None:
    with psycopg.connect(
        migrated.cluster.dsn(migrated.name, OLD_ROLE), autocommit=True
    ) as old:
        old.execute("UPDATE orders SET notes = 'x' WHERE order_number = 'AA-0000001'")
    assert cutting_over_is_refused(migrated, manage) == (
        f"public.orders was last written to at NOW UTC by the role {OLD_ROLE} (unnamed)."
        " Stop the old application, then wait 5 minutes.\n"
    )
    migrated.execute("UPDATE rebuilt.used SET at = at - interval '5 minutes'")
    assert manage("cut_over", "--yes", "-v", "0") == Result(0, "", "")


def test_cut_over_wants_a_row_that_was_deferred_carried_over_first(
    migrated: Database, manage: Manage
) -> None:
    key = migrated.value("SELECT id FROM public.orders LIMIT 1")
    other = migrated.connect(application_name="terrain")
    other.execute("BEGIN")
    other.execute("SELECT 1 FROM terrain.orders WHERE id = %s FOR UPDATE", [key])
    migrated.execute("UPDATE public.orders SET notes = 'late' WHERE id = %s", key)
    said = cutting_over_is_refused(migrated, manage, "--ignore-activity")
    assert said.splitlines()[0] == ("Deferred rows: 1. Run: python manage.py settle")
    other.execute("COMMIT")
    done = manage("cut_over", "--yes", "--ignore-activity", "-v", "0")
    assert done == Result(0, "", "")
    assert migrated.value("SELECT notes FROM public.orders WHERE id = %s", key) == (
        "late"
    )


def test_cut_over_verifies_first(migrated: Database, manage: Manage) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE public.orders DISABLE TRIGGER USER")
        cursor.execute(
            "UPDATE public.orders SET notes = 'x' WHERE order_number = 'AA-0000001'"
        )
        cursor.execute("DROP TRIGGER zz_terrain_sync_insert ON terrain.users")
    assert cutting_over_is_refused(migrated, manage, "--ignore-activity") == (
        "Verification fails (in_step_orders, triggers)."
        " Run: python manage.py verify_migration\n"
    )
    assert manage("settle", "--again", "-v", "0").code == 0
    assert manage("cut_over", "--yes", "-v", "0") == Result(0, "", "")


@pytest.mark.parametrize(
    ("typed", "said"), [("no\n", "'no' was typed"), ("\n", "nothing was typed")]
)
def test_cut_over_asks_whether_the_old_application_has_been_stopped(
    migrated: Database, manage: Manage, typed: str, said: str
) -> None:
    before = contents(migrated)
    assert manage("cut_over", stdin=typed) == Result(
        1,
        STOPPED_FOR_GOOD,
        f"Nothing was changed: {said}, and yes was expected.\n",
    )
    assert contents(migrated) == before


def test_who_says_yes_cuts_over_and_back(migrated: Database, manage: Manage) -> None:
    done = manage("cut_over", stdin="yes\n")
    assert (done.code, done.err) == (0, "")
    assert WITHIN.sub("NOW", done.out) == STOPPED_FOR_GOOD + CUT_OVER
    assert migrated.value("SELECT count(*) FROM legacy.artists") == 4
    done_step = step(manage, "cut over")
    assert (done_step["command"], done_step["state"], done_step["detail"]) == (
        "cut_over",
        "done",
        "the new tables are in public",
    )
    back = (
        "The new tables go back to the schema terrain, and requests of the new application"
        " that are under way may fail. Type yes to go on: "
    )
    before = contents(migrated)
    assert manage("cut_over", "--undo", stdin="no\n") == Result(
        1, back, "Nothing was changed: 'no' was typed, and yes was expected.\n"
    )
    assert contents(migrated) == before
    undone = manage("cut_over", "--undo", stdin="yes\n")
    assert (undone.code, undone.err) == (0, "")
    assert WITHIN.sub("NOW", undone.out) == back + UNDONE
    assert migrated.value("SELECT count(*) FROM public.artists") == 4
    assert step(manage, "cut over")["state"] == "pending"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            (),
            "These roles have rights on the legacy tables of these names, and none on the new"
            " ones. Grant them where a report is to go on (or add --mirror-grants):\n",
        ),
        (("--mirror-grants",), "Granted on the new tables:\n"),
    ],
)
def test_cut_over_lists_the_grants_of_readers_and_makes_them_if_asked_to(
    migrated: Database,
    manage: Manage,
    administrator: psycopg.Connection[Any],
    options: tuple[str, ...],
    said: str,
) -> None:
    """Not those of the old application, which may write."""
    administrator.execute(
        "DO $$ BEGIN CREATE ROLE reader LOGIN;"
        " EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
    )
    migrated.execute("GRANT SELECT ON public.assets, public.orders TO reader")
    migrated.execute("GRANT SELECT ON public.artists TO reader")
    done = manage("cut_over", "--yes", *options)
    assert (done.code, done.err) == (0, "")
    first, *rest = CUT_OVER.splitlines(keepends=True)
    assert WITHIN.sub("NOW", done.out) == "".join(
        [
            first,
            said,
            '    GRANT SELECT ON public.assets TO "reader";\n',
            '    GRANT SELECT ON public.orders TO "reader";\n',
            *rest,
        ]
    )
    rights = (
        "SELECT grantee, table_name, privilege_type"
        "  FROM information_schema.role_table_grants"
        f" WHERE table_schema = 'public' AND grantee <> '{OWNER}' ORDER BY 1, 2, 3"
    )
    granted = [("reader", table, "SELECT") for table in ("assets", "orders")]
    assert migrated.rows(rights) == (granted if options else [])


def test_cut_over_says_which_table_stays_in_terrain(
    migrated: Database, manage: Manage
) -> None:
    migrated.execute("CREATE TABLE public.users (id integer)")
    migrated.execute("CREATE TYPE public.payments AS ENUM ('paid')")
    done = manage("cut_over", "--yes")
    assert (done.code, done.err) == (0, "")
    assert WITHIN.sub("NOW", done.out).splitlines()[:3] == [
        "! payments stays in the schema terrain for good: public has the type payments.",
        "! users stays in the schema terrain for good: public has the table users.",
        f"✓ {OURS - 2} tables of the new schema are in public, 6 legacy tables in legacy;"
        " all were locked for NOW.",
    ]


def test_cut_over_warns_of_clients_that_have_the_rights_of_the_owner(
    migrated: Database, manage: Manage
) -> None:
    """The old application would not be refused the new tables when it comes back."""
    for application in ("", "node"):
        client = migrated.connect(application_name=application)
        client.execute("UPDATE public.artists SET bio = 'x'")
        client.close()
    migrated.execute("UPDATE rebuilt.used SET at = at - interval '5 minutes'")
    done = manage("cut_over", "--yes")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[:2] == [
        f"! {who} has written as the role {OWNER}, which owns the tables. If it comes back"
        " after the cut-over, its statements on orders and assets run on the new tables"
        " without an error. Change that role's password, or stop the program for good."
        for who in ("An unnamed program", "node")
    ]


def test_cut_over_beside_an_open_transaction(
    migrated: Database, manage: Manage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says who is in the way, and can be run again."""
    monkeypatch.setattr(cut_over, "LIMIT", 0.0)
    other = migrated.connect(application_name="terrain")
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM public.assets")
    before = contents(migrated)
    result = manage("cut_over", "--yes", "-v", "0")
    assert (result.code, result.out) == (1, "")
    sentence = result.err.strip().splitlines()[-1]
    assert sentence.startswith(
        "Cutting over could not get its lock within 0 s. In the way: process"
        f" {other.info.backend_pid} (role {OWNER}, terrain), in its transaction for "
    )
    assert sentence.endswith(
        " Nothing was changed by this step; run the same command again to go on."
    )
    assert contents(migrated) == before
    other.execute("COMMIT")
    monkeypatch.undo()
    assert manage("cut_over", "--yes", "-v", "0") == Result(0, "", "")


def test_undoing_a_cut_over_needs_the_place_of_a_legacy_table(
    swapped: Database, manage: Manage
) -> None:
    swapped.execute("CREATE TABLE public.artists (id integer)")
    sentence = (
        "public.artists is not of this project and is where the legacy table artists has to"
        " go back to. Rename it, then undo again. Nothing was changed.\n"
    )
    for command in (("cut_over", "--undo", "--yes"), ("rollback_migration", "--yes")):
        before = contents(swapped)
        assert manage(*command) == Result(1, "", sentence), command
        assert contents(swapped) == before
    swapped.execute("ALTER TABLE public.artists RENAME TO painters")
    assert manage("cut_over", "--undo", "--yes", "-v", "0") == Result(0, "", "")


def test_migrate_says_what_comes_next(shop: Database, manage: Manage) -> None:
    result = manage("migrate")
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith(f"\n{BESIDE}")
    assert manage("migrate", "--no-cut-over").out.endswith("No migrations to apply.\n")
    assert shop.value("SELECT count(*) FROM public.artists") == 4


def test_migrate_cuts_over_if_asked_to(shop: Database, manage: Manage) -> None:
    """All is migrated although the cut-over is refused, and the second run does it."""
    old = shop.old()
    first = manage("migrate", "--cut-over")
    assert first.code == 1
    assert first.err == (
        f"Another session is connected: process {old.info.backend_pid}: role {OLD_ROLE},"
        f" unnamed. Stop what it belongs to.\n{SESSIONS_HINT}Nothing was changed.\n"
    )
    assert step(manage, "migrate")["state"] == "done"
    assert step(manage, "cut over")["state"] == "pending"
    old.close()
    second = manage("migrate", "--cut-over")
    assert (second.code, second.err) == (0, "")
    assert WITHIN.sub("NOW", second.out).endswith(CUT_OVER)
    assert step(manage, "cut over")["state"] == "done"


def test_migrate_cuts_over_by_itself_where_no_old_application_can_be(
    shop: Database, manage: Manage, settings: Any
) -> None:
    settings.CUT_OVER_BY_ITSELF = True
    result = manage("migrate", "--no-cut-over")
    assert (result.code, result.err) == (0, "")
    assert shop.value("SELECT count(*) FROM public.artists") == 4
    result = manage("migrate")
    assert (result.code, result.err) == (0, "")
    assert WITHIN.sub("NOW", result.out).endswith(CUT_OVER)
    assert shop.value("SELECT count(*) FROM legacy.artists") == 4


BESIDE = (
    "Next: python manage.py settle --watch, beside the old application until the cut-over;"
    " and python manage.py copy_models_to_assets\n"
)
UPGRADE = ("upgrade", "--no-backup")


@pytest.mark.parametrize(
    ("command", "following"), [(("migrate",), BESIDE), (UPGRADE, CUT_OVER_NEXT)]
)
def test_on_a_terminal_the_cut_over_is_offered(
    shop: Database, manage: Manage, command: tuple[str, ...], following: str
) -> None:
    """Not while a session of the old application is there; and a no is no failure."""
    with shop.old():
        alone = manage(*command, stdin="yes\n", terminal=True)
        assert (alone.code, alone.err) == (0, "")
        assert STOPPED_FOR_GOOD not in alone.out
        assert alone.out.endswith(following)
    refused = manage(*command, stdin="no\n", terminal=True)
    assert (refused.code, refused.err) == (0, "")
    assert refused.out.endswith(
        f"{STOPPED_FOR_GOOD}Nothing was changed: 'no' was typed, and yes was expected.\n"
        + following
    )
    assert shop.value("SELECT count(*) FROM public.artists") == 4
    done = manage(*command, stdin="yes\n", terminal=True)
    assert (done.code, done.err) == (0, "")
    assert WITHIN.sub("NOW", done.out).endswith(STOPPED_FOR_GOOD + CUT_OVER)
    assert shop.value("SELECT count(*) FROM legacy.artists") == 4
    again = manage(*command, stdin="yes\n", terminal=True)
    assert (again.code, again.err) == (0, "")
    assert STOPPED_FOR_GOOD not in again.out


# --- prepare -------------------------------------------------------------------------------

EXTENDED = (
    "Sessions that begin from now on have it; recycle the old application's pools. From the"
    " cut-over on, this changes for the old application:\n"
    "    current_schema() is legacy: what it creates without a schema is made in legacy, or"
    " refused.\n"
    "    CREATE TABLE IF NOT EXISTS finds no table of public and makes an empty one that"
    " hides it.\n"
    "    Its migration tool (knex, Sequelize, Prisma, node-pg-migrate) asks for its own table"
    " in current_schema(), finds none there, and runs every migration again.\n"
    "    A client that sets its own search_path, or names public.<table>, finds the new"
    " tables.\n"
    "Undo: python manage.py prepare_database --undo\n"
)


def paths(database: Database) -> list[tuple[Any, ...]]:
    """The search paths that are set for the database, and for roles in it."""
    return database.rows(
        "SELECT coalesce(r.rolname, ''), c FROM pg_db_role_setting s"
        " CROSS JOIN unnest(s.setconfig) c LEFT JOIN pg_roles r ON r.oid = s.setrole"
        " WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())"
        "   AND c LIKE 'search_path=%' ORDER BY 1"
    )


def test_prepare_extends_the_default_path_and_takes_it_back(
    migrated: Database, manage: Manage
) -> None:
    """The old application, ``$user`` and all, finds its tables after the cut-over."""
    with migrated.superuser as administrator:
        administrator.execute(f"CREATE SCHEMA {OLD_ROLE} AUTHORIZATION {OLD_ROLE}")
    migrated.old().execute("CREATE TABLE notes AS SELECT 'mine' AS text")
    result = manage("prepare_database")
    assert result == Result(
        0,
        f'database {migrated.name}: search_path = legacy, "$user", public\n{EXTENDED}',
        "",
    )
    assert paths(migrated) == [("", 'search_path=legacy, "$user", public')]
    again = manage("prepare_database")
    assert again == Result(0, f"The search path was extended already.\n{EXTENDED}", "")
    migrated.close()
    done = manage("cut_over", "--yes", "--ignore-activity", "-v", "0")
    assert done == Result(0, "", "")
    old = migrated.old()
    assert old.execute("SELECT count(*) FROM orders").fetchall() == [(500,)]
    assert old.execute("SELECT text, current_schema() FROM notes").fetchall() == [
        ("mine", "legacy")
    ]
    old.close()
    assert manage("cut_over", "--undo", "--yes", "-v", "0") == Result(0, "", "")
    old = migrated.old()
    assert old.execute("SELECT count(*) FROM orders").fetchall() == [(500,)]
    assert manage("prepare_database", "--undo") == Result(
        0, f"The search path is as it was for: database {migrated.name}.\n", ""
    )
    assert paths(migrated) == []


def test_prepare_extends_the_paths_of_the_database_and_of_roles(
    shop: Database, manage: Manage, administrator: psycopg.Connection[Any]
) -> None:
    """What this role may not change, it says as a statement for a superuser."""
    administrator.execute(
        f"ALTER DATABASE {shop.name} SET search_path = extensions, public"
    )
    administrator.execute(
        f'ALTER ROLE {OLD_ROLE} IN DATABASE {shop.name} SET search_path = "My Shop", public'
    )
    administrator.execute(
        f"ALTER ROLE {OWNER} IN DATABASE {shop.name} SET search_path = reports, public"
    )
    before = paths(shop)
    connection.close()
    result = manage("prepare_database")
    for_superuser = (
        f"ALTER ROLE {OLD_ROLE} IN DATABASE {shop.name}"
        ' SET search_path = legacy, "My Shop", public;'
    )
    assert result == Result(
        0,
        f"database {shop.name}: search_path = legacy, extensions, public\n"
        f"role {OWNER}: search_path = legacy, reports, public\n"
        f"The role {OLD_ROLE} has a path that this role may not change. As a superuser:"
        f" {for_superuser}\n{EXTENDED}",
        "",
    )
    administrator.execute(for_superuser)
    assert manage("prepare_database").out == (
        f"The search path was extended already.\n{EXTENDED}"
    )
    assert paths(shop) == [
        ("", "search_path=legacy, extensions, public"),
        (OWNER, "search_path=legacy, reports, public"),
        (OLD_ROLE, 'search_path=legacy, "My Shop", public'),
    ]
    assert manage("prepare_database", "--undo").out == (
        f"The search path is as it was for: database {shop.name}, role {OWNER}.\n"
        f"The role {OLD_ROLE} has a path that this role may not change. As a superuser:"
        f' ALTER ROLE {OLD_ROLE} IN DATABASE {shop.name} SET search_path = "My Shop",'
        " public;\n"
    )
    administrator.execute(
        f'ALTER ROLE {OLD_ROLE} IN DATABASE {shop.name} SET search_path = "My Shop", public'
    )
    assert paths(shop) == before
    assert manage("prepare_database", "--undo").out == "There was nothing to undo.\n"


def test_prepare_is_not_undone_beneath_an_application_that_needs_it(
    migrated: Database, manage: Manage
) -> None:
    assert manage("prepare_database", "-v", "0") == Result(0, "", "")
    assert manage("cut_over", "--yes", "-v", "0") == Result(0, "", "")
    old = migrated.old(application_name="node")
    before = paths(migrated)
    assert manage("prepare_database", "--undo") == Result(
        1,
        "",
        "The legacy tables are in the schema legacy, and this search path lets connected"
        f" sessions find them: process {old.info.backend_pid}: role {OLD_ROLE}, node. Nothing"
        " was changed. Stop the old application first, or undo the cut-over:"
        " python manage.py cut_over --undo\n",
    )
    assert paths(migrated) == before
    old.close()
    assert manage("prepare_database", "--undo") == Result(
        0, f"The search path is as it was for: database {migrated.name}.\n", ""
    )
    assert paths(migrated) == []


def test_cleanup_takes_legacy_out_of_the_paths(
    swapped: Database, manage: Manage, settings: Any, tmp_path: Path
) -> None:
    settings.BACKUP_DIR = tmp_path
    assert manage("prepare_database", "-v", "0") == Result(0, "", "")
    assert manage("backup_database", "-v", "0") == Result(0, "", "")
    assert manage("cleanup_legacy", "--yes", "-v", "0") == Result(0, "", "")
    assert paths(swapped) == []


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
    assert not re.search("@[a-z]", made)


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
        (("cut_over", "--back"), "unrecognized arguments: --back"),
        (("cut_over", "orders"), "unrecognized arguments: orders"),
        (
            ("cut_over", "--undo", "--mirror-grants"),
            "--mirror-grants is for the cut-over, not for --undo.",
        ),
        (
            ("cut_over", "--undo", "--ignore-activity"),
            "--ignore-activity is for the cut-over, not for --undo.",
        ),
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
    # As a migrate leaves it that is killed when it has just begun.
    assert manage("migrate", "legacy", "0002_make_schemas", "-v0").code == 0
    assert step(manage, "migrate")["state"] == "paused"
    assert step(manage, "copy orders")["state"] == "pending"
    assert manage("migrate", "-v0").code == 0
    assert step(manage, "copy orders")["state"] == "done"
