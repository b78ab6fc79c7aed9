import uuid
from decimal import Decimal

import django.contrib.postgres.functions
import django.db.models.functions.datetime
import django.utils.timezone
from django.db import migrations, models

import terrain.addresses
import terrain.fields


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations = [
        migrations.CreateModel(
            name="User",
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
                    "email",
                    models.CharField(max_length=255, verbose_name="e-mail address"),
                ),
                (
                    "password",
                    terrain.fields.PasswordHashField(
                        db_column="password_hash",
                        db_default=models.Value("!"),
                        max_length=255,
                    ),
                ),
                (
                    "display_name",
                    models.CharField(blank=True, db_default="", max_length=255),
                ),
                ("bio", models.TextField(blank=True, null=True)),
                ("profile_image_url", models.TextField(blank=True, null=True)),
                ("banner_image_url", models.TextField(blank=True, null=True)),
                (
                    "stripe_account_id",
                    models.CharField(blank=True, max_length=255, null=True),
                ),
                (
                    "stripe_onboarding_complete",
                    models.BooleanField(db_default=False, default=False),
                ),
                ("invite_code", models.CharField(blank=True, max_length=50, null=True)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("invited", "Invited"),
                            ("active", "Active"),
                            ("suspended", "Suspended"),
                        ],
                        db_default="active",
                        default="active",
                        max_length=20,
                    ),
                ),
                (
                    "role",
                    models.CharField(
                        choices=[
                            ("customer", "Customer"),
                            ("artist", "Artist"),
                            ("admin", "Admin"),
                        ],
                        db_default="customer",
                        default="customer",
                        max_length=20,
                    ),
                ),
                (
                    "commission_rate",
                    models.DecimalField(
                        db_default=Decimal("0.800"),
                        decimal_places=3,
                        default=Decimal("0.800"),
                        help_text="The artist's share, as a fraction.",
                        max_digits=4,
                    ),
                ),
                (
                    "is_superuser",
                    models.BooleanField(
                        db_default=False,
                        default=False,
                        help_text="Has every permission without being given it.",
                        verbose_name="superuser status",
                    ),
                ),
                ("last_login", terrain.fields.TimestampField(blank=True, null=True)),
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
                (
                    "groups",
                    models.ManyToManyField(
                        blank=True,
                        help_text="The groups this user belongs to. A user will get all permissions granted to each of their groups.",
                        related_name="user_set",
                        related_query_name="user",
                        to="auth.group",
                        verbose_name="groups",
                    ),
                ),
                (
                    "user_permissions",
                    models.ManyToManyField(
                        blank=True,
                        help_text="Specific permissions for this user.",
                        related_name="user_set",
                        related_query_name="user",
                        to="auth.permission",
                        verbose_name="user permissions",
                    ),
                ),
            ],
            options={
                "db_table": "users",
                "indexes": [
                    models.Index(
                        terrain.addresses.NormalAddress("email"),
                        name="users_address_idx",
                    ),
                    models.Index(fields=["created_at"], name="users_created_at_idx"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("role", "customer"), _negated=True),
                        fields=("email",),
                        name="users_artist_email_key",
                        violation_error_message="Another artist has this address.",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("role", "customer")),
                        fields=("email",),
                        name="users_customer_email_key",
                        violation_error_message="Another customer has this address.",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("role__in", ["customer", "artist", "admin"])
                        ),
                        name="users_role_check",
                    ),
                ],
            },
        ),
    ]
