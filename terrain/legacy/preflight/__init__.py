"""What would go wrong, found before anything is changed.  Reads only.

Every question is a function that yields findings; ``run`` asks them all.  What blocks can
be accepted by name (PREFLIGHT_ACCEPT), where that makes sense at all.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from terrain.legacy import catalog, prepare, sql
from terrain.legacy.catalog import LEGACY, PARKED
from terrain.legacy.findings import EXAMPLES, Finding, Severity, passed
from terrain.legacy.mapping import LENSES
from terrain.legacy.schema import Column, Lens

OLDEST_SERVER = 140000

#: Blocking findings that an operator may decide to live with.
ACCEPTABLE = (
    "public-create",
    "old-sessions",
    "search-path",
    "role-paths",
    "qualified-functions",
    "qualified-statements",
    "publications",
    "disk",
)

#: New bytes for each legacy byte, measured at scale 1 (indexes included).
GROWTH = 1.4
#: Rows a second, measured at scale 1 on two cores: what the copies and the rest take.
SPEED: Mapping[str, int] = {
    "artists": 20_000,
    "assets": 60_000,
    "user_tables": 25_000,
    "example_tables": 20_000,
    "orders": 7_000,
    "stripe_transfers": 100_000,
}


@dataclass(frozen=True)
class Situation:
    """What every question starts from: the tables that are there, and in which schema."""

    connection: BaseDatabaseWrapper
    tables: Mapping[str, str]

    @property
    def qualified(self) -> dict[str, str]:
        """Legacy table -> its quoted, qualified name."""
        return {
            table: sql.ident(schema, table) for table, schema in self.tables.items()
        }

    def rows(self, query: str, params: Any = None) -> list[tuple[Any, ...]]:
        return catalog.rows(self.connection, query, params)

    def value(self, query: str, params: Any = None) -> Any:
        return catalog.value(self.connection, query, params)


Question = Callable[[Situation], Iterator[Finding]]


@dataclass(frozen=True)
class Report:
    """All findings, and what the move will be like."""

    findings: tuple[Finding, ...]
    rows: Mapping[str, int]
    bytes: int
    seconds: float

    @property
    def blockers(self) -> tuple[Finding, ...]:
        return tuple(each for each in self.findings if each.severity == Severity.BLOCKS)

    def as_json(self) -> dict[str, Any]:
        return {
            "blocked": bool(self.blockers),
            "findings": [each.as_json() for each in self.findings],
            "rows": dict(self.rows),
            "bytes": self.bytes,
            "estimated_seconds": round(self.seconds, 1),
        }


def run(
    connection: BaseDatabaseWrapper,
    *,
    accept: Collection[str] = (),
    tell: Callable[[str], None] | None = None,
) -> Report:
    """Ask everything.  The proof and the forecast are only made where the shape is right."""
    situation = Situation(connection, catalog.legacy_tables(connection))
    findings: list[Finding] = []
    for question in SERVER_QUESTIONS:
        findings += question(situation)
    if not situation.tables:
        findings.append(
            Finding(
                "tables",
                Severity.TELLS,
                "There are no legacy tables: migrate will make the new schema, empty.",
            )
        )
        return Report(tuple(findings), {}, 0, 0.0)
    for question in SHAPE_QUESTIONS:
        findings += question(situation)
    if not any(each.is_bad and each.name in _SHAPE for each in findings):
        for question in ROW_QUESTIONS:
            if tell is not None:
                tell((question.__doc__ or "").partition("\n")[0])
            findings += question(situation)
    findings = [_accepted(each, accept) for each in findings]
    rows, size, seconds = _estimate(situation)
    return Report(tuple(findings), rows, size, seconds)


def _accepted(finding: Finding, accept: Collection[str]) -> Finding:
    if (
        finding.severity != Severity.BLOCKS
        or finding.name not in accept
        or finding.name not in ACCEPTABLE
    ):
        return finding
    return replace(
        finding, severity=Severity.WARNS, sentence=f"{finding.sentence} (Accepted.)"
    )


def _found(
    name: str,
    rows: list[dict[str, Any]],
    sentence: str,
    remedy: str,
    *,
    severity: Severity = Severity.BLOCKS,
) -> Iterator[Finding]:
    """A finding with its rows, if there are any."""
    if rows:
        yield Finding(
            name, severity, sentence, remedy, tuple(rows[:EXAMPLES]), len(rows)
        )


# --- the server ----------------------------------------------------------------------------


def server(situation: Situation) -> Iterator[Finding]:
    """Whether this server will do."""
    connection = situation.connection
    connection.ensure_connection()
    number = connection.connection.info.server_version
    version = situation.value("SHOW server_version")
    if number < OLDEST_SERVER:
        yield Finding(
            "server",
            Severity.BLOCKS,
            f"The server is PostgreSQL {version}; 14 is the oldest that will do.",
            "Upgrade the server, or restore a backup on a newer one.",
        )
    elif situation.value("SELECT pg_is_in_recovery()"):
        yield Finding(
            "server",
            Severity.BLOCKS,
            "The server is a standby, which cannot be written to.",
            "Connect to the primary.",
        )
    elif situation.value("SHOW server_encoding") != "UTF8":
        yield Finding(
            "server",
            Severity.BLOCKS,
            "The database is not encoded in UTF-8, which Django needs.",
            "Dump it and restore it into a database made with ENCODING 'UTF8'.",
        )
    else:
        yield passed("server", f"PostgreSQL {version} will do.")


def privileges(situation: Situation) -> Iterator[Finding]:
    """Whether this role may do it."""
    role = situation.value("SELECT current_user")
    missing = []
    if not situation.value(
        "SELECT has_database_privilege(current_database(), 'CREATE')"
    ):
        missing.append("CREATE on the database")
    if not situation.value("SELECT has_schema_privilege('public', 'CREATE')"):
        missing.append("CREATE on the schema public")
    owners = set()
    for table, schema in situation.tables.items():
        owner = catalog.owner(situation.connection, schema, table)
        owners.add(owner)
        if not situation.value(
            "SELECT pg_has_role(current_user, %s, 'USAGE')", [owner]
        ):
            missing.append(f"ownership of {schema}.{table} (it belongs to {owner})")
    if missing:
        yield Finding(
            "privileges",
            Severity.BLOCKS,
            f"The role {role} lacks {'; '.join(missing)}.",
            "Connect as the owner of the database and of its tables, or grant that role.",
        )
    elif len(owners) > 1:
        yield Finding(
            "privileges",
            Severity.BLOCKS,
            f"The legacy tables belong to several roles: {', '.join(sorted(owners))}.",
            "Give them one owner with ALTER TABLE … OWNER TO.",
        )
    else:
        yield passed("privileges", f"The role {role} has the privileges that it takes.")


def public_create(situation: Situation) -> Iterator[Finding]:
    """Whether anybody may put functions where ours would find them."""
    if not situation.tables:
        return
    if situation.value(
        "SELECT EXISTS (SELECT FROM pg_namespace s"
        " CROSS JOIN LATERAL aclexplode(coalesce(s.nspacl, acldefault('n', s.nspowner))) a"
        " WHERE s.nspname = 'public' AND a.grantee = 0 AND a.privilege_type = 'CREATE')"
    ):
        yield Finding(
            "public-create",
            Severity.BLOCKS,
            "Every role may create objects in the schema public, and so could have the"
            " triggers that keep both sides in step run code of its own as the owner.",
            "Run: REVOKE CREATE ON SCHEMA public FROM PUBLIC; or accept the risk with"
            " PREFLIGHT_ACCEPT=public-create.",
        )


SERVER_QUESTIONS: tuple[Question, ...] = (server, privileges, public_create)


# --- the shape of the tables ---------------------------------------------------------------

#: Findings after which looking at rows would only fail.
_SHAPE = ("tables", "columns", "privileges", "server")


def missing_tables(situation: Situation) -> Iterator[Finding]:
    """Whether all six tables are there, as ordinary tables."""
    missing = [lens.legacy for lens in LENSES if lens.legacy not in situation.tables]
    if missing:
        yield Finding(
            "tables",
            Severity.BLOCKS,
            f"The legacy tables {', '.join(missing)} are missing.",
            "Is this the right database? If the shop has renamed or dropped them, make them"
            " again, empty, from the legacy schema.",
        )
    for table, schema in situation.tables.items():
        odd = situation.value(
            "SELECT CASE WHEN c.relkind = 'p' THEN 'partitioned'"
            "            WHEN EXISTS (SELECT FROM pg_inherits i"
            "                          WHERE c.oid IN (i.inhparent, i.inhrelid))"
            "            THEN 'part of an inheritance tree'"
            "            WHEN c.relforcerowsecurity THEN 'under FORCE ROW LEVEL SECURITY' END"
            "  FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace"
            " WHERE s.nspname = %s AND c.relname = %s",
            [schema, table],
        )
        if odd:
            yield Finding(
                "tables",
                Severity.BLOCKS,
                f"The table {schema}.{table} is {odd}, which the copies do not know of.",
                "Make it an ordinary table first.",
            )


def columns(situation: Situation) -> Iterator[Finding]:
    """Whether the tables have the columns that the declaration knows, and no others."""
    fine = True
    for lens in LENSES:
        if lens.legacy not in situation.tables:
            continue
        schema = situation.tables[lens.legacy]
        there = {
            column.name: column
            for column in catalog.columns(situation.connection, schema, lens.legacy)
        }
        for finding in _column_findings(lens, there):
            fine = False
            yield finding
    if fine:
        yield passed("columns", "Every legacy column is there and has a place to go.")


def _column_findings(
    lens: Lens, there: Mapping[str, catalog.TableColumn]
) -> Iterator[Finding]:
    for column in lens.columns:
        found = there.get(column.name)
        if found is None:
            yield Finding(
                "columns",
                Severity.BLOCKS,
                f"The column {lens.legacy}.{column.name} is missing.",
                f"Add it: ALTER TABLE {lens.legacy} ADD COLUMN {column.name} {column.type}.",
            )
        elif found.type != column.type:
            integer_key = column.name == "id" and found.type in ("integer", "bigint")
            yield Finding(
                "columns",
                Severity.BLOCKS,
                f"The column {lens.legacy}.{column.name} is {found.type}, not {column.type}.",
                (
                    "Keys are UUIDs in the new schema; integer keys cannot be kept."
                    if integer_key
                    else f"Change it back: ALTER TABLE {lens.legacy} ALTER COLUMN"
                    f" {column.name} TYPE {column.type}; or declare the new type in mapping.py."
                ),
            )
    known = {column.name for column in lens.columns}
    for name in there:
        if name not in known:
            yield Finding(
                "columns",
                Severity.BLOCKS,
                f"The column {lens.legacy}.{name} has no place in the new schema.",
                "Say in terrain/legacy/mapping.py where it goes, or that it is dropped and why.",
            )


def in_the_way(situation: Situation) -> Iterator[Finding]:
    """Whether anything has a name that a new table needs."""
    if PARKED_TABLES & _relations(situation, PARKED) or situation.value(
        "SELECT to_regclass('public.legacy_run') IS NOT NULL"
    ):
        return  # this project has been here before
    taken = _relations(situation, "public") - set(situation.tables)
    clashes = sorted(taken & {*catalog.NEW_TABLES, *catalog.LEDGER_TABLES})
    for name in clashes:
        yield Finding(
            "in-the-way",
            Severity.BLOCKS,
            f"public.{name} is in the way of the new table of that name.",
            f"Rename it: ALTER TABLE public.{name} RENAME TO {name}_old.",
        )
    for name in sorted(
        _relations(situation, LEGACY) & {lens.legacy for lens in LENSES}
    ):
        if situation.tables.get(name) == "public":
            yield Finding(
                "in-the-way",
                Severity.BLOCKS,
                f"legacy.{name} is in the way of public.{name}, which is to move there.",
                f"Rename it: ALTER TABLE legacy.{name} RENAME TO {name}_old.",
            )


PARKED_TABLES = set(catalog.NEW_TABLES)


def _relations(situation: Situation, schema: str) -> set[str]:
    return {
        name
        for (name,) in situation.rows(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace"
            " WHERE s.nspname = %s",
            [schema],
        )
    }


def search_path(situation: Situation) -> Iterator[Finding]:
    """Whether the old application will find its tables."""
    connection = situation.connection
    sessions = prepare.other_sessions(connection)
    own = prepare.role_paths(connection)
    hidden = [role for role, path in own.items() if LEGACY not in path]
    if prepare.is_prepared(connection):
        yield passed(
            "search-path", "New sessions find the tables in legacy, then public."
        )
    elif not sessions:
        yield passed(
            "search-path",
            "No other session is connected, so nothing needs preparing: migrate sets the"
            " search path itself.",
        )
    elif not (prepare.database_path(connection) or own):
        yield from _found(
            "search-path",
            [{"session": str(each)} for each in sessions],
            "Sessions are connected that will not find their tables once they have moved.",
            "Run: python manage.py prepare_database; then recycle the connection pools once.",
        )
    if sessions and hidden:
        yield from _found(
            "role-paths",
            [
                {"role": role, "search_path": prepare.join_path(own[role])}
                for role in hidden
            ],
            "Roles have a search path of their own that does not begin with legacy.",
            "As a role that may: ALTER ROLE … IN DATABASE … SET search_path = legacy, …;"
            " or accept with PREFLIGHT_ACCEPT=role-paths if the shop does not use them.",
        )
    yield from _found(
        "old-sessions",
        [{"session": str(each)} for each in prepare.sessions_before(connection)],
        "Sessions are older than the search path that was set for them.",
        "Recycle the connection pools (or end these sessions); accept with"
        " PREFLIGHT_ACCEPT=old-sessions if none of them is the shop's.",
    )


_NAMES = "|".join(lens.legacy for lens in LENSES)


def functions(situation: Situation) -> Iterator[Finding]:
    """Whether functions name the tables in a way that will not follow them."""
    rows = situation.rows(
        "SELECT p.oid::regprocedure::text,"
        "       CASE WHEN p.prosrc ~* %(qualified)s THEN 'names public.<table>'"
        "            ELSE 'pins search_path to ' || c.path END"
        "  FROM pg_proc p"
        "  JOIN pg_namespace s ON s.oid = p.pronamespace"
        "  JOIN pg_language g ON g.oid = p.prolang AND g.lanname NOT IN ('internal', 'c')"
        "  LEFT JOIN LATERAL (SELECT substr(x, 13) AS path FROM unnest(p.proconfig) x"
        "                      WHERE x LIKE 'search\\_path=%%') c ON true"
        " WHERE s.nspname NOT IN ('pg_catalog', 'information_schema', 'rebuilt')"
        "   AND p.proname NOT LIKE 'terrain\\_%%'"
        "   AND (p.prosrc ~* %(qualified)s"
        "        OR c.path !~ '\\mlegacy\\M' AND p.prosrc ~* %(named)s)"
        " ORDER BY 1",
        {
            "qualified": rf'\mpublic"?\s*\.\s*"?({_NAMES})\M',
            "named": rf"\m({_NAMES})\M",
        },
    )
    yield from _found(
        "qualified-functions",
        [{"function": name, "why": why} for name, why in rows],
        "Functions would look for the tables where they no longer are.",
        "Let them name the tables without a schema, and let their search path begin with"
        " legacy; or accept with PREFLIGHT_ACCEPT=qualified-functions if nobody calls them.",
    )


def statements(situation: Situation) -> Iterator[Finding]:
    """Whether the old application's statements qualify the names (pg_stat_statements)."""
    if not situation.value(
        "SELECT to_regclass('public.pg_stat_statements') IS NOT NULL"
    ):
        return
    try:
        rows = situation.rows(
            "SELECT left(query, 200), calls FROM public.pg_stat_statements s"
            " WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
            "   AND query ~* %s AND query !~* '^\\s*(alter|create|comment|grant|revoke|analyze)'"
            " ORDER BY calls DESC",
            [rf'\mpublic"?\s*\.\s*"?({_NAMES})\M'],
        )
    except Exception:  # the extension's view may be there without its library
        return
    yield from _found(
        "qualified-statements",
        [{"statement": query, "calls": calls} for query, calls in rows],
        "Statements have been seen that name the tables with the schema public.",
        "Take the schema out of them; or accept with PREFLIGHT_ACCEPT=qualified-statements"
        " if they are history.",
    )


