"""What keeping in step costs the old application: single statements, beside an untouched shop.

Three clones of one shop are asked in turn, a few statements here and the same there, so that
whatever else the machine does meets all: one untouched, one migrated, and one migrated whose
triggers are those that a DBA would type (``triggers.sql``): the least that the new rows cost.
Each statement is prepared and a transaction of its own; once with the disk
(``synchronous_commit``, as clients wait for it), and once without, which leaves the work itself.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from bench import clients, report, shop

Connection = psycopg.Connection[Any]

PLAIN = Path(__file__).with_name("triggers.sql")
#: Statements asked of one database before it is the next one's turn, turns of each, and sets of
#: connections that have so many: one server process is woken more quickly than the next, by
#: the processor it happens to be on, as long as it lives.
AT_ONCE, TURNS, SETS = 20, 5, 5
#: What a write may cost, in times of what it costs in an untouched shop.
WANTED = 2.0


@dataclass(frozen=True)
class Kind:
    """A statement; ``parameters`` are those of the n-th time.  ``wanted`` is times, at most."""

    name: str
    statement: str
    parameters: Callable[[Keys, int], tuple[Any, ...]]
    wanted: float = WANTED


@dataclass(frozen=True)
class Keys:
    """Rows that are there in all clones."""

    assets: list[str]
    artists: list[str]
    orders: list[str]
    tables: list[str]
    emails: list[str]
    prices: list[str]

    @classmethod
    def of(cls, connection: Connection) -> Keys:
        def column(query: str) -> list[str]:
            return [value for (value,) in connection.execute(query)]  # type: ignore[call-overload]

        return cls(
            column("SELECT id::text FROM assets ORDER BY id LIMIT 1000"),
            column("SELECT id::text FROM artists ORDER BY id LIMIT 1000"),
            column("SELECT id::text FROM orders ORDER BY id LIMIT 1000"),
            column("SELECT id::text FROM user_tables ORDER BY id LIMIT 1000"),
            column("SELECT user_email FROM orders ORDER BY id LIMIT 1000"),
            column("SELECT base_price FROM assets ORDER BY id LIMIT 1000"),
        )


def _of(some: list[str], number: int) -> str:
    return some[number * 7 % len(some)]


def _lines(keys: Keys, number: int) -> str:
    """Two lines, as the old application writes them."""
    options = {"material": "pla", "quality": "standard", "color": "Gray"}
    return json.dumps(
        [
            {"asset_id": _of(keys.assets, number), "quantity": 2},
            {
                "asset_id": _of(keys.assets, number + 1),
                "quantity": 1,
                "printOptions": options,
            },
        ]
    )


def _pricing(keys: Keys, number: int) -> str:
    """What they cost together."""
    first, second = (Decimal(_of(keys.prices, number + k)) for k in (0, 1))
    subtotal = 2 * first + second
    return (
        f'{{"model_subtotal": {subtotal}, "shipping": 3.99, "total": {subtotal + 4}}}'
    )


def _layout(keys: Keys, number: int) -> str:
    """Eight pieces on a table, the same ones each time it is saved, somewhere else."""
    pieces = [
        {"asset_id": _of(keys.assets, piece), "x": number % 97, "y": piece, "z": 0}
        for piece in range(8)
    ]
    return json.dumps({"models": pieces})


WRITES = (
    Kind(
        "count a view",
        "UPDATE assets SET view_count = view_count + 1 WHERE id = %s",
        lambda keys, n: (_of(keys.assets, n),),
    ),
    Kind(
        "edit an asset",
        "UPDATE assets SET description = %s WHERE id = %s",
        lambda keys, n: (f"Text {n}", _of(keys.assets, n)),
    ),
    Kind(
        "edit an artist",
        "UPDATE artists SET bio = %s WHERE id = %s",
        lambda keys, n: (f"Text {n}", _of(keys.artists, n)),
    ),
    Kind(
        "change an order's status",
        "UPDATE orders SET status = %s, updated_at = now() WHERE id = %s",
        lambda keys, n: (("paid", "shipped")[n % 2], _of(keys.orders, n)),
    ),
    Kind(
        "save a table",
        "INSERT INTO user_tables (user_email, name, table_config, layout_data, share_token)"
        " VALUES (%s, 'T', '{\"width\": 900, \"depth\": 600}', %s, %s)",
        lambda keys, n: (_of(keys.emails, n), _layout(keys, n), f"w{n}"),
    ),
    Kind(
        "save it again",
        "UPDATE user_tables SET layout_data = %s, updated_at = now() WHERE id = %s",
        lambda keys, n: (_layout(keys, n), _of(keys.tables, n)),
    ),
    Kind(
        "delete it",
        "DELETE FROM user_tables WHERE share_token = %s",
        lambda keys, n: (f"w{n}",),
    ),
    Kind(
        "place an order of two lines",
        "INSERT INTO orders (order_number, user_email, user_name, shipping_address, items,"
        " pricing) VALUES (%s, %s, 'W', '{}', %s, %s)",
        lambda keys, n: (
            f"W{n}",
            _of(keys.emails, n),
            _lines(keys, n),
            _pricing(keys, n),
        ),
    ),
    Kind(
        "change its lines",
        "UPDATE orders SET items = %s, pricing = %s WHERE order_number = %s",
        lambda keys, n: (_lines(keys, n + 3), _pricing(keys, n + 3), f"W{n}"),
    ),
)
UNMAPPED = (
    Kind(
        "an update that changes nothing",
        "UPDATE assets SET name = name WHERE id = %s",
        lambda keys, n: (_of(keys.assets, n),),
    ),
    Kind(
        "an order, the same",
        "UPDATE orders SET status = status, notes = notes WHERE id = %s",
        lambda keys, n: (_of(keys.orders, n),),
    ),
)
READS = (
    Kind(
        "look at an asset",
        "SELECT a.*, r.name AS artist FROM assets a JOIN artists r ON r.id = a.artist_id"
        " WHERE a.id = %s",
        lambda keys, n: (_of(keys.assets, n),),
        1.0,
    ),
    Kind(
        "list a customer's orders",
        "SELECT o.*, t.status AS paid FROM orders o LEFT JOIN stripe_transfers t"
        " ON t.order_id = o.id WHERE o.user_email = %s ORDER BY o.created_at",
        lambda keys, n: (_of(keys.emails, n),),
        1.0,
    ),
    Kind(
        "report of an artist",
        "SELECT a.*, count(x.id), sum(x.base_price) FROM artists a"
        " LEFT JOIN assets x ON x.artist_id = a.id WHERE a.id = %s GROUP BY a.id",
        lambda keys, n: (_of(keys.artists, n),),
        1.0,
    ),
)
KINDS = (*WRITES, *UNMAPPED, *READS)


@dataclass(frozen=True)
class Cost:
    """Milliseconds of a statement, the mean of the sets' medians; ``times`` is the ratio."""

    name: str
    untouched: float
    in_step: float
    plain: float
    wanted: float

    @property
    def times(self) -> float:
        return self.in_step / self.untouched

    @property
    def plain_times(self) -> float:
        return self.plain / self.untouched


