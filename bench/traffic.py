"""The old application at work: its kinds of statements, and what it was told of each.

A client has one connection, held open, with every statement prepared.  It remembers each
write that was acknowledged: what its rows hold, how often it raised each counter and how
many rows it added.  Counters are everybody's; of other values each client writes those of its own
rows and of its own share of the shop's, so what came last is known.
"""

from __future__ import annotations

import random
import time
import uuid
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

Row = dict[str, Any]


class Wrong(Exception):
    """An answer that is not what the old application's own database would have given."""


def expect(found: Any, expected: Any) -> None:
    if found != expected:
        raise Wrong(f"{found!r:.200}, not {expected!r:.200}")


@dataclass
class Told:
    """What the clients were told was done; one of them's, or of all together.

    ``rows``: (table, id) -> the values written last, or None if it was deleted.  ``raised``:
    (table, column, id) -> by how much.  ``added``: table -> rows.  ``refused``: statements
    that failed, as (when, kind, what was said).
    """

    rows: dict[tuple[str, str], Row | None] = field(default_factory=dict)
    raised: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    added: Counter[str] = field(default_factory=Counter)
    refused: list[tuple[float, str, str]] = field(default_factory=list)
    started: array[float] = field(default_factory=lambda: array("d"))
    seconds: array[float] = field(default_factory=lambda: array("d"))
    kinds: array[int] = field(default_factory=lambda: array("B"))

    def wrote(self, table: str, key: str, **values: Any) -> None:
        known = self.rows.get((table, key)) or {}
        self.rows[table, key] = {**known, **values}

    def merge(self, other: Told) -> None:
        self.rows |= other.rows
        self.raised += other.raised
        self.added.update(other.added)
        self.refused += other.refused
        self.started.extend(other.started)
        self.seconds.extend(other.seconds)
        self.kinds.extend(other.kinds)


@dataclass(frozen=True)
class Shop:
    """What is there before: ids, and what reads look for.  ``emails`` and ``tokens`` are some."""

    artists: list[str]
    assets: list[str]
    examples: list[str]
    emails: list[str]
    tokens: list[str]

    @classmethod
    def of(cls, connection: psycopg.Connection[Any]) -> Shop:
        def column(query: str) -> list[str]:
            return [value for (value,) in connection.execute(query)]  # type: ignore[call-overload]

        return cls(
            column("SELECT id::text FROM artists ORDER BY id LIMIT 2000"),
            column("SELECT id::text FROM assets ORDER BY id LIMIT 2000"),
            column("SELECT id::text FROM example_tables ORDER BY id LIMIT 500"),
            column("SELECT user_email FROM orders ORDER BY id LIMIT 500"),
            column(
                "SELECT share_token FROM user_tables WHERE share_token IS NOT NULL"
                " ORDER BY id LIMIT 500"
            ),
        )


