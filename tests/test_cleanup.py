"""cleanup_legacy: is the old application gone, what goes, and all of it or nothing."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection

from terrain.embedded import OWNER
from terrain.legacy import catalog, cleanup, settling, usage
from tests import dumps
from tests.conftest import Database, Result
from tests.test_migrate import killed_at, sampled, wait_until_gone

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]

#: What is said of the time, which is now.
WHEN = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d")
GONE = (
    "So the old application may still be there. Stop it and wait until it has not been seen"
    " for 24 hours; or, if these are not its doing, add --despite-use.\n"
    "Nothing has been dropped.\n"
)


@pytest.fixture
def ready(
    migrated: Database, manage: Manage, settings: Any, tmp_path: Path
) -> Database:
    """A shop that is cut over, with a proven backup: nothing speaks against cleanup."""
    settings.BACKUP_DIR = tmp_path
    assert manage("cut_over", "--yes", "-v", "0") == Result(0, "", "")
    assert manage("backup_database", "-v", "0") == Result(0, "", "")
    return migrated


def refused(manage: Manage, *more: str) -> str:
    """What cleanup says, the times left out."""
    result = manage("cleanup_legacy", "--yes", *more)
    assert (result.code, result.out) == (1, "")
    return WHEN.sub("NOW", result.err)


# --- in use --------------------------------------------------------------------------------


def test_who_is_connected_may_be_the_old_application(
    ready: Database, manage: Manage
) -> None:
    old = ready.old()
    pid = old.info.backend_pid
    assert refused(manage) == (
        f"process {pid}: role shop_app, unnamed is connected and may use the legacy tables.\n"
        + GONE
    )
    old.execute("BEGIN; SELECT count(*) FROM legacy.orders")
    assert refused(manage) == (
        f"process {pid}: role shop_app, unnamed is using legacy.orders now.\n" + GONE
    )
    assert ready.value("SELECT count(*) FROM legacy.orders") == 500


def test_a_role_without_rights_on_the_tables_may_stay(
    ready: Database, manage: Manage, administrator: psycopg.Connection[Any]
) -> None:
    administrator.execute(
        "DO $$ BEGIN CREATE ROLE passer_by LOGIN;"
        " EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
    )
    ready.connect("passer_by")
    ready.superuser.execute("SELECT 1")
    assert manage("cleanup_legacy", "--yes").code == 0
    assert dumps.schemas(ready) == {"public"}


def test_a_superuser_counts_while_at_the_tables(
    ready: Database, manage: Manage
) -> None:
    superuser = ready.superuser
    superuser.execute("BEGIN; SELECT count(*) FROM legacy.artists")
    assert "role postgres, unnamed is using legacy.artists now." in refused(manage)


def test_writes_are_known_with_role_and_application(
    ready: Database, manage: Manage
) -> None:
    with psycopg.connect(
        ready.cluster.dsn(ready.name, "shop_app"),
        autocommit=True,
        options="-c search_path=legacy,public",
        application_name="node",
    ) as old:
        for _ in range(3):
            old.execute("UPDATE orders SET notes = coalesce(notes, '') || 'x'")
            old.execute("UPDATE artists SET bio = 'x'")
    # Once for each table, minute and session, however many rows.
    assert ready.value("SELECT count(*) FROM rebuilt.used") <= 4
    assert [line for line in refused(manage).splitlines() if "written" in line] == [
        "legacy.artists was last written to at NOW UTC by the role shop_app (node).",
        "legacy.orders was last written to at NOW UTC by the role shop_app (node).",
    ]
    assert manage("cleanup_legacy", "--yes", "--despite-use").code == 0


def test_what_was_long_ago_is_no_use(ready: Database, manage: Manage) -> None:
    with psycopg.connect(
        ready.cluster.dsn(ready.name, "shop_app"), autocommit=True
    ) as old:
        old.execute("UPDATE legacy.artists SET bio = 'x'")
    ready.execute("UPDATE rebuilt.used SET at = at - interval '25 hours'")
    assert manage("cleanup_legacy", "--yes").code == 0


def test_reads_are_told_from_the_counters(ready: Database, manage: Manage) -> None:
    """By whom PostgreSQL does not say, so it is for a person to judge."""
    with psycopg.connect(
        ready.cluster.dsn(ready.name, "shop_app"), autocommit=True
    ) as old:
        old.execute("SET enable_seqscan = off")
        old.execute("SELECT id FROM legacy.orders WHERE user_email = 'a@example.com'")
        old.execute("SET enable_seqscan = on")
        old.execute("SELECT count(*) FROM legacy.orders")
    for _ in range(2):  # it is not forgotten because somebody asks again
        result = manage("cleanup_legacy", "--dry-run")
        assert result.code == 0
        assert WHEN.sub("NOW", result.out).splitlines()[-4:] == [
            "! legacy.orders was read by somebody else between NOW and NOW UTC (1 scan of"
            " orders_user_email_idx, 1 sequential scan).",
            "  If that was the old application and not you, stop it before you go on.",
            "✓ Nothing speaks against it.",
            "Nothing has been dropped.",
        ]
    assert manage("cleanup_legacy", "--yes").code == 0


def test_what_the_owner_does_may_be_the_operator(
    ready: Database, manage: Manage
) -> None:
    """A shop may connect as the owner of its tables; a look with psql is the operator's."""
    ready.execute("UPDATE legacy.artists SET bio = 'x'")
    result = manage("cleanup_legacy", "--dry-run", "--json")
    assert result.code == 0
    document = json.loads(result.out)
    assert document["objections"] == []
    assert [WHEN.sub("NOW", hint) for hint in document["hints"]][-1] == (
        f"legacy.artists was last written to at NOW UTC by the role {OWNER} (unnamed)."
    )
    assert manage("cleanup_legacy", "--yes").code == 0