def publications(situation: Situation) -> Iterator[Finding]:
    """Whether a subscriber would lose sight of the tables."""
    rows = situation.rows(
        "SELECT pubname, tablename FROM pg_publication_tables"
        " WHERE schemaname = 'public' AND tablename = ANY (%s) ORDER BY 1, 2",
        [list(situation.tables)],
    )
    yield from _found(
        "publications",
        [{"publication": name, "table": table} for name, table in rows],
        "Tables are published; a subscriber knows them by a name that will change.",
        "Create the tables in a schema legacy on the subscriber, or drop the publication;"
        " accept with PREFLIGHT_ACCEPT=publications.",
    )


def disk(situation: Situation) -> Iterator[Finding]:
    """Whether there is room for the copies."""
    needed = int(_legacy_bytes(situation) * GROWTH)
    folder = situation.value(
        "SELECT setting FROM pg_settings WHERE name = 'data_directory'"
    )
    free = None
    if folder and _is_local(situation.connection) and os.access(folder, os.R_OK):
        free = shutil.disk_usage(folder).free
    if free is None:
        yield Finding(
            "disk",
            Severity.TELLS,
            f"The copies need about {_megabytes(needed)} on the server's disk; its free space"
            " cannot be seen from here.",
        )
    elif free < needed:
        yield Finding(
            "disk",
            Severity.BLOCKS,
            f"The copies need about {_megabytes(needed)}, and the server's disk has"
            f" {_megabytes(free)} left.",
            "Make room, or accept with PREFLIGHT_ACCEPT=disk.",
        )
    else:
        yield passed(
            "disk",
            f"The copies need about {_megabytes(needed)} of the {_megabytes(free)} free.",
        )


