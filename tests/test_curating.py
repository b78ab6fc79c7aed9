"""Sets put in order, libraries filled, and limits as errors of the form they were met in."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from catalogue import curating
from catalogue.models import Asset, AssetSet, AssetSetItem, Table
from sessions_app.models import AnonymousSession
from terrain.exceptions import LimitExceeded
from tests import factories
from tests.admin_client import errors, posted, said, signed_in, url
from tests.conftest import Database

LIST = url(Asset, "changelist")


@pytest.fixture
def root(shared: Database) -> Client:
    return signed_in(superuser=True)


def assets(number: int) -> list[Asset]:
    artist = factories.UserFactory(artist=True)
    return [
        factories.AssetFactory(artist=artist, name=f"Asset {n:03}")
        for n in range(number)
    ]


def order_of(chosen: AssetSet) -> list[tuple[int, Any]]:
    items = AssetSetItem.objects.filter(asset_set=chosen).order_by("position")
    return list(items.values_list("position", "asset_id"))


def act(client: Client, action: str, some: list[Asset], **more: Any) -> Any:
    chosen = {"action": action, "_selected_action": [str(each.pk) for each in some]}
    return client.post(LIST, {**chosen, **more})


def arrange_url(chosen: AssetSet) -> str:
    return reverse("admin:catalogue_assetset_arrange", args=[chosen.pk])


# --- what curating does ----------------------------------------------------------------------


def test_assets_are_appended_once_and_in_order(shared: Database) -> None:
    chosen = factories.AssetSetFactory()
    some = assets(4)
    assert curating.add_to_set(chosen, some[2:3]) == 1
    assert curating.add_to_set(chosen, [*some, *some]) == 3
    assert [key for _, key in order_of(chosen)] == [
        each.pk for each in (some[2], some[0], some[1], some[3])
    ]
    assert [position for position, _ in order_of(chosen)] == [1, 2, 3, 4]


def test_a_set_is_numbered_anew_and_others_follow(shared: Database) -> None:
    chosen = factories.AssetSetFactory()
    some = assets(3)
    curating.add_to_set(chosen, some)
    first, second, third = AssetSetItem.objects.filter(asset_set=chosen).order_by(
        "position"
    )
    elsewhere = factories.AssetSetItemFactory()
    assert curating.arrange(chosen, [third.pk, third.pk, elsewhere.pk]) == 3
    assert [key for _, key in order_of(chosen)] == [
        third.asset_id,
        first.asset_id,
        second.asset_id,
    ]
    assert curating.arrange(chosen, [third.pk, first.pk, second.pk]) == 0


def test_a_library_takes_all_or_none(shared: Database) -> None:
    table = factories.TableFactory(max_assets=3)
    some = assets(5)
    assert curating.add_to_library(table, some[:2]) == 2
    assert curating.add_to_library(table, some[:3]) == 1
    with pytest.raises(LimitExceeded):
        curating.add_to_library(table, some)
    assert table.table_assets.count() == 3


# --- on its pages ----------------------------------------------------------------------------


def test_many_assets_go_into_a_set_from_the_list(root: Client) -> None:
    chosen = factories.AssetSetFactory(name="Ruins")
    some = assets(60)
    page = act(root, "into_set", some)
    assert page.status_code == 200 and b"60 assets:" in page.content
    missing = act(root, "into_set", some, into="")
    assert b"This field is required." in missing.content
    done = act(root, "into_set", some, into=str(chosen.pk))
    assert said(done) == ["60 added to Ruins."]
    assert len(order_of(chosen)) == 60
    again = act(root, "into_set", some[:2], into=str(chosen.pk))
    assert said(again)[-1] == "0 added to Ruins. 2 were there."
    entry = LogEntry.objects.filter(object_id=str(chosen.pk)).latest("action_time")
    assert "0 added to Ruins." in entry.get_change_message()


def test_a_full_library_is_an_error_of_the_form(root: Client) -> None:
    table = factories.TableFactory(max_assets=1, share_code="full-one")
    page = act(root, "into_library", assets(2), into="full-one")
    assert page.status_code == 200
    assert (
        f"Table {table.pk} may hold 1 different assets, and this would make 2. Take an asset"
        " off the table, or raise its max assets." in page.content.decode()
    )
    assert table.table_assets.count() == 0
    unknown = act(root, "into_library", assets(1), into="no such")
    assert b"There is no table with this id or share code." in unknown.content
    table.max_assets = 2
    table.save()
    done = act(root, "into_library", assets(2), into=str(table.pk))
    assert said(done) == [f"2 added to {table}."]


def test_a_set_is_put_in_order_on_a_page_of_its_own(root: Client) -> None:
    chosen = factories.AssetSetFactory()
    some = assets(3)
    curating.add_to_set(chosen, some[:2])
    first, second = AssetSetItem.objects.filter(asset_set=chosen).order_by("position")
    places = {f"place-{first.pk}": "9", f"place-{second.pk}": "3"}
    answer = root.post(arrange_url(chosen), {**places, "more": f"\n{some[2].pk}\r\n"})
    assert said(answer) == ["2 moved, 1 added."]
    assert [key for _, key in order_of(chosen)] == [
        some[1].pk,
        some[0].pk,
        some[2].pk,
    ]
    page = root.get(arrange_url(chosen)).content.decode()
    assert f"Place of {some[1]}" in page
    assert (
        arrange_url(chosen)
        in root.get(url(AssetSet, "change", chosen.pk)).content.decode()
    )


def test_what_cannot_be_arranged_is_said_at_its_field(root: Client) -> None:
    chosen = factories.AssetSetFactory()
    curating.add_to_set(chosen, assets(1))
    item = AssetSetItem.objects.get(asset_set=chosen)
    page = root.post(
        arrange_url(chosen), {f"place-{item.pk}": "x", "more": "<b>\nnonsense"}
    )
    text = page.content.decode()
    assert "Enter a whole number." in text
    assert "There is no asset with this id: &lt;b&gt;, nonsense." in text
    assert root.get(arrange_url(AssetSet(pk=item.pk))).status_code == 404


def test_a_library_is_edited_on_the_page_of_its_table(root: Client) -> None:
    table = factories.TableFactory(max_assets=1)
    one, two = assets(2)
    curating.add_to_library(table, [one])
    page = posted(
        root,
        table,
        **{
            "table_assets-TOTAL_FORMS": "2",
            "table_assets-1-table": str(table.pk),
            "table_assets-1-asset": str(two.pk),
            "table_assets-1-quantity": "1",
        },
    )
    (told,) = errors(page)
    assert told.startswith(f"Table {table.pk} may hold 1 different assets")
    assert posted(root, table, max_assets="2", plan="pro").status_code == 302
    table.refresh_from_db()
    assert (table.max_assets, table.plan) == (2, Table.Plan.PRO)


def test_a_session_that_is_at_its_limit_can_be_given_more(root: Client) -> None:
    session = factories.AnonymousSessionFactory(table_limit=1)
    factories.TableFactory(visitor=True, session=session)
    second = factories.TableFactory(visitor=True)
    assert (
        "may keep 1 active tables"
        in errors(posted(root, second, session=str(session.pk)))[0]
    )
    assert posted(root, session, table_limit="2").status_code == 302
    assert posted(root, second, session=str(session.pk)).status_code == 302
    assert AnonymousSession.objects.get(pk=session.pk).tables.count() == 2


# --- who may -------------------------------------------------------------------------------


def test_curating_needs_the_right_to_change_what_it_changes(shared: Database) -> None:
    chosen, some = factories.AssetSetFactory(), assets(1)
    viewer = signed_in("catalogue.view_asset", "catalogue.view_assetset")
    for action in ("into_set", "into_library"):
        act(viewer, action, some, into=str(chosen.pk))
        assert not order_of(chosen)
    assert b"into_set" not in viewer.get(LIST).content
    assert viewer.get(arrange_url(chosen)).status_code == 403
    assert viewer.post(arrange_url(chosen), {}).status_code == 403
    curator = signed_in("catalogue.view_asset", "catalogue.change_assetset")
    page = curator.get(LIST).content
    assert b"into_set" in page and b"into_library" not in page
    assert curator.get(arrange_url(chosen)).status_code == 200
    assert signed_in().get(arrange_url(chosen)).status_code == 403
    assert Client().get(arrange_url(chosen)).status_code == 302