def test_what_this_project_does_is_no_use(ready: Database, manage: Manage) -> None:
    """Its commands read every legacy table, and what it writes is carried over."""
    from catalogue.models import Model
    from orders.models import Order

    for command in ("preflight", "settle", "verify_migration", "copy_models_to_assets"):
        assert manage(command, "-v", "0").code == 0
    order = Order.objects.order_by("id")[0]
    order.notes = "changed on the new side"
    order.save()
    model = Model.objects.order_by("id")[0]
    model.name = "changed too"
    model.save()
    assert list(usage.lately(connection)) == []
    assert manage("cleanup_legacy", "--dry-run").code == 0


def test_what_a_killed_command_has_read_is_not_blamed_on_others(
    ready: Database,
) -> None:
    with pytest.raises(KeyboardInterrupt), usage.ours(connection):
        connection.close()  # as if it were gone: what it has noted is that it reads
        raise KeyboardInterrupt
    catalog.value(connection, "SELECT count(*) FROM legacy.orders")
    with usage.ours(connection):
        pass
    assert list(usage.lately(connection)) == []


def test_a_client_that_writes_all_day_leaves_one_line(ready: Database) -> None:
    for hour in range(5):
        ready.execute(
            "INSERT INTO rebuilt.used (legacy_table, role, application, at) VALUES"
            f" ('orders', 'shop_app', 'node', now() - interval '{hour} hours')"
        )
    ready.execute("UPDATE legacy.orders SET user_email = 'new@x.org'")
    settling.settle_queue(connection)
    assert ready.rows(
        "SELECT application, count(*) FROM rebuilt.used GROUP BY 1 ORDER BY 1"
    ) == [("", 1), ("node", 1)]


# --- what goes -----------------------------------------------------------------------------


