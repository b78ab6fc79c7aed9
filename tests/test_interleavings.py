"""Law 2 and law 7 whatever the interleaving: schedules drawn at random, stepped one by one.

A failure prints the shortest schedule found that still fails, and its seed.  RACES=2000
looks at as many seeds, RACES_SEED=17 at that one alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection

from terrain import locks, pace
from terrain.embedded import OWNER
from terrain.legacy import copying, cut_over, retreat, search_path, settling
from terrain.legacy.mapping import LENSES
from terrain.legacy.sql import sync
from tests import interleaving as drawn
from tests import shopkeeper
from tests.conftest import Database, pointed_at
from tests.legacy import (
    artist,
    example,
    ids,
    insert,
    legacy_schema,
    model,
    named,
    order,
    table,
    transfer,
)
from tests.stepping import Command, pause_at_commit

pytestmark = pytest.mark.migration

RACES = int(os.environ.get("RACES", "12"))
SEED = os.environ.get("RACES_SEED")
FIRST = int(os.environ.get("RACES_FIRST", "0"))
SEEDS = [int(SEED)] if SEED else list(range(FIRST, FIRST + RACES))

LINE = {"asset_id": "#m1", "quantity": 2}
STOCK = (
    artist("#a1", "a1@x.example"),
    artist("#a2", "A2@x.example"),
    model("#m1", "#a1", "2"),
    model("#m2", "#a2", "0"),
    table("#t1", "b@x.example", {"width": 1}, share_token="s1"),
    table("#t2", None, [], share_token="s2"),
    table("#t3", "a1@x.example"),
    example("#e1", "#a1"),
    example("#e2", "#a2", []),
    order("#o1", (LINE,), 4, email="b@x.example"),
    order("#o2", (LINE, {"asset_id": "#m2"}), 4, email="a2@x.example"),
    order("#o3", (), 4, email="b@x.example"),
    transfer("#p1", "#o1", "#a1"),
    transfer("#p2", "#o2", "#a2", "0"),
)

#: Triggers of the shop's own: one writes its own table, one another, one refuses.
TRIGGERS = """
CREATE FUNCTION public.shop_stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    NEW.updated_at := '2030-01-01'; RETURN NEW; END $$;
CREATE TRIGGER shop_stamp BEFORE UPDATE ON assets
    FOR EACH ROW EXECUTE FUNCTION public.shop_stamp();
CREATE FUNCTION public.shop_count() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE assets SET purchase_count = purchase_count + 1
     WHERE NEW.items @> jsonb_build_array(jsonb_build_object('asset_id', id));
    UPDATE orders SET tracking_number = 'seen' WHERE id = NEW.id AND tracking_number IS NULL;
    RETURN NULL; END $$;
CREATE TRIGGER shop_count AFTER INSERT OR UPDATE OF items ON orders
    FOR EACH ROW EXECUTE FUNCTION public.shop_count();
CREATE FUNCTION public.shop_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.name = 'forbidden' THEN RAISE EXCEPTION 'no such name'; END IF;
    UPDATE example_tables SET view_count = view_count + 1 WHERE artist_id = NEW.id;
    RETURN NULL; END $$;
CREATE TRIGGER zzz_shop_refuse AFTER UPDATE ON artists
    FOR EACH ROW EXECUTE FUNCTION public.shop_refuse();
"""


@pytest.fixture(scope="module", autouse=True)
def _in_a_hurry() -> Iterator[None]:
    """All that waits waits less, in the same order: the new side yields first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sync, "NEW_SIDE_LOCK_TIMEOUT", "10ms")
        patch.setattr(sync, "OLD_SIDE_LOCK_TIMEOUT", "20ms")
        patch.setattr(sync, "OLD_SIDE_LOCK_TIMEOUT_AGAIN", "5ms")
        patch.setattr(locks, "LOCK_TIMEOUT", 15)
        patch.setattr(locks, "LONGEST_PAUSE", 0.02)
        patch.setattr(pace, "FIRST_BATCH", 2)
        patch.setattr(pace, "LARGEST_BATCH", 2)
        patch.setattr(copying, "_store_cursor", pause_at_commit(copying._store_cursor))
        yield


