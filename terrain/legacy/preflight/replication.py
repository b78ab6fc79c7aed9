"""Questions about logical replication, which knows tables by schema and name."""

from __future__ import annotations

from collections.abc import Iterator

from terrain.legacy.catalog import PARKED, REBUILT
from terrain.legacy.findings import Finding, Severity
from terrain.legacy.preflight.asking import Question, Situation, found
from terrain.postgresql.schemas import SCHEMA

_SUBSCRIBERS = (
    "On the publisher, run the statement of each row. On each subscriber: ALTER SUBSCRIPTION"
    " <subscription> SET PUBLICATION <that publication>. Then drop the old publication."
)


def all_tables(situation: Situation) -> Iterator[Finding]:
    """Whether a publication takes the new tables along."""
    yield from found(
        "publications",
        _with_replacement(
            situation, "SELECT p.oid FROM pg_publication p WHERE p.puballtables"
        ),
        "Publications FOR ALL TABLES publish each new table as soon as it has a row. A subscriber"
        " that lacks the table stops replicating.",
        f"Replace them before migrate. {_SUBSCRIBERS} Or accept with"
        " PREFLIGHT_ACCEPT=publications if nothing subscribes, or if you create the new tables on"
        " each subscriber.",
    )


def in_schema(situation: Situation) -> Iterator[Finding]:
    """Whether a publication is of whatever tables are in public."""
    if not situation.value(  # PostgreSQL 14 has none
        "SELECT to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL"
    ):
        return
    yield from found(
        "publications",
        _with_replacement(
            situation,
            "SELECT n.pnpubid FROM pg_publication_namespace n"
            " WHERE n.pnnspid = to_regnamespace('public')",
        ),
        "Publications FOR TABLES IN SCHEMA public publish the legacy tables until the cut-over."
        " After it they publish the new tables and no longer the legacy ones, and a subscriber"
        " without the new tables stops replicating.",
        f"Replace them before the cut-over if subscribers need the legacy tables. {_SUBSCRIBERS}",
        severity=Severity.TELLS,
    )


def of_tables(situation: Situation) -> Iterator[Finding]:
    """Whether a publication names legacy tables."""
    rows = situation.rows(
        "SELECT p.pubname::text, c.relname::text FROM pg_publication_rel r"
        "  JOIN pg_publication p ON p.oid = r.prpubid"
        "  JOIN pg_class c ON c.oid = r.prrelid"
        " WHERE c.oid = ANY (SELECT to_regclass(t) FROM unnest(%s::text[]) t)"
        " ORDER BY 1, 2",
        [list(situation.qualified.values())],
    )
    yield from found(
        "publications",
        [{"publication": name, "table": table} for name, table in rows],
        "Publications FOR TABLE name legacy tables. After the cut-over they publish them as"
        " legacy.<table>; they do not publish the new tables.",
        "At the cut-over, on each subscriber: CREATE SCHEMA legacy; ALTER TABLE public.<table> SET"
        " SCHEMA legacy. Otherwise it does not find legacy.<table> and stops replicating. Before"
        " cleanup_legacy, take the legacy tables out of the publication.",
        severity=Severity.TELLS,
    )


def subscriptions(situation: Situation) -> Iterator[Finding]:
    """Whether legacy tables are filled from another server."""
    rows = situation.rows(
        "SELECT DISTINCT c.relname::text FROM pg_subscription_rel r"
        "  JOIN pg_class c ON c.oid = r.srrelid"
        " WHERE c.oid = ANY (SELECT to_regclass(t) FROM unnest(%s::text[]) t)"
        " ORDER BY 1",
        [list(situation.qualified.values())],
    )
    yield from found(
        "subscriptions",
        [{"table": table} for (table,) in rows],
        "A subscription fills legacy tables. It goes on doing so after migrate. After the cut-over"
        " it does not find public.<table> and stops.",
        "Before cut_over, drop the subscription, or migrate the publisher instead.",
        severity=Severity.WARNS,
    )


def _with_replacement(situation: Situation, publications: str) -> list[dict[str, str]]:
    """Each publication, with the statement that publishes what it publishes now, by name.

    ``publications`` is a query for OIDs.
    """
    return [
        {"publication": name, "instead": statement}
        for name, statement in situation.rows(
            "SELECT p.pubname::text,"
            "       'CREATE PUBLICATION ' || quote_ident(p.pubname || '_tables')"
            "       || ' FOR TABLE ' || string_agg(quote_ident(t.schemaname) || '.'"
            "                                      || quote_ident(t.tablename), ', '"
            "                                      ORDER BY t.schemaname, t.tablename)"
            "       || ' WITH (publish = ''' || concat_ws(', ',"
            "             CASE WHEN p.pubinsert THEN 'insert' END,"
            "             CASE WHEN p.pubupdate THEN 'update' END,"
            "             CASE WHEN p.pubdelete THEN 'delete' END,"
            "             CASE WHEN p.pubtruncate THEN 'truncate' END) || ''''"
            "       || CASE WHEN p.pubviaroot THEN ', publish_via_partition_root' ELSE '' END"
            "       || ');'"
            "  FROM pg_publication p"
            "  JOIN pg_publication_tables t ON t.pubname = p.pubname"
            f" WHERE p.oid IN ({publications}) AND t.schemaname <> ALL (%s)"
            " GROUP BY p.oid ORDER BY p.pubname",
            [[SCHEMA, REBUILT, PARKED]],
        )
    ]


REPLICATION_QUESTIONS: tuple[Question, ...] = (
    all_tables,
    in_schema,
    of_tables,
    subscriptions,
)
