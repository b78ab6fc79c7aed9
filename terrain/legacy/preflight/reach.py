"""Questions about who uses the tables now."""

from __future__ import annotations

from collections.abc import Iterator

from terrain.legacy.findings import Finding, Severity
from terrain.legacy.preflight.asking import Question, Situation, found


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
        "Transactions have been open for a while. Putting triggers on a table waits for those that"
        " have locked it, for a minute at most, and the index builds wait for them all.",
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
    transactions,
    isolation,
)
