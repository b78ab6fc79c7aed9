"""Questions about what a cut-over will meet.  None of them keeps migrate from beginning."""

from __future__ import annotations

import re
from collections.abc import Iterator

from django.apps import apps
from django.db import DatabaseError, models, transaction

from terrain.legacy import catalog, cut_over, public_schema, sql
from terrain.legacy.catalog import PARKED, REBUILT
from terrain.legacy.findings import Finding, Severity, passed
from terrain.legacy.preflight.asking import Question, Situation, found
from terrain.postgresql.schemas import SCHEMA

#: Schemas whose functions and defaults are not the shop's.
_NOT_THE_SHOPS = ["pg_catalog", "information_schema", SCHEMA, REBUILT, PARKED]


def sessions(situation: Situation) -> Iterator[Finding]:
    """Whether sessions are connected that have to end before the cut-over."""
    connected = cut_over.others_connected(situation.connection)
    if not connected:
        yield passed(
            "cut-over-sessions",
            "No other session with rights on the legacy tables is connected.",
        )
    yield from found(
        "cut-over-sessions",
        [{"session": str(each)} for each in connected],
        "Other sessions with rights on the legacy tables are connected. migrate does not disturb"
        " them; cut_over refuses while they are connected.",
        "Before cut_over, stop the applications that they belong to. What a session has cached"
        " (plans of functions, row types, prepared statements) cannot be inspected from here, so"
        " every session from before the cut-over has to end.",
        severity=Severity.TELLS,
    )


def functions(situation: Situation) -> Iterator[Finding]:
    """Whether functions of the shop name tables that they will not find any more."""
    names = _moving_names(situation)
    rows = situation.rows(
        "SELECT p.oid::regprocedure::text,"
        "       CASE WHEN p.prosrc ~* %(qualified)s THEN 'names public.<table>'"
        "            ELSE 'pins search_path to ' || c.path END"
        "  FROM pg_proc p"
        "  JOIN pg_namespace s ON s.oid = p.pronamespace"
        "  JOIN pg_language g ON g.oid = p.prolang AND g.lanname NOT IN ('internal', 'c')"
        "  LEFT JOIN LATERAL (SELECT substr(x, 13) AS path FROM unnest(p.proconfig) x"
        "                      WHERE x LIKE 'search\\_path=%%') c ON true"
        " WHERE s.nspname <> ALL (%(not_theirs)s)"
        "   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e'"
        "                      AND d.classid = 'pg_proc'::regclass)"
        "   AND (p.prosrc ~* %(qualified)s"
        "        OR c.path !~ '\\mlegacy\\M' AND p.prosrc ~* %(named)s)"
        " ORDER BY 1",
        {
            "qualified": _qualified(names),
            "named": rf"\m({_any_of(names)})\M",
            "not_theirs": _NOT_THE_SHOPS,
        },
    )
    yield from found(
        "cut-over-functions",
        [{"function": name, "why": why} for name, why in rows],
        "Functions name legacy tables as public.<table>, or pin a search_path without legacy."
        " After the cut-over they find the new tables orders and assets, and none of the other"
        " names.",
        "Drop those that only the old application calls once it has stopped. Change the others at"
        " the cut-over: let them use the new tables, or name legacy.<table>.",
        severity=Severity.WARNS,
    )


def dependents(situation: Situation) -> Iterator[Finding]:
    """Whether views and other objects depend on the legacy tables."""
    rows = [
        row
        for row in situation.rows(
            sql.query("others_on_legacy"),
            {
                "schema": catalog.where(situation.connection).legacy,
                "ours": list(situation.tables),
            },
        )
        if row[0] != "publication"
    ]
    yield from found(
        "cut-over-dependents",
        [
            {"object": f"{kind} {name}", "depends on": table}
            for kind, name, table in rows
        ],
        "Objects depend on legacy tables. They go on using them after the cut-over, as"
        " legacy.<table>; cleanup_legacy refuses while they do.",
        "Between cut_over and cleanup_legacy, drop them or rebuild them on the new tables.",
        severity=Severity.TELLS,
    )


def defaults(situation: Situation) -> Iterator[Finding]:
    """Whether defaults name tables or sequences in a text, which does not follow them."""
    rows = situation.rows(
        "SELECT c.oid::regclass || '.' || quote_ident(a.attname),"
        "       pg_get_expr(d.adbin, d.adrelid)"
        "  FROM pg_attrdef d"
        "  JOIN pg_class c ON c.oid = d.adrelid"
        "  JOIN pg_namespace s ON s.oid = c.relnamespace"
        "  JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum"
        # What is named 'public.x'::regclass is kept by its OID, and follows.
        " WHERE s.nspname <> ALL (%(not_theirs)s)"
        "   AND pg_get_expr(d.adbin, d.adrelid) ~* %(text)s"
        " ORDER BY 1",
        {
            "text": rf"{_qualified(_moving_names(situation))}[^']*'::(text|character varying)",
            "not_theirs": _NOT_THE_SHOPS,
        },
    )
    yield from found(
        "cut-over-defaults",
        [{"column": column, "default": default} for column, default in rows],
        "Column defaults name legacy tables or their sequences in a text, as public.<name>. After"
        " the cut-over they do not find them.",
        "Before the cut-over, write the name as a regclass constant, which follows a move:"
        " nextval('public.<sequence>'::regclass).",
        severity=Severity.WARNS,
    )


