"""Whatever is missing, nothing of Django's reaches a legacy table or another Django's.

``public`` has tables of our names all the while: the shop's ``orders`` and ``assets``, and those of
another Django application (``django_migrations``, ``auth_group``, ``django_session``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError, connection, models
from django.db.migrations.recorder import MigrationRecorder

from terrain.embedded import OWNER, Cluster
from terrain.exceptions import Stopped
from terrain.legacy import cut_over
from terrain.postgresql import schemas
from tests import dumps
from tests.conftest import OLD_ROLE, Database, Result, pointed_at

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]

ANOTHER_DJANGO = """
CREATE TABLE public.django_migrations (id bigint PRIMARY KEY, app varchar(255), name varchar(255),
                                       applied timestamptz);
INSERT INTO public.django_migrations VALUES (1, 'blog', '0001_initial', now()),
    (2, 'orders', '0001_initial', now()), (3, 'contenttypes', '0001_initial', now());
CREATE TABLE public.auth_group (id int PRIMARY KEY, name varchar(150));
INSERT INTO public.auth_group VALUES (1, 'editors');
CREATE TABLE public.django_session (session_key varchar(40) PRIMARY KEY, session_data text,
                                    expire_date timestamptz);
INSERT INTO public.django_session VALUES ('theirs', 'x', now());
"""


def in_legacy(database: Database) -> None:
    """Nothing was done."""


def half_way(database: Database) -> None:
    call_command("migrate", "orders", "0001_initial", verbosity=0)


def in_step(database: Database) -> None:
    call_command("migrate", verbosity=0)


def parked(database: Database) -> None:
    in_step(database)
    call_command("rollback_migration", yes=True, verbosity=0)


def half_way_back(database: Database) -> None:
    """The triggers are off and the new tables parked; nothing is unapplied yet."""
    from terrain.legacy import retreat

    in_step(database)
    retreat._withdraw(connection, None)


STATES = [in_legacy, half_way, in_step, parked, half_way_back]


@pytest.fixture(scope="module", params=STATES, ids=lambda state: state.__name__)
def state_template(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    create_database: Callable[..., str],
    drop_database: Callable[[str], None],
    legacy_template: str,
    django_db_blocker: Any,
) -> Iterator[str]:
    """A database in one of the states, to be cloned."""
    name = create_database(legacy_template)
    database = Database(cluster, name)
    with django_db_blocker.unblock(), pointed_at(name):
        database.execute(ANOTHER_DJANGO)
        request.param(database)
    database.close()
    yield name
    drop_database(name)


@pytest.fixture
def state(state_template: str, clone: Callable[[str], Database]) -> Database:
    return clone(state_template)


def public_rows(database: Database) -> dict[str, list[str]]:
    """Every table of ``public`` with its rows."""
    tables = [
        name
        for (name,) in database.rows(
            "SELECT c.relname FROM pg_class c WHERE c.relkind = 'r'"
            " AND c.relnamespace = 'public'::regnamespace ORDER BY 1"
        )
    ]
    return {name: dumps.rows(database, f"public.{name}") for name in tables}


def our_models() -> list[type[models.Model]]:
    return [
        model
        for model in apps.get_models(include_auto_created=True)
        if model._meta.managed
    ]


def test_a_name_of_ours_is_ours_or_is_not_there(state: Database) -> None:
    connection.ensure_connection()
    assert connection.own_path == ("terrain",)
    with connection.cursor() as cursor:
        for model in our_models():
            cursor.execute(
                "SELECT s.nspname FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace"
                " WHERE c.oid = to_regclass(%s)",
                [f'"{model._meta.db_table}"'],
            )
            assert cursor.fetchall() in ([], [("terrain",)]), model
    assert not {"orders", "assets"} & (
        set(connection.introspection.table_names())
        - {name.partition(".")[2] for name in _terrain(state)}
    )


def _terrain(database: Database) -> list[str]:
    return [
        f"terrain.{name}"
        for (name,) in database.rows(
            "SELECT c.relname FROM pg_class c"
            " WHERE c.relnamespace = to_regnamespace('terrain')"
        )
    ]


def test_no_statement_of_the_orm_changes_public(
    state: Database, request: pytest.FixtureRequest
) -> None:
    before = public_rows(state)
    is_in_step = "in_step" in request.node.name
    for model in our_models():
        query = model._base_manager.all()
        for act in (
            lambda query=query: list(query[:2]),
            lambda query=query: query.exists(),
            lambda query=query: query.count(),
            # In step a write is carried over, and rightly.
            *([] if is_in_step else [lambda query=query: query.delete()]),
        ):
            try:
                act()
            except DatabaseError as error:
                assert "does not exist" in str(error) or "closed" in str(error), error
    assert public_rows(state) == before


@pytest.mark.parametrize(
    "command",
    [
        ("migrate", "catalogue", "zero"),
        ("migrate", "orders", "zero"),
        ("migrate", "orders", "0001_initial", "--fake"),
        ("migrate", "sessions", "zero"),
        ("migrate", "--plan"),
        ("flush", "--no-input"),
        ("sqlmigrate", "orders", "0001"),
        ("sqlmigrate", "catalogue", "0001", "--backwards"),
        ("sqlflush",),
        ("sqlsequencereset", "orders"),
        ("showmigrations",),
        ("clearsessions",),
        ("remove_stale_contenttypes", "--no-input"),
        ("createcachetable",),
        ("inspectdb", "orders"),
    ],
    ids=" ".join,
)
def test_no_command_of_djangos_changes_public(
    state: Database, manage: Manage, command: tuple[str, ...]
) -> None:
    before = public_rows(state)
    shape = dumps.schema(state, "--schema=public")
    try:
        manage(*command)
    except (CommandError, DatabaseError, Stopped):
        pass  # said aloud
    assert public_rows(state) == before
    after = dumps.schema(state, "--schema=public")
    # Going back takes the triggers of the sync off; nothing else may differ.
    assert [line for line in after if "zz_terrain_sync" not in line] == [
        line for line in shape if "zz_terrain_sync" not in line
    ]


def test_the_schema_editor_and_the_recorder_find_nothing_in_public(
    state: Database, request: pytest.FixtureRequest
) -> None:
    before = public_rows(state)
    shape = dumps.schema(state, "--schema=public")
    recorder = MigrationRecorder(connection)
    assert ("blog", "0001_initial") not in recorder.applied_migrations()
    if "in_legacy" in request.node.name:
        assert not recorder.has_table()
        with pytest.raises(DatabaseError, match="migrations"):
            recorder.record_applied("blog", "0002_more")
        orders = apps.get_model("orders", "Order")
        session = apps.get_model("sessions", "Session")
        for model in (orders, session):
            for act in ("create_model", "delete_model"):
                with pytest.raises(DatabaseError), connection.schema_editor() as editor:
                    getattr(editor, act)(model)
    assert public_rows(state) == before
    assert dumps.schema(state, "--schema=public") == shape


def test_a_prepared_statement_from_before_does_not_reach_a_legacy_table(
    shop: Database,
) -> None:
    in_step(shop)
    with connection.cursor() as cursor:
        cursor.execute("PREPARE theirs AS SELECT count(*) FROM orders")
        cursor.execute("EXECUTE theirs")
    with psycopg.connect(
        shop.cluster.dsn(shop.name, OWNER), autocommit=True
    ) as held_open:
        held_open.execute("SET search_path = terrain")
        held_open.execute("PREPARE theirs AS UPDATE assets SET name = 'ours'")
        call_command("rollback_migration", yes=True, verbosity=0)
        with pytest.raises(psycopg.errors.UndefinedTable):
            held_open.execute("EXECUTE theirs")
    with connection.cursor() as cursor, pytest.raises(DatabaseError, match="orders"):
        cursor.execute("EXECUTE theirs")


# --- where public is ours ------------------------------------------------------------------


def test_an_empty_database_has_everything_in_public(empty: Database) -> None:
    call_command("migrate", verbosity=0)
    assert connection.own_path == ("public",)
    assert dumps.schemas(empty) == {"public"}


def test_a_migrate_of_an_empty_database_killed_early_goes_on_in_public(
    empty: Database,
) -> None:
    call_command("migrate", "contenttypes", "0001_initial", verbosity=0)
    connection.close()
    connection.ensure_connection()
    assert connection.own_path == ("public",)
    call_command("migrate", verbosity=0)
    assert dumps.schemas(empty) == {"public"}


def test_another_djangos_database_without_a_shop_keeps_its_public(
    empty: Database,
) -> None:
    empty.execute(ANOTHER_DJANGO)
    before = public_rows(empty)
    connection.ensure_connection()
    assert connection.own_path == ("terrain",)
    call_command("migrate", verbosity=0)
    assert public_rows(empty) == before
    connection.close()
    connection.ensure_connection()
    assert connection.own_path == ("terrain",)
    call_command("migrate", "--check", verbosity=0)


def test_a_mark_that_a_stranger_has_made_is_not_believed(
    empty: Database, administrator: psycopg.Connection[Any]
) -> None:
    """Whoever may create a schema could divert every connection of ours."""
    call_command("migrate", verbosity=0)
    administrator.execute(f'GRANT CREATE ON DATABASE "{empty.name}" TO {OLD_ROLE}')
    with empty.connect(OLD_ROLE) as stranger:
        stranger.execute("CREATE SCHEMA terrain")
        stranger.execute(f"COMMENT ON SCHEMA terrain IS '{schemas.mark(('terrain',))}'")
    connection.close()
    connection.ensure_connection()
    assert connection.own_path == ("public",)


def test_after_the_cut_over_and_after_cleanup_names_are_ours(
    migrated: Database,
) -> None:
    cut_over.cut_over(connection)
    for path in (("public",),):
        assert connection.own_path == path
        for model in our_models():
            assert migrated.value(
                "SELECT to_regclass(%s) IS NOT NULL", f"public.{model._meta.db_table}"
            )