@contextmanager
def _three(scale: float) -> Iterator[tuple[str, str, str]]:
    """Untouched, migrated, and with a DBA's triggers, after the same housekeeping."""
    template = shop.shop(scale)
    with (
        shop.clone(template, "untouched") as untouched,
        shop.clone(template) as moved,
        shop.clone(template, "plain") as plain,
    ):
        for database in (untouched, moved, plain):
            clients.admit(database)
        for database in (moved, plain):
            print("migrate", file=sys.stderr)
            shop.run(database, "manage.py", "migrate", "--verbosity", "0")
        _plain_triggers(plain)
        for database in (untouched, moved, plain):
            with shop.connect(database) as connection:
                connection.execute("VACUUM (ANALYZE)")
        shop.checkpoint()
        yield untouched, moved, plain


def _plain_triggers(database: str) -> None:
    """Put those that a DBA would type in the place of those that keep both sides in step."""
    with shop.connect(database) as connection:
        for schema, table, trigger in connection.execute(
            "SELECT c.relnamespace::regnamespace::text, c.relname, t.tgname FROM pg_trigger t"
            " JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid"
            " WHERE p.pronamespace = 'rebuilt'::regnamespace"
        ).fetchall():
            connection.execute(
                sql.SQL("DROP TRIGGER {} ON {}").format(
                    sql.Identifier(trigger), sql.Identifier(schema, table)
                )
            )
        connection.execute(PLAIN.read_text())  # type: ignore[call-overload]


