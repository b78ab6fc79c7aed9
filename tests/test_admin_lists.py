"""Lists of the admin: searched, filtered, and paged through however long they are."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client

from catalogue.models import Asset, Model, Table
from orders.models import Order, OrderItem, Payment
from sessions_app.models import AnonymousSession
from terrain.legacy.models import Quarantine
from terrain.models import User
from terrain.pages.paging import LIMIT, BoundedPaginator, Estimate
from tests import factories
from tests.admin_client import FACTORIES, signed_in, url
from tests.conftest import Database

NOBODY = uuid.UUID(int=1)


@pytest.fixture
def root(migrated: Database) -> Client:
    """A superuser, in the migrated shop."""
    return signed_in(superuser=True)


def test_what_a_filter_of_the_list_asks_for_is_found(root: Client) -> None:
    for order in factories.OrderFactory.create_batch(2, status="printing"):
        assert (
            order.order_number
            in root.get(
                url(Order, "changelist") + "?status__exact=printing"
            ).content.decode()
        )
    page = root.get(url(Order, "changelist") + "?status__exact=cancelled")
    assert order.order_number not in page.content.decode()


@pytest.mark.parametrize(
    ("model", "query"),
    [
        (User, "password__startswith=x"),
        (Order, "user__password__startswith=x"),
        (AnonymousSession, "session_token__startswith=x"),
        (Table, "session__session_token__startswith=x"),
        (Quarantine, "row__password_hash__startswith=x"),
    ],
)
def test_what_no_page_shows_cannot_be_asked_for(
    root: Client, model: Any, query: str
) -> None:
    assert root.get(url(model, "changelist") + "?" + query).status_code == 400


# --- searching ---


def found(client: Client, model: Any, term: str) -> list[Any]:
    page = client.get(url(model, "changelist"), {"q": term})
    return list(page.context["cl"].result_list)


def test_an_account_is_found_by_address_whatever_its_case(root: Client) -> None:
    buyer = factories.UserFactory(email="jo@example.com")
    maker = factories.UserFactory(
        artist=True, email=" Mo@Example.com", display_name="Mo's"
    )
    assert found(root, User, "JO@example.COM ") == [buyer]
    assert found(root, User, "mo@example.com") == [maker]
    assert found(root, User, str(buyer.pk)) == [buyer]
    assert found(root, User, buyer.pk.hex) == [buyer]
    assert found(root, User, "mo's") == [maker]
    assert found(root, User, "nobody@example.com") == []


def test_an_order_is_found_by_number_and_address(root: Client) -> None:
    order = factories.OrderFactory(customer_email="Jo@Example.com")
    assert found(root, Order, order.order_number) == [order]
    assert found(root, Order, "jo@example.com") == [order]
    assert found(root, Order, str(order.pk)) == [order]
    assert found(root, Order, "TB") == []


def test_payments_tables_and_models_are_found_by_what_is_known_of_them(
    root: Client,
) -> None:
    payment = factories.PaymentFactory()
    table = factories.TableFactory(share_code="abc123")
    model = factories.ModelFactory(name="The Crooked Gate")
    assert found(root, Payment, payment.stripe_transfer_id) == [payment]
    assert found(root, Table, "abc123") == [table]
    assert found(root, Model, "crooked") == [model]
    assert found(root, OrderItem, "crooked") == []


@pytest.mark.parametrize(
    ("model", "term"),
    [
        (User, "player1@example.com"),
        (Order, "AA-0000001"),
        (Order, "player1@example.com"),
        (Order, str(NOBODY)),
        (Payment, "tr_1"),
        (Table, "code"),
    ],
)
def test_a_search_for_a_key_uses_an_index(root: Client, model: Any, term: str) -> None:
    """With sequential scans made dear: which way is there at all?"""
    view = admin.site._registry[model]
    conditions = list(view.key_conditions(term))
    assert conditions
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
    for condition in conditions:
        plan = model.objects.filter(condition).explain()
        assert "Seq Scan" not in plan, plan


@pytest.mark.parametrize(
    "model", [User, Model, Asset, Table, Order, OrderItem, Payment]
)
def test_a_list_is_read_in_the_order_of_an_index(root: Client, model: Any) -> None:
    FACTORIES[model].create_batch(2)
    page = root.get(url(model, "changelist"))
    rows = page.context["cl"].queryset
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off; SET enable_sort = off")
    plan = rows[:100].explain()
    assert "Seq Scan" not in plan
    assert "Sort Key" not in plan or "Presorted Key" in plan, plan


# --- large tables ---


def test_a_large_table_is_estimated_and_leafed_through_so_far_only(
    migrated: Database, root: Client
) -> None:
    migrated.execute(
        "INSERT INTO anonymous_sessions (id, session_token, last_seen)"
        " SELECT gen_random_uuid(), n::text, now() - n * interval '1 second'"
        " FROM generate_series(1, 25000) n"
    )
    migrated.execute("ANALYZE anonymous_sessions")
    page = root.get(url(AnonymousSession, "changelist"))
    count = page.context["cl"].result_count
    assert isinstance(count, Estimate)
    assert 20_000 < count < 30_000
    assert f"about {int(count):,} anonymous sessions" in page.content.decode()
    paginator = page.context["cl"].paginator
    assert paginator.num_pages == LIMIT // 100
    last = root.get(url(AnonymousSession, "changelist"), {"p": paginator.num_pages})
    assert len(last.context["cl"].result_list) == 100
    beyond = root.get(
        url(AnonymousSession, "changelist"), {"p": paginator.num_pages + 1}
    )
    assert beyond.status_code == 302
    assert not any("COUNT(*)" in each and "LIMIT" not in each for each in queries(root))


def queries(client: Client) -> list[str]:
    """What PostgreSQL is asked for a large list."""
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as captured:
        client.get(url(AnonymousSession, "changelist"))
    return [each["sql"] for each in captured if "anonymous_sessions" in each["sql"]]


def test_a_small_table_is_counted(migrated: Database) -> None:
    rows = BoundedPaginator(User.objects.order_by("pk"), 7)
    assert rows.count == User.objects.count()
    assert not isinstance(rows.count, Estimate)
    assert rows.num_pages == -(-rows.count // 7)
    assert BoundedPaginator(User.objects.none(), 7).num_pages == 1
    assert BoundedPaginator([1, 2, 3], 2).num_pages == 2
