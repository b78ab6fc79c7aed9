"""Amounts, moments and records in the sheet of an order."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

from django import template
from django.contrib.admin.utils import display_for_value
from django.db import models

from orders.models import OrderItem
from terrain.pages.shown import EMPTY, record_link

register = template.Library()


@register.filter
def money(amount: Decimal | None) -> str:
    """``1,234.50``; what is no amount as it is, and a dash for none."""
    if amount is None:
        return EMPTY
    return f"{amount:,.2f}" if amount.is_finite() else str(amount)


@register.filter
def moment(when: datetime.datetime | None) -> str:
    """A time, whichever: those outside the calendar as PostgreSQL writes them."""
    return str(display_for_value(when, EMPTY))


@register.filter
def record(found: models.Model | None) -> str:
    """A link to the page of a record."""
    return record_link(found)


@register.filter
def printing(line: OrderItem) -> list[Any]:
    """How a line is to be printed, as far as anybody said."""
    wanted = (line.print_material, line.print_quality, line.print_color)
    return [each for each in wanted if each]