class Client:
    """One client: a connection, its own random choices, and what it was told."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        shop: Shop,
        number: int,
        clients: int,
    ) -> None:
        self.connection = connection
        self.shop = shop
        self.number = number
        self.random = random.Random(number)
        self.told = Told()
        self.own: dict[str, list[str]] = {table: [] for table in TABLES}
        # Whose single values this client alone writes.
        self.assets = shop.assets[number::clients]
        self.artists = shop.artists[number::clients]
        self.tokens: list[tuple[str, str]] = []
        self.works: dict[str, list[tuple[str, str]]] = {}
        self.made = 0
        self.kind = 0

    def act(self) -> None:
        """Do one thing a visitor, a buyer or an artist does."""
        (self.kind,) = self.random.choices(range(len(MIX)), WEIGHTS)
        try:
            MIX[self.kind].act(self)
        except (psycopg.Error, Wrong) as error:
            said = f"{getattr(error, 'sqlstate', 'wrong')}: {str(error).strip()}"
            self.told.refused.append((time.time(), MIX[self.kind].name, said))
            if self.connection.closed:
                raise
            self.connection.rollback()

    def run(self, statement: str, *params: Any) -> list[tuple[Any, ...]]:
        """One statement and its time; returns its rows."""
        at, began = time.time(), time.perf_counter()
        try:
            cursor = self.connection.execute(  # type: ignore[call-overload]
                statement, params, prepare=True
            )
            return cursor.fetchall() if cursor.description else []
        finally:
            self.told.started.append(at)
            self.told.seconds.append(time.perf_counter() - began)
            self.told.kinds.append(self.kind)

    def one_of(self, some: list[Any]) -> Any:
        """Any of them, the first ones far more often: a shop has its favourites."""
        return some[int(len(some) * self.random.random() ** 3)]

    def email(self) -> str | None:
        """A known address, one never seen, one in odd case, or none."""
        self.made += 1
        return self.random.choice(
            [
                self.random.choice(self.shop.emails),
                f"new{self.number}x{self.made}@load.example",
                f"New{self.number}X{self.made // 5}@Load.Example",
                None,
            ]
        )

    def layout(self) -> Row:
        placed = [
            {"id": f"p{n}", "asset_id": self.one_of(self.shop.assets), "rotation": n}
            for n in range(self.random.randrange(6))
        ]
        return {"models": placed}

    # --- reads -----------------------------------------------------------------------------

    def look_at_asset(self) -> None:
        self.run(
            "SELECT a.*, r.name AS artist FROM assets a JOIN artists r ON r.id = a.artist_id"
            " WHERE a.id = %s",
            self.one_of(self.shop.assets),
        )

    def browse(self) -> None:
        self.run(
            "SELECT id, name, base_price, file_paths FROM assets WHERE status = 'published'"
            " AND tags && %s::text[] ORDER BY created_at DESC LIMIT 20",
            [f"tag{self.random.randrange(7, 40)}"],
        )

    def open_table(self) -> None:
        self.run(
            "SELECT * FROM user_tables WHERE share_token = %s",
            self.random.choice(self.shop.tokens),
        )

    def list_orders(self) -> None:
        self.run(
            "SELECT o.*, t.status AS paid FROM orders o LEFT JOIN stripe_transfers t"
            " ON t.order_id = o.id WHERE o.user_email = %s ORDER BY o.created_at",
            self.random.choice(self.shop.emails),
        )

    def log_in(self) -> None:
        self.run(
            "SELECT * FROM artists WHERE email = %s",
            f"artist{self.random.randrange(1, 20)}@example.com",
        )

    def report_of_artist(self) -> None:
        self.run(
            "SELECT a.*, count(x.id), sum(x.base_price) FROM artists a"
            " LEFT JOIN assets x ON x.artist_id = a.id WHERE a.id = %s GROUP BY a.id",
            self.one_of(self.shop.artists),
        )

    def report_of_sales(self) -> None:
        self.run(
            "SELECT t.status, count(*), sum(t.amount) FROM stripe_transfers t"
            " JOIN orders o ON o.id = t.order_id WHERE t.artist_id = %s GROUP BY 1",
            self.one_of(self.shop.artists),
        )

    def who_bought(self) -> None:
        self.run(
            "SELECT count(*) FROM orders WHERE items @> %s",
            Jsonb([{"asset_id": self.one_of(self.shop.assets)}]),
        )

    def report_of_shop(self) -> None:
        self.run("SELECT status, count(*) FROM orders GROUP BY 1 ORDER BY 1")

    # --- counters --------------------------------------------------------------------------

    def count(self, table: str, column: str, key: str) -> None:
        done = self.run(
            f"UPDATE {table} SET {column} = {column} + 1 WHERE id = %s RETURNING {column}",
            key,
        )
        expect(len(done), 1)
        self.told.raised[table, column, key] += 1

    def view_asset(self) -> None:
        self.count("assets", "view_count", self.one_of(self.shop.assets))

    def view_example(self) -> None:
        self.count("example_tables", "view_count", self.one_of(self.shop.examples))

    # --- tables ----------------------------------------------------------------------------

    def save_table(self) -> None:
        email, layout = self.email(), self.layout()
        token = f"load{self.number}x{self.made}"
        ((key,),) = self.run(
            "INSERT INTO user_tables (user_email, name, table_config, layout_data, share_token)"
            " VALUES (%s, 'Load', %s, %s, %s) RETURNING id::text",
            email,
            Jsonb({"width": 900, "depth": 600}),
            Jsonb(layout),
            token,
        )
        self.own["user_tables"].append(key)
        self.tokens.append((key, token))
        self.told.added["user_tables"] += 1
        self.told.wrote(
            "user_tables",
            key,
            user_email=email,
            layout_data=layout,
            share_token=token,
            name="Load",
        )

    def save_again(self) -> None:
        if not self.tokens:
            return self.save_table()
        key, token = self.random.choice(self.tokens)
        layout = self.layout()
        ((found,),) = self.run(
            "INSERT INTO user_tables (name, table_config, layout_data, share_token)"
            " VALUES ('Again', '{}', %s, %s) ON CONFLICT (share_token) DO UPDATE"
            " SET layout_data = excluded.layout_data, name = excluded.name,"
            " updated_at = now() RETURNING id::text",
            Jsonb(layout),
            token,
        )
        expect(found, key)
        self.told.wrote("user_tables", key, layout_data=layout, name="Again")

    def delete_table(self) -> None:
        if len(self.tokens) < 20:
            return self.save_table()
        key, _token = self.tokens.pop(self.random.randrange(len(self.tokens)))
        self.own["user_tables"].remove(key)
        self.delete("user_tables", key)

    def delete(self, table: str, key: str) -> None:
        found = self.run(f"DELETE FROM {table} WHERE id = %s RETURNING id", key)
        expect(len(found), 1)
        self.gone(table, key)

    def gone(self, table: str, key: str) -> None:
        self.told.rows[table, key] = None
        self.told.added[table] -= 1

    # --- orders ----------------------------------------------------------------------------

    def buy(self) -> None:
        """An order and the asset's counter, in one transaction."""
        email = self.email() or "nobody@load.example"
        asset = self.one_of(self.shop.assets)
        number = f"L{self.number}-{self.made}"
        items = [{"asset_id": asset, "quantity": 1 + self.made % 3}]
        self.run("BEGIN")
        ((key,),) = self.run(
            "INSERT INTO orders (order_number, user_email, user_name, shipping_address,"
            " items, pricing) VALUES (%s, %s, 'Load', '{}', %s, %s) RETURNING id::text",
            number,
            email,
            Jsonb(items),
            Jsonb({"total": 9.5, "model_subtotal": 5.01}),
        )
        self.run(
            "UPDATE assets SET purchase_count = purchase_count + 1 WHERE id = %s",
            asset,
        )
        self.run("COMMIT")
        self.told.raised["assets", "purchase_count", asset] += 1
        self.told.added["orders"] += 1
        self.told.wrote(
            "orders", key, order_number=number, user_email=email, items=items
        )
        self.own["orders"].append(key)

    def change_order(self) -> None:
        if not self.own["orders"]:
            return self.buy()
        key = self.random.choice(self.own["orders"])
        status = self.random.choice(["paid", "printing", "shipped", "cancelled"])
        self.run(
            "UPDATE orders SET status = %s, updated_at = now() WHERE id = %s",
            status,
            key,
        )
        self.told.wrote("orders", key, status=status)

    def add_line(self) -> None:
        if not self.own["orders"]:
            return self.buy()
        key = self.random.choice(self.own["orders"])
        line = {"asset_id": self.one_of(self.shop.assets), "quantity": 1}
        ((items,),) = self.run(
            "UPDATE orders SET items = items || %s WHERE id = %s RETURNING items",
            Jsonb([line]),
            key,
        )
        known = self.told.rows["orders", key]
        assert known is not None
        expect(items, [*known["items"], line])
        self.told.wrote("orders", key, items=items)

    def pay_out(self) -> None:
        if not self.own["orders"]:
            return self.buy()
        order = self.random.choice(self.own["orders"])
        artist = self.one_of(self.shop.artists)
        if order in self.own["stripe_transfers"]:
            return self.change_order()
        ((key,),) = self.run(
            "INSERT INTO stripe_transfers (order_id, artist_id, stripe_transfer_id, amount)"
            " VALUES (%s, %s, %s, 4.01) RETURNING id::text",
            order,
            artist,
            f"tr_{uuid.uuid4().hex}",
        )
        self.own["stripe_transfers"].append(order)
        self.told.added["stripe_transfers"] += 1
        self.told.wrote("stripe_transfers", key, order_id=order, artist_id=artist)

    def delete_order(self) -> None:
        free = [
            key
            for key in self.own["orders"][-20:]
            if key not in self.own["stripe_transfers"]
        ]
        if not free:
            return self.buy()
        key = self.random.choice(free)
        self.own["orders"].remove(key)
        self.delete("orders", key)

    # --- artists ---------------------------------------------------------------------------

    def join(self) -> None:
        """An artist and a first asset in one statement; sometimes a buyer's address."""
        self.made += 1
        email = f"new{self.number}x{max(self.made - 3, 0)}@load.example"
        found = self.run(
            "WITH a AS (INSERT INTO artists (email, password_hash, name) VALUES (%s, 'h', 'L')"
            " ON CONFLICT (email) DO NOTHING RETURNING id)"
            " INSERT INTO assets (artist_id, name, base_price, file_paths)"
            " SELECT id, 'First', 4.20, '{\"stl\": \"l.stl\"}' FROM a"
            " RETURNING artist_id::text, id::text",
            email,
        )
        for artist, asset in found:
            self.told.added["artists"] += 1
            self.told.added["assets"] += 1
            self.told.wrote("artists", artist, email=email, name="L")
            self.told.wrote("assets", asset, artist_id=artist, name="First")
            self.own["artists"].append(artist)
            self.works[artist] = [("assets", asset)]

    def exhibit(self) -> None:
        if not self.own["artists"]:
            return self.join()
        artist = self.random.choice(self.own["artists"])
        layout = self.layout()
        ((key,),) = self.run(
            "INSERT INTO example_tables (artist_id, name, table_config, layout_data)"
            " VALUES (%s, 'Load', '{\"width\": 900}', %s) RETURNING id::text",
            artist,
            Jsonb(layout),
        )
        self.told.added["example_tables"] += 1
        self.told.wrote("example_tables", key, artist_id=artist, layout_data=layout)
        self.works[artist].append(("example_tables", key))

    def leave(self) -> None:
        """An artist is deleted; what is theirs goes along."""
        if len(self.own["artists"]) < 5:
            return self.join()
        artist = self.own["artists"].pop(0)
        self.delete("artists", artist)
        for table, key in self.works.pop(artist):
            self.gone(table, key)

    def set_one(self, table: str, column: str, key: str, value: Any) -> None:
        self.run(f"UPDATE {table} SET {column} = %s WHERE id = %s", value, key)
        self.told.wrote(table, key, **{column: value})

    def edit_asset(self) -> None:
        column = self.random.choice(["description", "status", "name"])
        values = {
            "description": [None, "new", ""],
            "status": ["draft", "published", "archived"],
            "name": ["One", "Two"],
        }
        value = self.random.choice(values[column])
        self.set_one("assets", column, self.one_of(self.assets), value)

    def edit_artist(self) -> None:
        if not self.artists:
            return self.log_in()
        value = self.random.choice([None, "text"])
        self.set_one("artists", "bio", self.one_of(self.artists), value)


