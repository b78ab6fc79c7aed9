"""Every page of the admin, for whoever asks and whatever is asked."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from catalogue.models import UsageLog
from terrain.pace.models import PaceOrder, PaceState
from tests.admin_client import FACTORIES, MODELS, OURS, signed_in, url
from tests.conftest import Database

#: Queries of a list: session, account, content types, count, plan, rows.
MOST_QUERIES = 15
NOBODY = uuid.UUID(int=1)

every_model = pytest.mark.parametrize(
    "model", [pytest.param(model, id=model._meta.label_lower) for model in MODELS]
)


@pytest.fixture
def root(shared: Database) -> Client:
    return signed_in(superuser=True)


def test_every_model_of_the_new_schema_is_registered() -> None:
    from django.apps import apps

    there = {
        model for label in OURS for model in apps.get_app_config(label).get_models()
    } - {
        UsageLog,
        PaceOrder,
        PaceState,
    }  # notes of the program to itself
    assert there <= set(admin.site._registry)
    assert there == set(FACTORIES)


@every_model
def test_a_superuser_sees_every_page(
    root: Client, model: Any, django_assert_max_num_queries: Any
) -> None:
    record = FACTORIES[model]()
    FACTORIES[model].create_batch(3)
    with django_assert_max_num_queries(MOST_QUERIES):
        assert root.get(url(model, "changelist")).status_code == 200
    can_add = admin.site._registry[model].has_add_permission(
        root.get(url(model, "changelist")).wsgi_request
    )
    expected = 200 if can_add else 403
    assert root.get(url(model, "add")).status_code == expected
    page = root.get(url(model, "change", record.pk))
    assert page.status_code == 200
    assert root.get(url(model, "history", record.pk)).status_code == 200
    deleting = root.get(url(model, "delete", record.pk))
    assert deleting.status_code in (200, 403)


@every_model
def test_staff_without_permissions_see_no_page(shared: Database, model: Any) -> None:
    client = signed_in()
    record = FACTORIES[model]()
    for page, args in (
        ("changelist", ()),
        ("add", ()),
        ("change", (record.pk,)),
        ("delete", (record.pk,)),
    ):
        assert client.get(url(model, page, *args)).status_code == 403
    assert client.get(reverse("admin:index")).status_code == 200


@every_model
def test_who_may_only_look_can_look(shared: Database, model: Any) -> None:
    names = model._meta
    client = signed_in(f"{names.app_label}.view_{names.model_name}")
    record = FACTORIES[model]()
    assert client.get(url(model, "changelist")).status_code == 200
    page = client.get(url(model, "change", record.pk))
    assert page.status_code == 200
    assert b'name="_save"' not in page.content
    assert client.post(url(model, "change", record.pk), {}).status_code == 403


@every_model
def test_no_list_is_upset_by_what_is_asked_of_it(
    root: Client, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin.site._registry[model], "list_per_page", 5)
    FACTORIES[model]()
    for query in (
        "q=%00",
        "q=" + "x" * 5000,
        "q=%25%27%22%5C",
        f"q={NOBODY}",
        "q=somebody@example.com",
        "q=%F0%9F%8F%B0",
        "id=notauuid",
        "id__exact=%00",
        "id__in=1,2,x",
        "id__isnull=perhaps",
        "nosuchfield=1",
        "p=0",
        "p=999999999",
        "p=x",
        "o=99.-99.x",
        "e=1",
        "status=%00",
        "created_at__gte=yesterday",
        "_facets=True",
        "all=",
    ):
        page = root.get(url(model, "changelist") + "?" + query, follow=True)
        assert page.status_code == 200, query


@every_model
def test_a_page_of_nothing_leads_back_to_the_start(root: Client, model: Any) -> None:
    for key in ("notauuid", "%00", "_5F", "9" * 40, str(NOBODY)):
        page = root.get(url(model, "change", "KEY").replace("KEY", key), follow=True)
        assert page.status_code == 200
        assert b"exist" in page.content, key
