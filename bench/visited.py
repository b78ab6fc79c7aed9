"""Asks for the admin's pages: ``python -m bench.visited ROUNDS``, in a process of its own.

The rows that are looked at are the largest there are: the order with most lines, the
customer with most orders, the table with most on it.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import django


def rows() -> dict[str, Any]:
    """The rows that are looked at."""
    from django.db.models import Count, Func, IntegerField

    from catalogue.models import Asset, AssetSet, Model, Table
    from orders.models import Order, OrderItem, Payment
    from terrain.models import User

    most = OrderItem.objects.values("order").annotate(n=Count("pk")).order_by("-n")[0]
    buyer = (
        Order.objects.exclude(user=None)
        .values("user")
        .annotate(n=Count("pk"))
        .order_by("-n")[0]
    )
    size = Func("layout", function="pg_column_size", output_field=IntegerField())
    largest = Table.objects.exclude(share_code=None).order_by(size.desc())[0]
    chosen = AssetSet.objects.create(name="Measured")
    for position, asset in enumerate(Asset.objects.order_by("pk")[:200], 1):
        chosen.items.create(asset=asset, position=position)
    return {
        "order": Order.objects.get(pk=most["order"]),
        "item": OrderItem.objects.filter(order=most["order"])[0],
        "customer": User.objects.get(pk=buyer["user"]),
        "artist": User.objects.filter(role="artist").order_by("created_at")[0],
        "model": Model.objects.order_by("pk")[0],
        "asset": Asset.objects.order_by("-use_count")[0],
        "table": largest,
        "payment": Payment.objects.filter(stripe_transfer_id__startswith="tr_")[0],
        "paid": Order.objects.filter(stripe_payment_id__startswith="pi_")[0],
        "set": chosen,
    }


def pages() -> Iterator[tuple[str, str]]:
    """Name and address of each page."""
    from django.urls import reverse

    found = rows()
    yield "index", reverse("admin:index")
    yield "the move", reverse("admin:move")
    yield "the move, asked again", reverse("admin:move_now")
    for name, term in {
        "customer": found["customer"].email,
        "order number": found["order"].order_number,
        "share code": found["table"].share_code,
        "Stripe payment": found["paid"].stripe_payment_id,
        "Stripe transfer": found["payment"].stripe_transfer_id,
        "id of an asset": str(found["asset"].pk),
        "nothing": "no-such-thing",
    }.items():
        yield f"find: {name}", f"{reverse('admin:find')}?{urlencode({'q': term})}"
    for name, record in found.items():
        names = record._meta
        where = f"admin:{names.app_label}_{names.model_name}"
        yield f"page: {name}", reverse(f"{where}_change", args=[record.pk])
        yield f"list: {names.verbose_name_plural}", reverse(f"{where}_changelist")
    arrange = reverse("admin:catalogue_assetset_arrange", args=[found["set"].pk])
    yield "page: order of a set", arrange
    yield "list: quarantine", reverse("admin:legacy_quarantine_changelist")


def visited(rounds: int) -> list[dict[str, Any]]:
    """What each page took: the first time, and the median of the others."""
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    from terrain.models import User

    root = User.objects.create_superuser("bench@example.org")
    client = Client(SERVER_NAME="localhost")
    client.force_login(root, "django.contrib.auth.backends.ModelBackend")
    made = []
    for name, address in dict(pages()).items():
        times = []
        for _ in range(rounds + 1):
            with CaptureQueriesContext(connection) as queries:
                started = time.perf_counter()
                answer = client.get(address)
                times.append((time.perf_counter() - started) * 1000)
            assert answer.status_code == 200, address
        made.append(
            {
                "page": name,
                "first": times[0],
                "milliseconds": statistics.median(times[1:]),
                "queries": len(queries),
                "bytes": len(answer.content),
            }
        )
    return made


def main(rounds: str) -> None:
    django.setup()
    report = {"pages": visited(int(rounds))}
    Path(os.environ["BENCH_REPORT"]).write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
