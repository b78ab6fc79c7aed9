from django.db import migrations

from terrain.legacy.operations import Return


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("legacy", "0009_settle"), ("catalogue", "0004_usage")]

    # Going back, the triggers that write to these tables have gone before they do.
    run_before = [("catalogue", "0005_count_usage")]

    operations = [Return("asset_usage", "asset_usage_days", "asset_usage_log")]
