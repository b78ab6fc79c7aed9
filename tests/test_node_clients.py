"""The start-up and the pools of a Node application, before, beside and after the migration.

A shop's application does more than query: at its start a session store makes its table if it
does not find it, and two migration tools ask which of their migrations have run, one of them
in ``current_schema()``, the other in ``public``.  With the real packages, each start after
``migrate``, after ``rollback_migration`` and after going forth again has to find what the
first one made, to run nothing again, and to be given the same answers; a pool that was opened
before has to go on, with its prepared statements, on the same connections.  All of it is done
directly and through pgbouncer in transaction mode, with no step taken for the old application:
no ``prepare_database``, no connection recycled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests import node_shop, pooler
from tests.conftest import OLD_ROLE, Database, Result
from tests.test_old_application import assert_in_step
from tests.visible import difference, visible, without_sync

pytestmark = [
    pytest.mark.migration,
    pytest.mark.skipif(bool(node_shop.why_not()), reason=node_shop.why_not()),
]

Manage = Callable[..., Result]
Where = dict[str, Any]

KNEX = [
    "001_coupons.cjs",
    "002_coupons_have_an_amount.cjs",
    "003_a_first_coupon.cjs",
]
PG_MIGRATE = ["1700000000000_reviews", "1700000000001_reviews-have-a-text"]
#: What the application makes at its first start, beside the six tables.
OWN = [
    "coupons",
    "knex_migrations",
    "knex_migrations_lock",
    "pgmigrations",
    "reviews",
    "session",
]
LEGACY = [
    "artists",
    "assets",
    "example_tables",
    "orders",
    "stripe_transfers",
    "user_tables",
]


@pytest.fixture(params=["directly", "as the owner", "through pgbouncer"])
def where(shop: Database, request: pytest.FixtureRequest) -> Iterator[Where]:
    """How the application reaches the shop: as a role that may make tables, or as who has made all.

    The latter is what most small shops do, and is our own role too.
    """
    owner = shop.connect()
    owner.execute(f"GRANT CREATE ON SCHEMA public TO {OLD_ROLE}")
    role = owner.info.user if request.param == "as the owner" else OLD_ROLE
    reached = {"database": shop.name, "user": role}
    if request.param != "through pgbouncer":
        yield {"host": str(shop.cluster.socket_dir), "port": 5432, **reached}
        return
    with pooler.in_front_of(shop.cluster) as pool:
        # pg sets application_name, and nothing else, as it connects.
        yield {
            "host": str(pool.folder),
            "port": pooler.PORT,
            "pooled": True,
            **reached,
        }


def succeed(done: Result) -> None:
    assert done.code == 0, done.out + done.err


def start(where: Where, number: int) -> dict[str, Any]:
    """The application starts; what it says, without what differs from start to start."""
    said = node_shop.start(where, number)
    said["serve"].pop("order")
    said["look"] = [(each["schema"], each["path"]) for each in said["look"]]
    return said


def expected(number: int, ran: bool = False) -> dict[str, Any]:
    """What the start of this number says, from 1, if ``ran`` the first."""
    return {
        "session": {"table_was_there": not ran, "visits": number, "sessions": 1},
        "knex": {
            "ran": KNEX if ran else [],
            "version": "003",
            "completed": KNEX,
            "waiting": [],
            "has_orders": True,
            "has_models": False,
            "coupons": ["id", "code", "order_id", "created_at", "updated_at", "amount"],
            "counted": number,
            "joined": 3,
        },
        "pg_migrate": {"ran": PG_MIGRATE if ran else [], "completed": PG_MIGRATE},
        "serve": {
            "inserted": "pending_payment",
            "paid": 1,
            "joined": 1,
            "saved": {
                "name": "".join(["Node", *(f"+{n}" for n in range(2, number + 1))]),
                "updated": not ran,
            },
            "grouped": 3,
            "columns_of_artists": 16,
            "coupon": "5.00",
            "orders_of_ours": number,
        },
        "look": [("public", '"$user", public')],
        "tables": sorted(LEGACY + OWN),
    }


def assert_starts(where: Where, number: int, ran: bool = False) -> None:
    said = start(where, number)
    assert difference({"": expected(number, ran)}, {"": said}) == []


def test_it_starts_and_finds_what_it_made(
    shop: Database, where: Where, manage: Manage
) -> None:
    """Before, after ``migrate``, after the way back, and there again; nothing runs twice."""
    assert_starts(where, 1, ran=True)
    assert_starts(where, 2)
    with seeing(shop):
        succeed(manage("migrate", "-v0"))
    assert_starts(where, 3)
    assert_in_step()
    succeed(manage("rollback_migration", "--yes"))
    assert_starts(where, 4)
    with seeing(shop):
        succeed(manage("migrate", "-v0"))
    assert_starts(where, 5)
    assert_in_step()
    succeed(manage("verify_migration"))


@contextmanager
def seeing(shop: Database) -> Iterator[None]:
    """Within the block nothing changes that the application can see, but triggers."""
    before = visible(shop.connect(OLD_ROLE))
    yield
    after = visible(shop.connect(OLD_ROLE))
    assert difference(without_sync(before), without_sync(after)) == []


def test_what_it_makes_meanwhile_is_there_after_the_way_back(
    shop: Database, where: Where, manage: Manage
) -> None:
    """Its first start is beside the new tables: its own are where it looks for them later."""
    succeed(manage("migrate", "-v0"))
    assert_starts(where, 1, ran=True)
    with seeing(shop):
        for command in ("settle", "copy_models_to_assets", "verify_migration"):
            succeed(manage(command))
    assert_starts(where, 2)
    succeed(manage("rollback_migration", "--yes"))
    assert_starts(where, 3)
    assert shop.connect(OLD_ROLE).execute(
        "SELECT oid::regclass::text FROM pg_class WHERE relname = ANY (%s) ORDER BY 1",
        [OWN],
    ).fetchall() == [(name,) for name in OWN]


#: name -> a statement that a pool keeps prepared.
READS = {
    "star": "SELECT * FROM assets ORDER BY id LIMIT 2",
    "joined": "SELECT a.*, r.name AS artist FROM assets a JOIN artists r ON r.id = a.artist_id"
    " WHERE a.status = 'published' ORDER BY a.id LIMIT 5",
    "grouped": "SELECT a.*, count(x.id) AS works, sum(x.base_price) AS worth FROM artists a"
    " LEFT JOIN assets x ON x.artist_id = a.id GROUP BY a.id ORDER BY a.id LIMIT 5",
    "items": "SELECT o.id, i FROM orders o CROSS JOIN jsonb_array_elements(o.items) i"
    " WHERE jsonb_typeof(o.items) = 'array' ORDER BY o.id, i::text LIMIT 7",
    "schema": "SELECT current_schema() AS schema, current_setting('search_path') AS path,"
    " 'orders'::regclass::oid AS orders, to_regclass('models') AS models",
}
BUY = (
    "INSERT INTO orders (order_number, user_email, user_name, shipping_address, items, pricing)"
    " VALUES ($1, 'pool@shop.example', 'Pool', '{}', '[]', '{\"total\": 1}') RETURNING id"
)
PAY = "UPDATE orders SET status = $2 WHERE id = $1 RETURNING status, items"
SAVE = (
    "INSERT INTO user_tables (name, table_config, layout_data, share_token)"
    " VALUES ('Pool', '{}', '{}', $1) ON CONFLICT (share_token)"
    " DO UPDATE SET name = user_tables.name || '+' RETURNING id, name"
)
LEAVE = "DELETE FROM orders WHERE id = $1 RETURNING order_number"


def use(pool: node_shop.Pool, number: int) -> dict[str, Any]:
    """Every statement, those that read on all connections at once; what it was given."""
    given: dict[str, Any] = {}
    for name, statement in READS.items():
        first, *others = [
            each["rows"]
            for each in pool.run(statement, name=name, times=node_shop.Pool.SIZE)
        ]
        assert first and all(each == first for each in others), name
        given[name] = first
    ((bought),) = pool.rows(BUY, f"POOL-{number}", name="buy")
    given["paid"] = pool.rows(PAY, bought["id"], "paid", name="pay")
    saved = pool.run(SAVE, f"pool-{number}", name="save")[0]["rows"]
    again = pool.run(SAVE, f"pool-{number}", name="save")[0]["rows"]
    assert saved[0]["id"] == again[0]["id"]
    given["saved"] = [saved[0]["name"], again[0]["name"]]
    given["left"] = pool.run(LEAVE, bought["id"], name="leave")[0]["count"]
    return given


@pytest.mark.parametrize("where", ["directly", "through pgbouncer"], indirect=True)
def test_a_pool_opened_before_goes_on(
    shop: Database, where: Where, manage: Manage
) -> None:
    """Idle meanwhile: the same connections, prepared statements and answers ever after."""
    with node_shop.pool(where) as pool:
        pids = pool.pids()
        before = use(pool, 0)
        assert before["schema"][0]["schema"] == "public"
        assert before["schema"][0]["models"] is None
        number = 0
        for command in (
            ("migrate", "-v0"),
            ("settle",),
            ("copy_models_to_assets",),
            ("verify_migration",),
            ("rollback_migration", "--yes"),
            ("migrate", "-v0"),
        ):
            succeed(manage(*command))
            number += 1
            assert use(pool, number) == before, command
        assert pool.connections() == {"made": node_shop.Pool.SIZE, "lost": []}
        assert pool.pids() == pids
    succeed(manage("settle"))
    assert_in_step()


@pytest.mark.parametrize("where", ["directly", "through pgbouncer"], indirect=True)
def test_a_pool_at_work_goes_on(shop: Database, where: Where, manage: Manage) -> None:
    """It asks and writes all the while that the commands run, and is never refused."""
    with node_shop.pool(where) as pool:
        before = use(pool, 0)
        ended, wrong, number = threading.Event(), [], 0

        def work() -> None:
            nonlocal number
            try:
                while not ended.is_set():
                    number += 1
                    if (given := use(pool, number)) != before:
                        wrong.append(given)
            except BaseException as error:
                wrong.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            for command in ("migrate", "rollback_migration", "migrate", "settle"):
                arguments = ("--yes",) if command == "rollback_migration" else ("-v0",)
                succeed(manage(command, *arguments))
        finally:
            ended.set()
            thread.join()
        assert wrong == []
        assert number > 10
        assert pool.connections() == {"made": node_shop.Pool.SIZE, "lost": []}
    succeed(manage("settle"))
    assert_in_step()
