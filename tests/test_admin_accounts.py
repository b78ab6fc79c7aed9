"""Accounts, sets and tables, as they are worked on in the admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from catalogue.models import Asset, AssetSet, AssetSetItem, Table
from terrain.models import User
from tests import browser, factories
from tests.admin_client import errors, posted, signed_in, url
from tests.conftest import Database


@pytest.fixture
def root(migrated: Database) -> Client:
    """A superuser, in the migrated shop."""
    return signed_in(superuser=True)


def test_a_new_artist_can_sign_in_with_both_applications(
    migrated: Database, root: Client, settings: Any
) -> None:
    settings.PASSWORD_HASHERS = settings.PASSWORD_HASHERS[1:]
    secret = "correct horse battery"
    answer = root.post(
        url(User, "add"),
        {
            "email": "new@example.com",
            "role": "artist",
            "usable_password": "true",
            "password1": secret,
            "password2": secret,
        },
    )
    assert answer.status_code == 302
    user = User.objects.get(email="new@example.com")
    assert user.check_password(secret)
    stored = "SELECT password_hash FROM public.artists WHERE id = %s"
    assert migrated.value(stored, user.pk).startswith("$2b$")


def test_an_account_can_be_made_without_a_password(root: Client) -> None:
    data = {"email": "No@Example.com", "role": "customer", "usable_password": "false"}
    assert root.post(url(User, "add"), data).status_code == 302
    user = User.objects.get(email="no@example.com")
    assert not user.has_usable_password()
    page = root.get(url(User, "change", user.pk)).content.decode()
    assert "Not with a password: none is set." in page


def test_an_address_is_taken_once(root: Client) -> None:
    factories.UserFactory(artist=True, email="taken@example.com")
    data = {"email": "taken@example.com", "role": "artist", "usable_password": "false"}
    assert errors(root.post(url(User, "add"), data)) == [
        "Another artist has this address."
    ]
    other = factories.UserFactory(artist=True)
    assert errors(posted(root, other, email="taken@example.com")) == [
        "Another artist has this address."
    ]
    buyer = factories.UserFactory(email="taken@example.com")
    assert errors(posted(root, buyer, role="artist")) == [
        "Another artist has this address."
    ]


def test_a_password_is_set_on_its_own_page_and_never_shown(root: Client) -> None:
    user = factories.UserFactory(artist=True)
    where = reverse("admin:auth_user_password_change", args=[user.pk])
    page = root.get(url(User, "change", user.pk)).content.decode()
    assert where in page
    assert user.password not in page and user.password.split("$")[-1] not in page
    secret = "another long password"
    data = {"password1": secret, "password2": secret, "usable_password": "true"}
    data["set-password"] = "Change password"
    assert root.post(where, data).status_code == 302
    user.refresh_from_db()
    assert user.check_password(secret)


def test_staff_give_nobody_powers_and_touch_nobody_above_them(
    migrated: Database,
) -> None:
    client = signed_in("terrain.view_user", "terrain.change_user")
    someone = factories.UserFactory()
    page = client.get(url(User, "change", someone.pk)).content
    names = browser.form(page, "user_form")
    assert "email" in names
    assert not {"role", "is_superuser", "groups", "user_permissions"} & set(names)
    posted(client, someone, role="admin", is_superuser="on")
    someone.refresh_from_db()
    assert someone.role == "customer" and not someone.is_superuser
    above = factories.UserFactory(superuser=True)
    assert client.post(url(User, "change", above.pk), {}).status_code == 403
    password = reverse("admin:auth_user_password_change", args=[above.pk])
    assert client.get(password).status_code == 403


# --- sets and tables ---


def test_a_set_is_put_together_on_its_page(root: Client) -> None:
    chosen = factories.AssetSetFactory()
    assets = factories.AssetFactory.create_batch(2)
    answer = posted(
        root,
        chosen,
        **{
            "items-TOTAL_FORMS": "2",
            "items-0-asset_set": str(chosen.pk),
            "items-0-position": "1",
            "items-0-asset": str(assets[1].pk),
            "items-1-asset_set": str(chosen.pk),
            "items-1-position": "2",
            "items-1-asset": str(assets[0].pk),
        },
    )
    assert answer.status_code == 302
    order = AssetSetItem.objects.filter(asset_set=chosen).order_by("position")
    assert [item.asset for item in order] == [assets[1], assets[0]]
    page = root.get(url(AssetSet, "change", chosen.pk)).content.decode()
    assert "2 assets</a>" in page
    again = posted(root, chosen, **{"items-0-DELETE": "on"})
    assert again.status_code == 302
    assert order.all().count() == 1


def test_a_library_of_any_size_can_be_saved(root: Client) -> None:
    table = factories.TableFactory()
    artist = factories.UserFactory(artist=True)
    assets = Asset.objects.bulk_create(
        Asset(artist=artist, name=f"A {n}", file_ref="a.stl") for n in range(300)
    )
    table.table_assets.bulk_create(
        type(table.table_assets.model())(table=table, asset=asset) for asset in assets
    )
    assert posted(root, table, name="Big").status_code == 302
    assert table.table_assets.count() == 300
    page = root.get(url(Table, "change", table.pk)).content.decode()
    assert "300 assets</a>" in page
