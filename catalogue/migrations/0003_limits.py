from pathlib import Path

from django.db import migrations

from terrain.operations import InstallSQL


class Migration(migrations.Migration):
    # The operation can be run again after having been killed.
    atomic = False

    dependencies = [
        ("catalogue", "0002_integrity"),
        ("sessions_app", "0001_initial"),
    ]

    operations = [
        InstallSQL(
            "the limits of visitors' tables and of tables' assets",
            Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"),
            reverse_sql=(
                "DROP TRIGGER IF EXISTS terrain_table_limit_insert ON tables;"
                "DROP TRIGGER IF EXISTS terrain_table_limit_update ON tables;"
                "DROP TRIGGER IF EXISTS terrain_asset_limit_insert ON table_assets;"
                "DROP TRIGGER IF EXISTS terrain_asset_limit_update ON table_assets;"
                "DROP FUNCTION IF EXISTS terrain_table_limit();"
                "DROP FUNCTION IF EXISTS terrain_asset_limit_insert();"
                "DROP FUNCTION IF EXISTS terrain_asset_limit_update();"
                "DROP FUNCTION IF EXISTS terrain_check_assets(uuid);"
            ),
            tables=("tables", "table_assets"),
        ),
    ]
