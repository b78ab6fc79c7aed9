"""The new application at work: what it does through Django's models, and what it was told.

It works from after ``migrate`` to before ``rollback_migration``: between, it has no tables.
Through a cut-over and its undoing it works on.
What of its writes the legacy tables hold is remembered in their terms, what only the new
schema can hold under the names of the new tables.
"""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
from collections import deque
from typing import Any

from bench import clients, shop
from bench.crew import Crew, Kind
from bench.told import Shop, Told

#: New tables whose rows no legacy table has.
ONLY_NEW = ("users", "asset_sets", "asset_set_items")
#: Clients: all in one process, a thread and a connection each.
NUMBER = 3
#: Acts a second of all together.
RATE = 30.0
#: Own rows that a client comes back to.
KEPT = 300

_setting_up = threading.Lock()


def at_work(database: str, found: Shop, limit: float, rate: float = RATE) -> Crew:
    """The new application's clients, idle until they are told to go on."""
    return Crew(
        _client,
        (shop.address(database), found),
        rate,
        limit,
        processes=1,
        each=NUMBER,
        first=clients.NUMBER,
        idle=True,
    )


def _client(number: int, address: str, found: Shop) -> Client:
    with _setting_up:
        os.environ["DATABASE_URL"] = address
        os.environ["DJANGO_SETTINGS_MODULE"] = "terrain.settings"
        import django

        django.setup()
    return Client(found, number)


