from django.db import migrations

from terrain.legacy.operations import FindTables, StandAside


class Migration(migrations.Migration):
    atomic = False

    # Whoever pauses the move pauses this too.
    dependencies = [("legacy", "0001_initial"), ("terrain", "0002_pace")]

    # The new tables take the names these have now.
    run_before = [
        ("sessions_app", "0001_initial"),
        ("catalogue", "0001_initial"),
        ("orders", "0001_initial"),
    ]

    operations = [
        FindTables(),
        StandAside("artists"),
        StandAside("assets"),
        StandAside("user_tables"),
        StandAside("example_tables"),
        StandAside("orders"),
        StandAside("stripe_transfers"),
    ]
