from django.db import migrations

from terrain.legacy.operations import Copy


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("legacy", "0007_copy_orders")]

    # Indexes and foreign keys cost a third of the time when they come after the rows.
    run_before = [
        ("sessions_app", "0002_integrity"),
        ("catalogue", "0002_integrity"),
        ("orders", "0002_integrity"),
    ]

    operations = [Copy("stripe_transfers")]