def costs(scale: float, on_disk: bool, turns: int, sets: int) -> list[Cost]:
    """What each kind costs in all three; ``on_disk`` if each commit is waited for."""
    with _three(scale) as databases:
        with _connected(databases, on_disk) as connections:
            keys = Keys.of(connections[0])
        taken: dict[str, list[tuple[float, ...]]] = {}
        for part in range(sets):
            with _connected(databases, on_disk) as connections:
                for kind in KINDS:
                    print(kind.name, file=sys.stderr)
                    asked = range(part * turns, (part + 1) * turns)
                    taken.setdefault(kind.name, []).append(
                        _asked(kind, connections, keys, asked)
                    )
    return [
        Cost(
            kind.name,
            *map(statistics.mean, zip(*taken[kind.name], strict=True)),
            kind.wanted,
        )
        for kind in KINDS
    ]


@contextmanager
def _connected(
    databases: tuple[str, ...], on_disk: bool
) -> Iterator[tuple[Connection, ...]]:
    setting = "on" if on_disk else "off"
    with ExitStack() as stack:
        yield tuple(
            stack.enter_context(
                psycopg.connect(
                    shop.CLUSTER.dsn(name, clients.ROLE),
                    autocommit=True,
                    options=f"-c synchronous_commit={setting}",
                )
            )
            for name in databases
        )


def _asked(
    kind: Kind, connections: tuple[Connection, ...], keys: Keys, turns: range
) -> tuple[float, ...]:
    """Milliseconds, the median of each database."""
    taken: list[list[float]] = [[] for _ in connections]
    places = list(range(len(connections)))
    for turn in turns:
        # Another goes first each time; the first turn warms all up.
        for place in places[turn % len(places) :] + places[: turn % len(places)]:
            for number in range(turn * AT_ONCE, (turn + 1) * AT_ONCE):
                parameters = kind.parameters(keys, number)
                began = time.perf_counter()
                cursor = connections[place].execute(
                    kind.statement, parameters, prepare=True  # type: ignore[call-overload]
                )
                if cursor.description:
                    cursor.fetchall()
                if turn > turns[0]:
                    taken[place].append((time.perf_counter() - began) * 1000)
    return tuple(map(statistics.median, taken))


def measure(scale: float, turns: int = TURNS, sets: int = SETS) -> dict[str, Any]:
    """Both with the disk and without: kind -> milliseconds and times."""
    found = {
        "with the disk": costs(scale, True, turns, sets),
        "without": costs(scale, False, turns, sets),
    }
    return {
        "scale": scale,
        "costs": {
            how: [
                {
                    "statement": each.name,
                    "untouched": each.untouched,
                    "in_step": each.in_step,
                    "times": each.times,
                    "plain": each.plain,
                    "plain_times": each.plain_times,
                    # What is wanted is of what a client waits for.
                    "wanted": each.wanted if how == "with the disk" else None,
                }
                for each in some
            ]
            for how, some in found.items()
        },
    }


def show(results: dict[str, Any]) -> None:
    for how, some in results["costs"].items():
        report.table(
            f"Scale {results['scale']:g}, {how}; milliseconds, medians",
            ["", "untouched", "in step", "times", "DBA's", "times", "at most"],
            [list(each.values()) for each in some],
        )


def main() -> None:
    parser = report.arguments(__doc__.partition("\n")[0])  # type: ignore[union-attr]
    report.each_scale("writes", parser, lambda scale, _: measure(scale), show)


if __name__ == "__main__":
    main()