def test_dry_run_says_what_goes_and_changes_nothing(
    ready: Database, manage: Manage
) -> None:
    before = dumps.schema(ready)
    result = manage("cleanup_legacy", "--dry-run")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == "To be dropped:"
    assert [line.split()[:2] for line in lines[2:8]] == [
        ["legacy.artists", "4"],
        ["legacy.assets", "50"],
        ["legacy.user_tables", "200"],
        ["legacy.example_tables", "5"],
        ["legacy.orders", "500"],
        ["legacy.stripe_transfers", "350"],
    ]
    assert re.fullmatch(r"1,109 rows, \d\.\d MB in all\.", lines[11])
    assert lines[-2:] == ["✓ Nothing speaks against it.", "Nothing has been dropped."]
    assert dumps.schema(ready) == before


def test_a_table_of_ours_that_stays_in_terrain_stays(
    migrated: Database, manage: Manage, settings: Any, tmp_path: Path
) -> None:
    """Its name is taken in public; all else goes, and the ORM finds it all the same."""
    from terrain.models import User

    settings.BACKUP_DIR = tmp_path
    migrated.execute("CREATE TABLE public.users (id integer)")
    for command in (("cut_over", "--yes"), ("backup_database",)):
        assert manage(*command, "-v", "0") == Result(0, "", "")
    assert dumps.schemas(migrated) == {"legacy", "public", "rebuilt", "terrain"}
    people = User.objects.count()
    assert people == migrated.value("SELECT count(*) FROM terrain.users") > 0
    cleaned = manage("cleanup_legacy", "--yes")
    assert (cleaned.code, cleaned.err) == (0, "")
    assert cleaned.out.endswith(
        "and the schemas legacy and rebuilt.\nThe move is complete.\n"
    )
    assert dumps.schemas(migrated) == {"public", "terrain"}
    assert migrated.rows(
        "SELECT relname FROM pg_class WHERE relnamespace = 'terrain'::regnamespace"
        " AND relkind = 'r'"
    ) == [("users",)]
    assert migrated.value("SELECT count(*) FROM public.users") == 0
    assert User.objects.count() == people
    assert manage("migrate", "-v", "0") == Result(0, "", "")


def test_dry_run_as_data(ready: Database, manage: Manage) -> None:
    ready.execute("CREATE VIEW public.sales AS SELECT id FROM legacy.orders")
    result = manage("cleanup_legacy", "--dry-run", "--json", "--despite-use")
    assert result.code == 1
    document = json.loads(result.out)
    assert document["database"] == ready.name
    assert {each["name"]: each["rows"] for each in document["drops"]}[
        "legacy.orders"
    ] == 500
    assert document["objections"] == [
        "The view sales depends on legacy.orders. Let it use the new tables, or drop it."
    ]
    assert manage("cleanup_legacy", "--json").err == (
        "There is nothing to read as JSON but the outlook: add --dry-run.\n"
    )


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (
            "CREATE TABLE public.more_orders () INHERITS (legacy.orders)",
            "The object table more_orders depends on legacy.orders.",
        ),
        (
            "CREATE TABLE public.kept (was legacy.artists)",
            "The object column was of table kept depends on legacy.artists.",
        ),
    ],
)
def test_whatever_hangs_on_the_tables_is_named(
    ready: Database, manage: Manage, made: str, sentence: str
) -> None:
    ready.execute(made)
    assert sentence in refused(manage, "--despite-use")


def test_flagged_rows_want_a_decision_too(ready: Database, manage: Manage) -> None:
    ready.execute("UPDATE legacy.stripe_transfers SET amount = -1")
    assert refused(manage, "--despite-use") == (
        "Flagged in quarantine, and nobody has decided: 350 rows. Correct or accept each in"
        " the admin.\nNothing has been dropped.\n"
    )
    ready.execute("UPDATE public.legacy_quarantine SET decided_at = now()")
    assert manage("cleanup_legacy", "--yes", "--despite-use").code == 0


# --- the last moment -----------------------------------------------------------------------


