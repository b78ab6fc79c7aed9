"""Who gets what at the admin's addresses that are no model's list or form."""

from __future__ import annotations

import uuid

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.urls import URLPattern, reverse

from catalogue import curating
from catalogue.models import Asset, AssetSet, Table
from orders.models import Order
from terrain import site
from terrain.legacy.console import actions
from terrain.legacy.models import Run
from terrain.models import User
from terrain.pace import control
from tests import factories, odd_rows
from tests.admin_client import said, signed_in, url
from tests.conftest import Database

BACKEND = "django.contrib.auth.backends.ModelBackend"
#: Who -> the permissions that somebody of the shop's staff has.
STAFF: dict[str, tuple[str, ...]] = {
    "staff": (),
    "clerk": ("orders.view_order",),
    "watcher": ("legacy.view_run",),
    "operator": (
        "legacy.view_run",
        "legacy.verify_migration",
        "legacy.steer_migration",
        "legacy.change_quarantine",
    ),
    "curator": ("catalogue.view_asset", "catalogue.change_assetset"),
}
PEOPLE = ("superuser", *STAFF, "artist", "customer", "suspended", "anonymous")
#: Who may see which page; everybody else of the staff is told no, others to sign in.
MAY: dict[str, set[str]] = {
    "find": {"clerk", "curator"},
    "find_beside": {"clerk"},
    "move": {"watcher", "operator"},
    "move_now": {"watcher", "operator"},
    "move_act": {"operator"},
    "catalogue_assetset_arrange": {"curator"},
}


def client_of(who: str) -> Client:
    if who == "superuser":
        return signed_in(superuser=True)
    if who in STAFF:
        return signed_in(*STAFF[who])
    client = Client()
    roles = {
        "artist": {"artist": True},
        "customer": {},
        "suspended": {"admin": True, "status": User.Status.SUSPENDED},
    }
    if who in roles:
        client.force_login(factories.UserFactory(**roles[who]), BACKEND)
    return client


def where(name: str) -> list[str]:
    """The address, or addresses, of a page."""
    if name == "find_beside":
        return [reverse("admin:find_beside", args=["orders.order", ORDER[0]])]
    if name == "move_act":
        return [reverse("admin:move_act", args=[each.name]) for each in actions.ACTIONS]
    if name == "catalogue_assetset_arrange":
        return [reverse(f"admin:{name}", args=[factories.AssetSetFactory().pk])]
    return [reverse(f"admin:{name}")]


ORDER: list[uuid.UUID] = []


@pytest.fixture(autouse=True)
def order(shared: Database) -> None:
    ORDER[:] = [Order.objects.order_by("pk")[0].pk]


def test_every_address_of_our_own_has_its_row() -> None:
    added = {name for page in site._added for _, _, name in page.views}
    of_models = {
        pattern.name
        for each in admin.site._registry.values()
        for pattern in each.get_urls()
        if isinstance(pattern, URLPattern) and pattern.name
    }
    own = {
        name
        for name in of_models
        if name.rpartition("_")[2]
        not in ("changelist", "add", "history", "delete", "change", "password")
    } - {"auth_user_password_change"}
    assert {name for name in added | own if name is not None} == set(MAY)


@pytest.mark.parametrize("name", MAY)
@pytest.mark.parametrize("who", PEOPLE)
def test_who_may_see_it(who: str, name: str) -> None:
    client = client_of(who)
    outside = who in ("artist", "customer", "suspended", "anonymous")
    for address in where(name):
        answer = client.get(address)
        if who == "superuser" or who in MAY[name]:
            assert answer.status_code == 200, address
        elif outside:
            assert answer.status_code == 302 and "/login/" in answer["Location"]
        elif name == "find_beside":
            assert answer.status_code in (403, 404)
        else:
            assert answer.status_code == 403


@pytest.mark.parametrize(
    "who", [each for each in PEOPLE if each not in ("superuser", "operator")]
)
def test_who_may_not_changes_nothing(who: str, shared: Database) -> None:
    client = client_of(who)
    runs = Run.objects.count()
    for address in where("move_act"):
        assert client.post(address).status_code in (302, 403)
    assert Run.objects.count() == runs and not control.read(connection).is_paused
    chosen, asset = factories.AssetSetFactory(), factories.AssetFactory()
    place = reverse("admin:catalogue_assetset_arrange", args=[chosen.pk])
    assert client.post(place, {"more": str(asset.pk)}).status_code in (302, 403)
    assert chosen.items.exists() is (who == "curator")


def test_the_index_leads_only_where_one_may_go(shared: Database) -> None:
    for who in ("superuser", *STAFF):
        page = client_of(who).get(reverse("admin:index")).content.decode()
        for name in ("find", "move"):
            allowed = who == "superuser" or who in MAY[name]
            assert (f'"{reverse(f"admin:{name}")}"' in page) is allowed, (who, name)


# --- hostile rows --------------------------------------------------------------------------

HOSTILE = (odd_rows.MARKUP, odd_rows.RTL, odd_rows.CONTROL, "x" * 255)


@pytest.mark.parametrize("name", HOSTILE, ids=["markup", "rtl", "control", "long"])
def test_hostile_names_are_only_names(shared: Database, name: str) -> None:
    root = signed_in(superuser=True)
    asset = factories.AssetFactory(name=name, thumbnail_path=name)
    chosen = factories.AssetSetFactory(name=name)
    table = factories.TableFactory(
        name=name,
        layout={"models": [{"asset_id": str(asset.pk), "position": {"x": 1, "z": 1}}]},
        share_code=uuid.uuid4().hex,
        config={"background_color": name, "grid_size": name},
    )
    curating.add_to_set(chosen, [asset])
    curating.add_to_library(table, [asset])
    pages = [
        reverse("admin:catalogue_assetset_arrange", args=[chosen.pk]),
        url(AssetSet, "change", chosen.pk),
        url(Asset, "change", asset.pk),
        url(Table, "change", table.pk),
        *(f"{reverse('admin:find')}?q={key.pk}" for key in (asset, chosen, table)),
    ]
    for page in pages:
        answer = root.get(page)
        assert answer.status_code == 200
        assert b"<script>alert(1)" not in answer.content
    data = {"action": "into_set", "_selected_action": [str(asset.pk)]}
    confirm = root.post(url(Asset, "changelist"), data)
    assert confirm.status_code == 200 and b"<script>alert(1)" not in confirm.content
    done = root.post(url(Asset, "changelist"), {**data, "into": str(chosen.pk)})
    assert said(done) and b"<script>alert(1)" not in root.get(pages[1]).content
