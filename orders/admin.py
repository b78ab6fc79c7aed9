"""Orders, their lines and the payouts, in the admin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Q
from django.template.loader import render_to_string

from orders import sheet
from orders.models import Order, OrderItem, Payment
from terrain import exactjson
from terrain.pages import RecordAdmin, changelist_link, record_link
from terrain.pages.search import same_address
from terrain.pages.shown import many, related


@admin.register(Order)
class OrderAdmin(RecordAdmin):
    """An order as it was placed."""

    found_first = 20
    belongings = (("items", "order"), ("payments", "order"))

    list_display = (
        "order_number",
        related("user", "account"),
        "customer_name",
        "status",
        "total",
        "created_at",
    )
    list_select_related = ("user",)
    list_needs = ("pricing",)
    list_filter = ("status",)
    keys = ("order_number", "stripe_payment_id")
    search_help_text = "A whole order number, e-mail address, Stripe payment id or id."
    raw_id_fields = ("user",)
    readonly_fields = ("sheet", "links", "created_at", "updated_at")
    fieldsets: ClassVar[Any] = (
        ("The order", {"fields": ("sheet",), "classes": ("drawn",)}),
        (None, {"fields": ("order_number", "status", "tracking_number", "links")}),
        (
            "Customer",
            {
                "fields": (
                    "user",
                    "customer_name",
                    "customer_email",
                    "shipping_address",
                )
            },
        ),
        (
            "Money",
            {"fields": ("pricing", "stripe_payment_id", "paypal_payment_id")},
        ),
        ("Otherwise", {"fields": ("print_farm_order_id", "notes")}),
        ("Dates", {"fields": ("created_at", "updated_at")}),
    )

    def key_conditions(self, term: str) -> Iterable[Any]:
        yield from super().key_conditions(term)
        if term != term.upper():
            yield Q(order_number=term.upper())
        if "@" in term:
            yield same_address("customer_email", term)

    @admin.display(description="Sheet")
    def sheet(self, order: Order) -> str:
        """The order as it would be printed; each line is changed on its own page."""
        return render_to_string("orders/sheet.html", {"sheet": sheet.of(order)})

    @admin.display(description="total")
    def total(self, order: Order) -> str:
        """What the customer was charged, as the JSON says it."""
        pricing = order.pricing
        found = pricing.get("total") if isinstance(pricing, dict) else None
        return "-" if found is None else exactjson.dumps(found)[:40]

    @admin.display(description="See also")
    def links(self, order: Order) -> str:
        return many(
            [
                changelist_link(
                    order.items.all(), {"order__id__exact": order.pk}, "item", "items"
                ),
                changelist_link(order.payments.all(), {"order__id__exact": order.pk}),
            ]
        )


@admin.register(OrderItem)
class OrderItemAdmin(RecordAdmin):
    """A line of an order."""

    found_first = 21

    list_display = (
        "line",
        related("order"),
        related("model"),
        "asset",
        related("artist"),
        "quantity",
        "total_price",
        "price_source",
    )
    list_display_links = ("line",)
    list_select_related = ("order", "model__asset", "artist")
    list_needs = ("asset_ref", "model_name")
    search_help_text = "A whole id; by order or model: from the page of either."
    raw_id_fields = ("order", "model", "artist")
    ordering = ("order_id", "position")
    sortable_by = ()
    fieldsets: ClassVar[Any] = (
        (None, {"fields": ("order", "position", "model", "model_name", "artist")}),
        (
            "What was ordered",
            {
                "fields": (
                    "asset_ref",
                    "quantity",
                    "unit_price",
                    "total_price",
                    "price_source",
                )
            },
        ),
        (
            "How it is printed",
            {
                "fields": (
                    "print_color",
                    "print_material",
                    "print_quality",
                    "special_instructions",
                )
            },
        ),
        ("Otherwise", {"fields": ("extra", "links")}),
    )
    readonly_fields = ("links",)

    @admin.display(description="asset")
    def asset(self, item: OrderItem) -> str:
        """What the model is in the catalogue."""
        return record_link(getattr(item.model, "asset", None))

    @admin.display(description="line")
    def line(self, item: OrderItem) -> str:
        return str(item)[:80]

    @admin.display(description="See also")
    def links(self, item: OrderItem) -> str:
        """The order, the model and, where there is one, the model's asset."""
        from catalogue.models import Asset

        asset = (
            Asset.objects.filter(model=item.model_id).first() if item.model else None
        )
        return many(
            record_link(record, f"{record._meta.verbose_name} {record}")
            for record in (item.order, item.model, asset)
            if record is not None
        )


@admin.register(Payment)
class PaymentAdmin(RecordAdmin):
    """A payout to an artist."""

    found_first = 22

    list_display = (
        "stripe_transfer_id",
        related("order"),
        related("artist"),
        "amount",
        "currency",
        "status",
        "created_at",
    )
    list_select_related = ("order", "artist")
    list_filter = ("status",)
    keys = ("stripe_transfer_id",)
    search_help_text = "A whole Stripe transfer id, or a whole id."
    raw_id_fields = ("order", "artist")
    readonly_fields = ("created_at",)
    fields = (
        "order",
        "artist",
        "stripe_transfer_id",
        "amount",
        "currency",
        "status",
        "created_at",
    )
