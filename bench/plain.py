"""The plain way to move a shop: the same renames and copies in a single transaction."""

from __future__ import annotations

import psycopg

from bench import clients, copying, shop
from bench.told import TABLES

#: New tables that take the name of a legacy one.
_TAKEN = ("assets", "orders")


def undo_names(database: str) -> None:
    """The names as they are before: the new tables that take one wait elsewhere."""
    with shop.connect(database) as connection:
        connection.execute("CREATE SCHEMA later")
        for table in _TAKEN:
            connection.execute(f"ALTER TABLE public.{table} SET SCHEMA later")
        for table in TABLES:
            connection.execute(f"ALTER TABLE legacy.{table} SET SCHEMA public")
        connection.execute(f"GRANT USAGE ON SCHEMA legacy TO {clients.ROLE}")
        connection.execute(
            f"ALTER DATABASE {database} SET search_path = legacy, public"
        )


#: Times that somebody tries it again who is told of a deadlock with the clients.
TRIES = 5


def move(database: str) -> None:
    """Move and copy everything, in one transaction."""
    for tries_left in reversed(range(TRIES)):
        try:
            return _move(database)
        except psycopg.errors.DeadlockDetected:
            # A client that has one of the tables, and wants one that is moved already.
            if not tries_left:
                raise


def _move(database: str) -> None:
    # The limits of tables are for people, not for what was there before them.
    options = "-c search_path=public -c terrain.sync=on"
    with shop.connect(database, options=options) as connection:
        with connection.transaction():
            for table in TABLES:
                connection.execute(f"ALTER TABLE public.{table} SET SCHEMA legacy")
            for table in _TAKEN:
                connection.execute(f"ALTER TABLE later.{table} SET SCHEMA public")
            for name in ("accounts", "assets", "tables", "orders"):
                connection.execute(copying.statements(name))  # type: ignore[call-overload]
