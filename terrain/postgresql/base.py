"""Django's PostgreSQL backend, for a database shared with another application.

What it adds: the connection looks in the schema of this project's tables and in no other (see
``schemas``), and follows them when they change schemas; it reads dates that Python cannot
hold, turns the database's own refusals into one clear exception each, commits a migration
together with the note that it is applied, and starts the embedded server when that is the
one to use.
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
from django.db.backends.utils import CursorWrapper
from django.db.utils import DatabaseErrorWrapper, ProgrammingError
from django.dispatch import Signal
from django.utils.functional import cached_property
from psycopg import errors
from psycopg.pq import Format
from psycopg.sql import SQL, Identifier

from terrain.exceptions import from_sqlstate
from terrain.postgresql import dates, schemas

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


class FollowingCursor(CursorWrapper):
    """Django's, looking where the tables have gone if a statement does not find one.

    Outside a transaction the statement is run again.  Inside one, which holds the tables that
    it has used, it fails, and the next transaction finds them.
    """

    def _execute(self, sql: Any, params: Any, *ignored: Any) -> Any:
        try:
            return super()._execute(sql, params, *ignored)  # type: ignore[misc]
        except ProgrammingError as error:
            if not isinstance(error.__cause__, errors.UndefinedTable):
                raise
            if self.db.in_atomic_block:
                self.db.path_in_doubt = True
                raise
            if not self.db.follow_tables():
                raise
            return super()._execute(sql, params, *ignored)  # type: ignore[misc]


class DatabaseWrapper(base.DatabaseWrapper):
    SchemaEditorClass = DatabaseSchemaEditor

    #: Where this project's tables are, as far as this connection knows.
    own_path: tuple[str, ...] = ()
    #: The search path that a session of this role begins with, as the server writes it.
    default_path = ""
    #: A statement in a transaction has not found its table.
    path_in_doubt = False

    def get_connection_params(self) -> dict[str, Any]:
        params = super().get_connection_params()
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

    def init_connection_state(self) -> None:
        super().init_connection_state()
        self.path_in_doubt = False
        self.own_path = ()
        with self.connection.cursor() as cursor:
            # Until the path is known, nothing but the catalog is found.
            cursor.execute(
                "SELECT pg_catalog.current_setting('search_path'),"
                " pg_catalog.set_config('search_path', 'pg_catalog', false)"
            )
            self.default_path, _ = cursor.fetchone()
        self.follow_tables()
        if not self.get_autocommit():
            self.connection.commit()

    def follow_tables(self) -> bool:
        """Look where our tables are; True if the search path had to change for it."""
        with self.connection.cursor() as cursor:
            path = schemas.settle_in(cursor)
            if path == self.own_path:
                return False
            names = SQL(", ").join(map(Identifier, path))
            cursor.execute(SQL("SET search_path = {}").format(names))
        self.own_path = path
        return True

    def _set_autocommit(self, autocommit: bool) -> None:
        super()._set_autocommit(autocommit)  # type: ignore[misc]
        if autocommit and self.path_in_doubt:
            self.path_in_doubt = False
            self.follow_tables()

    def make_cursor(self, cursor: Any) -> FollowingCursor:
        return FollowingCursor(cursor, self)

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
