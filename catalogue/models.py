"""Models as artists upload them, the global catalogue of assets, and tables laid out with them."""

from __future__ import annotations

from decimal import Decimal

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Deferrable
from django.db.models.functions import Now
from django.utils import timezone

from sessions_app.models import AnonymousSession
from terrain.constraints import ForeignKeyConstraint
from terrain.expressions import JsonIsObject
from terrain.fields import JSONField, TimestampField
from terrain.models import Record

#: Distinct assets a table may hold, unless its row says otherwise.
DEFAULT_MAX_ASSETS = 1000


class PublicationStatus(models.TextChoices):
    DRAFT = "draft"
    PUBLISHED = "published"
    ARCHIVED = "archived"


class Model(Record):
    """A printable model, as its artist uploaded it: the legacy table ``assets``."""

    artist = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        related_name="models",
        db_constraint=False,
        db_index=False,
    )
    name = models.CharField(max_length=255)
    description = models.TextField(null=True, blank=True)
    base_price = models.DecimalField(
        max_digits=10, decimal_places=2, default=Decimal(0), db_default=Decimal(0)
    )
    genre = models.CharField(max_length=100, null=True, blank=True)
    categories = ArrayField(
        models.TextField(), default=list, blank=True, db_default=models.Value("{}")
    )
    tags = ArrayField(
        models.TextField(), default=list, blank=True, db_default=models.Value("{}")
    )
    aabb = JSONField(
        "bounding box",
        null=True,
        blank=True,
        help_text="{min: {x,y,z}, max: {x,y,z}} in mm",
    )
    footprint = JSONField(
        null=True, blank=True, help_text="{width, depth, height} in mm"
    )
    file_paths = JSONField(help_text="{stl?, glb, thumbnail, additional_images?}")
    print_recommendations = JSONField(null=True, blank=True)
    print_stats = JSONField(null=True, blank=True)
    status = models.CharField(
        max_length=20,
        choices=PublicationStatus,
        default=PublicationStatus.DRAFT,
        db_default=PublicationStatus.DRAFT,
    )
    view_count = models.IntegerField(default=0, db_default=0)
    purchase_count = models.IntegerField(default=0, db_default=0)
    created_at = TimestampField(default=timezone.now, db_default=Now(), editable=False)
    updated_at = TimestampField(default=timezone.now, db_default=Now(), editable=False)

    class Meta:
        db_table = "models"
        indexes = [
            models.Index(fields=["artist"], name="models_artist_id_idx"),
            models.Index(fields=["status"], name="models_status_idx"),
            models.Index(fields=["created_at"], name="models_created_at_idx"),
            GinIndex(fields=["tags"], name="models_tags_idx"),
        ]
        constraints = [
            ForeignKeyConstraint(
                field="artist",
                name="models_artist_id_fkey",
                on_delete="NO ACTION",
                deferrable=Deferrable.DEFERRED,
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Asset(Record):
    """An entry of the global catalogue, made from a model by ``copy_models_to_assets``.

    ``id`` is the model's, where there is one.  ``copied`` is a digest of what the copy
    wrote; while the row still has it, nobody has edited the asset and the next copy may
    refresh it.
    """

    class Visibility(models.TextChoices):
        PRIVATE = "private"
        UNLISTED = "unlisted"
        PUBLIC = "public"

    model = models.OneToOneField(
        Model,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="asset",
        db_constraint=False,
        help_text="The model this was made from.",
    )
    artist = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        related_name="assets",
        db_constraint=False,
        db_index=False,
    )
    name = models.CharField(max_length=255)
    description = models.TextField(null=True, blank=True)
    category = models.TextField(null=True, blank=True)
    tags = ArrayField(
        models.TextField(), default=list, blank=True, db_default=models.Value("{}")
    )
    file_ref = models.TextField(help_text="What is printed: the STL, else the GLB.")
    glb_file_path = models.TextField(null=True, blank=True)
    preview_url = models.TextField(null=True, blank=True)
    thumbnail_path = models.TextField(null=True, blank=True)
    dimensions_mm = JSONField(
        null=True, blank=True, help_text="{width, depth, height} in mm"
    )
    triangle_count = models.IntegerField(null=True, blank=True)
    base_price = models.DecimalField(
        max_digits=10, decimal_places=2, default=Decimal(0), db_default=Decimal(0)
    )
    status = models.CharField(
        max_length=20,
        choices=PublicationStatus,
        default=PublicationStatus.DRAFT,
        db_default=PublicationStatus.DRAFT,
    )
    visibility = models.CharField(
        max_length=20,
        choices=Visibility,
        default=Visibility.PRIVATE,
        db_default=Visibility.PRIVATE,
    )
    view_count = models.IntegerField(default=0, db_default=0)
    add_count = models.IntegerField(
        default=0, db_default=0, help_text="Tables that have it in their library."
    )
    use_count = models.BigIntegerField(
        default=0, db_default=0, help_text="Times it is placed on a table."
    )
    copied = models.CharField(
        max_length=32,
        null=True,
        blank=True,
        editable=False,
        help_text="Digest of the copy.",
    )
    created_at = TimestampField(default=timezone.now, db_default=Now(), editable=False)
    updated_at = TimestampField(default=timezone.now, db_default=Now(), editable=False)
    published_at = TimestampField(null=True, blank=True)

    class Meta:
        db_table = "assets"
        indexes = [
            models.Index(fields=["artist"], name="assets_artist_idx"),
            models.Index(fields=["status", "visibility"], name="assets_listing_idx"),
            models.Index(fields=["created_at"], name="assets_created_at_idx"),
            models.Index(fields=["category"], name="assets_category_idx"),
            GinIndex(fields=["tags"], name="assets_labels_idx"),
        ]
        constraints = [
            ForeignKeyConstraint(
                field="model", name="assets_model_id_fkey", on_delete="SET NULL"
            ),
            ForeignKeyConstraint(
                field="artist",
                name="assets_owner_id_fkey",
                on_delete="NO ACTION",
                deferrable=Deferrable.DEFERRED,
            ),
        ]

    def __str__(self) -> str:
        return self.name


class AssetSet(Record):
    """A curated, ordered collection of assets."""

    name = models.CharField(max_length=255)
    description = models.TextField(null=True, blank=True)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="asset_sets",
        db_constraint=False,
        db_index=False,
        help_text="Whose it is; empty for the shop's own.",
    )
    is_public = models.BooleanField(default=False, db_default=False)
    assets = models.ManyToManyField(Asset, through="AssetSetItem", related_name="sets")
    created_at = TimestampField(default=timezone.now, db_default=Now(), editable=False)
    updated_at = TimestampField(default=timezone.now, db_default=Now(), editable=False)

    class Meta:
        db_table = "asset_sets"
        ordering = ["name"]
        indexes = [models.Index(fields=["owner"], name="asset_sets_owner_id_idx")]
        constraints = [
            ForeignKeyConstraint(
                field="owner",
                name="asset_sets_owner_id_fkey",
                on_delete="NO ACTION",
                deferrable=Deferrable.DEFERRED,
            ),
        ]

    def __str__(self) -> str:
        return self.name


