"""How values are shown where they cannot be edited, whatever they are.

Django's own rendering raises for NaN, shows a dash for a status that is no choice, and
puts a document of any size into the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cache
from typing import Any
from urllib.parse import urlencode

from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ObjectDoesNotExist
from django.db import models
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from terrain import exactjson

#: Characters of one value that a page shows, and that it shows without being asked.
LONGEST, LONGEST_OPEN = 20_000, 600
#: Things counted one by one; beyond it says "more than".
COUNTED = 1000

EMPTY = "-"


def is_odd(field: Any) -> bool:
    """Whether Django's rendering of the field's values is not to be relied on."""
    return (
        isinstance(field, models.DecimalField | models.JSONField | ArrayField)
        or bool(field.choices)
        or isinstance(field, models.TextField)
    )


@cache
def shown(field: Any, *, sortable: bool = False) -> Any:
    """A callable for ``list_display`` and ``fieldsets`` in the place of a model field."""

    def show(obj: models.Model) -> str:
        return as_text(field, getattr(obj, field.attname))

    show.__name__ = field.name
    made: Any = show
    made.short_description = field.verbose_name
    made.admin_order_field = field.name if sortable else None
    return made


def as_text(field: Any, value: Any) -> str:
    """A value of the model field, for people."""
    if isinstance(field, models.JSONField):
        return block(exactjson.dumps(value, ensure_ascii=False, indent=2))
    if value is None:
        return EMPTY
    if field.choices:
        known = dict(field.flatchoices)
        return str(known.get(value, value if value != "" else "(empty)"))
    if isinstance(field, models.DecimalField):
        return amount(value)
    if isinstance(field, ArrayField):
        return ", ".join(str(each) for each in value) or EMPTY
    return block(str(value)) if len(str(value)) > LONGEST_OPEN else str(value) or EMPTY


def amount(value: Decimal | None) -> str:
    """An amount as PostgreSQL writes it: ``12.50``, ``NaN``."""
    return EMPTY if value is None else str(value)


def block(text: str) -> SafeString:
    """Text with its line ends kept; folded away if it is long, cut if it is endless."""
    rest = len(text) - LONGEST
    cut = text[:LONGEST] if rest > 0 else text
    more = format_html("\n… {} more characters", f"{rest:,}") if rest > 0 else ""
    if len(text) <= LONGEST_OPEN and text.count("\n") <= 16:
        return format_html('<pre class="value">{}</pre>', cut)
    return format_html(
        '<details class="value"><summary>{}</summary><pre class="value">{}{}</pre></details>',
        f"{len(text):,} characters",
        cut,
        more,
    )


def folded(expression: str) -> SafeString:
    """An expression on one line; folded away behind its beginning if it is long."""
    if len(expression) <= 72:
        return format_html('<code class="by">{}</code>', expression)
    return format_html(
        '<details class="by"><summary><code>{}…</code></summary><code>{}</code></details>',
        expression[:48],
        expression,
    )


def url_of(obj: models.Model | None) -> str | None:
    """The change page of a record, if it has one."""
    if obj is None:
        return None
    names = obj._meta
    try:
        return reverse(
            f"admin:{names.app_label}_{names.model_name}_change", args=[obj.pk]
        )
    except NoReverseMatch:
        return None


def record_link(obj: models.Model | None, text: str | None = None) -> str:
    """A link to the change page of a record; nothing for none."""
    if obj is None:
        return EMPTY
    name = Truncator((str(obj) if text is None else text).strip()).chars(60)
    name = name or f"({obj._meta.verbose_name} without a name)"
    where = url_of(obj)
    return name if where is None else format_html('<a href="{}">{}</a>', where, name)


def related(name: str, description: str | None = None) -> Any:
    """A column that links to the record a foreign key refers to."""

    def show(obj: models.Model) -> str:
        try:
            return record_link(getattr(obj, name))
        except ObjectDoesNotExist:
            return f"{getattr(obj, f'{name}_id')} (not there)"

    show.__name__ = name
    show.short_description = description or name  # type: ignore[attr-defined]
    return show


def changelist_url(
    model: type[models.Model], lookups: Mapping[str, Any] | None = None
) -> str:
    """The list of ``model``, filtered."""
    names = model._meta
    where = reverse(f"admin:{names.app_label}_{names.model_name}_changelist")
    return f"{where}?{urlencode(lookups)}" if lookups else where


def changelist_link(
    found: Any, lookups: Mapping[str, Any], one: str = "", several: str = ""
) -> str:
    """How many rows there are, linked to the list of them; "no orders" if there are none.

    ``found`` is a queryset, ``lookups`` are the list's filter for the same rows, ``one``
    and ``several`` what they are called, if not by the model's name.
    """
    return rows_link(found.model, counted(found), lookups, one, several)


def rows_link(
    model: type[models.Model],
    number: int,
    lookups: Mapping[str, Any],
    one: str = "",
    several: str = "",
) -> str:
    """The same of rows that have been counted, up to one more than :data:`COUNTED`."""
    names = model._meta
    several = several or str(names.verbose_name_plural)
    word = (one or str(names.verbose_name)) if number == 1 else several
    if not number:
        return f"no {word}"
    how_many = f"{number}" if number <= COUNTED else f"more than {COUNTED:,}"
    where = changelist_url(model, lookups)
    return format_html('<a href="{}">{} {}</a>', where, how_many, word)


def counted(found: Any) -> int:
    """How many there are, without counting on and on."""
    number: int = found.order_by()[: COUNTED + 1].count()
    return number


def many(links: Iterable[str]) -> SafeString:
    """Several links, one after the other."""
    return format_html_join(" · ", "{}", ((link,) for link in links))
