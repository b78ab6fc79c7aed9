from django.db import migrations

from terrain.legacy.operations import Copy


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("legacy", "0005_copy_models")]

    operations = [Copy("user_tables"), Copy("example_tables")]
