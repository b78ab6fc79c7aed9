"""Questions about who uses the tables: will they find them once they have moved?"""

from __future__ import annotations

from collections.abc import Iterator

from django.db import DatabaseError, transaction

from terrain.legacy import prepare, sql
from terrain.legacy.findings import Finding, Severity, passed
from terrain.legacy.mapping import LENSES
from terrain.legacy.preflight.asking import Question, Situation, found


def search_path(situation: Situation) -> Iterator[Finding]:
    """Whether the old application will find its tables."""
    connection = situation.connection
    sessions = prepare.other_sessions(connection)
    own = prepare.role_paths(connection)
    hidden = prepare.out_of_reach(connection)
    if prepare.is_left(connection):
        if not sessions:
            yield passed(
                "search-path",
                "No other session is connected, so nothing needs preparing: migrate sets"
                " the search path itself.",
            )
        yield from found(
            "search-path",
            [{"session": str(each)} for each in sessions],
            "Sessions are connected that will not find their tables once they have moved.",
            "Run: python manage.py prepare_database; then recycle the connection pools once.",
        )
    elif not hidden:
        yield passed(
            "search-path", "New sessions find the tables in legacy, then public."
        )
    yield from found(
        "role-paths",
        [
            {
                "role": role,
                "search_path": prepare.join_path(own.get(role, ("public",))),
                "needs": prepare.alter_role(connection, role),
            }
            for role in hidden
        ],
        "Roles have a search path without legacy, and it is not for this role to set.",
        "Have a superuser run what each needs, or accept with PREFLIGHT_ACCEPT=role-paths"
        " if the shop does not use them.",
    )
    yield from found(
        "old-sessions",
        [{"session": str(each)} for each in prepare.sessions_before(connection)],
        "Sessions are older than the search path that was set for them.",
        "Recycle the connection pools (or end these sessions); accept with"
        " PREFLIGHT_ACCEPT=old-sessions if none of them is the shop's.",
    )


_NAMES = "|".join(lens.legacy for lens in LENSES)
_QUALIFIED = rf'\mpublic"?\s*\.\s*"?({_NAMES})\M'


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
        " WHERE s.nspname NOT IN"
        "       ('pg_catalog', 'information_schema', 'rebuilt', 'legacy_parked')"
        "   AND p.proname NOT LIKE 'terrain\\_%%'"
        "   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e'"
        "                      AND d.classid = 'pg_proc'::regclass)"
        "   AND (p.prosrc ~* %(qualified)s"
        "        OR c.path !~ '\\mlegacy\\M' AND p.prosrc ~* %(named)s)"
        " ORDER BY 1",
        {
            "qualified": _QUALIFIED,
            "named": rf"\m({_NAMES})\M",
        },
    )
    yield from found(
        "qualified-functions",
        [{"function": name, "why": why} for name, why in rows],
        "Functions would look for the tables where they no longer are.",
        "Let them name the tables without a schema, and let their search path begin with"
        " legacy; or accept with PREFLIGHT_ACCEPT=qualified-functions if nobody calls them.",
    )


def statements(situation: Situation) -> Iterator[Finding]:
    """Whether the old application's statements qualify the names (pg_stat_statements)."""
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
                " WHERE s.query ~* %s"
                "   AND s.query !~* '^\\s*(alter|create|comment|grant|revoke|analyze)'"
                " ORDER BY s.calls DESC",
                [_QUALIFIED],
            )
    except DatabaseError:  # the view may be there without its library, or not for us
        return
    yield from found(
        "qualified-statements",
        [{"statement": query, "calls": calls} for query, calls in rows],
        "Statements have been seen that name the tables with the schema public.",
        "Take the schema out of them; or accept with PREFLIGHT_ACCEPT=qualified-statements"
        " if they are history.",
    )


