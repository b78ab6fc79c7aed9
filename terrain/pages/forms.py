"""Forms that leave alone what nobody touched.

A legacy row holds what a form cannot say: NaN, dates before Christ, a status that is no
choice, a list with a NULL in it.  Django cleans and validates every field that is posted,
so that saving one would mean correcting all of them.  Here a field whose posted text is
the text that was shown is neither read nor judged: its value stays the object that came
from the database.
"""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.contrib.admin.widgets import ForeignKeyRawIdWidget
from django.core.exceptions import ValidationError
from django.db import DatabaseError, models
from django.forms.models import InlineForeignKeyField
from django.utils.functional import cached_property

from terrain import exactjson
from terrain.pages import refusals, shown


class JSONInput(forms.JSONField):
    """JSON, indented, with its numbers as they are written."""

    widget = forms.Textarea(
        attrs={"class": "vLargeTextField json", "spellcheck": "false"}
    )

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, forms.fields.InvalidJSONInput):
            return value
        return exactjson.dumps(value, ensure_ascii=False, indent=2)

    def to_python(self, value: Any) -> Any:
        if isinstance(value, str) and value.strip() == "":
            return None
        try:
            return super().to_python(value)
        except (ValueError, RecursionError) as error:
            raise ValidationError(self.error_messages["invalid"], "invalid") from error

    def bound_data(self, data: Any, initial: Any) -> Any:
        """What was typed, as it was typed, when the form is shown again."""
        if self.disabled:
            return initial
        return None if data is None else forms.fields.InvalidJSONInput(data)


class LinesInput(forms.CharField):
    """A list of texts, one on each line; as JSON where lines cannot say it."""

    widget = forms.Textarea(attrs={"rows": 4, "class": "vLargeTextField"})

    def __init__(self, **kwargs: Any) -> None:
        for unknown in ("base_field", "max_length"):
            kwargs.pop(unknown, None)
        super().__init__(**{**kwargs, "strip": False})

    def prepare_value(self, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        plain = all(isinstance(each, str) and _is_a_line(each) for each in value)
        return "\n".join(value) if plain else json.dumps(value, ensure_ascii=False)

    def to_python(self, value: Any) -> Any:
        if isinstance(value, list) or value is None:
            return value or []
        if value.lstrip().startswith("["):
            return self._from_json(value)
        return [line.strip() for line in value.splitlines() if line.strip()]

    def _from_json(self, text: str) -> list[str]:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
            raise ValidationError(
                "Write one value on each line, or a JSON list of texts.", "invalid"
            )
        return value


def _is_a_line(text: str) -> bool:
    return text == text.strip() != "" and len(text.splitlines()) == 1 and text[0] != "["


class KnownRawIdWidget(ForeignKeyRawIdWidget):
    """A raw id whose record need not be fetched to be named, when it is at hand."""

    known: models.Model | None = None

    def label_and_url_for_value(self, value: Any) -> tuple[str, str]:
        known = self.known
        if known is not None and str(known.pk) == str(value):
            return str(known)[:100], shown.url_of(known) or ""
        return super().label_and_url_for_value(value)


class RecordForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form of every record; ``refusal`` is what the database said to it before."""

    refusal: DatabaseError | None = None
    untouched: frozenset[str] = frozenset()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, field in self.fields.items():
            self._offer_what_is_there(name, field)
            if isinstance(field.widget, KnownRawIdWidget):
                field.widget.known = self.instance._state.fields_cache.get(name)

    def _offer_what_is_there(self, name: str, field: forms.Field) -> None:
        """A value that is no choice would be replaced by the first choice, unseen."""
        if not isinstance(field, forms.TypedChoiceField) or self.instance._state.adding:
            return
        there = self.initial.get(name)
        choices: Any = field.choices
        if there is not None and there not in dict(choices):
            label = f"{there or '(empty)'} (unknown)"
            field.choices = [*choices, (there, label)]

    def full_clean(self) -> None:
        if self.is_bound:
            self.untouched = self._untouched()
        super().full_clean()
        if self.refusal is not None and self.is_bound:
            self.add_error(None, refusals.as_form_error(self.refusal))

    def _untouched(self) -> frozenset[str]:
        """Names of the fields of the record that were posted as they were shown."""
        if self.instance._state.adding:
            return frozenset()
        return frozenset(
            field.name
            for field in self.instance._meta.concrete_fields
            if field.name in self.fields
            and not field.primary_key
            and not isinstance(self.fields[field.name], InlineForeignKeyField)
            and _is_as_shown(self[field.name])
        )

    def _clean_fields(self) -> None:
        every = self.fields
        try:
            self.fields = {
                name: field
                for name, field in every.items()
                if name not in self.untouched
            }
            super()._clean_fields()  # type: ignore[misc]
        finally:
            self.fields = every

    @cached_property
    def changed_data(self) -> list[str]:
        untouched = self._untouched() if self.is_bound else frozenset()
        return [
            name
            for name in self.fields
            if name not in untouched and self[name]._has_changed()  # type: ignore[attr-defined]
        ]

    def _get_validation_exclusions(self) -> set[str]:
        """Untouched fields are not judged one by one …"""
        return self._not_in_form() | set(self.untouched)

    def _not_in_form(self) -> set[str]:
        return set(super()._get_validation_exclusions())  # type: ignore[misc]

    def _post_clean(self) -> None:
        """… but what they say together with the others is."""
        super()._post_clean()  # type: ignore[misc]
        if self.untouched and not self.errors:
            try:
                self.instance.validate_constraints(exclude=self._not_in_form())
            except ValidationError as error:
                self._update_errors(error)  # type: ignore[attr-defined]


def _is_as_shown(bound: forms.BoundField) -> bool:
    """Whether a field is posted as the page showed it, given what browsers do to text."""
    widget = bound.field.widget
    initial = bound.field.prepare_value(bound.initial)
    was, posted = widget.format_value(initial), bound.data
    if isinstance(widget, forms.CheckboxInput):
        return bool(bound.initial) == bool(posted)
    if isinstance(widget, forms.Select):
        return bool([posted] == was)
    if posted is None or isinstance(posted, list):
        return False
    return _as_posted(widget, was or "") == _as_posted(widget, posted)


def _as_posted(widget: forms.Widget, text: Any) -> str:
    """An ``<input>`` loses line ends, a ``<textarea>`` posts all of them as CR LF."""
    text = str(text).replace("\r\n", "\n").replace("\r", "\n")
    is_area = isinstance(widget, forms.Textarea)
    return str(text if is_area else text.replace("\n", ""))
