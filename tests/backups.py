"""What the tests of backups have in common."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from django.db import connections

from terrain import embedded
from terrain.embedded import OWNER
from terrain.legacy.backup import fingerprints
from terrain.legacy.backup.scratch import PREFIX, comment
from terrain.legacy.backup.telling import Teller
from tests.conftest import Database
from tests.waiting import until

#: A database with whatever a dump could stumble over.
ODD = r'''
CREATE SCHEMA "Odd Schema";
CREATE SCHEMA "per%cent {brace}";
CREATE TYPE public.colour AS ENUM ('red', 'Grün', 'it''s');
CREATE DOMAIN public.small AS integer CHECK (value < 100);
CREATE TABLE "Odd Schema"."Table ""quoted""" (
    "t" integer PRIMARY KEY, "select" text, "a b" text[], "ünï" public.colour, c "char");
INSERT INTO "Odd Schema"."Table ""quoted""" VALUES
    (1, NULL, '{a,NULL,"b,c"}', 'red', 'x'),
    (2, '', '{}', 'it''s', NULL), (3, E'tab\tline\n\\.', NULL, 'Grün', 'y');
CREATE TABLE "per%cent {brace}"."100%s" (
    id bigint GENERATED ALWAYS AS IDENTITY, "per%cent" money, "{x}" bytea);
INSERT INTO "per%cent {brace}"."100%s" ("per%cent", "{x}")
    SELECT n::money, sha256(n::text::bytea) FROM generate_series(1, 500) n;
CREATE TABLE public.values_of_all_sorts (
    f double precision, r real, n numeric, i interval, z timestamptz, d date, j jsonb, k json,
    c regclass, s public.small,
    g integer GENERATED ALWAYS AS (7) STORED, v int4range, u uuid, b bit(3));
INSERT INTO public.values_of_all_sorts (f, r, n, i, z, d, j, k, c, s, v, u, b) VALUES
    ('NaN', 0.1, 'NaN', '1 year -3 days 04:05:06.7', 'infinity', '4713-01-01 BC',
     '{"a": 1.10}', '{"b" :1, "b":2}',
     'public.values_of_all_sorts', 7, '[1,9)', '00000000-0000-0000-0000-000000000000', '101'),
    (0.1::float8 + 0.2, '-Infinity', 1e100, NULL,
     '1999-12-31 23:59:59.999999+14', '9999-12-31', 'null', '[]',
     NULL, NULL, 'empty', NULL, NULL);
CREATE TABLE public.nothing_in_it (id integer);
CREATE TABLE public.no_columns ();
INSERT INTO public.no_columns DEFAULT VALUES;
CREATE UNLOGGED TABLE public.unlogged AS SELECT n FROM generate_series(1, 10) n;
CREATE TABLE public.parent (id integer, note text);
CREATE TABLE public.child (extra text) INHERITS (public.parent);
ALTER TABLE public.parent ADD COLUMN late text DEFAULT 'late';
INSERT INTO public.parent VALUES (1, 'in the parent');
INSERT INTO public.child (id, note, extra) VALUES (2, 'in the child', 'more');
CREATE TABLE public.parts (id integer, at date) PARTITION BY RANGE (at);
CREATE TABLE public.parts_2025 PARTITION OF public.parts
    FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