def _is_local(connection: BaseDatabaseWrapper) -> bool:
    return bool(
        catalog.value(
            connection,
            "SELECT inet_server_addr() IS NULL OR inet_server_addr() = inet_client_addr()",
        )
    )


def _megabytes(size: int) -> str:
    return f"{size / 1_000_000:,.0f} MB"


def _legacy_bytes(situation: Situation) -> int:
    return int(
        situation.value(
            "SELECT coalesce(sum(pg_total_relation_size(to_regclass(t))), 0)"
            " FROM unnest(%s::text[]) t",
            [list(situation.qualified.values())],
        )
    )


SHAPE_QUESTIONS: tuple[Question, ...] = (
    missing_tables,
    columns,
    in_the_way,
    search_path,
    functions,
    statements,
    publications,
    disk,
)


# --- the rows ------------------------------------------------------------------------------


def empty_values(situation: Situation) -> Iterator[Finding]:
    """Looking for values that are missing where the new schema needs one."""
    for lens in LENSES:
        schema = situation.tables[lens.legacy]
        loose = {
            column.name
            for column in catalog.columns(situation.connection, schema, lens.legacy)
            if column.nullable
        }
        for column in lens.mapped:
            if column.nullable or column.name not in loose:
                continue
            rows = situation.rows(
                f"SELECT l.id FROM {situation.qualified[lens.legacy]} l"
                f" WHERE l.{sql.ident(column.name)} IS NULL LIMIT 100"
            )
            yield from _found(
                "empty-values",
                [{"table": lens.legacy, "id": key} for (key,) in rows],
                f"{lens.legacy}.{column.name} is empty where it must not be.",
                f"Fill it, then: ALTER TABLE {lens.legacy}"
                f" ALTER COLUMN {column.name} SET NOT NULL.",
            )


