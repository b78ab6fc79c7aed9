"""Saving writes the fields that changed, and no other.

Two applications write these rows.  Django's own ``save()`` puts back every column as it
was when the row was read: a view counted meanwhile by the other application would be
lost, and values that Python holds only approximately (``1.10`` in JSON, a JSON ``null``)
would be rewritten by saving something else.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any, Self

from django.db import models, router
from django.utils import timezone

from terrain import exactjson, locks


class TracksChanges(models.Model):
    """A model whose ``save()`` writes what differs from what was read.

    Outside a transaction it gives way to the old application, and tries again.

    Nothing differs: nothing is written.  ``updated_at``, where there is one, is set when
    anything else is written.  ``save(update_fields=…)`` and a new row behave as always.
    """

    _as_read: dict[str, Any]

    class Meta:
        abstract = True

    @classmethod
    def from_db(
        cls,
        db: str | None,
        field_names: Collection[str],
        values: Collection[Any],
        **fetch_mode: Any,  # from Django 6.1 on
    ) -> Self:
        instance = super().from_db(db, field_names, values, **fetch_mode)
        instance._remember()
        return instance

    def refresh_from_db(self, *args: Any, **kwargs: Any) -> None:
        super().refresh_from_db(*args, **kwargs)
        self._remember()

    def save(
        self,
        *,
        force_insert: Any = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        known = not self._state.adding and hasattr(self, "_as_read")
        if known and update_fields is None and not force_insert:
            update_fields = self.changed_fields()
            if not update_fields:
                return
            self._touch(update_fields)
        using = using or router.db_for_write(self.__class__, instance=self)
        write = partial(
            super().save,
            force_insert=force_insert,
            force_update=force_update,
            using=using,
            update_fields=update_fields,
        )
        locks.patiently(using, write)
        self._remember()

    def delete(
        self, using: str | None = None, keep_parents: bool = False
    ) -> tuple[int, dict[str, int]]:
        using = using or router.db_for_write(self.__class__, instance=self)
        delete = partial(super().delete, using=using, keep_parents=keep_parents)
        return locks.patiently(using, delete)

    def changed_fields(self) -> list[str]:
        """Names of the fields whose value is not the one read from the database."""
        return [
            field.name
            for field in self._meta.concrete_fields
            if field.attname in self.__dict__
            and (
                field.attname not in self._as_read
                or not _same(self.__dict__[field.attname], self._as_read[field.attname])
            )
        ]

    def _touch(self, fields: list[str]) -> None:
        names = {field.name for field in self._meta.concrete_fields}
        if "updated_at" in names and "updated_at" not in fields:
            self.updated_at = timezone.now()
            fields.append("updated_at")

    def _remember(self) -> None:
        self._as_read = {
            field.attname: copy.deepcopy(self.__dict__[field.attname])
            for field in self._meta.concrete_fields
            if field.attname in self.__dict__
        }


def _same(value: Any, other: Any) -> bool:
    """Equal, and of the same JSON: ``1``, ``1.0`` and ``True`` are three values there."""
    if value is other:  # NaN is not equal to itself
        return True
    if isinstance(value, dict | list | bool | exactjson.Number):
        return exactjson.dumps(value, default=repr) == exactjson.dumps(
            other, default=repr
        )
    return bool(value == other)
