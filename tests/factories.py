"""One of everything, for tests that need a row and do not care which."""

from __future__ import annotations

import datetime
import uuid

import factory
from factory.django import DjangoModelFactory

from catalogue.models import (
    Asset,
    AssetSet,
    AssetSetItem,
    AssetUsage,
    DailyUsage,
    Model,
    Table,
    TableAsset,
    TableSet,
    UsageSource,
)
from orders.models import Order, OrderItem, Payment
from sessions_app.models import AnonymousSession
from terrain.legacy.models import Batch, Quarantine, Released, Run
from terrain.models import User


class UserFactory(DjangoModelFactory):
    """A customer; ``artist`` and ``admin`` are the other roles."""

    class Meta:
        model = User
        skip_postgeneration_save = True

    class Params:
        artist = factory.Trait(
            role=User.Role.ARTIST,
            email=factory.Sequence(lambda n: f"maker{n}@example.org"),
        )
        admin = factory.Trait(
            role=User.Role.ADMIN,
            email=factory.Sequence(lambda n: f"staff{n}@example.org"),
        )
        superuser = factory.Trait(admin=True, is_superuser=True)

    email = factory.Sequence(lambda n: f"buyer{n}@example.org")
    display_name = factory.Sequence(lambda n: f"Person {n}")
    password = factory.django.Password("a long enough password")


class ModelFactory(DjangoModelFactory):
    class Meta:
        model = Model

    artist = factory.SubFactory(UserFactory, artist=True)
    name = factory.Sequence(lambda n: f"Tower {n}")
    base_price = "12.50"
    tags = factory.LazyFunction(lambda: ["terrain", "tower"])
    file_paths = factory.Sequence(
        lambda n: {"glb": f"models/x{n}.glb", "stl": f"models/x{n}.stl"}
    )
    status = "published"


class AssetFactory(DjangoModelFactory):
    class Meta:
        model = Asset

    model = factory.SubFactory(ModelFactory)
    id = factory.LazyAttribute(
        lambda asset: asset.model.id if asset.model else uuid.uuid4()
    )
    artist = factory.LazyAttribute(lambda asset: asset.model.artist)
    name = factory.LazyAttribute(lambda asset: asset.model.name)
    file_ref = factory.LazyAttribute(lambda asset: asset.model.file_paths["stl"])
    base_price = "12.50"


class AssetSetFactory(DjangoModelFactory):
    class Meta:
        model = AssetSet

    name = factory.Sequence(lambda n: f"Set {n}")
    owner = factory.SubFactory(UserFactory)


class AssetSetItemFactory(DjangoModelFactory):
    class Meta:
        model = AssetSetItem

    asset_set = factory.SubFactory(AssetSetFactory)
    asset = factory.SubFactory(AssetFactory)
    position = factory.Sequence(lambda n: n + 1)


class AnonymousSessionFactory(DjangoModelFactory):
    class Meta:
        model = AnonymousSession


class TableFactory(DjangoModelFactory):
    """A user's table; ``visitor`` is one of a session, ``example`` one of an artist."""

    class Meta:
        model = Table

    class Params:
        visitor = factory.Trait(
            user=None,
            session=factory.SubFactory(AnonymousSessionFactory),
            contact_email=None,
        )
        example = factory.Trait(
            kind=Table.Kind.EXAMPLE,
            user=factory.SubFactory(UserFactory, artist=True),
            contact_email=None,
        )

    user = factory.SubFactory(UserFactory)
    contact_email = factory.LazyAttribute(lambda table: table.user and table.user.email)
    name = factory.Sequence(lambda n: f"Table {n}")
    width = 1200
    depth = 900
    config = factory.LazyFunction(lambda: {"grid_size": 25})
    layout = factory.LazyFunction(lambda: {"models": []})


class TableAssetFactory(DjangoModelFactory):
    class Meta:
        model = TableAsset

    table = factory.SubFactory(TableFactory)
    asset = factory.SubFactory(AssetFactory)
    quantity = 2


class TableSetFactory(DjangoModelFactory):
    class Meta:
        model = TableSet

    table = factory.SubFactory(TableFactory)
    asset_set = factory.SubFactory(AssetSetFactory)


class OrderFactory(DjangoModelFactory):
    class Meta:
        model = Order

    order_number = factory.Sequence(lambda n: f"TB-{n:07}")
    user = factory.SubFactory(UserFactory)
    customer_email = factory.LazyAttribute(lambda order: order.user.email)
    customer_name = factory.LazyAttribute(lambda order: order.user.display_name)
    shipping_address = factory.LazyAttribute(
        lambda order: {"name": order.customer_name, "line1": "1 High Street"}
    )
    pricing = factory.LazyFunction(lambda: {"model_subtotal": 25, "total": 33.49})
    status = Order.Status.PAID


class OrderItemFactory(DjangoModelFactory):
    class Meta:
        model = OrderItem

    order = factory.SubFactory(OrderFactory)
    model = factory.SubFactory(ModelFactory)
    position = factory.LazyAttribute(lambda item: item.order.items.count() + 1)
    asset_ref = factory.LazyAttribute(lambda item: str(item.model.id))
    artist = factory.LazyAttribute(lambda item: item.model.artist)
    model_name = factory.LazyAttribute(lambda item: item.model.name)
    quantity = 2
    unit_price = "12.50"
    total_price = "25.00"


class PaymentFactory(DjangoModelFactory):
    class Meta:
        model = Payment

    order = factory.SubFactory(OrderFactory)
    artist = factory.SubFactory(UserFactory, artist=True)
    stripe_transfer_id = factory.Sequence(lambda n: f"tr_{n:08}")
    amount = "20.00"
    status = Payment.Status.COMPLETED


class AssetUsageFactory(DjangoModelFactory):
    class Meta:
        model = AssetUsage

    asset = factory.SubFactory(AssetFactory)
    day = factory.Sequence(lambda n: datetime.date(2020, 1, 1 + n % 28))
    source = UsageSource.LIBRARY
    adds = 3


class DailyUsageFactory(DjangoModelFactory):
    class Meta:
        model = DailyUsage

    day = factory.Sequence(
        lambda n: datetime.date(2019, 1, 1) + datetime.timedelta(days=n)
    )
    source = UsageSource.LIBRARY
    adds = 3


class RunFactory(DjangoModelFactory):
    class Meta:
        model = Run

    step = "copy orders"
    state = Run.State.DONE
    rows = 100
    seconds = 1.5


class BatchFactory(DjangoModelFactory):
    class Meta:
        model = Batch

    run = factory.SubFactory(RunFactory)
    upto = factory.LazyFunction(uuid.uuid4)
    rows = 100
    seconds = 0.08


class QuarantineFactory(DjangoModelFactory):
    class Meta:
        model = Quarantine

    legacy_table = "orders"
    legacy_id = factory.LazyFunction(uuid.uuid4)
    kind = Quarantine.Kind.HELD
    reason = "quantity_missing"
    detail = factory.LazyAttribute(
        lambda entry: f"orders {entry.legacy_id} has an item without a quantity."
    )
    row = factory.LazyAttribute(
        lambda entry: {"id": str(entry.legacy_id), "items": [{}]}
    )


class ReleasedFactory(DjangoModelFactory):
    class Meta:
        model = Released

    legacy_table = "orders"
    legacy_id = factory.LazyFunction(uuid.uuid4)
    kind = Quarantine.Kind.HELD
    reason = "quantity_missing"
    detail = "It had an item without a quantity."
    row = factory.LazyAttribute(
        lambda entry: {"id": str(entry.legacy_id), "items": [{}]}
    )