def duplicates(situation: Situation) -> Iterator[Finding]:
    """Looking for values that are there twice where the new schema allows one."""
    for lens in LENSES:
        for new in lens.unique:
            column = _source(lens, new)
            rows = situation.rows(
                f"SELECT l.{column.name} FROM {situation.qualified[lens.legacy]} l"
                f" WHERE l.{column.name} IS NOT NULL GROUP BY 1 HAVING count(*) > 1 LIMIT 100"
            )
            yield from _found(
                "duplicates",
                [{"table": lens.legacy, column.name: value} for (value,) in rows],
                f"{lens.legacy}.{column.name} has values that occur more than once.",
                "Correct them, and put the UNIQUE constraint back.",
            )


def _source(lens: Lens, new: str) -> Column:
    return next(column for column in lens.mapped if new in column.up)


#: Legacy references that the new schema has too: (table, column, target).
REFERENCES = (
    ("assets", "artist_id", "artists"),
    ("example_tables", "artist_id", "artists"),
    ("stripe_transfers", "artist_id", "artists"),
    ("stripe_transfers", "order_id", "orders"),
)


def orphans(situation: Situation) -> Iterator[Finding]:
    """Looking for rows that refer to nothing."""
    for table, column, target in REFERENCES:
        rows = situation.rows(
            f"SELECT l.id, l.{column} FROM {situation.qualified[table]} l"
            f" WHERE NOT EXISTS (SELECT FROM {situation.qualified[target]} t"
            f" WHERE t.id = l.{column}) LIMIT 100"
        )
        yield from _found(
            "orphans",
            [{"table": table, "id": key, column: value} for key, value in rows],
            f"{table}.{column} refers to {target} that are not there.",
            f"Correct or delete these rows, and put the foreign key on {table}.{column} back.",
        )


