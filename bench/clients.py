"""The old application's clients: its role, its rights, its connections held open."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from bench import shop
from bench.crew import Crew
from bench.told import TABLES, Shop
from bench.traffic import Client
from terrain.embedded import OWNER

#: A role with rights on the six tables, which owns only what it makes beside them.
ROLE = "shop_load"
#: Processes, and the clients of each: a thread and a connection.
PROCESSES, EACH = 2, 4
NUMBER = PROCESSES * EACH


def admit(database: str) -> None:
    """Make the old application's role, with its rights in this database."""
    with shop.superuser() as connection:
        connection.execute(
            f"DO $$ BEGIN CREATE ROLE {ROLE} LOGIN;"
            " EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )
        # Its own tables are in the owner's backups, which restore them as its own.
        connection.execute(f"GRANT {ROLE} TO {OWNER}")
    with shop.connect(database) as connection:
        connection.execute(
            sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(sql.Identifier(ROLE))
        )
        for table in TABLES:
            connection.execute(
                sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO {}").format(
                    sql.Identifier(table), sql.Identifier(ROLE)
                )
            )


def at_work(database: str, found: Shop, rate: float, limit: float) -> Crew:
    """The old application's clients: ``rate`` acts a second, for at most ``limit`` seconds."""
    return Crew(
        _client,
        (shop.CLUSTER.dsn(database, ROLE), found),
        rate,
        limit,
        processes=PROCESSES,
        each=EACH,
    )


def _client(number: int, dsn: str, found: Shop) -> Client:
    connection: psycopg.Connection[Any] = psycopg.connect(
        dsn, autocommit=True, application_name="shop"
    )
    return Client(connection, found, number)
