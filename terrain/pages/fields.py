"""Fields that render and take back every value a row may have, on pages and in inlines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.admin.utils import flatten_fieldsets
from django.contrib.admin.widgets import AdminTextareaWidget
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.http import HttpRequest

from terrain import exactjson
from terrain.fields import JSONField, TimestampField
from terrain.pages import shown
from terrain.pages.forms import JSONInput, KnownRawIdWidget, LinesInput, RecordForm

#: Characters up to which a text is put into a form: a request may be no longer than
#: ``DATA_UPLOAD_MAX_MEMORY_SIZE``, and each character may take several bytes of it.
LONGEST_EDITED = 200_000
#: Rows of an inline that a page shows; all of them have a list of their own.
INLINE_ROWS = 50

TIMESTAMP_WIDGET = forms.DateTimeInput(attrs={"size": 28, "class": "vTextField time"})


class Fields(admin.options.BaseModelAdmin):  # type: ignore[type-arg]
    """Fields that render and take back every value a row may have."""

    # Looser than the stubs, which know of no callables among fields.
    fields: ClassVar[Any]
    fieldsets: ClassVar[Any]
    readonly_fields: ClassVar[Any]
    list_filter: ClassVar[Any]

    form = RecordForm
    formfield_overrides = {
        TimestampField: {
            "form_class": forms.DateTimeField,
            "widget": TIMESTAMP_WIDGET,
        },
        models.DecimalField: {
            # A browser empties an <input type="number"> that says NaN.
            "widget": forms.TextInput(attrs={"inputmode": "decimal", "size": 14})
        },
        models.TextField: {"widget": AdminTextareaWidget(attrs={"rows": 3})},
        models.JSONField: {"form_class": JSONInput},
        ArrayField: {"form_class": LinesInput},
    }

    def formfield_for_foreignkey(
        self, db_field: Any, request: Any, **kwargs: Any
    ) -> Any:
        if db_field.name in self.raw_id_fields:
            kwargs["widget"] = KnownRawIdWidget(
                db_field.remote_field, self.admin_site, using=kwargs.get("using")
            )
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Where a field is only to be read, :mod:`terrain.pages.shown` renders it."""
        fieldsets = super().get_fieldsets(request, obj)
        if obj is not None and not self.has_change_permission(request, obj):
            readonly = set(flatten_fieldsets(fieldsets))
        else:
            readonly = set(self.get_readonly_fields(request, obj))
        return [
            (
                name,
                {**options, "fields": self._for_reading(options["fields"], readonly)},
            )
            for name, options in fieldsets
        ]

    def _for_reading(self, fields: Iterable[Any], readonly: set[Any]) -> list[Any]:
        return [
            (
                tuple(self._for_reading(each, readonly))
                if isinstance(each, list | tuple)
                else self._reading(each, readonly)
            )
            for each in fields
        ]

    def _reading(self, name: Any, readonly: set[Any]) -> Any:
        if name not in readonly:
            return name
        field = model_field(self.model, name)
        return shown.shown(field) if field is not None else name

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        names = [
            *super().get_readonly_fields(request, obj),
            *self.also_readonly(request, obj),
        ]
        fields = (model_field(self.model, name) for name in names)
        return [*names, *(shown.shown(field) for field in fields if field is not None)]

    def also_readonly(self, request: HttpRequest, obj: Any = None) -> Iterable[str]:
        """Names of fields that may not be edited by this person, or for this row."""
        return _endless(obj)


def model_field(model: Any, name: Any) -> Any | None:
    """The model's field of that name whose values Django would not render well."""
    if not isinstance(name, str):
        return None
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        return None
    return field if field.concrete and shown.is_odd(field) else None


def _endless(obj: models.Model | None) -> Iterable[str]:
    """The fields of a record that are too long to be edited in a page."""
    if obj is None:
        return
    for field in obj._meta.concrete_fields:
        value = obj.__dict__.get(field.attname)
        if isinstance(field, JSONField):
            value = exactjson.dumps(value)
        if isinstance(value, str | list) and len(str(value)) > LONGEST_EDITED:
            yield field.name


class BoundedFormSet(forms.BaseInlineFormSet):  # type: ignore[type-arg]
    """The first rows only: a page of a thousand forms could not be posted."""

    def get_queryset(self) -> Any:
        if not hasattr(self, "_queryset"):
            self._queryset: Any = super().get_queryset()[:INLINE_ROWS]
        return self._queryset

    def add_fields(self, form: Any, index: int | None) -> None:
        """What has no label of its own, the column's heading being none, gets one."""
        super().add_fields(form, index)
        for name, field in form.fields.items():
            label = "Delete this row" if name == "DELETE" else field.label
            if label and not field.widget.is_hidden:
                field.widget.attrs.setdefault("aria-label", str(label))


class RecordInline(Fields, admin.TabularInline):  # type: ignore[misc, type-arg]
    """Rows of a record on its own page: the first :data:`INLINE_ROWS`."""

    formset = BoundedFormSet
    extra = 0
    show_change_link = True

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        rows = super().get_queryset(request)
        return rows.select_related(*self.raw_id_fields) if self.raw_id_fields else rows

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        """Callables are columns, and no fields of the form."""
        names = flatten_fieldsets(self.get_fieldsets(request, obj))
        kwargs.setdefault("fields", [name for name in names if not callable(name)])
        return super().get_formset(request, obj, **kwargs)