def roles(situation: Situation) -> Iterator[Finding]:
    """Looking for artists with a role that means something else."""
    rows = situation.rows(
        f"SELECT l.id, l.role FROM {situation.qualified['artists']} l"
        " WHERE l.role NOT IN ('artist', 'admin') LIMIT 100"
    )
    yield from _found(
        "roles",
        [{"table": "artists", "id": key, "role": role} for key, role in rows],
        "Artists have a role that is neither artist nor admin.",
        "Make them one or the other, and put the CHECK constraint on artists.role back.",
    )


def round_trip(situation: Situation) -> Iterator[Finding]:
    """Proving on every row that it can be read back from the new schema as it is."""
    types = catalog.types(situation.connection)
    read = 0
    failed = False
    for lens in LENSES:
        read += situation.value(
            f"SELECT count(*) FROM {situation.qualified[lens.legacy]}"
        )
        rows = situation.rows(
            sql.round_trip(lens, types, situation.qualified) + f" LIMIT {EXAMPLES + 1}"
        )
        failed = failed or bool(rows)
        yield from _found(
            "round-trip",
            [
                {"table": lens.legacy, "id": key, "is": now, "would be": back}
                for key, now, back in rows
            ],
            f"Rows of {lens.legacy} would not be read back as they are.",
            "This is a fault of the declaration in terrain/legacy/mapping.py; nothing has"
            " been changed. Report these rows.",
        )
    if not failed:
        yield passed(
            "round-trip",
            f"All {read:,} rows can be read back as they are, to the byte.",
        )


