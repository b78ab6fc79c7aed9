"""The copies as Django's documentation has them: RunPython with iterator and bulk_create.

``python -m bench.textbook WHAT``, in a process of its own, for its memory too.  Each copy is one
transaction, as RunPython's is unless told otherwise.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import django
from django.db import models, transaction

#: Rows read, and rows written, at once.
BATCH = 2_000


def legacy(table: str) -> Any:
    """A model of a legacy table, as inspectdb would write it."""
    from django.db import connection

    kinds: dict[str, Callable[[], models.Field[Any, Any]]] = {
        "uuid": models.UUIDField,
        "jsonb": models.JSONField,
        "boolean": models.BooleanField,
        "integer": models.IntegerField,
        "numeric": lambda: models.DecimalField(max_digits=10, decimal_places=2),
        "timestamp without time zone": models.DateTimeField,
        "ARRAY": _texts,
    }
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = 'legacy' AND table_name = %s ORDER BY ordinal_position",
            [table],
        )
        columns = cursor.fetchall()
    fields: dict[str, Any] = {
        name: kinds.get(kind, models.TextField)() for name, kind in columns
    }
    fields["id"] = models.UUIDField(primary_key=True)
    meta = type(
        "Meta",
        (),
        {"app_label": "bench", "db_table": f'legacy"."{table}', "managed": False},
    )
    return type(
        f"Legacy{table.title().replace('_', '')}",
        (models.Model,),
        {**fields, "Meta": meta, "__module__": __name__},
    )


def _texts() -> Any:
    from django.contrib.postgres.fields import ArrayField

    return ArrayField(models.TextField())


def utc(moment: Any) -> Any:
    return moment.replace(tzinfo=UTC)


def made_from(text: str) -> uuid.UUID:
    return uuid.UUID(hashlib.md5(text.encode()).hexdigest())


def in_batches(rows: Iterator[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def accounts() -> dict[str, uuid.UUID]:
    from terrain.models import User

    return {
        email.lower(): key for key, email in User.objects.values_list("id", "email")
    }


def copy_assets() -> None:
    from catalogue.models import Model

    same = (
        "id artist_id name description base_price genre categories tags aabb footprint"
        " file_paths print_recommendations print_stats status view_count purchase_count"
    ).split()
    for batch in in_batches(legacy("assets").objects.iterator(chunk_size=BATCH)):
        Model.objects.bulk_create(
            [
                Model(
                    **{name: getattr(row, name) for name in same},
                    created_at=utc(row.created_at),
                    updated_at=utc(row.updated_at),
                )
                for row in batch
            ],
            batch_size=BATCH,
        )


def copy_tables() -> None:
    from catalogue.models import Table
    from sessions_app.models import AnonymousSession

    owners = accounts()
    for batch in in_batches(legacy("user_tables").objects.iterator(chunk_size=BATCH)):
        sessions, tables = [], []
        for row in batch:
            owner = owners.get((row.user_email or "").strip().lower())
            at = utc(row.created_at)
            session = None
            if owner is None:
                session = AnonymousSession(
                    id=made_from(f"session:{row.id}"), created_at=at, last_seen=at
                )
                sessions.append(session)
            config = dict(row.table_config)
            tables.append(
                Table(
                    id=row.id,
                    kind="user",
                    user_id=owner,
                    session_id=session and session.id,
                    name=row.name,
                    width=config.pop("width"),
                    depth=config.pop("depth"),
                    config=config,
                    layout=row.layout_data,
                    share_code=row.share_token,
                    is_public=row.is_public,
                    contact_email=row.user_email,
                    plan="anon_free" if owner is None else "user_free",
                    created_at=at,
                    updated_at=utc(row.updated_at),
                )
            )
        AnonymousSession.objects.bulk_create(sessions, batch_size=BATCH)
        Table.objects.bulk_create(tables, batch_size=BATCH)
    for batch in in_batches(
        legacy("example_tables").objects.iterator(chunk_size=BATCH)
    ):
        tables = []
        for row in batch:
            config = dict(row.table_config)
            tables.append(
                Table(
                    id=row.id,
                    kind="example",
                    user_id=row.artist_id,
                    name=row.name,
                    description=row.description,
                    thumbnail_url=row.thumbnail_url,
                    width=config.pop("width"),
                    depth=config.pop("depth"),
                    config=config,
                    layout=row.layout_data,
                    is_public=True,
                    is_featured=row.is_featured,
                    view_count=row.view_count,
                    plan="user_free",
                    created_at=utc(row.created_at),
                    updated_at=utc(row.created_at),
                )
            )
        Table.objects.bulk_create(tables, batch_size=BATCH)


def copy_orders() -> None:
    from catalogue.models import Model
    from orders.models import Order, OrderItem

    owners = accounts()
    catalogue = {
        str(key): rest
        for key, *rest in Model.objects.values_list(
            "id", "artist_id", "name", "base_price"
        )
    }
    same = (
        "id order_number shipping_address pricing status print_farm_order_id"
        " stripe_payment_id paypal_payment_id tracking_number notes"
    ).split()
    for batch in in_batches(legacy("orders").objects.iterator(chunk_size=BATCH)):
        orders, items = [], []
        for row in batch:
            orders.append(
                Order(
                    **{name: getattr(row, name) for name in same},
                    user_id=owners.get(row.user_email.strip().lower()),
                    customer_email=row.user_email,
                    customer_name=row.user_name,
                    created_at=utc(row.created_at),
                    updated_at=utc(row.updated_at),
                )
            )
            for position, item in enumerate(row.items, 1):
                artist, name, price = catalogue[item["asset_id"]]
                options = item.get("printOptions", {})
                items.append(
                    OrderItem(
                        id=made_from(f"{row.id}:{position}"),
                        order_id=row.id,
                        position=position,
                        asset_ref=item["asset_id"],
                        model_id=uuid.UUID(item["asset_id"]),
                        artist_id=artist,
                        model_name=name,
                        quantity=item["quantity"],
                        unit_price=price,
                        total_price=price * item["quantity"],
                        price_source="catalogue",
                        print_color=options.get("color"),
                        print_material=options.get("material"),
                        print_quality=options.get("quality"),
                        special_instructions=options.get("notes"),
                        extra={
                            key: value
                            for key, value in item.items()
                            if key not in ("asset_id", "quantity", "printOptions")
                        },
                    )
                )
        Order.objects.bulk_create(orders, batch_size=BATCH)
        OrderItem.objects.bulk_create(items, batch_size=BATCH)


COPIES = {"assets": copy_assets, "tables": copy_tables, "orders": copy_orders}


def main(what: str) -> None:
    django.setup()
    started = time.perf_counter()
    with transaction.atomic():
        # The limits of tables are for people, not for what was there before them.
        from django.db import connection

        connection.cursor().execute("SELECT set_config('terrain.sync', 'on', true)")
        COPIES[what]()
    seconds = time.perf_counter() - started
    Path(os.environ["BENCH_REPORT"]).write_text(
        json.dumps({"seconds": seconds}), encoding="utf-8"
    )


if __name__ == "__main__":
    main(sys.argv[1])
