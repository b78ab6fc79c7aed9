from django.db import migrations

from terrain.legacy.operations import Copy


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("legacy", "0004_copy_users")]

    operations = [Copy("assets")]