INSERT INTO public.parts SELECT n, date '2025-01-01' + n FROM generate_series(1, 300) n;
CREATE TABLE public.hidden (id integer); INSERT INTO public.hidden VALUES (1), (2);
ALTER TABLE public.hidden ENABLE ROW LEVEL SECURITY;
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
CREATE TRIGGER always BEFORE INSERT ON public.hidden FOR EACH ROW EXECUTE FUNCTION public.refuse();
ALTER TABLE public.hidden ENABLE ALWAYS TRIGGER always;
CREATE MATERIALIZED VIEW public.counted AS SELECT count(*) FROM public.parts;
SELECT lo_from_bytea(4711, '\xdeadbeef'), lo_from_bytea(0, sha256('x'));
'''


def make_odd(database: Database) -> None:
    with psycopg.connect(
        database.cluster.dsn(database.name, OWNER), autocommit=True
    ) as connection:
        connection.execute(ODD)  # type: ignore[arg-type]


def contents(cluster: embedded.Cluster, name: str) -> fingerprints.Contents:
    with psycopg.connect(cluster.dsn(name, OWNER), autocommit=True) as connection:
        with fingerprints.one_moment(connection):
            return fingerprints.of(connection)


def definitions(cluster: embedded.Cluster, name: str) -> str:
    """Everything in a database but its rows, as pg_dump writes it."""
    program = embedded.binaries(cluster.version) / "pg_dump"
    dump = subprocess.run(
        [program, "--schema-only", f"--dbname={cluster.dsn(name, OWNER)}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    # Each run of a new pg_dump guards its script with a word of its own; and what was typed
    # as IN is written with other casts, to the same effect, once it has been restored.
    return "\n".join(
        re.sub(r"::(text|character varying)(\[\])?|[()]", "", line)
        for line in dump.splitlines()
        if not line.startswith(("\\", "--"))
    )


@contextlib.contextmanager
def connected_as(role: str, **more: str) -> Iterator[None]:
    """Django's default connection is this role's."""
    parameters = connections.databases["default"]
    before = {**parameters}
    connections.close_all()
    parameters.update({"USER": role, **more})
    try:
        yield
    finally:
        connections.close_all()
        parameters.clear()
        parameters.update(before)


def command(
    database: Database, *arguments: str, backups: Path, **more: str
) -> subprocess.Popen[str]:
    """A command in a process of its own, to be killed."""
    url = f"postgresql://{OWNER}@/{database.name}?host={database.cluster.socket_dir}"
    return subprocess.Popen(
        [sys.executable, "manage.py", *arguments],
        cwd=settings.BASE_DIR,
        env={
            "PATH": "/usr/bin:/bin",
            "DATABASE_URL": url,
            "BACKUP_DIR": str(backups),
            **more,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def scratch_databases(connection: psycopg.Connection[Any], of: str) -> list[str]:
    """The scratch copies of a database; other tests may have theirs meanwhile."""
    return [
        name
        for (name,) in connection.execute(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
            "   AND shobj_description(oid, 'pg_database') = %s ORDER BY 1",
            [PREFIX, comment(of)],
        )
    ]


def databases(connection: psycopg.Connection[Any], of: str) -> list[str]:
    """A database, what it has replaced, and its scratch copies."""
    return scratch_databases(connection, of) + [
        name
        for (name,) in connection.execute(
            "SELECT datname FROM pg_database WHERE datname = %s OR starts_with(datname, %s)"
            " ORDER BY 1",
            [of, f"{of}_"],
        )
    ]


#: Takes its time where a scratch copy of this database is restored, and none elsewhere.
GATE = r"""
CREATE TABLE public.gate (id integer);
INSERT INTO public.gate VALUES (1);
CREATE FUNCTION public.wait(integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    IF current_database() LIKE 'terrain\_scratch\_%' AND {shut} THEN
        PERFORM pg_catalog.pg_sleep(600);
    END IF;
    RETURN $1;
END $$;
CREATE INDEX gate_index ON public.gate (public.wait(id));
"""


def at_the_gate(connection: psycopg.Connection[Any], of: str) -> list[int]:
    """The processes of the server that are restoring, and held up."""
    return [
        pid
        for (pid,) in connection.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = ANY (%s) AND wait_event = 'PgSleep'",
            [scratch_databases(connection, of)],
        )
    ]


def open_gate(connection: psycopg.Connection[Any], of: str, pid: int) -> None:
    """End the restore that has outlived its run."""
    connection.execute("SELECT pg_terminate_backend(%s, 60000)", [pid])
    until(
        lambda: connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = ANY (%s)",
            [scratch_databases(connection, of)],
        ).fetchone()
        == (0,)
    )


class Said(Teller):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        super().__init__(self.said.append)


def only(folder: Path) -> Path:
    """The one thing in a folder."""
    (found,) = folder.iterdir()
    return found