def test_what_is_written_in_the_last_moment_is_settled_first(
    ready: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = settling.settle
    late = iter((True, False, False))

    def settle_and_write(given: Any) -> Any:
        done = settle(given)
        if next(late):
            ready.execute(
                "INSERT INTO legacy.orders (order_number, user_email, user_name,"
                " shipping_address, pricing) VALUES ('LATE', 'l@x.org', 'L', '{}', '{}')"
            )
        return done

    monkeypatch.setattr(settling, "settle", settle_and_write)
    with pytest.raises(cleanup.Objection, match="Flagged in quarantine"):
        cleanup.clean_up(connection)
    ready.execute("UPDATE public.legacy_quarantine SET decided_at = now()")
    cleanup.clean_up(connection)
    assert ready.rows(
        "SELECT u.email FROM public.orders o JOIN public.users u ON u.id = o.user_id"
        " WHERE order_number = 'LATE'"
    ) == [("l@x.org",)]


def test_what_somebody_hangs_on_in_the_last_moment(
    ready: Database, manage: Manage, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_rebuilt = cleanup.engine.drop_rebuilt

    def drop_and_hang(given: Any) -> None:
        drop_rebuilt(given)
        with given.cursor() as cursor:
            cursor.execute("CREATE VIEW public.sales AS SELECT id FROM legacy.orders")

    before = dumps.schema(ready)
    monkeypatch.setattr(cleanup.engine, "drop_rebuilt", drop_and_hang)
    result = manage("cleanup_legacy", "--yes", "-v", "0")
    assert result == Result(
        1,
        "",
        "Something depends on the legacy tables: view sales depends on table legacy.orders."
        " Let it use the new tables, or drop it. Nothing has been dropped.\n",
    )
    assert dumps.schema(ready) == before


def test_a_table_in_use_is_waited_for_briefly(
    ready: Database, monkeypatch: pytest.MonkeyPatch, manage: Manage
) -> None:
    """And meanwhile nobody waits for us: the attempt gives up and is made again."""
    busy = ready.connect(application_name="terrain")
    busy.execute("BEGIN; SELECT count(*) FROM public.models")
    said: list[str] = []

    def say(sentence: str) -> None:
        said.append(sentence)
        busy.execute("COMMIT")

    dropped = cleanup.clean_up(connection, say)
    assert len(dropped) == 6
    assert said[0].startswith("Dropping the legacy tables has waited for ")
    assert f"now for process {busy.info.backend_pid} (role {OWNER}, terrain)" in said[0]


def test_killed_at_any_commit_it_is_as_it_was_or_done(
    ready: Database, clone: Callable[[str], Database], tmp_path: Path
) -> None:
    """KILLS=100 looks at every commit.  The second run finishes."""
    command = ("cleanup_legacy", "--yes", "--despite-use", "-v0")
    pattern = clone(ready.name)
    backups = {"BACKUP_DIR": str(tmp_path)}
    # A backup is of a database by its name: the clone needs one of its own.
    code, printed = killed_at(pattern, 0, "backup_database", "-v0", **backups)
    assert code == 0, printed
    before = dumps.schema(pattern)
    code, printed = killed_at(pattern, 0, *command, **backups)
    assert code == 0, printed
    after, contents = dumps.schema(pattern), dumps.contents(pattern)
    commits = int(printed.split()[-1])
    assert commits > 10
    for last in [*sampled(commits, 2), commits - 1]:
        database = clone(ready.name)
        assert killed_at(database, 0, "backup_database", "-v0", **backups)[0] == 0
        code, printed = killed_at(database, last, *command, **backups)
        assert code == -signal.SIGKILL, f"commit {last}: {printed}"
        wait_until_gone(database)
        assert dumps.schema(database) in (before, after), f"commit {last}"
        code, printed = killed_at(database, 0, *command, **backups)
        assert code == 0, f"commit {last}: {printed}"
        assert dumps.schema(database) == after, f"commit {last}"
        assert dumps.contents(database) == contents, f"commit {last}"
