from django.db import migrations

from terrain.legacy.operations import Copy


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("legacy", "0006_copy_tables")]

    operations = [Copy("orders")]
