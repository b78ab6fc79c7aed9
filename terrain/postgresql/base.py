"""Django's PostgreSQL backend, for a database shared with another application.

What it adds: the connection sees ``public`` and nothing else (the old application's
tables have the same names in another schema), reads dates that Python cannot hold, turns
the database's own refusals into one clear exception each, and starts the embedded server
when that is the one to use.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from django.db.backends.postgresql import base
from django.db.utils import DatabaseErrorWrapper
from django.utils.functional import cached_property
from psycopg.pq import Format

from terrain.exceptions import from_sqlstate
from terrain.postgresql import dates


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


class DatabaseWrapper(base.DatabaseWrapper):
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
