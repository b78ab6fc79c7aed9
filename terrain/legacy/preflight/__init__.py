"""What would go wrong, found before anything is changed.  Reads only.

Every question is a function that yields findings; ``run`` asks them all.  What blocks can
be accepted by name (PREFLIGHT_ACCEPT), where that makes sense at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from terrain import progress
from terrain.legacy import catalog, usage
from terrain.legacy.findings import Finding, Severity
from terrain.legacy.preflight import locking
from terrain.legacy.preflight.asking import Question, Situation
from terrain.legacy.preflight.at_cut_over import CUT_OVER_QUESTIONS
from terrain.legacy.preflight.other_roles import ROLE_QUESTIONS
from terrain.legacy.preflight.outlook import Outlook, outlook
from terrain.legacy.preflight.reach import REACH_QUESTIONS
from terrain.legacy.preflight.replication import REPLICATION_QUESTIONS
from terrain.legacy.preflight.rows import ROW_QUESTIONS
from terrain.legacy.preflight.server import SERVER_QUESTIONS
from terrain.legacy.preflight.shape import SHAPE_QUESTIONS, schema_owners
from terrain.progress import Progress

#: Blocking findings that an operator may decide to live with.
ACCEPTABLE = (
    "public-create",
    "publications",
    "prepared-transactions",
    "disk",
)

#: Findings after which looking at rows would only fail.
_SHAPE = ("tables", "columns", "schemas", "privileges", "server")

#: What is worth asking before the cut-over.
_AHEAD = (*REPLICATION_QUESTIONS, *ROLE_QUESTIONS, *CUT_OVER_QUESTIONS)


@dataclass(frozen=True)
class Report:
    """All findings, and what the move will be like (None: there is nothing to move)."""

    findings: tuple[Finding, ...]
    outlook: Outlook | None = None

    @property
    def blockers(self) -> tuple[Finding, ...]:
        return tuple(each for each in self.findings if each.severity == Severity.BLOCKS)

    def as_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "blocked": bool(self.blockers),
            "findings": [each.as_json() for each in self.findings],
        }
        if self.outlook is not None:
            document |= {
                "rows": dict(self.outlook.rows),
                "bytes": self.outlook.bytes,
                "estimated_seconds": round(self.outlook.seconds, 1),
                "locks": [each.as_json() for each in self.outlook.locks],
            }
        return document


def run(
    connection: BaseDatabaseWrapper,
    *,
    accept: Collection[str] = (),
    **known: Any,
) -> Report:
    """Ask everything.  The proof and the forecast are only made where the shape is right.

    ``known`` are further fields of the :class:`Situation`.
    """
    situation = Situation(connection, catalog.legacy_tables(connection), **known)
    foreign = tuple(schema_owners(situation))
    if foreign:  # nothing is read in these schemas
        return Report(foreign)
    seen = locking.transactions(connection)
    findings = [*_accept_is_known(accept), *_ask(SERVER_QUESTIONS, situation)]
    if not situation.tables:
        return Report(
            (*findings, Finding("tables", Severity.TELLS, _no_tables(situation)))
        )
    if not situation.is_to_begin:
        findings.append(
            Finding(
                "tables",
                Severity.TELLS,
                "The migration has begun. The findings are those of a migration that begins now.",
            )
        )
    findings += _ask(SHAPE_QUESTIONS, situation)
    if not _any(findings, "privileges"):  # another role would see other things
        findings += _ask(REACH_QUESTIONS, situation)
        if not catalog.where(connection).is_cut_over:
            findings += _ask(_AHEAD, situation)
    if not _any(findings, *_SHAPE):
        with usage.ours(connection):
            findings += _ask(ROW_QUESTIONS, situation)
    return Report(
        tuple(_accepted(each, accept) for each in findings), outlook(situation, seen)
    )


def _no_tables(situation: Situation) -> str:
    if catalog.new_table_exists(situation.connection, "order_items"):
        return "There are no legacy tables, and the new ones are there: nothing is to move."
    return "There are no legacy tables: migrate will make the new schema, empty."


def _any(findings: list[Finding], *names: str) -> bool:
    return any(each.is_bad and each.name in names for each in findings)


def _ask(questions: tuple[Question, ...], situation: Situation) -> Iterator[Finding]:
    for number, question in enumerate(questions, 1):
        what = (question.__doc__ or "").partition("\n")[0].rstrip(".")
        progress.report(Progress(what, 0, None, 0, f"{number} of {len(questions)}"))
        yield from question(situation)
    progress.make_way()


def _accept_is_known(accept: Collection[str]) -> Iterator[Finding]:
    """A name with a slip in it would accept nothing, and nobody would know why."""
    for name in accept:
        if name not in ACCEPTABLE:
            yield Finding(
                "accept",
                Severity.WARNS,
                f"PREFLIGHT_ACCEPT names {name}, which cannot be accepted.",
                f"It may name: {', '.join(ACCEPTABLE)}.",
            )


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