def forecast(situation: Situation) -> Iterator[Finding]:
    """Looking for rows that will be held or flagged."""
    for lens in LENSES:
        for code, ids in _grouped(situation.rows(_forecast_held(situation, lens))):
            rule = next(rule for rule in lens.held if rule.code == code)
            what = f"the {lens.part.column} of " if lens.part else ""
            yield Finding(
                "held",
                Severity.WARNS,
                f"{what}{len(ids):,} {lens.legacy} will be held ({code}): each {rule.sentence}.",
                rule.remedy,
                tuple({"table": lens.legacy, "id": key} for key in ids[:EXAMPLES]),
                len(ids),
            )
        flagged = {rule.code: rule for rule in (*lens.flagged, *sql.price_rules())}
        for code, ids in _grouped(_forecast_flagged(situation, lens)):
            yield _will_be_flagged(
                lens, code, ids, flagged[code].sentence, flagged[code].remedy
            )
        for number, repeat in enumerate(lens.repeats):
            rows = situation.rows(
                sql.repeats(lens, situation.qualified[lens.legacy], number)
            )
            if rows:
                yield _will_be_flagged(
                    lens,
                    repeat.code,
                    [key for (key,) in rows],
                    repeat.sentence,
                    repeat.remedy,
                )


def _will_be_flagged(
    lens: Lens, code: str, ids: list[Any], sentence: str, remedy: str
) -> Finding:
    return Finding(
        "flagged",
        Severity.WARNS,
        f"{len(ids):,} {lens.legacy} will be flagged ({code}): each {sentence}.",
        remedy,
        tuple({"table": lens.legacy, "id": key} for key in ids[:EXAMPLES]),
        len(ids),
    )


