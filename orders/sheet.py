"""An order laid out as an order: to whom, what, for how much, and who was paid."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db.models import Count, Sum

from orders.models import Order, OrderItem, Payment
from terrain import exactjson

#: Lines and payouts that are shown; all of them have lists of their own.
SHOWN = 50
#: The parts of an address, in the order they are written on a parcel.
ADDRESS = ("name", "line1", "line2", "city", "state", "postal_code", "country", "phone")
#: What the pricing calls the amounts beneath the lines, and what people call them.
AMOUNTS = (
    ("print_subtotal", "Printing"),
    ("shipping", "Shipping"),
    ("total", "Total charged"),
)


@dataclass(frozen=True)
class Sheet:
    """``of_lines`` is what the lines add up to, ``charged`` what the pricing says of them."""

    order: Order
    address: tuple[str, ...]
    lines: tuple[OrderItem, ...]
    more: int
    of_lines: Decimal | None
    charged: str | None
    agrees: bool
    amounts: tuple[tuple[str, str], ...]
    commission: str | None
    payments: tuple[Payment, ...]


def of(order: Order) -> Sheet:
    """The sheet of an order.  Three queries."""
    lines = order.items.select_related("model__asset", "artist").order_by("position")
    found = order.items.aggregate(total=Sum("total_price"), number=Count("pk"))
    payments = order.payments.select_related("artist").order_by("created_at")
    pricing = order.pricing if isinstance(order.pricing, dict) else {}
    subtotal = pricing.get("model_subtotal")
    return Sheet(
        order,
        tuple(_address(order.shipping_address)),
        tuple(lines[:SHOWN]),
        max(found["number"] - SHOWN, 0),
        found["total"],
        None if subtotal is None else _written(subtotal),
        _is_same(found["total"], subtotal),
        tuple(
            (label, _written(pricing[name]))
            for name, label in AMOUNTS
            if pricing.get(name) is not None
        ),
        (
            _written(pricing["platform_commission"])
            if pricing.get("platform_commission") is not None
            else None
        ),
        tuple(payments[:SHOWN]),
    )


def _address(document: Any) -> list[str]:
    """The lines of an address; whatever else the JSON holds stays in its field."""
    if not isinstance(document, dict):
        return []
    values = (document.get(name) for name in ADDRESS)
    return [str(value)[:200] for value in values if isinstance(value, str) and value]


def _written(value: Any) -> str:
    """An amount as the JSON has it; with two digits where it is a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}.00" if abs(value) < 10**12 else str(value)[:40]
    if type(value) is float and abs(value) < 1e12:
        return f"{value:,.2f}"
    text = exactjson.dumps(value, ensure_ascii=False)
    return text.strip('"')[:40]


def _is_same(total: Decimal | None, subtotal: Any) -> bool:
    """Whether the lines add up to what was charged for them, to the penny."""
    if total is None or not total.is_finite():
        return False
    try:
        charged = Decimal(exactjson.dumps(subtotal).strip('"'))
    except ArithmeticError:
        return False
    return charged.is_finite() and charged == total
