"""What was bought, line by line, and what artists were paid for it."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Deferrable
from django.db.models.functions import Now
from django.utils import timezone

from catalogue.models import Model
from terrain.addresses import NormalAddress
from terrain.constraints import ForeignKeyConstraint
from terrain.fields import JSONField, TimestampField
from terrain.models import Record


class Order(Record):
    """An order as it was placed.  ``pricing`` is what the customer was charged, in GBP."""

    class Status(models.TextChoices):
        PENDING_PAYMENT = "pending_payment"
        PAID = "paid"
        PAYMENT_FAILED = "payment_failed"
        PROCESSING = "processing"
        PRINTING = "printing"
        SHIPPED = "shipped"
        DELIVERED = "delivered"
        CANCELLED = "cancelled"

    order_number = models.CharField(max_length=50)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="orders",
        db_constraint=False,
        db_index=False,
        help_text="The account with the order's address; set by settle.",
    )
    customer_email = models.CharField(max_length=255, help_text="As typed.")
    customer_name = models.CharField(max_length=255)
    shipping_address = JSONField()
    pricing = JSONField(
        help_text="{model_subtotal, platform_commission, print_subtotal, shipping, total}"
    )
    status = models.CharField(
        max_length=20,
        choices=Status,
        default=Status.PENDING_PAYMENT,
        db_default=Status.PENDING_PAYMENT,
    )
    print_farm_order_id = models.CharField(max_length=255, null=True, blank=True)
    stripe_payment_id = models.CharField(max_length=255, null=True, blank=True)
    paypal_payment_id = models.CharField(max_length=255, null=True, blank=True)
    tracking_number = models.CharField(max_length=255, null=True, blank=True)
    notes = models.TextField(null=True, blank=True)
    created_at = TimestampField(default=timezone.now, db_default=Now(), editable=False)
    updated_at = TimestampField(default=timezone.now, db_default=Now(), editable=False)

    class Meta:
        db_table = "orders"
        indexes = [
            models.Index(fields=["user"], name="orders_user_id_idx"),
            models.Index(fields=["status", "created_at"], name="orders_by_status_idx"),
            models.Index(fields=["created_at"], name="orders_created_at_idx"),
            models.Index(NormalAddress("customer_email"), name="orders_address_idx"),
            # What Stripe calls a payment is what a support person has in hand.
            models.Index(fields=["stripe_payment_id"], name="orders_stripe_id_idx"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["order_number"], name="orders_number_key"),
            ForeignKeyConstraint(
                field="user",
                name="orders_user_id_fkey",
                on_delete="NO ACTION",
                deferrable=Deferrable.DEFERRED,
            ),
        ]

    def __str__(self) -> str:
        return self.order_number


class OrderItem(Record):
    """One line of an order.

    Prices are GBP.  ``total_price`` is what counts: where a subtotal was apportioned,
    ``unit_price`` is that total divided by the quantity and rounded.  Both are NULL
    where nothing is known (``price_source`` unknown).
    """

    class PriceSource(models.TextChoices):
        OWN = "own", "the line's own price"
        CATALOGUE = "catalogue", "catalogue price when copied"
        APPORTIONED = "apportioned", "share of the order's subtotal"
        UNKNOWN = "unknown"

    order = models.ForeignKey(
        Order,
        on_delete=models.CASCADE,
        related_name="items",
        db_constraint=False,
        db_index=False,
    )
    position = models.PositiveIntegerField(help_text="From 1; gaps are allowed.")
    asset_ref = models.TextField(null=True, blank=True, help_text="The id as ordered.")
    model = models.ForeignKey(
        Model,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="order_items",
        db_constraint=False,
        db_index=False,
    )
    artist = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="sold_items",
        db_constraint=False,
        db_index=False,
    )
    model_name = models.CharField(max_length=255, null=True, blank=True)
    quantity = models.IntegerField(validators=[MinValueValidator(1)])
    unit_price = models.DecimalField(
        max_digits=12, decimal_places=2, null=True, blank=True
    )
    total_price = models.DecimalField(
        max_digits=22, decimal_places=2, null=True, blank=True
    )
    price_source = models.CharField(
        max_length=20,
        choices=PriceSource,
        default=PriceSource.OWN,
        db_default=PriceSource.OWN,
    )
    print_color = models.TextField(null=True, blank=True)
    print_material = models.TextField(null=True, blank=True)
    print_quality = models.TextField(null=True, blank=True)
    special_instructions = models.TextField(null=True, blank=True)
    extra = JSONField(
        default=dict,
        blank=True,
        db_default=models.Value({}, models.JSONField()),
        help_text="Whatever else the old application's JSON held.",
    )

    class Meta:
        db_table = "order_items"
        ordering = ["order", "position"]
        indexes = [
            models.Index(fields=["model"], name="order_items_model_id_idx"),
            models.Index(fields=["artist"], name="order_items_artist_id_idx"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["order", "position"], name="order_items_position_key"
            ),
            models.CheckConstraint(
                condition=models.Q(quantity__gte=1), name="order_items_quantity_check"
            ),
            ForeignKeyConstraint(
                field="order", name="order_items_order_id_fkey", on_delete="CASCADE"
            ),
            ForeignKeyConstraint(
                field="model", name="order_items_model_id_fkey", on_delete="SET NULL"
            ),
            ForeignKeyConstraint(
                field="artist", name="order_items_artist_id_fkey", on_delete="SET NULL"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} × {self.model_name or self.asset_ref or 'unknown'}"


class Payment(Record):
    """A payout to an artist for an order: the legacy table ``stripe_transfers``."""

    class Status(models.TextChoices):
        PENDING = "pending"
        COMPLETED = "completed"
        FAILED = "failed"

    order = models.ForeignKey(
        Order,
        on_delete=models.PROTECT,
        related_name="payments",
        db_constraint=False,
        db_index=False,
    )
    artist = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        related_name="payments",
        db_constraint=False,
        db_index=False,
    )
    stripe_transfer_id = models.CharField(
        max_length=255, help_text="tr_…, or the word failed where Stripe gave none."
    )
    amount = models.DecimalField(max_digits=10, decimal_places=2)
    currency = models.CharField(max_length=3, default="GBP", db_default="GBP")
    status = models.CharField(
        max_length=20, choices=Status, default=Status.PENDING, db_default=Status.PENDING
    )
    created_at = TimestampField(default=timezone.now, db_default=Now(), editable=False)

    class Meta:
        db_table = "payments"
        indexes = [
            models.Index(fields=["order"], name="payments_order_id_idx"),
            models.Index(fields=["artist"], name="payments_artist_id_idx"),
            models.Index(
                fields=["stripe_transfer_id"], name="payments_transfer_id_idx"
            ),
            models.Index(fields=["created_at"], name="payments_created_at_idx"),
        ]
        constraints = [
            ForeignKeyConstraint(
                field="order",
                name="payments_order_id_fkey",
                on_delete="NO ACTION",
                deferrable=Deferrable.DEFERRED,
            ),
            ForeignKeyConstraint(
                field="artist",
                name="payments_artist_id_fkey",
                on_delete="NO ACTION",
                deferrable=Deferrable.DEFERRED,
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount} {self.currency} ({self.stripe_transfer_id})"