Make = Callable[..., str]


@pytest.fixture(scope="module")
def template(
    _in_a_hurry: None,
    cluster: Any,
    create_database: Make,
    drop_database: Callable[[str], None],
    administrator: psycopg.Connection[Any],
    django_db_blocker: Any,
) -> Iterator[Callable[[str | None, bool], str]]:
    """A shop with a few rows, migrated up to a migration of ``legacy`` (None: to the end).

    It may be cut over as well.
    """
    made: dict[tuple[str | None, bool], str] = {}

    def make(upto: str | None, is_cut_over: bool) -> str:
        if (upto, is_cut_over) not in made:
            database = Database(cluster, create_database())
            with database.connect(OWNER, "public") as owner:
                legacy_schema(owner)
                owner.execute(TRIGGERS)  # type: ignore[arg-type]
                insert(owner, *STOCK)
            with django_db_blocker.unblock(), pointed_at(database.name):
                call_command(
                    "migrate", *(["legacy", upto] if upto else []), verbosity=0
                )
                if is_cut_over:
                    cut_over.cut_over(connection)
            database.close()
            made[upto, is_cut_over] = database.name
        return made[upto, is_cut_over]

    yield make
    for name in made.values():
        drop_database(name)


class Runner:
    """Runs schedules, each on a database of its own."""

    def __init__(
        self,
        make: Callable[[], Database],
        commands: Any,
        copied: Any,
        own: Sequence[str] = (),
    ) -> None:
        self.make = make
        self.commands = commands
        self.copied = copied
        # Triggers that write what no client has said: then the model cannot know what is right.
        self.own = own

    def broken(self, steps: list[drawn.Step]) -> tuple[str, list[str]] | None:
        """What law a schedule breaks, and what was said."""
        with ExitStack() as stack:
            database = stack.enter_context(self.make())  # type: ignore[arg-type]
            for each in self.own:
                database.execute(ids(each))
            run = drawn.Run(
                database,
                {
                    name: Command(name, action)
                    for name, action in self.commands.items()
                    if any(step.actor == name for step in steps)
                },
            )
            try:
                run.follow(steps)
                drawn.settle_all(self.copied)
                found = [*drawn.violations(database)]
                if self.own:
                    found = _but_contradictory(database, found)
                else:
                    found += run.model.violations(database)
            except Exception as error:
                found = [f"{type(error).__name__}: {error}"]
            for command in run.commands.values():
                command.free = True
                command.gate.release()
                if command.thread.ident is not None:
                    command.thread.join(30)
        return ("\n".join(found), run.history) if found else None

    def check(self, seed: int, actors: tuple[str, ...]) -> None:
        steps = drawn.schedule(seed, actors, tuple(self.commands))
        found = self.broken(steps)
        if found is None:
            return
        shortest = self._shortest(steps)
        why, history = self.broken(shortest) or found
        said = "\n".join(f"  {step}" for step in shortest)
        told = "\n".join(f"  {line}" for line in [*self.own, *history])
        pytest.fail(
            f"seed {seed}: {why}\n\nthe schedule:\n{said}\n\nas it went:\n{told}"
        )

    def _shortest(self, steps: list[drawn.Step]) -> list[drawn.Step]:
        """Without every step, from long stretches to single ones, that is not needed."""
        size = len(steps) // 2
        while size:
            start = 0
            while start < len(steps):
                fewer = steps[:start] + steps[start + size :]
                if self.broken(fewer) is not None:
                    steps = fewer
                else:
                    start += size
            size //= 2
        return steps


def _but_contradictory(database: Database, found: list[str]) -> list[str]:
    """Without rows whose triggers never agree: those are held, and somebody has to decide."""
    held = [
        named(key)
        for (key,) in database.rows(
            "SELECT legacy_id FROM legacy_quarantine WHERE reason = 'triggers_disagree'"
        )
    ]
    return [line for line in found if not any(key in line for key in held)]


