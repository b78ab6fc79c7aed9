"""What the tests stand on: a real server, and databases cloned from templates.

``shop`` is a legacy database as it is found, ``migrated`` one after ``migrate``.  Both are
filled with the sample at scale 0.001 and belong to the test alone; Django's connection
points at it meanwhile.  ``db`` (of pytest-django) is an empty database with the new schema.
"""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from psycopg import sql
from psycopg.rows import dict_row, tuple_row

from terrain import cli, progress
from terrain.embedded import OWNER, Cluster
from terrain.legacy import cut_over, search_path
from terrain.legacy.place import AFTER, BEFORE, Place
from terrain.postgresql import schemas

SCALE = 0.001
#: A role with every right on the tables, and none of them its own.
OLD_ROLE = "shop_app"
#: Legacy names first, before the cut-over and after it.
BOTH_SIDES = "SET search_path = legacy, public, terrain"

# What a shell starts in the background is told to ignore Ctrl-C, and would hand that on to
# the commands that the tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Each migration makes classes by the hundred, and each hundred of them has the collector look
# through all that Django is: a fifth of the suite's time.
gc.freeze()
gc.set_threshold(50_000, 20, 50)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What is marked ``both_places`` runs before a cut-over and after it."""
    is_marked = metafunc.definition.get_closest_marker("both_places") is not None
    if is_marked and "is_cut_over" in metafunc.fixturenames:
        metafunc.parametrize("is_cut_over", [False, True], ids=["before", "cut over"])


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The server of this run, started for whoever needs it first."""
    server: Cluster = settings.CLUSTER
    server.lease()
    yield server


def place_of(connection: psycopg.Connection[Any]) -> Place:
    """Where the tables are, by the mark on the schema ``terrain``."""
    found = (
        connection.cursor(row_factory=tuple_row)
        .execute(
            "SELECT obj_description(to_regnamespace(%s), 'pg_namespace')",
            [schemas.SCHEMA],
        )
        .fetchone()
    )
    path = schemas.marked(found[0] if found else None)
    place = BEFORE if path == BEFORE.own else AFTER
    assert path in (None, place.own), path
    return place


def filled(connection: psycopg.Connection[Any], query: str) -> str:
    """``@legacy.<table>`` and ``@new.<table>`` by the names that they have just now."""
    is_placed = "@legacy." in query or "@new." in query
    return place_of(connection).fill(query) if is_placed else query


