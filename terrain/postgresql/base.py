"""Django's PostgreSQL backend, for a database shared with another application.

What it adds: the connection sees ``public`` and nothing else (the old application's
tables have the same names in another schema), reads dates that Python cannot hold, turns
the database's own refusals into one clear exception each, commits a migration together
with the note that it is applied, and starts the embedded server when that is the one to
use.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from django.db import models
from django.db.backends.ddl_references import Statement, Table
from django.db.backends.postgresql import base
from django.db.backends.postgresql.schema import (
    DatabaseSchemaEditor as PostgresSchemaEditor,
)
from django.db.utils import DatabaseErrorWrapper
from django.dispatch import Signal
from django.utils.functional import cached_property
from psycopg.pq import Format

from terrain.exceptions import from_sqlstate
from terrain.postgresql import dates

#: Sent when a migration has made a table, in its transaction; with ``connection`` and ``table``.
table_made = Signal()


class ErrorWrapper(DatabaseErrorWrapper):
    """Django's, knowing the conditions that this project's own SQL raises."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        known = from_sqlstate(exc_value)
        if known is not None:
            raise known.with_traceback(traceback) from exc_value
        super().__exit__(exc_type, exc_value, traceback)


class DatabaseSchemaEditor(PostgresSchemaEditor):
    """Django's, leaving nothing for the end of a migration that can be done at once.

    What is left for then makes Django commit the tables first and note the migration as
    applied afterwards.  Killed in between, ``migrate`` finds the tables in its way.
    """

    def create_model(self, model: type[models.Model]) -> None:
        super().create_model(model)
        self._do_deferred()
        if not self.collect_sql:
            table_made.send(
                model, connection=self.connection, table=model._meta.db_table
            )

    def add_field(self, model: type[models.Model], field: Any) -> None:
        super().add_field(model, field)
        self._do_deferred()

    def _do_deferred(self) -> None:
        """Foreign keys to tables that are still to be made go on waiting."""
        with self.connection.cursor() as cursor:
            there = set(self.connection.introspection.table_names(cursor))
        waiting, self.deferred_sql = self.deferred_sql, []
        for statement in waiting:
            if isinstance(statement, Statement) and all(
                part.table in there
                for part in statement.parts.values()
                if isinstance(part, Table)
            ):
                self.execute(statement)
            else:
                self.deferred_sql.append(statement)


class DatabaseWrapper(base.DatabaseWrapper):
    SchemaEditorClass = DatabaseSchemaEditor

    def get_connection_params(self) -> dict[str, Any]:
        params = super().get_connection_params()
        options = params.get("options", "")
        params["options"] = f"{options} -c search_path=public".strip()
        params.setdefault("application_name", "terrain")
        params.pop("embedded", None)
        return params

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        cluster = self.settings_dict["OPTIONS"].get("embedded")
        if cluster is not None:
            cluster.lease()
        connection = super().get_new_connection(conn_params)
        dates.register(self.timezone, connection)
        return connection

    def create_cursor(self, name: str | None = None) -> Any:
        cursor = super().create_cursor(name)
        # Django swaps in its own loader where the connection's timezone is not the setting.
        loader = cursor.adapters.get_loader(base.TIMESTAMPTZ_OID, Format.TEXT)
        if not issubclass(loader, dates.TimestamptzOrText):
            dates.register(self.timezone, cursor)
        return cursor

    @cached_property
    def wrap_database_errors(self) -> ErrorWrapper:
        return ErrorWrapper(self)
