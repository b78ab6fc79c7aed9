from django.db import migrations

from terrain.legacy.operations import KeepInStep


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("legacy", "0002_make_schemas"),
        ("terrain", "0001_initial"),
        ("sessions_app", "0001_initial"),
        ("catalogue", "0001_initial"),
        ("orders", "0001_initial"),
    ]

    operations = [KeepInStep()]
