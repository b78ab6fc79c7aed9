"""copy_models_to_assets: the global catalogue, and the tables' libraries."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from catalogue import assets
from catalogue.models import Asset, Model, Table, TableAsset
from terrain.legacy.models import Quarantine, Released
from terrain.models import User

pytestmark = pytest.mark.django_db

FILES = {"stl": "a/m.stl", "glb": "a/m.glb", "thumbnail": "a/t.png"}


@pytest.fixture
def artist() -> User:
    return User.objects.create_user("artist@example.com", role=User.Role.ARTIST)


def make_model(artist: User, **fields: Any) -> Model:
    """A model; Django itself refuses the price NaN, which the old application does not."""
    is_nan = fields.get("base_price") == "NaN"
    if is_nan:
        del fields["base_price"]
    model = Model.objects.create(
        artist=artist, **{"name": "Tower", "file_paths": FILES, **fields}
    )
    if is_nan:
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE models SET base_price = 'NaN' WHERE id = %s", [model.pk]
            )
    return model


def test_every_field_of_an_asset(artist: User) -> None:
    model = make_model(
        artist,
        description="Round",
        base_price=Decimal("3.50"),
        genre="fantasy",
        categories=["buildings", "ruins"],
        tags=["stone", "ruins"],
        footprint={"width": 40, "depth": 30, "height": 20},
        file_paths={**FILES, "additional_images": ["a/1.png", "a/2.png"]},
        print_stats={"triangle_count": 5000},
        status="published",
        view_count=7,
    )
    assert assets.copy(connection) == assets.Copied(added=1)
    asset = Asset.objects.get()
    assert asset.id == asset.model_id == model.id
    assert asset.artist == artist
    assert (asset.name, asset.description) == ("Tower", "Round")
    assert asset.category == "buildings"
    assert asset.tags == ["stone", "ruins", "buildings", "fantasy"]
    assert asset.file_ref == "a/m.stl"
    assert asset.glb_file_path == "a/m.glb"
    assert asset.preview_url == "a/1.png"
    assert asset.thumbnail_path == "a/t.png"
    assert asset.dimensions_mm == {"width": 40, "depth": 30, "height": 20}
    assert asset.triangle_count == 5000
    assert asset.base_price == Decimal("3.50")
    assert (asset.status, asset.visibility) == ("published", "public")
    assert (asset.view_count, asset.add_count, asset.use_count) == (7, 0, 0)
    assert asset.published_at == asset.created_at == model.created_at
    assert asset.updated_at == model.updated_at


@pytest.mark.parametrize(
    ("status", "visibility", "is_published"),
    [
        ("draft", "private", False),
        ("published", "public", True),
        ("archived", "unlisted", False),
    ],
)
def test_visibility(
    artist: User, status: str, visibility: str, is_published: bool
) -> None:
    make_model(artist, status=status)
    assets.copy(connection)
    asset = Asset.objects.get()
    assert (asset.status, asset.visibility) == (status, visibility)
    assert (asset.published_at is not None) == is_published


def test_second_best_sources(artist: User) -> None:
    make_model(
        artist,
        genre="scifi",
        file_paths={"glb": "a/m.glb", "stl": ""},
        aabb={"min": {"x": 1, "y": 2, "z": 3}, "max": {"x": 11, "y": 22.5, "z": 33}},
        print_stats={"triangle_count": 12.5},
    )
    assets.copy(connection)
    asset = Asset.objects.get()
    assert (asset.category, asset.tags) == ("scifi", ["scifi"])
    assert asset.file_ref == "a/m.glb"
    assert asset.preview_url is None
    assert asset.dimensions_mm == {"width": 10, "depth": 20.5, "height": 30}
    assert asset.triangle_count is None


@pytest.mark.parametrize(
    "odd",
    [
        {"aabb": [], "footprint": "wide", "print_stats": 3},
        {"aabb": {"min": {"x": "1"}}, "print_stats": {"triangle_count": -1}},
        {"print_stats": {"triangle_count": 10**12}, "genre": "", "tags": [""]},
        {"file_paths": {**FILES, "additional_images": {"0": "x"}, "glb": None}},
        {"categories": ["", "rocks"], "base_price": Decimal("-1.00")},
    ],
)
def test_odd_models_become_assets_all_the_same(
    artist: User, odd: dict[str, Any]
) -> None:
    make_model(artist, **odd)
    assert assets.copy(connection).added == 1
    asset = Asset.objects.get()
    assert asset.file_ref == "a/m.stl"
    assert asset.triangle_count is None
    assert asset.dimensions_mm is None
    assert "" not in asset.tags


def test_arrays_of_any_shape(artist: User) -> None:
    model = make_model(artist)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE models SET tags = '{{a,b},{NULL,c}}', categories = '[5:6]={NULL,d}'"
            " WHERE id = %s",
            [model.pk],
        )
    assets.copy(connection)
    asset = Asset.objects.get()
    assert (asset.category, asset.tags) == ("d", ["a", "b", "c", "d"])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"file_paths": {"thumbnail": "t.png"}}, "model_without_file"),
        ({"file_paths": {"stl": "", "glb": 7}}, "model_without_file"),
        ({"file_paths": ["a.stl"]}, "model_without_file"),
        ({"base_price": "NaN"}, "model_price_nan"),
    ],
)
def test_held_until_it_is_put_right(
    artist: User, fields: dict[str, Any], reason: str
) -> None:
    model = make_model(artist, **fields)
    copied = assets.copy(connection)
    assert (copied.added, copied.held) == (0, ((reason, 1),))
    assert not Asset.objects.exists()
    entry = Quarantine.objects.get()
    assert (entry.legacy_table, entry.legacy_id) == ("models", model.pk)
    assert (entry.kind, entry.reason) == ("held", reason)
    assert entry.detail == f"models {model.pk} {assets.REASONS[reason]}"
    assert entry.row["name"] == "Tower"
    assets.copy(connection)
    assert Quarantine.objects.get().pk == entry.pk

    model.file_paths, model.base_price = FILES, Decimal(1)
    model.save()
    assert assets.copy(connection).added == 1
    assert not Quarantine.objects.exists()
    assert Released.objects.get().legacy_id == model.pk


def test_a_second_run_changes_nothing(artist: User) -> None:
    make_model(artist)
    assets.copy(connection)
    before = Asset.objects.values().get()
    with connection.cursor() as cursor:
        cursor.execute("SET TimeZone = 'Asia/Tokyo'")
    assert assets.copy(connection).nothing
    assert Asset.objects.values().get() == before


def test_refreshes_what_nobody_has_edited(artist: User) -> None:
    model = make_model(artist)
    assets.copy(connection)
    model.name, model.view_count = "Keep", 99
    model.save()
    assert assets.copy(connection) == assets.Copied(refreshed=1)
    asset = Asset.objects.get()
    assert (asset.name, asset.view_count) == ("Keep", 99)


def test_leaves_edited_assets_alone(artist: User) -> None:
    model = make_model(artist)
    assets.copy(connection)
    asset = Asset.objects.get()
    asset.name = "My own name"
    asset.save()
    model.name = "Keep"
    model.save()
    assert assets.copy(connection) == assets.Copied(edited=1)
    assert Asset.objects.get().name == "My own name"


def test_counting_is_not_editing(artist: User) -> None:
    model = make_model(artist, view_count=3)
    assets.copy(connection)
    Asset.objects.update(view_count=10)
    model.name = "Keep"
    model.save()
    assert assets.copy(connection) == assets.Copied(refreshed=1)
    asset = Asset.objects.get()
    assert (asset.name, asset.view_count) == ("Keep", 10)


def test_an_asset_made_by_hand_is_the_models_asset(artist: User) -> None:
    model = make_model(artist)
    own = Asset.objects.create(
        artist=artist, model=model, name="By hand", file_ref="own.stl"
    )
    assert assets.copy(connection).nothing
    assert list(Asset.objects.all()) == [own]


def layout(*ids: Any) -> dict[str, Any]:
    return {"models": [{"id": f"p{n}", "asset_id": key} for n, key in enumerate(ids)]}


def test_libraries_hold_what_layouts_place(artist: User) -> None:
    one, two = make_model(artist), make_model(artist)
    bare = str(two.pk).replace("-", "").upper()
    saved = timezone.now()
    table = Table.objects.create(
        name="T",
        layout=layout(str(one.pk), str(two.pk), bare, f"{{{two.pk}}}", "nope", None, 7),
        updated_at=saved,
    )
    Table.objects.create(name="U", layout=layout(str(one.pk)))
    copied = assets.copy(connection)
    assert (copied.added, copied.placed) == (2, 3)
    rows = TableAsset.objects.filter(table=table)
    assert {(row.asset_id, row.quantity) for row in rows} == {(one.pk, 1), (two.pk, 3)}
    assert {row.last_used for row in rows} == {saved}
    uses = {a.pk: (a.add_count, a.use_count) for a in Asset.objects.all()}
    assert uses == {one.pk: (2, 2), two.pk: (1, 3)}


@pytest.mark.parametrize(
    "odd", [{}, {"models": None}, {"models": {}}, {"models": [1, None, [], "x"]}]
)
def test_layouts_without_models(artist: User, odd: dict[str, Any]) -> None:
    make_model(artist)
    Table.objects.create(name="T", layout=odd)
    assert assets.copy(connection).placed == 0


def test_libraries_follow_the_layout_until_edited(artist: User) -> None:
    one, two, three = (make_model(artist) for _ in range(3))
    table = Table.objects.create(
        name="T", layout=layout(*[str(one.pk)] * 2, str(two.pk), str(three.pk))
    )
    assets.copy(connection)
    edited = TableAsset.objects.get(asset_id=three.pk)
    edited.quantity = 40
    edited.save()
    table.layout = layout(str(one.pk))
    table.save()
    copied = assets.copy(connection)
    assert (copied.placed, copied.replaced, copied.removed) == (0, 1, 1)
    rows = {row.asset_id: row.quantity for row in TableAsset.objects.all()}
    assert rows == {one.pk: 1, three.pk: 40}
    assert Asset.objects.get(pk=three.pk).use_count == 40
    assert Asset.objects.get(pk=two.pk).add_count == 0


def test_a_dry_run_says_what_a_run_would_do(artist: User) -> None:
    make_model(artist, file_paths={})
    one, two, three = (make_model(artist) for _ in range(3))
    table = Table.objects.create(name="T", layout=layout(str(one.pk), str(two.pk)))
    before = assets.copy(connection, dry_run=True)
    assert (before.added, before.held) == (3, (("model_without_file", 1),))
    assert not Asset.objects.exists() and not Quarantine.objects.exists()
    assert before.placed == 2  # the assets are still to be made
    assert before == assets.copy(connection)

    one.name = "Keep"
    one.save()
    make_model(artist)
    table.layout = layout(*[str(one.pk)] * 2, str(three.pk))
    table.save()
    forecast = assets.copy(connection, dry_run=True)
    assert forecast == assets.copy(connection)
    assert (forecast.added, forecast.refreshed) == (1, 1)
    assert (forecast.placed, forecast.replaced, forecast.removed) == (1, 1, 1)


def test_batches_of_any_size(artist: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("terrain.pace.FIRST_BATCH", 2)
    monkeypatch.setattr("terrain.pace.LARGEST_BATCH", 2)
    models = [make_model(artist) for _ in range(5)]
    for model in models:
        Table.objects.create(name="T", layout=layout(str(model.pk)))
    assert assets.copy(connection) == assets.Copied(added=5, placed=5)
