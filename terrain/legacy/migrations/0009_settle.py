from django.db import migrations

from terrain.legacy.operations import Settle


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("legacy", "0008_copy_payments"),
        ("sessions_app", "0002_integrity"),
        ("catalogue", "0002_integrity"),
        ("orders", "0002_integrity"),
    ]

    operations = [Settle()]