def _forecast_held(situation: Situation, lens: Lens) -> str:
    held = sql.held(lens, forecast=situation.qualified)
    return (
        f"SELECT x.code, x.id FROM (SELECT l.id, {held} AS code"
        f" FROM {situation.qualified[lens.legacy]} l) x WHERE x.code IS NOT NULL ORDER BY 1, 2"
    )


def _forecast_flagged(situation: Situation, lens: Lens) -> list[tuple[Any, ...]]:
    table = situation.qualified[lens.legacy]
    not_held = (
        "true"
        if lens.part is not None
        else f"{sql.held(lens, forecast=situation.qualified)} IS NULL"
    )
    found: list[tuple[Any, ...]] = []
    if lens.flagged:
        codes = sql.joined(f"({code})" for code, _sentence in sql.flag_rows(lens))
        found = situation.rows(
            f"SELECT f.code, l.id FROM {table} l CROSS JOIN LATERAL (VALUES {codes}) AS f (code)"
            f" WHERE f.code IS NOT NULL AND {not_held} ORDER BY 1, 2"
        )
    if lens.part is not None:
        found += situation.rows(sql.price_forecast(lens, situation.qualified))
    return found


def _grouped(rows: list[tuple[Any, ...]]) -> Iterator[tuple[str, list[Any]]]:
    by_code: dict[str, list[Any]] = {}
    for code, key in rows:
        by_code.setdefault(code, []).append(key)
    yield from by_code.items()


ROW_QUESTIONS: tuple[Question, ...] = (
    empty_values,
    duplicates,
    orphans,
    roles,
    round_trip,
    forecast,
)


# --- what it will be like ------------------------------------------------------------------


def _estimate(situation: Situation) -> tuple[dict[str, int], int, float]:
    """Rows by the planner's count, bytes now, seconds for the copies."""
    rows = {
        table: max(
            0,
            int(
                situation.value(
                    "SELECT reltuples FROM pg_class WHERE oid = to_regclass(%s)", [name]
                )
            ),
        )
        for table, name in situation.qualified.items()
    }
    seconds = sum(number / SPEED[table] for table, number in rows.items()) * 1.5
    return rows, _legacy_bytes(situation), seconds
