"""Find anything: every key leads to its row, to what belongs to it and to the legacy row."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from catalogue.models import Asset, Model, Table
from orders.models import Order, OrderItem, Payment
from terrain.legacy import cut_over, found, heldrows
from terrain.legacy.models import Quarantine, Released
from terrain.models import User
from tests import factories, odd_rows
from tests.admin_client import signed_in, url
from tests.conftest import Database

FIND = reverse("admin:find")
#: Session, account and what the page asks.
MOST_QUERIES = 15


@pytest.fixture
def root(migrated: Database) -> Client:
    return signed_in(superuser=True)


def find(client: Client, term: Any) -> str:
    page = client.get(FIND, {"q": str(term)})
    assert page.status_code == 200
    return str(page.content.decode())


def first_order() -> Order:
    return Order.objects.filter(
        items__model__asset=None, payments__isnull=False
    ).order_by("order_number")[0]


# --- what is found -------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", [str, str.lower, lambda text: f"  {text} "])
def test_an_order_number_finds_the_order_and_all_that_belongs_to_it(
    root: Client, spelling: Any
) -> None:
    order = first_order()
    page = find(root, spelling(order.order_number))
    assert url(Order, "change", order.pk) in page
    for item in order.items.all():
        assert url(OrderItem, "change", item.pk) in page
        assert url(Model, "change", item.model_id) in page
    for payment in order.payments.all():
        assert url(Payment, "change", payment.pk) in page
    assert url(User, "change", order.user_id) in page
    assert f"From <code>public.orders</code> <code>{order.pk}</code>" in page


def test_an_item_leads_to_the_asset_of_its_model(root: Client) -> None:
    order = first_order()
    item = order.items.all()[0]
    assert item.model is not None
    asset = factories.AssetFactory(id=item.model_id, model=item.model)
    assert url(Asset, "change", asset.pk) in find(root, order.order_number)


def test_an_address_finds_the_account_its_orders_and_its_tables(root: Client) -> None:
    user = User.objects.filter(orders__isnull=False, tables__isnull=False)[0]
    page = find(root, f" {user.email.upper()} ")
    assert url(User, "change", user.pk) in page
    for order in user.orders.order_by("-created_at")[:10]:
        assert url(Order, "change", order.pk) in page
    for table in user.tables.order_by("-created_at")[:10]:
        assert url(Table, "change", table.pk) in page


def test_a_share_code_finds_the_table_and_its_library(root: Client) -> None:
    table = Table.objects.filter(share_code__isnull=False)[0]
    asset = factories.AssetFactory()
    table.table_assets.create(asset=asset, quantity=3)
    page = find(root, table.share_code)
    assert url(Table, "change", table.pk) in page
    assert url(Asset, "change", asset.pk) in page
    assert "From <code>public.user_tables</code>" in page


def test_stripe_ids_find_the_payment_the_order_and_the_artist(root: Client) -> None:
    payment = Payment.objects.filter(stripe_transfer_id__startswith="tr_")[0]
    assert url(Payment, "change", payment.pk) in find(root, payment.stripe_transfer_id)
    order = Order.objects.filter(stripe_payment_id__startswith="pi_")[0]
    assert url(Order, "change", order.pk) in find(root, order.stripe_payment_id)
    artist = User.objects.filter(stripe_account_id__startswith="acct_")[0]
    assert url(User, "change", artist.pk) in find(root, artist.stripe_account_id)


@pytest.mark.parametrize("model", [User, Model, Table, Order, OrderItem, Payment])
def test_any_id_finds_its_row(root: Client, model: Any) -> None:
    record = model.objects.order_by("pk")[0]
    for spelling in (str(record.pk), record.pk.hex, f"{{{record.pk}}}".upper()):
        assert url(model, "change", record.pk) in find(root, spelling)


def test_what_nothing_has_as_a_key_is_looked_for_in_names(root: Client) -> None:
    page = find(root, "tower & bridge")
    assert (
        "Nothing has “tower &amp; bridge” as its key, as far as you may look." in page
    )
    assert f"{url(Model, 'changelist')}?q=tower+%26+bridge" in page
    assert "Nothing has" not in find(root, "")


@pytest.mark.parametrize(
    "term", ["\x00", "%", "'", "x" * 5000, "🏰", "a@b@c", str(uuid.UUID(int=1)), "{"]
)
def test_no_term_upsets_the_page(root: Client, term: str) -> None:
    find(root, term)


# --- old beside new ------------------------------------------------------------------------


def test_each_value_says_where_it_came_from_and_by_which_expression(
    root: Client,
) -> None:
    page = find(root, first_order().order_number)
    assert 'from <code class="by">l.user_email</code>' in page
    assert (
        'from <code class="by">(l.created_at AT TIME ZONE &#x27;UTC&#x27;)</code>'
        in page
    )
    assert "computed once, with the other lines of the order" in page


def test_the_row_beneath_a_line_is_to_be_had_by_itself(root: Client) -> None:
    order = first_order()
    page = find(root, order.customer_email)
    (place,) = re.findall(f'data-beside="([^"]*{order.pk}[^"]*)"', page)
    beside = root.get(place)
    assert beside.status_code == 200
    assert f"public.orders</code> <code>{order.pk}" in beside.content.decode()
    assert b"<html" not in beside.content
    for wrong in ("orders.nosuch", "nosuch", "auth.group", "legacy.run"):
        assert (
            root.get(reverse("admin:find_beside", args=[wrong, order.pk])).status_code
            == 404
        )
    nobody = reverse("admin:find_beside", args=["orders.order", uuid.UUID(int=1)])
    assert root.get(nobody).status_code == 404


def test_a_held_row_is_found_by_its_own_keys_with_its_reason(
    migrated: Database, root: Client
) -> None:
    key, email, token = migrated.rows(
        "UPDATE user_tables SET layout_data = '[]' WHERE id = (SELECT id FROM user_tables"
        " WHERE user_email IS NOT NULL AND share_token IS NOT NULL LIMIT 1)"
        " RETURNING id, user_email, share_token"
    )[0]
    entry = Quarantine.objects.get(legacy_id=key)
    for term in (key, email, token):
        page = find(root, term)
        assert entry.detail in page and url(Quarantine, "change", entry.pk) in page
    assert "none: the row is held, see above" in find(root, token)


def test_after_a_retry_the_page_says_what_has_changed(
    migrated: Database, root: Client
) -> None:
    key = migrated.value(
        "UPDATE user_tables SET layout_data = '[]', name = 'Before'"
        " WHERE id = (SELECT id FROM user_tables LIMIT 1) RETURNING id"
    )
    migrated.execute(
        "UPDATE user_tables SET layout_data = '{\"models\": []}', name = 'After'"
        " WHERE id = %s",
        key,
    )
    released = Released.objects.get(legacy_id=key)
    changed = {column["name"] for column in heldrows.changed(released)}
    assert {"layout_data", "name"} <= changed and "id" not in changed
    page = find(root, key)
    assert "Was in quarantine" in page
    assert (
        '<pre class="value">Before</pre></td><td><pre class="value">After</pre>' in page
    )


def test_what_is_shown_already_is_not_shown_again(root: Client) -> None:
    user = User.objects.filter(orders__isnull=False)[0]
    page = find(root, user.email)
    for order in user.orders.all():
        assert page.count(f'href="{url(Order, "change", order.pk)}"') == 1


# --- fast ----------------------------------------------------------------------------------


def test_every_legacy_key_is_looked_for_by_an_index(migrated: Database) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        cursor.execute(
            "EXPLAIN " + found.query(), {"key": uuid.uuid4(), "terms": ["a@b.c"]}
        )
        plan = "\n".join(line for (line,) in cursor.fetchall())
        cursor.execute("RESET enable_seqscan")
    assert "Seq Scan" not in plan


@pytest.mark.parametrize("kind", ["address", "number", "code", "id"])
def test_the_page_asks_little(
    root: Client, kind: str, django_assert_max_num_queries: Any
) -> None:
    user = User.objects.filter(orders__isnull=False, tables__share_code__isnull=False)[
        0
    ]
    term = {
        "address": user.email,
        "number": user.orders.all()[0].order_number,
        "code": user.tables.filter(share_code__isnull=False)[0].share_code,
        "id": str(user.tables.all()[0].pk),
    }[kind]
    with django_assert_max_num_queries(MOST_QUERIES):
        find(root, term)


# --- who may, and what may be there ----------------------------------------------------------


def test_only_what_somebody_may_see_is_found(migrated: Database) -> None:
    order = first_order()
    assert order.user is not None
    clerk = signed_in("orders.view_order")
    page = find(clerk, order.order_number)
    assert url(Order, "change", order.pk) in page
    item = order.items.all()[0]
    assert url(OrderItem, "change", item.pk) not in page
    nothing = find(clerk, order.user.pk)
    assert url(User, "change", order.user_id) not in nothing
    assert "as far as you may look" in nothing
    beside = reverse("admin:find_beside", args=["terrain.user", order.user_id])
    assert clerk.get(beside).status_code == 404


def test_the_quarantine_is_for_those_who_may_see_it(
    migrated: Database, root: Client
) -> None:
    key = migrated.value(
        "UPDATE user_tables SET layout_data = '[]' WHERE id = (SELECT id FROM user_tables"
        " LIMIT 1) RETURNING id"
    )
    assert "layout_data that is no JSON object" in find(root, key)
    assert "layout_data" not in find(signed_in("catalogue.view_table"), key)


def test_who_may_see_nothing_has_no_box(migrated: Database) -> None:
    nobody = signed_in()
    assert b'role="search"' not in nobody.get(reverse("admin:index")).content
    assert nobody.get(FIND).status_code == 403
    assert (
        signed_in("orders.view_order")
        .get(reverse("admin:index"))
        .content.count(b'role="search"')
    )


def test_after_cleanup_new_rows_are_found_all_the_same(
    migrated: Database, root: Client
) -> None:
    order = first_order()
    cut_over.cut_over(connection)
    assert "legacy.orders" in find(root, order.order_number)
    migrated.execute("DROP SCHEMA legacy CASCADE")
    page = find(root, order.order_number)
    assert url(Order, "change", order.pk) in page and "legacy.orders" not in page


def test_odd_rows_are_found_and_inject_nothing(
    migrated: Database, root: Client
) -> None:
    odd_rows.insert(migrated)
    for model in (User, Model, Table, Order):
        for record in model.objects.order_by("-pk")[:40]:
            page = find(root, record.pk)
            assert "<script>alert(1)" not in page
    for entry in Quarantine.objects.all():
        page = find(root, entry.legacy_id)
        assert url(Quarantine, "change", entry.pk) in page
        assert "<script>alert(1)" not in page
