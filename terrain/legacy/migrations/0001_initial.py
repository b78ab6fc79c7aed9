import django.db.models.deletion
import django.db.models.functions.datetime
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

import terrain.fields


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ("terrain", "__first__"),
    ]

    operations = [
        migrations.CreateModel(
            name="Run",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                ("step", models.CharField(max_length=100)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("running", "Running"),
                            ("paused", "Paused"),
                            ("done", "Done"),
                            ("failed", "Failed"),
                        ],
                        db_default="running",
                        default="running",
                        max_length=20,
                    ),
                ),
                (
                    "started_at",
                    terrain.fields.TimestampField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                    ),
                ),
                ("finished_at", terrain.fields.TimestampField(blank=True, null=True)),
                ("rows", models.BigIntegerField(db_default=0, default=0)),
                (
                    "total",
                    models.BigIntegerField(
                        blank=True, help_text="Rows expected.", null=True
                    ),
                ),
                (
                    "seconds",
                    models.FloatField(
                        db_default=0, default=0, help_text="Time at work."
                    ),
                ),
                (
                    "detail",
                    models.JSONField(
                        blank=True,
                        db_default=models.Value({}, models.JSONField()),
                        default=dict,
                    ),
                ),
            ],
            options={
                "db_table": "legacy_run",
                "ordering": ["-started_at", "-id"],
                "indexes": [
                    models.Index(fields=["step", "-id"], name="legacy_run_step_idx")
                ],
                "permissions": [
                    ("verify_migration", "Can start a verification"),
                    (
                        "steer_migration",
                        "Can pause the migration and let it go on",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Batch",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="batches",
                        to="legacy.run",
                    ),
                ),
                ("shard", models.IntegerField(default=0)),
                ("after", models.UUIDField(help_text="Keys above this …", null=True)),
                (
                    "upto",
                    models.UUIDField(
                        help_text="… and up to this, which is the cursor.", null=True
                    ),
                ),
                ("rows", models.IntegerField()),
                ("seconds", models.FloatField()),
                (
                    "at",
                    terrain.fields.TimestampField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "batches",
                "db_table": "legacy_batch",
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="Quarantine",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                ("legacy_table", models.CharField(max_length=63)),
                ("legacy_id", models.UUIDField()),
                (
                    "kind",
                    models.CharField(
                        choices=[("held", "Held"), ("flagged", "Flagged")],
                        max_length=10,
                    ),
                ),
                ("reason", models.CharField(max_length=63)),
                (
                    "detail",
                    models.TextField(
                        help_text="What is wrong, and what would put it right."
                    ),
                ),
                (
                    "row",
                    models.JSONField(
                        help_text="The row as it was when it was found.",
                        verbose_name="legacy row",
                    ),
                ),
                (
                    "parked",
                    models.JSONField(
                        blank=True,
                        help_text="What only the new schema knew of it; comes back with the row.",
                        null=True,
                    ),
                ),
                (
                    "found_at",
                    terrain.fields.TimestampField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                    ),
                ),
                ("decided_at", terrain.fields.TimestampField(blank=True, null=True)),
                (
                    "decided_by",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        help_text="Who decided that it may stay as it is.",
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "quarantined row",
                "db_table": "legacy_quarantine",
                "ordering": ["legacy_table", "reason", "id"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("legacy_table", "legacy_id", "reason", "kind"),
                        name="legacy_quarantine_key",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Released",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                ("legacy_table", models.CharField(max_length=63)),
                ("legacy_id", models.UUIDField()),
                (
                    "kind",
                    models.CharField(
                        choices=[("held", "Held"), ("flagged", "Flagged")],
                        max_length=10,
                    ),
                ),
                ("reason", models.CharField(max_length=63)),
                (
                    "detail",
                    models.TextField(
                        help_text="What is wrong, and what would put it right."
                    ),
                ),
                (
                    "row",
                    models.JSONField(
                        help_text="The row as it was when it was found.",
                        verbose_name="legacy row",
                    ),
                ),
                (
                    "parked",
                    models.JSONField(
                        blank=True,
                        help_text="What only the new schema knew of it; comes back with the row.",
                        null=True,
                    ),
                ),
                (
                    "found_at",
                    terrain.fields.TimestampField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                    ),
                ),
                (
                    "released_at",
                    terrain.fields.TimestampField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                    ),
                ),
            ],
            options={
                "verbose_name": "released row",
                "db_table": "legacy_released",
                "ordering": ["-released_at", "-id"],
                "indexes": [
                    models.Index(
                        fields=["legacy_table", "legacy_id"],
                        name="legacy_released_row_idx",
                    )
                ],
            },
        ),
    ]
