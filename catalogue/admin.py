"""Models, assets, sets and tables, in the admin."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html

from catalogue import drawing
from catalogue.curation import Arranges, Curates
from catalogue.models import (
    Asset,
    AssetSet,
    AssetSetItem,
    AssetUsage,
    DailyUsage,
    Model,
    Table,
    TableAsset,
    TableSet,
)
from terrain.pages import (
    ReadOnlyAdmin,
    RecordAdmin,
    RecordInline,
    changelist_link,
    record_link,
    shown,
)
from terrain.pages.pictures import thumbnail
from terrain.pages.shown import many, related

WHEN: Any = ("Dates", {"fields": ("created_at", "updated_at")})


@admin.register(Model)
class ModelAdmin(RecordAdmin):
    """A model as its artist uploaded it."""

    found_first = 40
    belongings = (("asset", "model"), ("order_items", "model"))

    list_display = (
        "name",
        related("artist"),
        "status",
        "base_price",
        "purchase_count",
        "created_at",
    )
    list_select_related = ("artist",)
    list_filter = ("status",)
    words = ("name__icontains",)
    search_help_text = "Part of a name, or a whole id."
    raw_id_fields = ("artist",)
    readonly_fields = ("picture", "links", "created_at", "updated_at")
    fieldsets: ClassVar[Any] = (
        (
            None,
            {
                "fields": (
                    "name",
                    "picture",
                    "artist",
                    "status",
                    "base_price",
                    "links",
                    "description",
                )
            },
        ),
        ("Found under", {"fields": ("genre", "categories", "tags")}),
        ("Files", {"fields": ("file_paths", "print_recommendations", "print_stats")}),
        ("Measures", {"fields": ("aabb", "footprint")}),
        ("Counters", {"fields": ("view_count", "purchase_count")}),
        WHEN,
    )

    @admin.display(description="Picture")
    def picture(self, model: Model) -> str:
        paths = model.file_paths
        path = paths.get("thumbnail") if isinstance(paths, dict) else None
        return thumbnail(path, model.name)

    @admin.display(description="See also")
    def links(self, model: Model) -> str:
        asset = Asset.objects.filter(model=model).first()
        return many(
            [
                "no asset yet" if asset is None else record_link(asset, "its asset"),
                changelist_link(
                    model.order_items.all(), {"model__id__exact": model.pk}
                ),
            ]
        )


@admin.register(Asset)
class AssetAdmin(Curates):
    """An entry of the global catalogue."""

    found_first = 41
    actions = ("into_set", "into_library")
    belongings = (("table_assets", "asset"), ("set_items", "asset"))

    list_display = (
        "name",
        "picture",
        related("artist"),
        "category",
        "status",
        "visibility",
        "base_price",
        "use_count",
        "created_at",
    )
    list_select_related = ("artist",)
    list_filter = ("status", "visibility")
    words = ("name__icontains",)
    search_help_text = "Part of a name, or a whole id (the model's is the same)."
    raw_id_fields = ("artist", "model")
    list_needs = ("thumbnail_path",)
    readonly_fields = (
        "picture",
        "links",
        "add_count",
        "use_count",
        "created_at",
        "updated_at",
    )
    fieldsets: ClassVar[Any] = (
        (
            None,
            {
                "fields": (
                    "name",
                    "picture",
                    "artist",
                    "model",
                    "status",
                    "visibility",
                    "base_price",
                    "links",
                    "description",
                )
            },
        ),
        ("Found under", {"fields": ("category", "tags")}),
        (
            "Files",
            {"fields": ("file_ref", "glb_file_path", "preview_url", "thumbnail_path")},
        ),
        ("Measures", {"fields": ("dimensions_mm", "triangle_count")}),
        ("Counters", {"fields": ("view_count", "add_count", "use_count")}),
        ("Dates", {"fields": ("published_at", "created_at", "updated_at")}),
    )

    def get_list_display(self, request: HttpRequest) -> Any:
        """Pictures where there are any to be had."""
        columns = super().get_list_display(request)
        return [each for each in columns if each != "picture" or settings.FILES_URL]

    @admin.display(description="Picture")
    def picture(self, asset: Asset) -> str:
        return thumbnail(asset.thumbnail_path, asset.name)

    @admin.display(description="See also")
    def links(self, asset: Asset) -> str:
        return many(
            [
                changelist_link(
                    asset.table_assets.all(),
                    {"asset__id__exact": asset.pk},
                    "table that has it",
                    "tables that have it",
                ),
                changelist_link(
                    asset.set_items.all(),
                    {"asset__id__exact": asset.pk},
                    "set that has it",
                    "sets that have it",
                ),
            ]
        )


class AssetSetItemInline(RecordInline):
    model = AssetSetItem
    fields = ("position", "asset")
    raw_id_fields = ("asset",)
    show_change_link = False


@admin.register(AssetSet)
class AssetSetAdmin(Arranges):
    """A curated, ordered collection."""

    belongings = (("items", "asset_set"), ("table_sets", "asset_set"))

    list_display = ("name", related("owner"), "is_public", "created_at")
    list_select_related = ("owner",)
    list_filter = ("is_public",)
    words = ("name__icontains",)
    search_help_text = "Part of a name, or a whole id."
    raw_id_fields = ("owner",)
    ordering = ("name",)
    sortable_by = ("name", "created_at")
    readonly_fields = ("holds", "created_at", "updated_at")
    fields = (
        "name",
        "description",
        "owner",
        "is_public",
        "holds",
        "created_at",
        "updated_at",
    )
    inlines = (AssetSetItemInline,)

    @admin.display(description="Holds")
    def holds(self, chosen: AssetSet) -> str:
        if chosen._state.adding:
            return shown.EMPTY
        arrange = reverse("admin:catalogue_assetset_arrange", args=[chosen.pk])
        return many(
            [
                format_html('<a href="{}">Put in order, or add many</a>', arrange),
                changelist_link(
                    chosen.items.all(),
                    {"asset_set__id__exact": chosen.pk},
                    "asset",
                    "assets",
                ),
                changelist_link(
                    chosen.table_sets.all(),
                    {"asset_set__id__exact": chosen.pk},
                    "table that has it",
                    "tables that have it",
                ),
            ]
        )


class _Link(RecordAdmin):
    """A row that says that two things belong together: reached from either, not searched."""

    ordering: ClassVar[Any] = ("id",)
    sortable_by = ()

    def get_search_fields(self, request: Any) -> Any:
        return ()

    def has_module_permission(self, request: Any) -> bool:
        return False


@admin.register(AssetSetItem)
class AssetSetItemAdmin(_Link):
    list_display = ("position", related("asset_set", "set"), related("asset"))
    list_select_related = ("asset_set", "asset")
    raw_id_fields = ("asset_set", "asset")
    ordering = ("asset_set_id", "position")


@admin.register(TableAsset)
class TableAssetAdmin(_Link):
    list_display = ("id", related("table"), related("asset"), "quantity", "last_used")
    list_select_related = ("table", "asset")
    raw_id_fields = ("table", "asset")
    list_needs = ("table",)


@admin.register(TableSet)
class TableSetAdmin(_Link):
    list_display = ("id", related("table"), related("asset_set", "set"), "added_at")
    list_select_related = ("table", "asset_set")
    raw_id_fields = ("table", "asset_set")
    readonly_fields = ("added_at",)


class _Usage(ReadOnlyAdmin):
    """What was done with assets, day by day; written by the database alone."""

    is_found = False
    ordering: ClassVar[Any] = ("-day", "source")
    sortable_by = ("day",)
    list_filter = ("source",)

    def get_search_fields(self, request: HttpRequest) -> Any:
        return ()


@admin.register(AssetUsage)
class AssetUsageAdmin(_Usage):
    list_display = ("day", "of", "source", "adds", "removals", "uses")
    list_needs = ("asset",)
    fields = list_display
    readonly_fields = ("of",)

    @admin.display(description="asset")
    def of(self, usage: AssetUsage) -> str:
        """By its id: the asset may have gone since, and its usage stays."""
        where = reverse("admin:catalogue_asset_change", args=[usage.asset_id])
        return format_html('<a href="{}">{}</a>', where, usage.asset_id)


@admin.register(DailyUsage)
class DailyUsageAdmin(_Usage):
    list_display = ("day", "source", "adds", "removals", "uses")
    fields = list_display


class TableAssetInline(RecordInline):
    model = TableAsset
    verbose_name_plural = "library"
    fields = ("asset", "quantity", "last_used")
    readonly_fields = ("last_used",)
    raw_id_fields = ("asset",)


class TableSetInline(RecordInline):
    model = TableSet
    verbose_name_plural = "sets"
    fields = ("asset_set", "added_at")
    readonly_fields = ("added_at",)
    raw_id_fields = ("asset_set",)


@admin.register(Table)
class TableAdmin(RecordAdmin):
    """A layout, of a user, a visitor or an artist."""

    found_first = 30
    belongings = (("table_assets", "table"), ("table_sets", "table"))

    list_display = (
        "name",
        "kind",
        related("user"),
        related("session", "visitor"),
        "status",
        "plan",
        "is_public",
        "created_at",
    )
    list_select_related = ("user", "session")
    list_filter = ("kind", "status", "plan", "is_featured")
    keys = ("share_code",)
    search_help_text = "A whole id or share code. By owner: from the owner's page."
    raw_id_fields = ("user", "session")
    readonly_fields = ("picture", "drawing", "holds", "created_at", "updated_at")
    fieldsets: ClassVar[Any] = (
        (
            None,
            {"fields": ("name", "kind", "user", "session", "status", "description")},
        ),
        ("From above", {"fields": ("drawing",), "classes": ("drawn",)}),
        ("Size", {"fields": ("width", "depth", "plan", "max_assets", "holds")}),
        (
            "Shown",
            {
                "fields": (
                    "is_public",
                    "is_featured",
                    "share_code",
                    "picture",
                    "thumbnail_url",
                    "contact_email",
                )
            },
        ),
        ("As it is laid out", {"fields": ("config", "layout")}),
        ("Counters", {"fields": ("view_count", "clone_count")}),
        WHEN,
    )
    inlines = (TableAssetInline, TableSetInline)

    @admin.display(description="Layout")
    def drawing(self, table: Table) -> str:
        """What stands where, to scale, with the measures that the catalogue knows."""
        known = {
            key: drawing.Known(name, *drawing.measures(dimensions))
            for key, name, dimensions in Asset.objects.filter(
                pk__in=drawing.assets_of(table.layout)
            ).values_list("pk", "name", "dimensions_mm")
        }
        made = drawing.drawn(
            table.width, table.depth, table.config, table.layout, known
        )
        return render_to_string("catalogue/drawing.html", {"drawing": made})

    @admin.display(description="Picture")
    def picture(self, table: Table) -> str:
        return thumbnail(table.thumbnail_url, table.name)

    @admin.display(description="Holds")
    def holds(self, table: Table) -> str:
        return changelist_link(
            table.table_assets.all(),
            {"table__id__exact": table.pk},
            "asset",
            "assets",
        )
