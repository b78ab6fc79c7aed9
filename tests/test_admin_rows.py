"""No page of the admin fails on any row, and saving one untouched writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from terrain.legacy.mapping import LENSES
from terrain.models import User
from tests import browser, odd_rows
from tests.conftest import Database

MODELS = [
    pytest.param(model, id=model._meta.label_lower)
    for model in admin.site._registry
    if model._meta.app_label in ("terrain", "catalogue", "orders", "sessions_app")
]


@pytest.fixture(scope="module")
def odd_template(
    migrated_template: str, create_database: Any, drop_database: Any, cluster: Any
) -> Iterator[str]:
    """The migrated shop, with the odd rows in it."""
    name = create_database(migrated_template)
    database = Database(cluster, name)
    odd_rows.insert(database)
    yield name
    drop_database(name)


@pytest.fixture
def odd(clone: Any, odd_template: str) -> Database:
    database: Database = clone(odd_template)
    return database


@pytest.fixture
def client(odd: Database) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root@example.org", "x"))
    return client


def url(model: Any, page: str, *args: Any) -> str:
    names = model._meta
    return reverse(f"admin:{names.app_label}_{names.model_name}_{page}", args=args)


def everything(odd: Database) -> dict[str, list[Any]]:
    """Both sides, as text, but for who signed in when."""
    made = {
        f"legacy.{lens.legacy}": odd.rows(
            f"SELECT t::text FROM legacy.{lens.legacy} t ORDER BY 1"
        )
        for lens in LENSES
    }
    for table in ("models", "assets", "tables", "orders", "order_items", "payments"):
        made[table] = odd.rows(f"SELECT t::text FROM public.{table} t ORDER BY 1")
    made["users"] = odd.rows(
        "SELECT u::text FROM public.users u WHERE last_login IS NULL"
    )
    return made


@pytest.mark.parametrize("model", MODELS)
def test_saving_a_row_untouched_writes_nothing(
    odd: Database, client: Client, model: Any
) -> None:
    before = everything(odd)
    keys = list(model.objects.order_by("pk").values_list("pk", flat=True))
    keys = keys[:40] + keys[-40:]
    for key in dict.fromkeys(keys):
        page = client.get(url(model, "change", key))
        assert page.status_code == 200
        posted = browser.form(page.content, f"{model._meta.model_name}_form")
        saved = client.post(url(model, "change", key), posted)
        problems = saved.context["errors"] if saved.context else None
        assert saved.status_code == 302, (model, key, problems)
    after = everything(odd)
    for table in before:
        assert after[table] == before[table]