class Client:
    """One client.  ``gave_way`` in what it was told are writes that it let go of."""

    def __init__(self, shop: Shop, number: int) -> None:
        self.shop = shop
        self.number = number
        self.random = random.Random(number)
        self.told = Told()
        self.kind = 0
        self.made = 0
        # Whose single values this client alone writes.
        self.models = shop.share(shop.assets, number)
        self.tables = shop.share(shop.tables, number)
        self.orders = shop.share(shop.orders, number)
        # Its own rows.
        self.customers: deque[str] = deque(maxlen=KEPT)
        self.own_tables: deque[str] = deque(maxlen=KEPT)
        self.own_orders: deque[str] = deque(maxlen=KEPT)
        self.sets: dict[str, list[str]] = {}

    def act(self) -> None:
        """Do one thing, as a view of the new application would, over a connection of its own."""
        from django.db import close_old_connections

        from terrain.exceptions import TryAgain

        (self.kind,) = self.random.choices(range(len(MIX)), WEIGHTS)
        at, began = time.time(), time.perf_counter()
        try:
            MIX[self.kind].act(self)
        except TryAgain:
            self.told.gave_way.append((at, MIX[self.kind].name))
        except Exception as error:
            said = f"{type(error).__name__}: {str(error).strip()}"
            self.told.refused.append((at, MIX[self.kind].name, said))
        finally:
            close_old_connections()
        self.told.started.append(at)
        self.told.seconds.append(time.perf_counter() - began)
        self.told.kinds.append(self.kind)

    def close(self) -> None:
        from django.db import connection

        connection.close()

    def one_of(self, some: list[str]) -> str:
        """Any of them, the first ones far more often, as in the old application's clients."""
        return some[int(len(some) * self.random.random() ** 3)]

    # --- reads -----------------------------------------------------------------------------

    def browse(self) -> None:
        from catalogue.models import Asset

        list(
            Asset.objects.filter(status="published", tags__contains=["tag9"])
            .select_related("artist")
            .order_by("-created_at")[:20]
        )

    def open_table(self) -> None:
        from catalogue.models import Table

        table = Table.objects.filter(pk=self.random.choice(self.shop.tables)).first()
        if table is not None:
            list(table.library.all()[:50])

    def open_order(self) -> None:
        from orders.models import Order

        order = Order.objects.filter(pk=self.random.choice(self.shop.orders)).first()
        if order is not None:
            list(order.items.select_related("model", "artist"))

    # --- counters, which the old application raises too ---------------------------------------

    def count(self, model: Any, legacy: str, key: str) -> None:
        from django.db.models import F

        from terrain import locks

        counted = locks.patiently(
            "default",
            lambda: model.objects.filter(pk=key).update(view_count=F("view_count") + 1),
        )
        if counted != 1:
            raise LookupError(f"{legacy} {key} is not there")
        self.told.raised[legacy, "view_count", key] += 1

    def view_model(self) -> None:
        from catalogue.models import Model

        self.count(Model, "assets", self.one_of(self.shop.assets))

    def view_example(self) -> None:
        from catalogue.models import Table

        self.count(Table, "example_tables", self.one_of(self.shop.examples))

    # --- what the old application reads ------------------------------------------------------

    def change(self, model: Any, legacy: str, key: str, **values: Any) -> None:
        """Read, change and save; ``values`` have the legacy names, which are the new ones."""
        row = model.objects.get(pk=key)
        for name, value in values.items():
            setattr(row, name, value)
        row.save()
        self.told.wrote(legacy, key, **values)

    def edit_table(self) -> None:
        from catalogue.models import Table

        self.made += 1
        self.change(
            Table,
            "user_tables",
            self.random.choice(self.tables),
            name=f"Renamed {self.made}",
            is_public=self.random.random() < 0.5,
        )

    def edit_model(self) -> None:
        from catalogue.models import Model

        self.made += 1
        self.change(
            Model,
            "assets",
            self.random.choice(self.models),
            genre=f"Genre {self.made % 7}",
        )

    def change_order(self) -> None:
        from orders.models import Order

        key = self.random.choice([*self.orders[:200], *self.own_orders])
        status = self.random.choice(["paid", "printing", "shipped", "cancelled"])
        self.change(Order, "orders", key, status=status)

    def place_order(self) -> None:
        """An order and its lines, in one transaction that is done again if it must give way."""
        from orders.models import Order, OrderItem
        from terrain import locks

        self.made += 1
        values = {
            "order_number": f"N{self.number}-{self.made}",
            "user_email": f"buys{self.number}x{self.made % 50}@new.example",
            "user_name": "New",
        }
        model = self.one_of(self.shop.assets)
        key = uuid.uuid4()

        def place() -> None:
            order = Order.objects.create(
                id=key,
                order_number=values["order_number"],
                customer_email=values["user_email"],
                customer_name=values["user_name"],
                shipping_address={},
                pricing={"total": 9.5},
            )
            for position in (1, 2):
                OrderItem.objects.create(
                    order=order,
                    position=position,
                    asset_ref=model,
                    quantity=position,
                    unit_price="2.50",
                    total_price=f"{position * 2.5:.2f}",
                    price_source="own",
                )

        locks.patiently("default", place)
        self.told.added["orders"] += 1
        self.told.wrote("orders", str(key), **values)
        self.own_orders.append(str(key))

    def save_table(self) -> None:
        from catalogue.models import Table

        if not self.customers:
            return self.join()
        self.made += 1
        key, code = uuid.uuid4(), f"new{self.number}x{self.made}"
        Table.objects.create(
            id=key,
            user_id=self.random.choice(self.customers),
            name="New",
            width=900,
            depth=600,
            share_code=code,
            contact_email=f"saves{self.number}@new.example",
        )
        self.told.added["user_tables"] += 1
        self.told.wrote("user_tables", str(key), name="New", share_token=code)
        self.own_tables.append(str(key))

    def delete_table(self) -> None:
        from catalogue.models import Table

        if len(self.own_tables) < 5:
            return self.save_table()
        key = self.own_tables[0]
        Table.objects.get(pk=key).delete()
        self.own_tables.popleft()
        self.told.rows["user_tables", key] = None
        self.told.added["user_tables"] -= 1

    # --- what only the new schema can hold -----------------------------------------------------

    def join(self) -> None:
        from terrain.models import User

        self.made += 1
        email = f"joins{self.number}x{self.made}@new.example"
        user = User.objects.create_user(email, display_name="New")
        self.told.wrote(
            "users", str(user.pk), email=email, display_name="New", role="customer"
        )
        self.customers.append(str(user.pk))

    def collect(self) -> None:
        """A set of two assets, in one transaction."""
        from catalogue.models import Asset, AssetSet, AssetSetItem
        from terrain import locks

        if not self.customers:
            return self.join()
        assets = [self.one_of(self.models) for _ in range(2)]
        if Asset.objects.filter(pk__in=assets).count() != 2:
            return (
                self.browse()
            )  # not copied to the catalogue yet, or the same one twice
        self.made += 1
        name, owner = f"Set {self.made}", self.random.choice(self.customers)
        key, lines = uuid.uuid4(), [uuid.uuid4() for _ in assets]

        def make() -> None:
            made = AssetSet.objects.create(id=key, name=name, owner_id=owner)
            for position, (line, asset) in enumerate(zip(lines, assets, strict=True)):
                AssetSetItem.objects.create(
                    id=line, asset_set=made, asset_id=asset, position=position
                )

        locks.patiently("default", make)
        self.told.wrote("asset_sets", str(key), name=name, owner_id=owner)
        for position, (line, asset) in enumerate(zip(lines, assets, strict=True)):
            self.told.wrote(
                "asset_set_items",
                str(line),
                asset_set_id=str(key),
                asset_id=asset,
                position=position,
            )
        self.sets[str(key)] = list(map(str, lines))

    def break_up(self) -> None:
        """A set is deleted, its lines with it."""
        from catalogue.models import AssetSet

        if len(self.sets) < 5:
            return self.collect()
        key = next(iter(self.sets))
        AssetSet.objects.get(pk=key).delete()
        self.told.rows["asset_sets", key] = None
        for line in self.sets.pop(key):
            self.told.rows["asset_set_items", line] = None


MIX = (
    Kind("browse", 12, Client.browse),
    Kind("open a table", 12, Client.open_table),
    Kind("open an order", 12, Client.open_order),
    Kind("count a model's view", 14, Client.view_model),
    Kind("count an example's view", 6, Client.view_example),
    Kind("edit a table", 8, Client.edit_table),
    Kind("edit a model", 5, Client.edit_model),
    Kind("change an order", 8, Client.change_order),
    Kind("place an order", 4, Client.place_order),
    Kind("save a table", 4, Client.save_table),
    Kind("delete a table", 3, Client.delete_table),
    Kind("join", 4, Client.join),
    Kind("collect", 5, Client.collect),
    Kind("break up a set", 2, Client.break_up),
)
WEIGHTS = [kind.weight for kind in MIX]
