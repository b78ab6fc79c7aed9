from django.db import migrations, models

import terrain.operations


class Migration(migrations.Migration):
    # Each operation can be run again after having been killed.
    atomic = False

    dependencies = [
        ("catalogue", "0001_initial"),
        ("sessions_app", "0001_initial"),
    ]

    operations = [
        terrain.operations.AddIndexOnline(
            model_name="anonymoussession",
            index=models.Index(
                fields=["last_seen"], name="anonymous_sessions_seen_idx"
            ),
        ),
    ]
