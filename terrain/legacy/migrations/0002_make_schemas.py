from django.db import migrations

from terrain.legacy.operations import MakeSchemas


class Migration(migrations.Migration):
    atomic = False

    # A version before this moved the legacy tables here, to the schema legacy.
    replaces = [("legacy", "0002_stand_aside")]

    # Whoever pauses the move pauses this too.
    dependencies = [("legacy", "0001_initial"), ("terrain", "0002_pace")]

    # Unapplied with it, so that a rollback takes the new tables back.
    run_before = [
        ("sessions_app", "0001_initial"),
        ("catalogue", "0001_initial"),
        ("orders", "0001_initial"),
    ]

    operations = [MakeSchemas()]
