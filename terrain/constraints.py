"""A foreign key that PostgreSQL itself acts on, as a model-level constraint.

Django 5.2 keeps ``on_delete`` to itself: the database is told NO ACTION, and a row
deleted by anybody but the ORM leaves its dependents in the way.  Here the old
application deletes too, so the rule has to be the database's.  A ``ForeignKey`` is
declared with ``db_constraint=False`` and paired with a :class:`ForeignKeyConstraint`.
"""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.backends.ddl_references import Statement, Table
from django.db.models import Deferrable

ACTIONS = ("NO ACTION", "RESTRICT", "CASCADE", "SET NULL")


class ForeignKeyConstraint(models.BaseConstraint):
    """``FOREIGN KEY (field) REFERENCES … ON DELETE … ON UPDATE …``.

    ``field`` is the name of a ``ForeignKey`` with ``db_constraint=False``; the table and
    column referred to are that field's.  ``on_update`` defaults to CASCADE, because the
    old application may change a key.
    """

    def __init__(
        self,
        *,
        field: str,
        name: str,
        on_delete: str,
        on_update: str = "CASCADE",
        deferrable: Deferrable | None = None,
    ) -> None:
        for action in (on_delete, on_update):
            if action not in ACTIONS:
                raise ValueError(f"{action!r} is not one of {', '.join(ACTIONS)}.")
        super().__init__(name=name)
        self.field = field
        self.on_delete = on_delete
        self.on_update = on_update
        self.deferrable = deferrable

    def constraint_sql(self, model: Any, schema_editor: Any) -> str:
        """The constraint as written inside CREATE TABLE."""
        quote = schema_editor.quote_name
        return f"CONSTRAINT {quote(self.name)} {self._definition(model, schema_editor)}"

    def create_sql(  # type: ignore[override]
        self, model: Any, schema_editor: Any
    ) -> Statement:
        return Statement(
            "ALTER TABLE %(table)s ADD CONSTRAINT %(name)s %(definition)s",
            table=Table(model._meta.db_table, schema_editor.quote_name),
            name=schema_editor.quote_name(self.name),
            definition=self._definition(model, schema_editor),
        )

    def remove_sql(  # type: ignore[override]
        self, model: Any, schema_editor: Any
    ) -> Statement:
        return Statement(
            "ALTER TABLE %(table)s DROP CONSTRAINT %(name)s",
            table=Table(model._meta.db_table, schema_editor.quote_name),
            name=schema_editor.quote_name(self.name),
        )

    def _definition(self, model: Any, schema_editor: Any) -> str:
        quote = schema_editor.quote_name
        field: Any = model._meta.get_field(self.field)
        target = field.target_field
        deferrable = {
            None: "",
            Deferrable.DEFERRED: " DEFERRABLE INITIALLY DEFERRED",
            Deferrable.IMMEDIATE: " DEFERRABLE INITIALLY IMMEDIATE",
        }[self.deferrable]
        return (
            f"FOREIGN KEY ({quote(field.column)})"
            f" REFERENCES {quote(target.model._meta.db_table)} ({quote(target.column)})"
            f" ON DELETE {self.on_delete} ON UPDATE {self.on_update}{deferrable}"
        )

    def validate(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to add: the ``ForeignKey`` field itself looks for its target."""

    def deconstruct(self) -> Any:
        path, args, kwargs = super().deconstruct()
        kwargs |= {"field": self.field, "on_delete": self.on_delete}
        if self.on_update != "CASCADE":
            kwargs["on_update"] = self.on_update
        if self.deferrable is not None:
            kwargs["deferrable"] = self.deferrable
        return path, args, kwargs

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ForeignKeyConstraint):
            return bool(self.deconstruct() == other.deconstruct())
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.name)