@pytest.fixture
def runner(
    cluster: Any,
    create_database: Make,
    drop_database: Callable[[str], None],
    administrator: psycopg.Connection[Any],
    template: Callable[[str | None, bool], str],
    is_cut_over: bool,
    django_db_blocker: Any,
) -> Callable[..., Runner]:
    def make_runner(
        upto: str | None,
        commands: Any,
        copied: Any = (),
        own: Sequence[str] = (),
        lives_on: bool = False,
    ) -> Runner:
        source = template(upto, is_cut_over)

        def made() -> Any:
            return _Made(
                cluster,
                create_database,
                drop_database,
                administrator,
                source,
                lives_on,
            )

        return Runner(made, commands, copied, own)

    django_db_blocker.unblock()
    yield make_runner
    django_db_blocker.restore()


class _Made(ExitStack):
    """A clone, which Django's connections point at meanwhile."""

    def __init__(
        self,
        cluster: Any,
        create: Make,
        drop: Any,
        admin: Any,
        source: str,
        lives_on: bool,
    ) -> None:
        super().__init__()
        self.lives_on = lives_on
        self.make = lambda: Database(cluster, create(source))
        self.drop, self.admin = drop, admin

    def __enter__(self) -> Any:
        super().__enter__()
        database = self.make()
        self.callback(self.drop, database.name)
        self.callback(database.close)
        self.admin.execute(
            f"ALTER DATABASE {database.name} SET deadlock_timeout = '150ms'"
        )
        self.enter_context(pointed_at(database.name))
        if database.place.is_cut_over or self.lives_on:
            # What the old application needs, if it is to live on beyond a cut-over.
            search_path.extend(connection)
            # An undoing ends every session of the new application.
            connection.close()
        return database


def copy_all() -> None:
    drawn.settle_all(tuple(lens.legacy for lens in LENSES))


def settle() -> None:
    settling.settle(connection)


def back_and_forward() -> None:
    retreat.roll_back(connection)
    call_command("migrate", verbosity=0)


def cut_over_and_back() -> None:
    cut_over.cut_over(connection)
    cut_over.undo(connection)


ALL = tuple(lens.legacy for lens in LENSES)


@pytest.mark.parametrize("seed", SEEDS)
def test_while_the_copy_runs(runner: Callable[..., Runner], seed: int) -> None:
    runner("0003", {"copy": copy_all}, ALL).check(seed, ("old1", "old2", "old3"))


@pytest.mark.both_places
@pytest.mark.parametrize("seed", SEEDS)
def test_both_applications_and_settle(runner: Callable[..., Runner], seed: int) -> None:
    commands = {"settle": settle, "settle again": settle}
    runner(None, commands).check(seed, ("old1", "old2", "new1", "new2"))


@pytest.mark.both_places
@pytest.mark.parametrize("seed", SEEDS)
def test_triggers_and_foreign_keys_of_the_shop_s_own(
    runner: Callable[..., Runner], seed: int
) -> None:
    """On the tables of both applications."""
    own = shopkeeper.drawn(seed)
    runner(None, {"settle": settle}, own=own).check(seed, ("old1", "old2", "new1"))


@pytest.mark.both_places
@pytest.mark.parametrize("seed", SEEDS[: max(1, len(SEEDS) // 12)])
def test_back_and_forward(
    runner: Callable[..., Runner], is_cut_over: bool, seed: int
) -> None:
    """After a cut-over the way back ends the sessions of the new application."""
    third = "old3" if is_cut_over else "new1"
    runner(None, {"back": back_and_forward}).check(seed, ("old1", "old2", third))


@pytest.mark.parametrize("seed", SEEDS)
def test_an_old_application_that_lives_on_while_names_change_places(
    runner: Callable[..., Runner], seed: int
) -> None:
    """It finds its tables in either place; the new application is not there."""
    swapping = runner(None, {"swap": cut_over_and_back}, lives_on=True)
    swapping.check(seed, ("old1", "old2", "old3"))
