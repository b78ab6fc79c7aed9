from pathlib import Path

from django.db import migrations

from terrain.operations import InstallSQL


def _statements(name: str) -> str:
    return Path(__file__).with_name(f"{name}.sql").read_text(encoding="utf-8")


class Migration(migrations.Migration):
    # The functions as 0003 and 0005 make them today: those of a version before named the schema
    # public, and would not find their tables elsewhere.
    atomic = False

    dependencies = [("catalogue", "0005_count_usage")]

    operations = [
        InstallSQL(
            "the limits of visitors' tables and of tables' assets, as they are today",
            _statements("0003_limits"),
            reverse_sql="",
            tables=("tables", "table_assets"),
        ),
        InstallSQL(
            "the counting of what is done with assets, as it is today",
            _statements("0005_count_usage"),
            reverse_sql="",
            tables=("tables", "table_assets"),
        ),
    ]