TABLES = (
    "artists",
    "assets",
    "user_tables",
    "example_tables",
    "orders",
    "stripe_transfers",
)


@dataclass(frozen=True)
class Kind:
    """A kind of act, and how often it is chosen."""

    name: str
    weight: float
    act: Callable[[Client], None]


MIX = (
    Kind("look at an asset", 22, Client.look_at_asset),
    Kind("browse by tag", 4, Client.browse),
    Kind("open a saved table", 12, Client.open_table),
    Kind("list a customer's orders", 8, Client.list_orders),
    Kind("log in", 5, Client.log_in),
    Kind("report of an artist", 3, Client.report_of_artist),
    Kind("report of sales", 3, Client.report_of_sales),
    Kind("who bought an asset", 2, Client.who_bought),
    Kind("report of the shop", 0.1, Client.report_of_shop),
    Kind("count a view", 11, Client.view_asset),
    Kind("count a showcase's view", 4, Client.view_example),
    Kind("save a table", 3, Client.save_table),
    Kind("save it again", 4, Client.save_again),
    Kind("delete a table", 1.5, Client.delete_table),
    Kind("buy", 3, Client.buy),
    Kind("change an order", 4, Client.change_order),
    Kind("add a line to an order", 1, Client.add_line),
    Kind("pay out", 2, Client.pay_out),
    Kind("delete an order", 0.7, Client.delete_order),
    Kind("join", 1, Client.join),
    Kind("exhibit", 1, Client.exhibit),
    Kind("leave", 0.6, Client.leave),
    Kind("edit an asset", 3, Client.edit_asset),
    Kind("edit an artist", 1, Client.edit_artist),
)
WEIGHTS = [kind.weight for kind in MIX]
