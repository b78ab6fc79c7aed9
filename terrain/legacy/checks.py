"""Judges what is there: is everything in step, complete, conserved, in place?

A check is a query that returns offending rows; none means it passes.  The first kind is
derived from the declaration, the second is written by hand in ``checks.sql`` and uses
nothing of it, because a wrong declaration would fool the first kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from terrain import progress
from terrain.legacy import (
    batches,
    catalog,
    engine,
    public_schema,
    settling,
    sql,
    usage,
)
from terrain.legacy.findings import EXAMPLES, Finding, Severity, passed
from terrain.legacy.mapping import LENSES
from terrain.legacy.models import Quarantine
from terrain.legacy.schema import Lens
from terrain.progress import Progress
from terrain.sqlfiles import render, statements
from terrain.words import counted

#: Rows compared by one query, and so under one snapshot.
COMPARED = 10_000


class NothingToVerify(Exception):
    """The new schema is not there, or not all of it."""


@dataclass(frozen=True)
class Verification:
    """What was checked, and what is in quarantine (reported, no failure)."""

    findings: tuple[Finding, ...]
    quarantined: tuple[tuple[str, str, str, int], ...]

    @property
    def failures(self) -> tuple[Finding, ...]:
        return tuple(each for each in self.findings if each.is_bad)

    def in_brief(self) -> list[dict[str, Any]]:
        """Each finding with a few of its rows, for the ledger to keep."""
        return [each.in_brief() for each in self.findings]

    def as_json(self) -> dict[str, Any]:
        return {
            "passed": not self.failures,
            "checks": [each.as_json() for each in self.findings],
            "quarantined": [
                dict(zip(("legacy_table", "kind", "reason", "rows"), row, strict=True))
                for row in self.quarantined
            ],
        }


def verify(
    connection: BaseDatabaseWrapper,
    *,
    every_row: bool = False,
) -> Verification:
    """Run every check that applies.  What waits to be settled is settled first.

    With ``every_row`` findings carry all offending rows, otherwise a few examples.
    Raises :class:`NothingToVerify` when the database is not migrated.
    """
    ensure_possible(connection)
    with usage.ours(connection):
        settling.settle(connection)
        findings = _findings(connection, None if every_row else EXAMPLES)
    return Verification(tuple(findings), tuple(_quarantined(connection)))


def _findings(connection: BaseDatabaseWrapper, limit: int | None) -> list[Finding]:
    findings: list[Finding] = []
    both = catalog.has_legacy_tables(connection)
    if both:
        for lens in LENSES:
            findings.append(in_step(connection, lens, limit))
        findings.append(triggers_in_place(connection))
    asked = [each for each in by_hand(both) if both or "@legacy." not in each.query]
    for number, check in enumerate(asked):
        step = f"check {check.name}"
        progress.report(Progress(step, 0, None, 0, f"{number + 1} of {len(asked)}"))
        findings.append(ask(connection, check, limit))
    progress.make_way()
    findings += public_schema_as_made(connection)
    if both:
        findings.append(settled(connection))
    return findings


def ensure_possible(connection: BaseDatabaseWrapper) -> None:
    """Raise :class:`NothingToVerify` unless all migrations of the move are applied."""
    if not catalog.new_table_exists(connection, "order_items"):
        raise NothingToVerify(
            "There is nothing to verify: the new tables are not there."
            " Run: python manage.py migrate"
        )
    if catalog.migrated_at(connection) is None:
        raise NothingToVerify(
            "The migration is half-way, so there is nothing to verify yet."
            " Run: python manage.py migrate"
        )


def _quarantined(
    connection: BaseDatabaseWrapper,
) -> Iterator[tuple[str, str, str, int]]:
    from django.db.models import Count

    rows = (
        Quarantine.objects.using(connection.alias)
        .values_list("legacy_table", "kind", "reason")
        .annotate(number=Count("id"))
        .order_by("legacy_table", "kind", "reason")
    )
    yield from rows


# --- derived -------------------------------------------------------------------------------


def in_step(
    connection: BaseDatabaseWrapper, lens: Lens, limit: int | None = EXAMPLES
) -> Finding:
    """Whether a legacy table is what its rebuilt view says, row for row, held rows aside.

    Ranges of keys are compared by count and checksum, each in one statement and so in one
    snapshot; rows only where those differ.
    """
    name = f"in_step_{lens.legacy}"
    checksums, differences = sql.checksums(lens), sql.differences(lens)
    compared, offending = 0, []
    total = max(0, catalog.planned(connection, lens.legacy)) or None
    with progress.measured(f"compare {lens.legacy}", total) as advance:
        for after, upto in _ranges(connection, lens):
            bounds = {"after": after, "upto": upto}
            rows, before, rows_after, sum_after = catalog.rows(
                connection, checksums, bounds
            )[0]
            compared += rows
            if (rows, before) != (rows_after, sum_after):
                offending += catalog.rows(connection, differences, bounds)
            advance(rows)
    if not offending:
        return passed(
            name,
            f"{lens.legacy} = rebuilt.{lens.legacy}: {counted(compared, 'row')}.",
        )
    return Finding(
        name,
        Severity.FAILS,
        f"{lens.legacy} and rebuilt.{lens.legacy} differ.",
        "If nobody has disabled a trigger, this is a fault of the project: keep the rows"
        " below and report them. To make both agree with the legacy table:"
        " python manage.py settle --again",
        tuple(
            {"id": key, "legacy": before, "rebuilt": after}
            for key, before, after in offending[:limit]
        ),
        len(offending),
    )


def _ranges(connection: BaseDatabaseWrapper, lens: Lens) -> Iterator[tuple[Any, Any]]:
    """The ranges of all keys, those beyond the last legacy row included."""
    after = None
    for after_, upto, _rows in batches.ranges(
        connection, sql.legacy_table(lens.legacy), COMPARED
    ):
        yield after_, upto
        after = upto
    yield after, None


def triggers_in_place(connection: BaseDatabaseWrapper) -> Finding:
    """Whether every trigger that keeps both sides in step is there and always fires."""
    missing = engine.missing_triggers(connection)
    if not missing:
        wanted = len(engine.wanted_triggers(connection))
        return passed("triggers", f"All {wanted} triggers are in place.")
    return Finding(
        "triggers",
        Severity.FAILS,
        "Triggers that keep both sides in step are missing or disabled.",
        "Put them back with: python manage.py settle --again",
        tuple({"table": table, "trigger": name} for table, name in missing),
        len(missing),
    )


def settled(connection: BaseDatabaseWrapper) -> Finding:
    """Whether the queue is empty: it has just been settled."""
    waiting = catalog.value(connection, "SELECT count(*) FROM rebuilt.queue")
    if not waiting:
        return passed("settled", "Nothing waits to be settled.")
    return Finding(
        "settled",
        Severity.WARNS,
        f"Rows that wait to be settled: {waiting:,}.",
        "They have been written since; run: python manage.py settle",
        count=waiting,
    )


def public_schema_as_made(connection: BaseDatabaseWrapper) -> list[Finding]:
    """Whether ``public`` is what the migrations make on an empty database (law 5)."""
    odd = public_schema.differences(connection)
    if not odd:
        return [passed("public_schema", "The new tables are as on a fresh database.")]
    return [
        Finding(
            "public_schema",
            Severity.FAILS,
            "The new tables are not as the migrations make them on an empty database.",
            "Run: python manage.py migrate; if it has nothing to do, somebody has changed"
            " them by hand: change them back.",
            tuple(
                {"object": name, "is": is_, "should be": should}
                for name, is_, should in odd
            ),
            len(odd),
        )
    ]


# --- by hand -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """A query of ``checks.sql``: how bad it is when it returns rows, and what is so then
    (``sentence``) and otherwise (``holds``)."""

    name: str
    severity: Severity
    sentence: str
    holds: str
    query: str


def by_hand(both: bool = True) -> tuple[Check, ...]:
    """The invariants of ``checks.sql``; without ``both`` sides nothing waits for settle."""
    waiting = "SELECT q.key FROM rebuilt.queue q"
    if not both:
        waiting = "SELECT NULL::uuid WHERE false"
    return tuple(
        _parse(name, render(text, waiting=waiting))
        for name, text in statements(Path(__file__).with_name("checks.sql")).items()
    )


def _parse(name: str, text: str) -> Check:
    match = re.match(r"-- (fails|warns): (.+)\n-- holds: (.+)\n", text)
    if match is None:
        raise ValueError(
            f"checks.sql: {name} does not say when it fails and what holds."
        )
    severity, sentence, holds = match.groups()
    return Check(name, Severity(severity), sentence, holds, text[match.end() :].strip())


def ask(
    connection: BaseDatabaseWrapper, check: Check, limit: int | None = EXAMPLES
) -> Finding:
    """Run one check."""
    with connection.cursor() as cursor:
        cursor.execute(check.query)
        names = [column.name for column in cursor.description]
        rows = cursor.fetchall()
    if not rows:
        return passed(check.name, check.holds)
    return Finding(
        check.name,
        check.severity,
        check.sentence,
        "Look at these rows; they were found by a rule that no derived check shares.",
        tuple(dict(zip(names, row, strict=True)) for row in rows[:limit]),
        len(rows),
    )
