"""Model fields for what the legacy database really holds."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import models

from terrain import exactjson
from terrain.postgresql.dates import ImpossibleDate

#: What Django writes before a raw bcrypt hash: its name for the algorithm.
BCRYPT_PREFIX = "bcrypt$"


class PasswordHashField(models.CharField):  # type: ignore[type-arg]
    """A password column that stays readable to the old application.

    In the database: ``$2b$12$…``, as that application writes it.  In Python:
    ``bcrypt$$2b$12$…``, as Django's ``BCryptPasswordHasher`` expects it.  The two are
    each other's inverse for every text: what already starts with ``bcrypt$`` gets the
    prefix once more.  Any other value (another algorithm, Django's unusable ``!…``) is
    the same on both sides; the old application's bcrypt refuses it.
    """

    def from_db_value(self, value: str | None, *args: object) -> str | None:
        if value is not None and value.startswith(("$2", BCRYPT_PREFIX)):
            return BCRYPT_PREFIX + value
        return value

    def get_prep_value(self, value: Any) -> Any:
        value = super().get_prep_value(value)
        if isinstance(value, str) and value.startswith(BCRYPT_PREFIX):
            return value.removeprefix(BCRYPT_PREFIX)
        return value


class TimestampField(models.DateTimeField):  # type: ignore[type-arg]
    """A ``timestamptz`` whose value may be outside Python's years 1 to 9999.

    Such a value is read as :class:`~terrain.postgresql.dates.ImpossibleDate`, and is
    written back as the text it was.
    """

    def to_python(self, value: Any) -> Any:
        if isinstance(value, ImpossibleDate):
            return value
        return super().to_python(value)

    def get_prep_value(self, value: Any) -> Any:
        if isinstance(value, ImpossibleDate):
            return value
        return super().get_prep_value(value)

    def clean(self, value: Any, model_instance: models.Model | None) -> Any:
        try:
            return super().clean(value, model_instance)
        except OverflowError as error:
            raise ValidationError(f"{value} is outside the calendar.") from error


class JSONField(models.JSONField):
    """JSON whose numbers stay as they are written, and whose shape may be anything.

    See :mod:`terrain.exactjson`.  To the migrations it is Django's own field: the column
    is the same.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        exactly = {"encoder": exactjson.Encoder, "decoder": exactjson.Decoder}
        super().__init__(*args, **{**kwargs, **exactly})

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        for each in ("encoder", "decoder"):
            kwargs.pop(each, None)
        return name, "django.db.models.JSONField", args, kwargs
