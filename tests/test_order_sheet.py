"""An order laid out as an order; and pictures, where the shop's files can be had."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from catalogue.models import Asset, Model
from orders import sheet
from orders.models import Order, OrderItem, Payment
from terrain.pages import pictures
from tests import factories, odd_rows
from tests.admin_client import signed_in, url
from tests.conftest import Database


@pytest.fixture
def root(shared: Database) -> Client:
    return signed_in(superuser=True)


def page_of(client: Client, order: Order) -> str:
    page = client.get(url(Order, "change", order.pk))
    assert page.status_code == 200
    return str(page.content.decode())


def order_of(*totals: Any, **pricing: Any) -> Order:
    made: Order = factories.OrderFactory(
        pricing=pricing, shipping_address={"name": "Ann", "city": "Leeds", "x": 1}
    )
    for position, total in enumerate(totals, 1):
        factories.OrderItemFactory(order=made, position=position, total_price=total)
    return made


def test_lines_are_added_up_and_compared_with_what_was_charged(
    shared: Database,
) -> None:
    order = order_of("10.50", "2.00", model_subtotal=12.5, shipping=3.99, total=16.49)
    made = sheet.of(order)
    assert (made.of_lines, made.charged, made.agrees) == (
        Decimal("12.50"),
        "12.50",
        True,
    )
    assert made.amounts == (("Shipping", "3.99"), ("Total charged", "16.49"))
    assert made.address == ("Ann", "Leeds")
    assert not sheet.of(order_of("10.50", model_subtotal=12.5)).agrees


def test_the_page_shows_the_sheet_with_links_both_ways(root: Client) -> None:
    order = order_of("12.50", model_subtotal="12.50", total="12.50")
    item = order.items.get()
    factories.PaymentFactory(order=order, amount="10.00")
    page = page_of(root, order)
    assert "✓ as charged" in page and '<td class="number">12.50</td>' in page
    for model, key in (
        (OrderItem, item.pk),
        (Model, item.model_id),
        (Payment, order.payments.get().pk),
    ):
        assert f'href="{url(model, "change", key)}"' in page


@pytest.mark.parametrize(
    "pricing",
    [[], "x", {"model_subtotal": "NaN"}, {"total": {"a": [1]}}, {"total": 1e300}],
)
def test_no_pricing_upsets_the_sheet(
    shared: Database, root: Client, pricing: Any
) -> None:
    order = order_of("1.00", None)
    Order.objects.filter(pk=order.pk).update(pricing=pricing)
    nan = "UPDATE order_items SET total_price = 'NaN' WHERE order_id = %s AND position = 1"
    shared.execute(nan, order.pk)
    page = page_of(root, order)
    assert "NaN" in page and "✓ as charged" not in page


def test_an_order_of_many_lines_shows_the_first(root: Client) -> None:
    order = order_of(*["1.00"] * (sheet.SHOWN + 2), model_subtotal=52)
    page = page_of(root, order)
    assert ">2 more lines</a>" in page and "✓ as charged" in page


def test_odd_orders_have_a_sheet_and_inject_nothing(migrated: Database) -> None:
    odd_rows.insert(migrated)
    client = signed_in(superuser=True)
    for order in Order.objects.order_by("-created_at")[:60]:
        assert "<script>alert(1)" not in page_of(client, order)


# --- pictures ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("thumbs/1.png", "https://cdn.example.com/thumbs/1.png"),
        ("/thumbs/a b.png", "https://cdn.example.com/thumbs/a%20b.png"),
        ("https://cdn.example.com/t/1.png", "https://cdn.example.com/t/1.png"),
        ("https://elsewhere.example/t/1.png", None),
        ("//elsewhere.example/1.png", None),
        ("javascript:alert(1)", None),
        ("data:image/png;base64,xx", None),
        ("thumbs/../../secret", None),
        ("thumbs\\1.png", None),
        ('"><script>', "https://cdn.example.com/%22%3E%3Cscript%3E"),
        ("", None),
        (None, None),
        (7, None),
        ("x" * 2000, None),
    ],
)
def test_pictures_come_from_the_shop_and_from_nowhere_else(
    settings: Any, path: Any, expected: str | None
) -> None:
    settings.FILES_URL = "https://cdn.example.com/"
    assert pictures.url_of(path) == expected


def test_without_files_there_are_no_pictures(settings: Any) -> None:
    settings.FILES_URL = ""
    assert pictures.url_of("thumbs/1.png") is None
    assert pictures.thumbnail("thumbs/1.png", "x") == "-"


def test_pictures_are_on_the_pages(root: Client, settings: Any) -> None:
    asset = factories.AssetFactory(thumbnail_path="thumbs/7.png", name='A "tower"')
    assert b"thumbs/7.png" not in root.get(url(Asset, "changelist")).content
    settings.FILES_URL = "https://cdn.example.com/"
    image = (
        '<img class="thumbnail" src="https://cdn.example.com/thumbs/7.png"'
        ' alt="Picture of A &quot;tower&quot;"'
    )
    for where in (url(Asset, "changelist"), url(Asset, "change", asset.pk)):
        assert image in root.get(where).content.decode()