def publications(situation: Situation) -> Iterator[Finding]:
    """Whether replication would lose sight of the tables: it knows them by their name."""
    tables = [table for table, schema in situation.tables.items() if schema == "public"]
    published = situation.rows(
        "SELECT pubname, tablename FROM pg_publication_tables"
        " WHERE schemaname = 'public' AND tablename = ANY (%s) ORDER BY 1, 2",
        [tables],
    )
    yield from found(
        "publications",
        [{"publication": name, "table": table} for name, table in published],
        "Tables are published; a subscriber knows them by a name that will change.",
        "Create the tables in a schema legacy on the subscriber, or drop the publication;"
        " accept with PREFLIGHT_ACCEPT=publications.",
    )
    subscribed = situation.rows(
        "SELECT DISTINCT c.relname FROM pg_subscription_rel r"
        "  JOIN pg_class c ON c.oid = r.srrelid"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY (%s)"
        " ORDER BY 1",
        [tables],
    )
    yield from found(
        "publications",
        [{"table": table} for (table,) in subscribed],
        "Tables are filled by a subscription, which would look for them where they no"
        " longer are.",
        "Drop the subscription, or migrate the publisher instead; accept with"
        " PREFLIGHT_ACCEPT=publications.",
    )


def transactions(situation: Situation) -> Iterator[Finding]:
    """Whether anybody would keep migrate waiting now."""
    rows = situation.rows(
        "SELECT a.pid, a.usename, coalesce(a.application_name, ''),"
        "       extract(epoch FROM clock_timestamp() - a.xact_start)::int,"
        "       coalesce((SELECT string_agg(DISTINCT l.relation::regclass::text, ' ')"
        "                   FROM pg_locks l WHERE l.pid = a.pid AND l.granted"
        "                    AND l.relation = ANY (SELECT to_regclass(t)"
        "                                            FROM unnest(%(tables)s::text[]) t)),"
        "                'none of the tables')"
        "  FROM pg_stat_activity a"
        " WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()"
        "   AND clock_timestamp() - a.xact_start > %(patience)s * interval '1 second'"
        " ORDER BY a.xact_start",
        {
            "tables": list(situation.qualified.values()),
            "patience": situation.patience,
        },
    )
    yield from found(
        "transactions",
        [
            {
                "process": pid,
                "role": role,
                "application": application,
                "seconds": seconds,
                "locks": locked,
            }
            for pid, role, application, seconds, locked in rows
        ],
        "Transactions have been open for a while. Moving a table waits for those that have"
        " locked it, for a minute at most, and the index builds wait for them all.",
        "Let them end, or end them: SELECT pg_terminate_backend(process).",
        severity=Severity.WARNS,
    )
    prepared = situation.rows(
        "SELECT gid, owner, prepared::text FROM pg_prepared_xacts"
        " WHERE database = current_database() ORDER BY prepared"
    )
    yield from found(
        "prepared-transactions",
        [
            {"gid": gid, "owner": owner, "since": since}
            for gid, owner, since in prepared
        ],
        "Transactions are prepared and keep their locks until somebody ends them.",
        "As their owner: COMMIT PREPARED 'gid' or ROLLBACK PREPARED 'gid'; accept with"
        " PREFLIGHT_ACCEPT=prepared-transactions if they are short-lived.",
    )


def isolation(situation: Situation) -> Iterator[Finding]:
    """Whether the old application's transactions are SERIALIZABLE.

    Then what the sync reads and writes for it counts, too, and such a failure cannot be caught
    in its place; in REPEATABLE READ it can (decision 8).
    """
    rows = situation.rows(
        "SELECT CASE s.setrole WHEN 0 THEN NULL ELSE pg_get_userbyid(s.setrole) END,"
        "       split_part(c, '=', 2)"
        "  FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) c"
        " WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database"
        "                              WHERE datname = current_database()))"
        "   AND c ~ '^default_transaction_isolation=serializable$'"
        " ORDER BY 1 NULLS FIRST"
    )
    yield from found(
        "isolation",
        [
            {"role": "everybody" if role is None else role, "isolation": level}
            for role, level in rows
        ],
        "Transactions begin in an isolation level in which a statement of the old application"
        " may be told to start over (40001) because of what the sync reads and writes for it.",
        "Let the old application try again when it is, or set: ALTER ROLE role"
        " SET default_transaction_isolation = 'read committed'.",
        severity=Severity.WARNS,
    )


REACH_QUESTIONS: tuple[Question, ...] = (
    search_path,
    functions,
    statements,
    publications,
    transactions,
    isolation,
)