@dataclass
class Database:
    """A database of the test's own; ``old`` speaks as the old application does."""

    cluster: Cluster
    name: str
    opened: list[psycopg.Connection[Any]] = field(default_factory=list)

    def connect(
        self, user: str = OWNER, path: str | None = None, **options: Any
    ) -> psycopg.Connection[Any]:
        """A connection in autocommit mode, closed when the test ends."""
        setting = {"options": f"-c search_path={path}"} if path else {}
        connection = psycopg.connect(
            self.cluster.dsn(self.name, user), autocommit=True, **setting, **options
        )
        self.opened.append(connection)
        return connection

    @property
    def superuser(self) -> psycopg.Connection[Any]:
        return self.connect("postgres", "public")

    def old(self, **options: Any) -> psycopg.Connection[Any]:
        """The old application, through a role that owns nothing."""
        return self.connect(OLD_ROLE, **options)

    def new(self, **options: Any) -> psycopg.Connection[Any]:
        """The new application, which looks where its own tables are and nowhere else."""
        return self.connect(OWNER, ", ".join(self.place.own), **options)

    @property
    def place(self) -> Place:
        """Where the tables of both applications are just now."""
        with psycopg.connect(self.cluster.dsn(self.name, OWNER)) as asked:
            return place_of(asked)

    @property
    def url(self) -> str:
        """For a process of its own."""
        host = quote(str(self.cluster.socket_dir), safe="")
        return f"postgresql://{OWNER}@/{self.name}?host={host}"

    def close(self) -> None:
        for connection in self.opened:
            connection.close()
        self.opened.clear()

    def rows(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        """Ask as the owner, with both sides in sight, the legacy names first."""
        with psycopg.connect(
            self.cluster.dsn(self.name, OWNER), autocommit=True
        ) as asked:
            asked.execute(BOTH_SIDES)
            query = filled(asked, query)
            return asked.execute(query, params or None).fetchall()  # type: ignore[arg-type]

    def dicts(self, query: str, *params: Any) -> list[dict[str, Any]]:
        with psycopg.connect(
            self.cluster.dsn(self.name, OWNER),
            autocommit=True,
            row_factory=dict_row,
        ) as asked:
            asked.execute(BOTH_SIDES)
            query = filled(asked, query)
            return asked.execute(query, params or None).fetchall()  # type: ignore[arg-type]

    def value(self, query: str, *params: Any) -> Any:
        return self.rows(query, *params)[0][0]

    def execute(self, query: str, *params: Any) -> None:
        """Do something as the owner, with both sides in sight, the legacy names first."""
        with psycopg.connect(
            self.cluster.dsn(self.name, OWNER), autocommit=True
        ) as asked:
            asked.execute(BOTH_SIDES)
            asked.execute(filled(asked, query), params or None)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def administrator(cluster: Cluster) -> Iterator[psycopg.Connection[Any]]:
    """A superuser, for making roles and databases."""
    with psycopg.connect(
        cluster.dsn("postgres", "postgres"), autocommit=True
    ) as connection:
        connection.execute(
            "DO $$ BEGIN CREATE ROLE shop_app LOGIN;"
            " EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        )
        yield connection


_numbers = itertools.count()


@pytest.fixture(scope="session")
def create_database(
    administrator: psycopg.Connection[Any],
) -> Callable[..., str]:
    """Make a database, empty or a clone, and return its name."""

    def create(template: str = "template0", owner: str = OWNER) -> str:
        name = f"t{os.getpid()}_{next(_numbers)}"
        administrator.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(
                sql.Identifier(name), sql.Identifier(template), sql.Identifier(owner)
            )
        )
        return name

    return create


@pytest.fixture(scope="session")
def drop_database(administrator: psycopg.Connection[Any]) -> Callable[[str], None]:
    def drop(name: str) -> None:
        administrator.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(
                sql.Identifier(name)
            )
        )

    return drop


@contextlib.contextmanager
def pointed_at(name: str) -> Iterator[None]:
    """Django's default connection, in every thread, is to this database."""
    parameters = connections.databases["default"]
    before = parameters["NAME"]
    connections.close_all()
    parameters["NAME"] = name
    try:
        yield
    finally:
        connections.close_all()
        parameters["NAME"] = before


@contextlib.contextmanager
def connecting(**parameters: Any) -> Iterator[None]:
    """Django's connection is made with these settings meanwhile."""
    default = connections.databases["default"]
    before = dict(default)
    connections.close_all()
    default.update(parameters)
    try:
        yield
    finally:
        connections.close_all()
        default.clear()
        default.update(before)


@pytest.fixture(scope="session")
def legacy_template(
    cluster: Cluster,
    create_database: Callable[..., str],
    drop_database: Callable[[str], None],
    django_db_blocker: Any,
) -> Iterator[str]:
    """A legacy shop as it is found, its tables open to the role of the old application."""
    name = create_database()
    with django_db_blocker.unblock(), pointed_at(name):
        call_command("load_sample", scale=SCALE, verbosity=0)
    with psycopg.connect(cluster.dsn(name, OWNER), autocommit=True) as connection:
        connection.execute(
            "GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public"
            f" TO {OLD_ROLE}"
        )
    yield name
    drop_database(name)


@pytest.fixture(scope="session")
def migrated_template(
    create_database: Callable[..., str],
    drop_database: Callable[[str], None],
    legacy_template: str,
    django_db_blocker: Any,
) -> Iterator[str]:
    """The same shop after ``migrate``."""
    name = create_database(legacy_template)
    with django_db_blocker.unblock(), pointed_at(name):
        call_command("migrate", verbosity=0)
    yield name
    drop_database(name)


