"""The legacy row beside the new one, column by column."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.db import connection
from django.test import Client, RequestFactory

from catalogue.models import Asset, Model, Table
from orders.models import Order, OrderItem, Payment
from terrain import panels
from terrain.legacy import cut_over, lineage, panel, retreat
from terrain.legacy.mapping import LENSES
from terrain.legacy.schema import Column
from terrain.models import User
from tests import factories, odd_rows
from tests.admin_client import signed_in, url
from tests.conftest import Database

MODELS: dict[str, Any] = {
    "users": User,
    "models": Model,
    "tables": Table,
    "orders": Order,
    "payments": Payment,
}


def of(record: Any) -> lineage.Lineage:
    found = lineage.of(connection, record._meta.db_table, record.pk)
    assert found is not None
    return found


@pytest.mark.parametrize("lens", LENSES, ids=[lens.legacy for lens in LENSES])
def test_every_legacy_column_is_shown_as_the_table_has_it(
    migrated: Database, lens: Any
) -> None:
    key = migrated.value(f"SELECT id FROM public.{lens.legacy} ORDER BY id LIMIT 1")
    found = lineage.of(connection, lens.new, key)
    assert found is not None
    assert found.table == f"public.{lens.legacy}" and found.key == key
    assert [line.name for line in found.lines] == [each.name for each in lens.columns]
    for line, column in zip(found.lines, lens.columns, strict=True):
        stored = migrated.value(
            f"SELECT {column.name}::text FROM public.{lens.legacy} WHERE id = %s", key
        )
        if column.name == "password_hash":
            assert line.legacy.text == "••••••••"
        else:
            assert line.legacy.text == (stored and stored[: lineage.LONGEST])
        assert isinstance(column, Column) and line.agrees is True
        assert [name for name, _ in line.new] == [
            f"{lens.new}.{name}" for name in column.up
        ]
    assert found.differing == ()


def test_the_new_values_stand_beside_the_old(migrated: Database) -> None:
    row = migrated.dicts(
        "SELECT * FROM user_tables WHERE table_config ? 'background_color'"
    )[0]
    (line,) = [
        line for line in of(Table(pk=row["id"])).lines if line.name == "table_config"
    ]
    new = {name: value.text for name, value in line.new}
    assert new == {
        "tables.width": str(row["table_config"]["width"]),
        "tables.depth": str(row["table_config"]["depth"]),
        "tables.config": '{"grid_size": 25, "background_color": "#2b2b2b"}',
    }
    assert "width and depth (mm) become columns" in line.how


def test_each_line_of_an_order_stands_beside_its_element(migrated: Database) -> None:
    order = Order.objects.order_by("pk")[0]
    elements = migrated.value("SELECT items FROM public.orders WHERE id = %s", order.pk)
    found = of(order)
    assert len(found.elements) == len(elements)
    items = OrderItem.objects.filter(order=order).order_by("position")
    for place, (line, item) in enumerate(zip(found.elements, items, strict=True)):
        assert line.name == f"items[{place}]" and line.agrees
        new = {name: value.text for name, value in line.new}
        assert new["order_items.asset_ref"] == elements[place]["asset_id"]
        assert new["order_items.quantity"] == str(elements[place]["quantity"])
        assert new["order_items.total_price"] == str(item.total_price)
        alone = of(item)
        assert alone.elements == (line,) and alone.key == order.pk and not alone.lines


def test_a_value_that_does_not_come_back_is_marked(
    migrated: Database, administrator: Any
) -> None:
    """With the triggers off, as somebody might have left them."""
    order = Order.objects.order_by("pk")[0]
    migrated.execute("ALTER TABLE terrain.orders DISABLE TRIGGER USER")
    migrated.execute("UPDATE terrain.orders SET notes = 'new' WHERE id = %s", order.pk)
    (line,) = of(order).differing
    assert (line.name, line.legacy.text, line.rebuilt and line.rebuilt.text) == (
        "notes",
        None,
        "new",
    )
    html = panel.render(RequestFactory().get("/"), order)
    assert "1 of its values would not come back as they are" in html
    assert html.count('class="differs"') == 1 and "comes back as" in html


def test_held_items_are_said_to_be_held(migrated: Database) -> None:
    migrated.execute(
        "INSERT INTO orders (id, order_number, user_email, user_name, shipping_address,"
        " items, pricing) VALUES (%s, 'H-1', 'h@x.org', 'H', '{}', '{\"odd\": 1}', '{}')",
        key := uuid.uuid4(),
    )
    found = of(Order(pk=key))
    (line,) = [line for line in found.lines if line.name == "items"]
    assert line.agrees is None and line.how.startswith("held: ")
    assert line.legacy.text == '{"odd": 1}'
    assert [entry.reason for entry in found.entries if entry.kind == "held"] == [
        "items_not_array"
    ]
    assert found.elements == () and found.differing == ()


def test_long_values_are_fetched_in_part_and_compared_whole(migrated: Database) -> None:
    odd_rows.insert(migrated)
    order = Order.objects.get(pk=odd_rows._id(4, 3))
    found = of(order)
    (notes,) = [line for line in found.lines if line.name == "notes"]
    assert notes.legacy.length == len(odd_rows.LONG)
    assert len(notes.legacy.text or "") == lineage.LONGEST
    assert str(notes.legacy).endswith(f"… and {notes.legacy.rest:,} more")
    assert len(found.elements) == lineage.MOST_ELEMENTS and found.more_elements == 20
    assert found.differing == ()
    assert len(panel.render(RequestFactory().get("/"), order)) < 2_000_000


def test_every_odd_row_has_its_lineage_and_comes_back(migrated: Database) -> None:
    odd_rows.insert(migrated)
    request = RequestFactory().get("/")
    for lens in LENSES:
        model = MODELS[lens.new]
        keys = migrated.rows(
            f"SELECT id FROM public.{lens.legacy} ORDER BY id LIMIT 30"
        )
        for record in model.objects.filter(pk__in=[key for (key,) in keys]):
            found = lineage.of(connection, lens.new, record.pk)
            if found is not None and found.table == lens.legacy:
                assert found.differing == ()
                html = panel.render(request, record)
                assert "Every value comes back" in html and "<script>" not in html


# --- where it is shown, and where not ------------------------------------------------------


@pytest.mark.parametrize("model", [User, Model, Table, Order, OrderItem, Payment])
def test_the_change_page_shows_it(migrated: Database, model: Any) -> None:
    client: Client = signed_in(superuser=True)
    rows = model.objects.exclude(role="customer") if model is User else model.objects
    record = rows.order_by("pk").exclude(pk=client.session["_auth_user_id"])[0]
    page = client.get(url(model, "change", record.pk)).content.decode()
    assert '<li><a href="#legacy-row">The legacy row</a></li>' in page
    assert "Every value comes back from the new schema as it is." in page
    if model is User:
        assert record.password not in page
        assert record.password.removeprefix("bcrypt$") not in page


def test_a_customer_is_said_to_have_none(migrated: Database) -> None:
    customer = User.objects.filter(role="customer")[0]
    page = signed_in(superuser=True).get(url(User, "change", customer.pk))
    assert panel.CUSTOMER in page.content.decode()


def test_what_was_never_legacy_has_no_panel(migrated: Database) -> None:
    page = signed_in(superuser=True).get(
        url(Asset, "change", factories.AssetFactory().pk)
    )
    assert "legacy-row" not in page.content.decode()


def test_without_the_legacy_tables_there_is_no_panel(migrated: Database) -> None:
    client = signed_in(superuser=True)
    order = Order.objects.all()[0]
    cut_over.cut_over(connection)
    page = client.get(url(Order, "change", order.pk))
    assert f"From <code>legacy.orders</code> <code>{order.pk}" in page.content.decode()
    migrated.execute("DROP SCHEMA rebuilt CASCADE; DROP SCHEMA legacy CASCADE")
    page = client.get(url(Order, "change", order.pk))
    assert page.status_code == 200
    assert "legacy-row" not in page.content.decode()


def test_without_the_right_to_read_them_there_is_no_panel(migrated: Database) -> None:
    order = Order.objects.all()[0]
    assert lineage.is_possible(connection)
    migrated.execute("REVOKE SELECT ON public.orders FROM CURRENT_USER")
    assert not lineage.is_possible(connection)
    assert panel.render(RequestFactory().get("/"), order) == ""
    page = signed_in(superuser=True).get(url(Order, "change", order.pk))
    assert page.status_code == 200


def test_before_there_are_new_tables_there_is_no_panel(shop: Database) -> None:
    assert not lineage.is_possible(connection)
    assert panel.render(RequestFactory().get("/"), Order(pk=uuid.uuid4())) == ""


def test_after_going_back_there_is_no_panel(migrated: Database) -> None:
    """The new tables are parked: none of them stands beside a legacy one."""
    order = Order.objects.all()[0]
    assert panel.render(RequestFactory().get("/"), order) != ""
    retreat.roll_back(connection)
    assert not lineage.is_possible(connection)
    assert panel.render(RequestFactory().get("/"), order) == ""


def test_pages_know_nothing_of_who_adds_to_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(panels, "_registered", {})
    request, order = RequestFactory().get("/"), Order()
    assert panels.of(request, order) == []
    panels.register("weather", "Weather", lambda request, record: "fine")
    panels.register("news", "News", lambda request, record: "")
    assert panels.of(request, order) == [panels.Panel("weather", "Weather", "fine")]
