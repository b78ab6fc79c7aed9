"""copy_models_to_assets on a migrated shop, and on one that is not."""

from __future__ import annotations

from collections.abc import Callable

from tests.conftest import Database, Result

Manage = Callable[..., Result]


def test_before_migrate(shop: Database, manage: Manage) -> None:
    result = manage("copy_models_to_assets")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "There are no models to copy: the tables of the catalogue are not there."
        " Run: python manage.py migrate\n"
    )


def test_every_model_and_every_placement(migrated: Database, manage: Manage) -> None:
    """Counted here by hand, from the legacy tables."""
    assert manage("copy_models_to_assets").code == 0
    assert migrated.rows(
        "SELECT id, name, base_price FROM terrain.assets ORDER BY 1"
    ) == migrated.rows("SELECT id, name, base_price FROM public.assets ORDER BY 1")
    assert migrated.rows(
        "SELECT asset_id, count(*), sum(quantity) FROM table_assets GROUP BY 1 ORDER BY 1"
    ) == migrated.rows(
        "SELECT (e ->> 'asset_id')::uuid, count(DISTINCT l.id), count(*)"
        "  FROM (SELECT id, layout_data FROM public.user_tables"
        "        UNION ALL SELECT id, layout_data FROM public.example_tables) l,"
        "       jsonb_array_elements(l.layout_data -> 'models') e GROUP BY 1 ORDER BY 1"
    )
    assert migrated.rows(
        "SELECT id, add_count, use_count FROM terrain.assets WHERE use_count > 0 ORDER BY 1"
    ) == migrated.rows(
        "SELECT asset_id, count(*), sum(quantity) FROM table_assets GROUP BY 1 ORDER BY 1"
    )
    again = manage("copy_models_to_assets")
    assert again.out.splitlines() == [
        "Assets: 0 added, 0 refreshed; 0 edited since and left alone.",
        "Libraries of tables: 0 assets added, 0 counted anew, 0 removed.",
    ]


def test_what_the_old_application_adds_comes_with_the_next_run(
    migrated: Database, manage: Manage
) -> None:
    manage("copy_models_to_assets")
    migrated.old().execute(
        "INSERT INTO assets (artist_id, name, file_paths)"
        " SELECT id, 'New', '{\"glb\": \"n.glb\"}' FROM artists LIMIT 1"
    )
    assert manage("copy_models_to_assets").out.startswith("Assets: 1 added")


def test_a_model_deleted_by_the_old_application_leaves_its_asset(
    migrated: Database, manage: Manage
) -> None:
    manage("copy_models_to_assets")
    key = migrated.value("SELECT id FROM public.assets LIMIT 1")
    migrated.old().execute("DELETE FROM assets WHERE id = %s", [key])
    assert (
        migrated.value("SELECT model_id FROM terrain.assets WHERE id = %s", key) is None
    )


def test_what_it_says(migrated: Database, manage: Manage) -> None:
    migrated.old().execute(
        "UPDATE assets SET base_price = 'NaN' WHERE id = (SELECT id FROM assets LIMIT 1)"
    )
    models = migrated.value("SELECT count(*) - 1 FROM public.assets")
    dry = manage("copy_models_to_assets", "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    first, *_, held, last = dry.out.splitlines()
    assert first == (
        f"Assets: would be {models} added, 0 refreshed; 0 edited since and left alone."
    )
    assert held == (
        "1 model is held (model_price_nan): each has the price NaN, not a number."
        " Correct base_price, then run copy_models_to_assets again."
    )
    assert last == "Nothing was changed."
    assert migrated.value("SELECT count(*) FROM terrain.assets") == 0
    assert manage("copy_models_to_assets").out.splitlines()[0] == (
        f"Assets: {models} added, 0 refreshed; 0 edited since and left alone."
    )