@pytest.fixture
def clone(
    cluster: Cluster,
    create_database: Callable[..., str],
    drop_database: Callable[[str], None],
    django_db_blocker: Any,
) -> Iterator[Callable[[str], Database]]:
    """Make a database from a template and point Django at it until the test ends."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(django_db_blocker.unblock())

        def make(template: str) -> Database:
            database = Database(cluster, create_database(template))
            stack.callback(drop_database, database.name)
            stack.callback(database.close)
            stack.enter_context(pointed_at(database.name))
            return database

        yield make


@pytest.fixture
def shop(clone: Callable[[str], Database], legacy_template: str) -> Database:
    """A legacy database, before anything was done to it."""
    return clone(legacy_template)


@pytest.fixture
def migrated(clone: Callable[[str], Database], migrated_template: str) -> Database:
    """A legacy database after ``migrate``."""
    return clone(migrated_template)


@pytest.fixture
def as_environment(migrated: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process starts is at work on the same database."""
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
    monkeypatch.setenv("DATABASE_URL", migrated.url)
    monkeypatch.setenv("SECRET_KEY", "for tests only")


@pytest.fixture(scope="module")
def _shared_name(
    create_database: Callable[..., str],
    drop_database: Callable[[str], None],
    migrated_template: str,
) -> Iterator[str]:
    name = create_database(migrated_template)
    yield name
    drop_database(name)


@pytest.fixture
def shared(
    cluster: Cluster, _shared_name: str, django_db_blocker: Any
) -> Iterator[Database]:
    """Like ``migrated``, for the tests of a module that do not mind what others left."""
    with django_db_blocker.unblock(), pointed_at(_shared_name):
        yield Database(cluster, _shared_name)


@pytest.fixture
def empty(clone: Callable[[str], Database]) -> Database:
    """A database with nothing in it."""
    return clone("template0")


@pytest.fixture(scope="session")
def stocked_template(
    cluster: Cluster,
    create_database: Callable[..., str],
    drop_database: Callable[[str], None],
    administrator: psycopg.Connection[Any],
    django_db_blocker: Any,
) -> Iterator[str]:
    """A migrated shop with a few rows of known names; see both.py."""
    from tests import both as two

    database = Database(cluster, create_database())
    with django_db_blocker.unblock():
        two.stock(database)
    yield database.name
    drop_database(database.name)


@pytest.fixture(scope="session")
def cut_over_template(
    create_database: Callable[..., str],
    drop_database: Callable[[str], None],
    stocked_template: str,
    django_db_blocker: Any,
) -> Iterator[str]:
    """The same shop after the names have changed places."""
    name = create_database(stocked_template)
    with django_db_blocker.unblock(), pointed_at(name):
        cut_over.cut_over(connections["default"])
    yield name
    drop_database(name)


@pytest.fixture
def is_cut_over() -> bool:
    """Whether a shop has been cut over; see ``both_places``."""
    return False


@pytest.fixture
def both(
    clone: Callable[[str], Database], is_cut_over: bool, request: Any
) -> Iterator[Any]:
    """Both applications at a shop of the test's own."""
    from tests import both as two

    template = "cut_over_template" if is_cut_over else "stocked_template"
    database = clone(request.getfixturevalue(template))
    if is_cut_over:
        # What the old application needs, if it is to live on.
        search_path.extend(connections["default"])
    yield from two.at(database)


@pytest.fixture
def role(administrator: psycopg.Connection[Any]) -> Iterator[str]:
    """A role that may log in and nothing else, gone after the test's database."""
    name = f"somebody_{time.monotonic_ns()}"
    administrator.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    yield name
    administrator.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@dataclass(frozen=True)
class Result:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


class Terminal(io.StringIO):
    """What somebody types, or reads."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def manage(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command line as manage.py does, in this process."""

    def run(*arguments: str, stdin: str = "", terminal: bool = False) -> Result:
        out, err = Terminal() if terminal else io.StringIO(), io.StringIO()
        if terminal:
            monkeypatch.setenv("NO_COLOR", "1")
        argv = ["manage.py", *map(str, arguments)]
        # Where a machine is busy a line of progress might come; the tests of it have their own.
        monkeypatch.setattr(progress, "INTERVAL", 3600.0)
        monkeypatch.setattr(sys, "argv", argv)
        monkeypatch.setattr(sys, "stdin", Terminal(stdin) if stdin else io.StringIO())
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = cli.run(argv)
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
        return Result(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(autouse=True)
def _short_breaths(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses after changes of definitions are made, and take next to no time."""
    monkeypatch.setattr("terrain.pace.BREATH", 0.001)
    monkeypatch.setattr("terrain.pace.LONG_BREATH", 0.002)
    monkeypatch.setattr("terrain.pace.LONGEST_BREATH", 0.002)
