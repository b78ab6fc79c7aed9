from pathlib import Path

from django.db import migrations

from terrain.operations import InstallSQL


class Migration(migrations.Migration):
    # The operation can be run again after having been killed.
    atomic = False

    dependencies = [("catalogue", "0004_usage")]

    operations = [
        InstallSQL(
            "the counting of what is done with assets",
            Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"),
            reverse_sql=(
                "DROP TRIGGER IF EXISTS terrain_usage_insert ON tables;"
                "DROP TRIGGER IF EXISTS terrain_usage_update ON tables;"
                "DROP TRIGGER IF EXISTS terrain_usage_delete ON tables;"
                "DROP TRIGGER IF EXISTS terrain_usage_insert ON table_assets;"
                "DROP TRIGGER IF EXISTS terrain_usage_update ON table_assets;"
                "DROP TRIGGER IF EXISTS terrain_usage_delete ON table_assets;"
                "DROP FUNCTION IF EXISTS terrain_count_layout_1();"
                "DROP FUNCTION IF EXISTS terrain_count_library_1();"
            ),
            tables=("tables", "table_assets"),
        ),
    ]