class AssetSetItem(Record):
    """An asset's place in a set."""

    asset_set = models.ForeignKey(
        AssetSet,
        on_delete=models.CASCADE,
        related_name="items",
        db_constraint=False,
        db_index=False,
    )
    asset = models.ForeignKey(
        Asset,
        on_delete=models.CASCADE,
        related_name="set_items",
        db_constraint=False,
        db_index=False,
    )
    position = models.PositiveIntegerField(default=0, db_default=0)

    class Meta:
        db_table = "asset_set_items"
        ordering = ["position", "id"]
        indexes = [
            models.Index(
                fields=["asset_set", "position"], name="asset_set_items_position_idx"
            ),
            models.Index(fields=["asset"], name="asset_set_items_asset_id_idx"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["asset_set", "asset"], name="asset_set_items_key"
            ),
            ForeignKeyConstraint(
                field="asset_set",
                name="asset_set_items_set_id_fkey",
                on_delete="CASCADE",
            ),
            ForeignKeyConstraint(
                field="asset", name="asset_set_items_asset_id_fkey", on_delete="CASCADE"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.position}. {self.asset_id}"


class Table(Record):
    """A layout: saved by a visitor or a user, or shown by an artist (the two ``kind``\\ s).

    It belongs to a ``user`` or to a ``session``; one that the old application has just
    written belongs to neither until ``settle`` has looked at its address.
    """

    class Kind(models.TextChoices):
        USER = "user"
        EXAMPLE = "example"

    class Status(models.TextChoices):
        ACTIVE = "active"
        ARCHIVED = "archived"

    class Plan(models.TextChoices):
        ANON_FREE = "anon_free", "free, without an account"
        USER_FREE = "user_free", "free"
        PRO = "pro"

    kind = models.CharField(
        max_length=20, choices=Kind, default=Kind.USER, db_default=Kind.USER
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="tables",
        db_constraint=False,
        db_index=False,
    )
    session = models.ForeignKey(
        AnonymousSession,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="tables",
        db_constraint=False,
        db_index=False,
    )
    name = models.CharField(max_length=255)
    description = models.TextField(null=True, blank=True)
    width = models.IntegerField("width in mm", null=True, blank=True)
    depth = models.IntegerField("depth in mm", null=True, blank=True)
    config = JSONField(
        default=dict,
        blank=True,
        db_default=models.Value({}, models.JSONField()),
        help_text="Everything about the table that has no column: grid, colours.",
    )
    layout = JSONField(
        default=dict,
        blank=True,
        db_default=models.Value({}, models.JSONField()),
        help_text="{models: [{id, asset_id, position, rotation, scale?}], camera_position?, …}",
    )
    thumbnail_url = models.TextField(null=True, blank=True)
    is_featured = models.BooleanField(default=False, db_default=False)
    is_public = models.BooleanField(default=False, db_default=False)
    share_code = models.CharField(max_length=64, null=True, blank=True)
    contact_email = models.CharField(
        max_length=255,
        null=True,
        blank=True,
        help_text="As typed when the table was saved.",
    )
    status = models.CharField(
        max_length=20, choices=Status, default=Status.ACTIVE, db_default=Status.ACTIVE
    )
    plan = models.CharField(
        max_length=20, choices=Plan, default=Plan.ANON_FREE, db_default=Plan.ANON_FREE
    )
    max_assets = models.PositiveIntegerField(
        default=DEFAULT_MAX_ASSETS,
        db_default=DEFAULT_MAX_ASSETS,
        help_text="How many different assets it may hold.",
    )
    view_count = models.IntegerField(default=0, db_default=0)
    clone_count = models.IntegerField(default=0, db_default=0)
    created_at = TimestampField(default=timezone.now, db_default=Now(), editable=False)
    updated_at = TimestampField(default=timezone.now, db_default=Now(), editable=False)

    library = models.ManyToManyField(Asset, through="TableAsset", related_name="tables")

    class Meta:
        db_table = "tables"
        indexes = [
            models.Index(fields=["user"], name="tables_user_id_idx"),
            models.Index(fields=["session"], name="tables_session_id_idx"),
            models.Index(fields=["kind", "created_at"], name="tables_kind_idx"),
            models.Index(fields=["created_at"], name="tables_created_at_idx"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(kind__in=["user", "example"]),
                name="tables_kind_check",
            ),
            models.CheckConstraint(
                condition=models.Q(user__isnull=True) | models.Q(session__isnull=True),
                name="tables_owner_check",
                violation_error_message="A table belongs to a user or to a session, not both.",
            ),
            models.CheckConstraint(
                condition=JsonIsObject("config"), name="tables_config_check"
            ),
            models.CheckConstraint(
                condition=JsonIsObject("layout"), name="tables_layout_check"
            ),
            models.UniqueConstraint(
                fields=["share_code"], name="tables_share_code_key"
            ),
            ForeignKeyConstraint(
                field="user",
                name="tables_user_id_fkey",
                on_delete="NO ACTION",
                deferrable=Deferrable.DEFERRED,
            ),
            ForeignKeyConstraint(
                field="session", name="tables_session_id_fkey", on_delete="NO ACTION"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class TableAsset(Record):
    """An asset in a table's library, and how often the layout places it.

    ``counted`` is the number last taken from the layout by ``copy_models_to_assets``;
    while ``quantity`` is still the same, nobody has edited it.
    """

    table = models.ForeignKey(
        Table,
        on_delete=models.CASCADE,
        related_name="table_assets",
        db_constraint=False,
        db_index=False,
    )
    asset = models.ForeignKey(
        Asset,
        on_delete=models.CASCADE,
        related_name="table_assets",
        db_constraint=False,
        db_index=False,
    )
    quantity = models.PositiveIntegerField(default=1, db_default=1)
    counted = models.PositiveIntegerField(null=True, blank=True, editable=False)
    last_used = TimestampField(null=True, blank=True)

    class Meta:
        db_table = "table_assets"
        indexes = [models.Index(fields=["asset"], name="table_assets_asset_id_idx")]
        constraints = [
            models.UniqueConstraint(fields=["table", "asset"], name="table_assets_key"),
            ForeignKeyConstraint(
                field="table", name="table_assets_table_id_fkey", on_delete="CASCADE"
            ),
            ForeignKeyConstraint(
                field="asset", name="table_assets_asset_id_fkey", on_delete="CASCADE"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} × {self.asset_id}"


class TableSet(Record):
    """A set made available on a table."""

    table = models.ForeignKey(
        Table,
        on_delete=models.CASCADE,
        related_name="table_sets",
        db_constraint=False,
        db_index=False,
    )
    asset_set = models.ForeignKey(
        AssetSet,
        on_delete=models.CASCADE,
        related_name="table_sets",
        db_constraint=False,
        db_index=False,
    )
    added_at = TimestampField(default=timezone.now, db_default=Now(), editable=False)

    class Meta:
        db_table = "table_sets"
        indexes = [
            models.Index(fields=["asset_set"], name="table_sets_asset_set_id_idx")
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["table", "asset_set"], name="table_sets_key"
            ),
            ForeignKeyConstraint(
                field="table", name="table_sets_table_id_fkey", on_delete="CASCADE"
            ),
            ForeignKeyConstraint(
                field="asset_set", name="table_sets_set_id_fkey", on_delete="CASCADE"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.asset_set_id} on {self.table_id}"


class UsageSource(models.TextChoices):
    """Where something was done with an asset."""

    LAYOUT = "layout", "a table's layout"
    LIBRARY = "library", "a table's library, by hand"


class Usage(models.Model):
    """What was done with assets: how often, and where.

    An ``add`` is a table that has the asset now and had it not, a ``removal`` the
    reverse, a ``use`` one placement more (in a library: one more in quantity).
    """

    day = models.DateField(help_text="In UTC.")
    source = models.CharField(max_length=10, choices=UsageSource)
    adds = models.BigIntegerField(default=0, db_default=0)
    removals = models.BigIntegerField(default=0, db_default=0)
    uses = models.BigIntegerField(default=0, db_default=0)

    class Meta:
        abstract = True


class AssetUsage(Usage):
    """What was done with an asset on a day; it stays when the asset goes."""

    asset = models.ForeignKey(
        Asset,
        on_delete=models.DO_NOTHING,
        related_name="usage",
        db_constraint=False,
        db_index=False,
    )

    class Meta:
        db_table = "asset_usage"
        ordering = ["-day", "asset", "source"]
        verbose_name_plural = "asset usage"
        constraints = [
            models.UniqueConstraint(
                fields=["asset", "day", "source"], name="asset_usage_key"
            )
        ]
        indexes = [models.Index(fields=["day"], name="asset_usage_day_idx")]

    def __str__(self) -> str:
        return f"{self.asset_id} on {self.day}"


class DailyUsage(Usage):
    """What was done with all assets together on a day."""

    class Meta:
        db_table = "asset_usage_days"
        ordering = ["-day", "source"]
        verbose_name_plural = "daily usage"
        constraints = [
            models.UniqueConstraint(
                fields=["day", "source"], name="asset_usage_days_key"
            )
        ]

    def __str__(self) -> str:
        return str(self.day)


class UsageLog(Usage):
    """A change that the database's triggers have seen, not summed up yet.

    Only ever inserted into by writers, so none waits for another; see ``usage.py``.  Of a library
    it is an asset and its numbers; of a layout, which assets were placed before and after, as
    the layout spells them, once for each placement: they are told apart when it is summed up.
    """

    asset_id = models.UUIDField(null=True)
    placed_before = models.JSONField(null=True)
    placed_after = models.JSONField(null=True)

    class Meta:
        db_table = "asset_usage_log"
        verbose_name_plural = "usage log"

    def __str__(self) -> str:
        return f"{self.asset_id or self.source} on {self.day}"
