import uuid
from decimal import Decimal

import django.contrib.postgres.fields
import django.contrib.postgres.functions
import django.db.models.deletion
import django.db.models.functions.datetime
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

import terrain.expressions
import terrain.fields


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ("sessions_app", "0001_initial"),
        ("terrain", "__first__"),
    ]

    operations = [
        migrations.CreateModel(
            name="Model",
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
                    "artist",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="models",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("name", models.CharField(max_length=255)),
                ("description", models.TextField(blank=True, null=True)),
                (
                    "base_price",
                    models.DecimalField(
                        db_default=Decimal("0"),
                        decimal_places=2,
                        default=Decimal("0"),
                        max_digits=10,
                    ),
                ),
                ("genre", models.CharField(blank=True, max_length=100, null=True)),
                (
                    "categories",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.TextField(),
                        blank=True,
                        db_default=models.Value("{}"),
                        default=list,
                        size=None,
                    ),
                ),
                (
                    "tags",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.TextField(),
                        blank=True,
                        db_default=models.Value("{}"),
                        default=list,
                        size=None,
                    ),
                ),
                (
                    "aabb",
                    models.JSONField(
                        blank=True,
                        help_text="{min: {x,y,z}, max: {x,y,z}} in mm",
                        null=True,
                        verbose_name="bounding box",
                    ),
                ),
                (
                    "footprint",
                    models.JSONField(
                        blank=True, help_text="{width, depth, height} in mm", null=True
                    ),
                ),
                (
                    "file_paths",
                    models.JSONField(
                        help_text="{stl?, glb, thumbnail, additional_images?}"
                    ),
                ),
                ("print_recommendations", models.JSONField(blank=True, null=True)),
                ("print_stats", models.JSONField(blank=True, null=True)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("draft", "Draft"),
                            ("published", "Published"),
                            ("archived", "Archived"),
                        ],
                        db_default="draft",
                        default="draft",
                        max_length=20,
                    ),
                ),
                ("view_count", models.IntegerField(db_default=0, default=0)),
                ("purchase_count", models.IntegerField(db_default=0, default=0)),
                (
                    "created_at",
                    terrain.fields.TimestampField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        editable=False,
                    ),
                ),
                (
                    "updated_at",
                    terrain.fields.TimestampField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        editable=False,
                    ),
                ),
            ],
            options={
                "db_table": "models",
            },
        ),
        migrations.CreateModel(
            name="Asset",
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
                    "model",
                    models.OneToOneField(
                        blank=True,
                        db_constraint=False,
                        help_text="The model this was made from.",
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="asset",
                        to="catalogue.model",
                    ),
                ),
                (
                    "artist",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="assets",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("name", models.CharField(max_length=255)),
                ("description", models.TextField(blank=True, null=True)),
                ("category", models.TextField(blank=True, null=True)),
                (
                    "tags",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.TextField(),
                        blank=True,
                        db_default=models.Value("{}"),
                        default=list,
                        size=None,
                    ),
                ),
                (
                    "file_ref",
                    models.TextField(
                        help_text="What is printed: the STL, else the GLB."
                    ),
                ),
                ("glb_file_path", models.TextField(blank=True, null=True)),
                ("preview_url", models.TextField(blank=True, null=True)),
                ("thumbnail_path", models.TextField(blank=True, null=True)),
                (
                    "dimensions_mm",
                    models.JSONField(
                        blank=True, help_text="{width, depth, height} in mm", null=True
                    ),
                ),
                ("triangle_count", models.IntegerField(blank=True, null=True)),
                (
                    "base_price",
                    models.DecimalField(
                        db_default=Decimal("0"),
                        decimal_places=2,
                        default=Decimal("0"),
                        max_digits=10,
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("draft", "Draft"),
                            ("published", "Published"),
                            ("archived", "Archived"),
                        ],
                        db_default="draft",
                        default="draft",
                        max_length=20,
                    ),
                ),
                (
                    "visibility",
                    models.CharField(
                        choices=[
                            ("private", "Private"),
                            ("unlisted", "Unlisted"),
                            ("public", "Public"),
                        ],
                        db_default="private",
                        default="private",
                        max_length=20,
                    ),
                ),
                ("view_count", models.IntegerField(db_default=0, default=0)),
                (
                    "add_count",
                    models.IntegerField(
                        db_default=0,
                        default=0,
                        help_text="Tables that have it in their library.",
                    ),
                ),
                (
                    "use_count",
                    models.BigIntegerField(
                        db_default=0,
                        default=0,
                        help_text="Times it is placed on a table.",
                    ),
                ),
                (
                    "copied",
                    models.CharField(
                        blank=True,
                        editable=False,
                        help_text="Digest of the copy.",
                        max_length=32,
                        null=True,
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
                    "updated_at",
                    terrain.fields.TimestampField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        editable=False,
                    ),
                ),
                ("published_at", terrain.fields.TimestampField(blank=True, null=True)),
            ],
            options={
                "db_table": "assets",
            },
        ),
        migrations.CreateModel(
            name="AssetSet",
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
                ("name", models.CharField(max_length=255)),
                ("description", models.TextField(blank=True, null=True)),
                (
                    "owner",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        db_index=False,
                        help_text="Whose it is; empty for the shop's own.",
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="asset_sets",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("is_public", models.BooleanField(db_default=False, default=False)),
                (
                    "created_at",
                    terrain.fields.TimestampField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        editable=False,
                    ),
                ),
                (
                    "updated_at",
                    terrain.fields.TimestampField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        editable=False,
                    ),
                ),
            ],
            options={
                "db_table": "asset_sets",
                "ordering": ["name"],
            },
        ),
        migrations.CreateModel(
            name="AssetSetItem",
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
                    "asset_set",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="items",
                        to="catalogue.assetset",
                    ),
                ),
                (
                    "asset",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="set_items",
                        to="catalogue.asset",
                    ),
                ),
                ("position", models.PositiveIntegerField(db_default=0, default=0)),
            ],
            options={
                "db_table": "asset_set_items",
                "ordering": ["position", "id"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("asset_set", "asset"), name="asset_set_items_key"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Table",
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
                    "kind",
                    models.CharField(
                        choices=[("user", "User"), ("example", "Example")],
                        db_default="user",
                        default="user",
                        max_length=20,
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="tables",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "session",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="tables",
                        to="sessions_app.anonymoussession",
                    ),
                ),
                ("name", models.CharField(max_length=255)),
                ("description", models.TextField(blank=True, null=True)),
                (
                    "width",
                    models.IntegerField(
                        blank=True, null=True, verbose_name="width in mm"
                    ),
                ),
                (
                    "depth",
                    models.IntegerField(
                        blank=True, null=True, verbose_name="depth in mm"
                    ),
                ),
                (
                    "config",
                    models.JSONField(
                        blank=True,
                        db_default=models.Value({}, models.JSONField()),
                        default=dict,
                        help_text="Everything about the table that has no column: grid, colours.",
                    ),
                ),
                (
                    "layout",
                    models.JSONField(
                        blank=True,
                        db_default=models.Value({}, models.JSONField()),
                        default=dict,
                        help_text="{models: [{id, asset_id, position, rotation, scale?}], camera_position?, …}",
                    ),
                ),
                ("thumbnail_url", models.TextField(blank=True, null=True)),
                ("is_featured", models.BooleanField(db_default=False, default=False)),
                ("is_public", models.BooleanField(db_default=False, default=False)),
                ("share_code", models.CharField(blank=True, max_length=64, null=True)),
                (
                    "contact_email",
                    models.CharField(
                        blank=True,
                        help_text="As typed when the table was saved.",
                        max_length=255,
                        null=True,
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[("active", "Active"), ("archived", "Archived")],
                        db_default="active",
                        default="active",
                        max_length=20,
                    ),
                ),
                (
                    "plan",
                    models.CharField(
                        choices=[
                            ("anon_free", "free, without an account"),
                            ("user_free", "free"),
                            ("pro", "Pro"),
                        ],
                        db_default="anon_free",
                        default="anon_free",
                        max_length=20,
                    ),
                ),
                (
                    "max_assets",
                    models.PositiveIntegerField(
                        db_default=1000,
                        default=1000,
                        help_text="How many different assets it may hold.",
                    ),
                ),
                ("view_count", models.IntegerField(db_default=0, default=0)),
                ("clone_count", models.IntegerField(db_default=0, default=0)),
                (
                    "created_at",
                    terrain.fields.TimestampField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        editable=False,
                    ),
                ),
                (
                    "updated_at",
                    terrain.fields.TimestampField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        editable=False,
                    ),
                ),
            ],
            options={
                "db_table": "tables",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("kind__in", ["user", "example"])),
                        name="tables_kind_check",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("user__isnull", True),
                            ("session__isnull", True),
                            _connector="OR",
                        ),
                        name="tables_owner_check",
                        violation_error_message="A table belongs to a user or to a session, not both.",
                    ),
                    models.CheckConstraint(
                        condition=terrain.expressions.JsonIsObject("config"),
                        name="tables_config_check",
                    ),
                    models.CheckConstraint(
                        condition=terrain.expressions.JsonIsObject("layout"),
                        name="tables_layout_check",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="TableAsset",
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
                    "table",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="table_assets",
                        to="catalogue.table",
                    ),
                ),
                (
                    "asset",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="table_assets",
                        to="catalogue.asset",
                    ),
                ),
                ("quantity", models.PositiveIntegerField(db_default=1, default=1)),
                (
                    "counted",
                    models.PositiveIntegerField(blank=True, editable=False, null=True),
                ),
                ("last_used", terrain.fields.TimestampField(blank=True, null=True)),
            ],
            options={
                "db_table": "table_assets",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("table", "asset"), name="table_assets_key"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="TableSet",
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
                    "table",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="table_sets",
                        to="catalogue.table",
                    ),
                ),
                (
                    "asset_set",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="table_sets",
                        to="catalogue.assetset",
                    ),
                ),
                (
                    "added_at",
                    terrain.fields.TimestampField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        editable=False,
                    ),
                ),
            ],
            options={
                "db_table": "table_sets",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("table", "asset_set"), name="table_sets_key"
                    )
                ],
            },
        ),
        migrations.AddField(
            model_name="assetset",
            name="assets",
            field=models.ManyToManyField(
                related_name="sets",
                through="catalogue.AssetSetItem",
                to="catalogue.asset",
            ),
        ),
        migrations.AddField(
            model_name="table",
            name="library",
            field=models.ManyToManyField(
                related_name="tables",
                through="catalogue.TableAsset",
                to="catalogue.asset",
            ),
        ),
    ]
