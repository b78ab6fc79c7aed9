"""The old application at work: its kinds of statements, and what it was told of each.

A client has one connection, held open, with every statement prepared.  Counters are
everybody's; of other values each client writes those of its own rows and of its own share of
the shop's, so what came last is known.  Tables that the application makes for itself are a
client's own, and are judged by it as it goes.
"""

from __future__ import annotations

import random
import time
import uuid
from collections import deque
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from bench.crew import Kind
from bench.told import Row, Shop, Told, Wrong, expect

#: Own rows that a client comes back to, the newest of each kind.
KEPT = 300


class Client:
    """One client: a connection, its own random choices, and what it was told."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        shop: Shop,
        number: int,
    ) -> None:
        self.connection = connection
        self.shop = shop
        self.number = number
        self.random = random.Random(number)
        self.told = Told()
        # Whose single values this client alone writes.
        self.assets = shop.share(shop.assets, number)
        self.artists = shop.share(shop.artists, number)
        # Its own rows: (table's id, token), order -> items, artist -> works.
        self.tokens: deque[tuple[str, str]] = deque(maxlen=KEPT)
        self.orders: dict[str, list[Row]] = {}
        self.paid: set[str] = set()
        self.works: dict[str, list[tuple[str, str]]] = {}
        self.made = 0
        self.kind = 0
        # What it was told first of where it lives and of its own table, and has to be told ever
        # after; and what it has counted there.
        self.lives: tuple[Any, ...] | None = None
        self.session: int | None = None
        self.visits: int | None = None

    def close(self) -> None:
        self.connection.close()

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
        at = self.random.randrange(len(self.tokens))
        key, _token = self.tokens[at]
        del self.tokens[at]
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
        self.orders[key] = items
        if len(self.orders) > KEPT:
            self.forget(next(iter(self.orders)))

    def forget(self, order: str) -> None:
        del self.orders[order]
        self.paid.discard(order)

    def change_order(self) -> None:
        if not self.orders:
            return self.buy()
        key = self.random.choice(list(self.orders))
        status = self.random.choice(["paid", "printing", "shipped", "cancelled"])
        self.run(
            "UPDATE orders SET status = %s, updated_at = now() WHERE id = %s",
            status,
            key,
        )
        self.told.wrote("orders", key, status=status)

    def add_line(self) -> None:
        if not self.orders:
            return self.buy()
        key = self.random.choice(list(self.orders))
        line = {"asset_id": self.one_of(self.shop.assets), "quantity": 1}
        ((items,),) = self.run(
            "UPDATE orders SET items = items || %s WHERE id = %s RETURNING items",
            Jsonb([line]),
            key,
        )
        expect(items, [*self.orders[key], line])
        self.orders[key] = items
        self.told.wrote("orders", key, items=items)

    def pay_out(self) -> None:
        if not self.orders:
            return self.buy()
        order = self.random.choice(list(self.orders))
        artist = self.one_of(self.shop.artists)
        if order in self.paid:
            return self.change_order()
        ((key,),) = self.run(
            "INSERT INTO stripe_transfers (order_id, artist_id, stripe_transfer_id, amount)"
            " VALUES (%s, %s, %s, 4.01) RETURNING id::text",
            order,
            artist,
            f"tr_{uuid.uuid4().hex}",
        )
        self.paid.add(order)
        self.told.added["stripe_transfers"] += 1
        self.told.wrote("stripe_transfers", key, order_id=order, artist_id=artist)

    def delete_order(self) -> None:
        free = [key for key in list(self.orders)[-20:] if key not in self.paid]
        if not free:
            return self.buy()
        key = self.random.choice(free)
        self.forget(key)
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
            self.works[artist] = [("assets", asset)]

    def exhibit(self) -> None:
        if not self.works:
            return self.join()
        artist = self.random.choice(list(self.works))
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
        if len(self.works) < 5:
            return self.join()
        artist = next(iter(self.works))
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

    # --- tables of the application's own -----------------------------------------------------

    def look_around(self) -> bool:
        """Where it lives, as its migration tool asks; and whether it may make tables there."""
        (lives,) = self.run(
            "SELECT current_schema()::text, current_setting('search_path'),"
            " coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)"
        )
        self.lives = self.lives or lives
        expect(lives, self.lives)
        return bool(lives[2])

    def start(self) -> None:
        """Its session table is made if it is not there, as at each start; a visit is counted."""
        table = f"session_{self.number}"
        make = (
            f'CREATE TABLE IF NOT EXISTS "{table}" (sid varchar PRIMARY KEY,'
            " sess json NOT NULL, expire timestamp(6) NOT NULL)"
        )
        if not self.look_around():
            return self.be_denied(make)
        self.run(make)
        ((found,),) = self.run("SELECT to_regclass(%s)::oid::bigint", table)
        self.session = self.session or found
        expect(found, self.session)
        ((visits,),) = self.run(
            f"INSERT INTO \"{table}\" AS s VALUES ('visitor', '{{\"visits\": 1}}', now())"
            " ON CONFLICT (sid) DO UPDATE SET sess ="
            " json_build_object('visits', (s.sess ->> 'visits')::int + 1)"
            " RETURNING (sess ->> 'visits')::int"
        )
        expect(visits, visits if self.visits is None else self.visits + 1)
        self.visits = visits

    def be_denied(self, statement: str) -> None:
        """Its role has no right to do this, and no command gives it one."""
        try:
            self.run(statement)
        except psycopg.errors.InsufficientPrivilege:
            return
        raise Wrong(f"It may do this now: {statement}")

    def make_report(self) -> None:
        """A table is made, filled, altered, looked for as migration tools do, and dropped."""
        table, asset = f"report_{self.number}", self.one_of(self.shop.assets)
        if not self.look_around():
            return self.be_denied(f"CREATE TABLE {table} (asset uuid)")
        # In blocks, since psycopg forgets all that is prepared when it sees an ALTER or a DROP.
        drop = f"DO $$ BEGIN DROP TABLE IF EXISTS {table}; END $$"
        self.run(drop)
        self.run(f"CREATE TABLE {table} (asset uuid PRIMARY KEY, name text)")
        self.run(
            f"DO $$ BEGIN ALTER TABLE {table} ADD note text NOT NULL DEFAULT 'x'; END $$"
        )
        found = self.run(
            f"INSERT INTO {table} (asset, name) SELECT id, name FROM assets WHERE id = %s"
            " RETURNING asset::text, note",
            asset,
        )
        expect(found, [(asset, "x")])
        expect(self.columns_of(table), ["asset", "name", "note"])
        self.run(drop)
        expect(self.columns_of(table), [])

    def columns_of(self, table: str) -> list[str]:
        found = self.run(
            "SELECT column_name::text FROM information_schema.columns"
            " WHERE table_schema = current_schema() AND table_name = %s ORDER BY 1",
            table,
        )
        return [name for (name,) in found]


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
    Kind("start", 1, Client.start),
    Kind("make a report", 0.3, Client.make_report),
)
WEIGHTS = [kind.weight for kind in MIX]
