"""The quarantine in the admin: what is wrong, the row, and what can be done."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client

from orders.models import OrderItem
from terrain.legacy import cut_over
from terrain.legacy.models import Batch, Quarantine, Released, Run
from terrain.models import User
from tests import browser, factories, odd_rows
from tests.admin_client import said, signed_in, url
from tests.conftest import Database

LIST = url(Quarantine, "changelist")


@pytest.fixture
def root(migrated: Database) -> Client:
    return signed_in(superuser=True)


@pytest.fixture
def held(migrated: Database) -> Quarantine:
    """An order whose only item has no quantity."""
    odd_rows.artists(migrated)
    migrated.execute(
        "INSERT INTO orders (order_number, user_email, user_name, shipping_address, items,"
        " pricing) VALUES ('H-1', 'h@x.org', 'H', '{}', '[{\"asset_id\": \"x\"}]',"
        " '{\"total\": 1.10}')"
    )
    return Quarantine.objects.get(legacy_table="orders", reason="quantity_missing")


def act(client: Client, action: str, *entries: Quarantine) -> Any:
    data = {"action": action, "_selected_action": [str(each.pk) for each in entries]}
    return client.post(LIST, data)


def test_the_list_counts_by_table_and_reason(root: Client, held: Quarantine) -> None:
    page = root.get(LIST).content.decode()
    link = "?legacy_table=orders&amp;reason=quantity_missing&amp;kind=held"
    assert (
        f'<a href="{LIST}{link}">quantity_missing</a></td><td>1</td><td>1</td>' in page
    )
    narrowed = root.get(LIST + link.replace("&amp;", "&"))
    assert list(narrowed.context["cl"].result_list) == [held]
    undecided = root.get(LIST + "?decided_at__isempty=1").context["cl"]
    assert held in list(undecided.result_list)


def test_the_page_says_what_is_wrong_and_shows_the_row(
    migrated: Database, root: Client, held: Quarantine
) -> None:
    page = root.get(url(Quarantine, "change", held.pk)).content.decode()
    assert (
        f"orders {held.legacy_id} has an item without a quantity. Give every item a whole"
        " quantity of at least 1 in the old application, then retry." in page
    )
    assert "&quot;total&quot;: 1.10" in page
    assert url(type_of_order(), "change", held.legacy_id) in page
    assert 'name="_save"' not in page
    migrated.execute(
        "UPDATE public.orders SET notes = 'seen' WHERE id = %s", held.legacy_id
    )
    page = root.get(url(Quarantine, "change", held.pk)).content.decode()
    assert '<pre class="value">seen</pre>' in page
    migrated.execute(
        "UPDATE public.orders SET notes = NULL WHERE id = %s", held.legacy_id
    )
    page = root.get(url(Quarantine, "change", held.pk)).content.decode()
    assert "<td>NULL</td><td></td>" in page and "seen" not in page


def test_a_row_that_has_gone_is_said_to_have_gone(root: Client) -> None:
    entry = factories.QuarantineFactory(row=[1.5])
    page = root.get(url(Quarantine, "change", entry.pk)).content.decode()
    assert "The row is no longer in its table." in page
    assert '<pre class="value">[\n  1.5\n]</pre>' in page
    released = factories.ReleasedFactory()
    page = root.get(url(Released, "change", released.pk)).content.decode()
    assert "quantity" in page and str(released.legacy_id) in page


def type_of_order() -> Any:
    from orders.models import Order

    return Order


def test_a_password_in_a_quarantined_row_is_not_shown(
    migrated: Database, root: Client, held: Quarantine
) -> None:
    entry = Quarantine.objects.filter(legacy_table="artists")[0]
    assert "password_hash" in entry.row
    migrated.execute(
        "UPDATE artists SET password_hash = 'sesame' WHERE id = %s", entry.legacy_id
    )
    page = root.get(url(Quarantine, "change", entry.pk)).content.decode()
    assert "password_hash" in page
    assert entry.row["password_hash"] not in page and "sesame" not in page


def test_retrying_releases_what_has_been_put_right(
    migrated: Database, root: Client, held: Quarantine
) -> None:
    """Whoever repairs a row with the triggers off, or before they were there, retries."""
    answer = act(root, "retry", held)
    assert answer.status_code == 302
    first, second = said(answer)
    assert first == "0 of 1 released."
    assert second.startswith(f"Not yet: orders {held.legacy_id} has an item without")
    migrated.superuser.execute(
        "SET session_replication_role = replica;"
        "ALTER TABLE public.orders DISABLE TRIGGER zz_terrain_sync_row;"
        'UPDATE public.orders SET items = \'[{"asset_id": "x", "quantity": 3}]\''
        " WHERE order_number = 'H-1';"
        "ALTER TABLE public.orders ENABLE ALWAYS TRIGGER zz_terrain_sync_row"
    )
    assert Quarantine.objects.filter(pk=held.pk).exists()
    page = root.get(url(Quarantine, "change", held.pk)).content
    data = {**browser.form(page, ""), "action": "retry"}
    answer = root.post(LIST, data)
    assert "1 of 1 released." in said(answer)
    assert not Quarantine.objects.filter(pk=held.pk).exists()
    assert Released.objects.get(legacy_id=held.legacy_id).reason == "quantity_missing"
    assert OrderItem.objects.get(order_id=held.legacy_id).quantity == 3


def test_accepting_is_noted_with_who_and_when_and_can_be_withdrawn(
    root: Client, held: Quarantine
) -> None:
    assert said(act(root, "accept", held)) == ["1 accepted as they are."]
    held.refresh_from_db()
    assert held.decided_by == User.objects.get(pk=root.session["_auth_user_id"])
    decided = held.decided_at
    assert decided is not None
    act(root, "accept", held)
    held.refresh_from_db()
    assert held.decided_at == decided
    assert act(root, "reopen", held).status_code == 302
    held.refresh_from_db()
    assert held.decided_at is None and held.decided_by is None


def test_deciding_needs_a_permission(held: Quarantine) -> None:
    client = signed_in("legacy.view_quarantine")
    page = client.get(url(Quarantine, "change", held.pk)).content.decode()
    assert "Accept as it is" not in page
    for action in ("accept", "retry", "reopen", "delete_selected"):
        act(client, action, held)
    held.refresh_from_db()
    assert held.decided_at is None
    client = signed_in("legacy.view_quarantine", "legacy.change_quarantine")
    act(client, "accept", held)
    held.refresh_from_db()
    assert held.decided_at is not None


def test_there_is_nothing_to_retry_once_the_legacy_tables_are_gone(
    migrated: Database, root: Client, held: Quarantine
) -> None:
    cut_over.cut_over(connection)
    migrated.execute("DROP SCHEMA rebuilt CASCADE; DROP SCHEMA legacy CASCADE")
    assert said(act(root, "retry", held)) == [
        "The legacy tables are not beside the new ones (any more), so there is nothing to"
        " look at again."
    ]
    page = root.get(url(Quarantine, "change", held.pk))
    assert page.status_code == 200
    assert "quantity" in page.content.decode()


@pytest.mark.parametrize("model", [Run, Batch, Quarantine, Released])
def test_nobody_writes_the_ledger_by_hand(root: Client, model: Any) -> None:
    record = factories.__dict__[f"{model.__name__}Factory"]()
    before = model.objects.filter(pk=record.pk).values().get()
    assert root.get(url(model, "add")).status_code == 403
    assert root.post(url(model, "change", record.pk), {}).status_code == 403
    assert (
        root.post(url(model, "delete", record.pk), {"post": "yes"}).status_code == 403
    )
    data = {"action": "delete_selected", "_selected_action": record.pk, "post": "yes"}
    root.post(url(model, "changelist"), data)
    assert model.objects.filter(pk=record.pk).values().get() == before


def test_every_odd_row_in_quarantine_has_a_page(
    migrated: Database, root: Client
) -> None:
    odd_rows.insert(migrated)
    entries = list(Quarantine.objects.all())
    reasons = {entry.reason for entry in entries}
    assert {"amount_nan", "date_impossible", "layout_data_not_object"} <= reasons
    for entry in entries:
        page = root.get(url(Quarantine, "change", entry.pk))
        assert page.status_code == 200
        assert '<th class="column" scope="row">created_at</th>' in page.content.decode()
        assert b"<script>alert(1)" not in page.content
    for page in ("", "?p=2", "?q=amount", f"?q={entries[0].legacy_id}"):
        assert root.get(LIST + page).status_code == 200