def sequences(situation: Situation) -> Iterator[Finding]:
    """Whether sequences move with the legacy tables."""
    yield from found(
        "cut-over-sequences",
        [{"sequence": name} for name in _owned_sequences(situation)],
        "Sequences belong to columns of legacy tables, and move to the schema legacy with them at"
        " the cut-over. Statements that name public.<sequence> do not find them there.",
        "Keep a sequence in public with: ALTER SEQUENCE <sequence> OWNED BY NONE.",
        severity=Severity.TELLS,
    )


def statements(situation: Situation) -> Iterator[Finding]:
    """Whether statements of the old application qualify names (pg_stat_statements)."""
    schema = situation.value(
        "SELECT s.nspname FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace"
        " WHERE c.relname = 'pg_stat_statements' AND c.relkind = 'v'"
    )
    if schema is None:
        return
    try:
        with transaction.atomic(using=situation.connection.alias):
            rows = situation.rows(
                f"SELECT left(s.query, 200), s.calls"
                f"  FROM {sql.ident(schema, 'pg_stat_statements')} s"
                "  JOIN pg_database d ON d.oid = s.dbid AND d.datname = current_database()"
                " WHERE s.query ~* %(qualified)s"
                # This project's own.  Those of an old application that connects as the same
                # role cannot be told from them.
                "   AND s.userid <> (SELECT oid FROM pg_roles WHERE rolname = current_user)"
                # An administrator's, and those of pg_dump.
                "   AND s.query !~* %(maintenance)s AND s.query !~* %(dump)s"
                " ORDER BY s.calls DESC",
                {
                    "qualified": _qualified(_moving_names(situation)),
                    "maintenance": r"^\s*(alter|create|comment|drop|grant|revoke|analyze|vacuum"
                    r"|reindex|cluster|refresh|lock|explain)\M",
                    "dump": r"^\s*copy\M.*\mto\s+stdout\M",
                },
            )
    except DatabaseError:  # the view may be there without its library, or not for us
        return
    yield from found(
        "cut-over-statements",
        [{"statement": query, "calls": calls} for query, calls in rows],
        "Statements that name legacy tables as public.<table> have been run (pg_stat_statements)."
        " After the cut-over they find the new tables orders and assets, and none of the other"
        " names, whatever the search path.",
        "Stop the application that runs them before cut_over. If it is to run on beyond the"
        " cut-over, take the schema out of its statements.",
        severity=Severity.WARNS,
    )


def names(situation: Situation) -> Iterator[Finding]:
    """Whether names of the new tables are taken in public."""
    connection = situation.connection
    is_made = catalog.is_begun(connection) and catalog.new_table_exists(
        connection, "users"
    )
    taken = cut_over.taken_names(
        connection, None if is_made else planned_names(situation)
    )
    yield from found(
        "cut-over-names",
        [
            {"table": table, "public has": ", ".join(taken[table])}
            for table in sorted(taken)
        ],
        "The schema public has relations or types with names of new tables, or of their indexes or"
        " sequences. These tables stay in the schema terrain for good.",
        "Nothing has to be done: the new application finds its tables in both schemas. To have a"
        " table in public, rename what has its name before cut_over.",
        severity=Severity.WARNS,
    )


def privileges(situation: Situation) -> Iterator[Finding]:
    """Whether this role may move tables into public."""
    missing = cut_over.missing_privilege(situation.connection)
    if missing is not None:
        sentence, remedy = missing
        yield Finding(
            "cut-over-privileges",
            Severity.TELLS,
            f"{sentence} migrate does not need it; cut_over does.",
            remedy,
        )


# --- names ---------------------------------------------------------------------------------


def planned_names(situation: Situation) -> dict[str, set[str]]:
    """New table -> the names that it will have in its schema: of itself, its array type,
    its indexes and its sequences.

    Of Django's own tables the indexes are not described; their primary keys' are known.
    """
    planned = {
        table: {table, f"_{table}", f"{table}_pkey"} for table in cut_over.our_names()
    }
    planned["django_migrations"].add("django_migrations_id_seq")
    for model in apps.get_models(include_auto_created=True):
        for field in model._meta.local_concrete_fields if model._meta.managed else ():
            if isinstance(field, models.AutoField | models.BigAutoField):
                table = model._meta.db_table
                planned[table].add(f"{table}_{field.column}_seq")
    for described in public_schema.expected():
        kind, _, name = described.partition(" ")
        table, _, part = name.partition(".")
        if kind == "index":
            planned[table].add(part)
    return planned


def _moving_names(situation: Situation) -> list[str]:
    """The names that leave ``public``: the legacy tables', and their sequences'."""
    return [*situation.tables, *_owned_sequences(situation)]


def _owned_sequences(situation: Situation) -> list[str]:
    return [
        name
        for (name,) in situation.rows(
            "SELECT c.relname FROM pg_class c"
            "  JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid"
            "   AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')"
            " WHERE c.relkind = 'S'"
            "   AND d.refobjid = ANY (SELECT to_regclass(t) FROM unnest(%s::text[]) t)"
            " ORDER BY 1",
            [list(situation.qualified.values())],
        )
    ]


def _any_of(names: list[str]) -> str:
    return "|".join(map(re.escape, names))


def _qualified(names: list[str]) -> str:
    """A regular expression of PostgreSQL's for one of the names after ``public``."""
    return rf'\mpublic"?\s*\.\s*"?({_any_of(names)})\M'


CUT_OVER_QUESTIONS: tuple[Question, ...] = (
    sessions,
    functions,
    dependents,
    defaults,
    sequences,
    statements,
    names,
    privileges,
)
