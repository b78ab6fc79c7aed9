"""Clients at work in processes of their own, from before a command to after it.

They keep to a rate: each has its moments, and who is late catches up, so what a shop's
visitors would have waited for shows.  They end when told to, when their time is over, and
when whoever started them is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from bench import shop
from bench.traffic import TABLES, Client, Shop, Told

#: A role with rights on the six tables, which owns nothing.
ROLE = "shop_app"
#: Processes, and the clients of each: a thread and a connection.
PROCESSES, CLIENTS = 2, 4
#: Seconds after which the clients end, whatever happens.
LIMIT = 1800.0
#: Seconds that a client may be late before it lets go of what it did not do.
LATEST = 1.0


def admit(database: str) -> None:
    """Make the old application's role, with its rights in this database."""
    with shop.superuser() as connection:
        connection.execute(
            "DO $$ BEGIN CREATE ROLE shop_app LOGIN;"
            " EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )
    with shop.connect(database) as connection:
        for table in TABLES:
            connection.execute(
                sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO {}").format(
                    sql.Identifier(table), sql.Identifier(ROLE)
                )
            )


@dataclass
class Load:
    """The clients of a database at work; ``told`` is filled when they have ended."""

    database: str
    told: Told = field(default_factory=Told)
    seconds: float = 0.0


@contextmanager
def at_work(
    database: str, path: str | None = None, rate: float = 600
) -> Iterator[Load]:
    """Have the clients work for as long as the block lasts.

    ``rate`` is how many acts a second, of all together; ``path`` is the search path, if not
    the one a new session has.
    """
    found = _found(database, path)
    context = multiprocessing.get_context("spawn")
    stop, results = context.Event(), context.Queue()
    processes = [
        context.Process(
            target=_work,
            args=(shop.CLUSTER.dsn(database, ROLE), path, found, number, rate),
            kwargs={"stop": stop, "results": results, "parent": os.getpid()},
            daemon=True,
        )
        for number in range(PROCESSES)
    ]
    load = Load(database)
    started = time.monotonic()
    for process in processes:
        process.start()
    try:
        yield load
    finally:
        stop.set()
        load.seconds = time.monotonic() - started
        for told in _collected(results, processes):
            load.told.merge(told)
        for process in processes:
            process.join(10)


def _found(database: str, path: str | None) -> Shop:
    options = {"options": f"-c search_path={path}"} if path else {}
    with shop.connect(database, **options) as connection:
        return Shop.of(connection)


def _collected(results: Any, processes: list[Any]) -> Iterator[Told]:
    """What each process hands over; raises if one ended without."""
    left = len(processes)
    while left:
        try:
            told = results.get(timeout=60)
        except queue.Empty:
            raise shop.Failed("The clients do not end.") from None
        if isinstance(told, str):
            raise shop.Failed(f"A client could not go on: {told}")
        left -= 1
        yield told


def _work(
    dsn: str,
    path: str | None,
    found: Shop,
    number: int,
    rate: float,
    *,
    stop: Any,
    results: Any,
    parent: int,
) -> None:
    """The clients of one process."""
    clients = PROCESSES * CLIENTS
    ended = threading.Event()
    done: list[Told] = []
    failures: list[BaseException] = []

    def work(mine: int) -> None:
        options = {"options": f"-c search_path={path}"} if path else {}
        try:
            with psycopg.connect(
                dsn, autocommit=True, application_name="shop", **options  # type: ignore[arg-type]
            ) as connection:
                client = Client(connection, found, mine, clients)
                _keep_pace(client, clients / rate, ended)
            done.append(client.told)
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=work, args=(number + PROCESSES * n,))
        for n in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + LIMIT
    while not stop.wait(0.2):
        if os.getppid() != parent or time.monotonic() > deadline:
            break
    ended.set()
    for thread in threads:
        thread.join()
    told = Told()
    for each in done:
        told.merge(each)
    results.put(repr(failures[0]) if failures else told)


def _keep_pace(client: Client, every: float, ended: threading.Event) -> None:
    due = time.monotonic() + client.random.uniform(0, every)
    while not ended.is_set():
        now = time.monotonic()
        if now < due:
            time.sleep(due - now)
        elif now - due > LATEST:
            due = now
        # Between half and one and a half times the usual, so that no two stay abreast.
        due += every * client.random.uniform(0.5, 1.5)
        client.act()
