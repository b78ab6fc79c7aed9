import uuid

import django.contrib.postgres.functions
import django.db.models.functions.datetime
import django.utils.timezone
from django.db import migrations, models

import sessions_app.models
import terrain.fields


class Migration(migrations.Migration):

    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="AnonymousSession",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        db_default=django.contrib.postgres.functions.RandomUUID(),
                        default=uuid.uuid4,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "session_token",
                    models.CharField(
                        default=sessions_app.models.new_token, max_length=64
                    ),
                ),
                (
                    "table_limit",
                    models.PositiveIntegerField(
                        db_default=3,
                        default=3,
                        help_text="How many active tables the session may have.",
                    ),
                ),
                (
                    "created_at",
                    terrain.fields.TimestampField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        editable=False,
                    ),
                ),
                (
                    "last_seen",
                    terrain.fields.TimestampField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                    ),
                ),
            ],
            options={
                "db_table": "anonymous_sessions",
                "ordering": ["-last_seen"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("session_token",), name="anonymous_sessions_token_key"
                    )
                ],
            },
        ),
    ]
