"""manage.py preflight: what would go wrong, found before anything is changed."""

from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from terrain.commands import REFUSED
from terrain.commands import Command as BaseCommand
from terrain.legacy import guide, preflight
from terrain.legacy.findings import Finding, Severity
from terrain.legacy.preflight.outlook import Lock, Outlook


class Command(BaseCommand):
    help = (
        "Look at a legacy database and say what the move will do with it: what blocks, what"
        " will be held or flagged, how long it takes. Reads only. Exit code 1 if anything blocks."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON document")

    def handle(self, *args: Any, **options: Any) -> None:
        report = preflight.run(self.connection, accept=settings.PREFLIGHT_ACCEPT)
        if options["json"]:
            self.print_json(report.as_json())
        else:
            self._print(report)
        if report.blockers:
            sys.exit(REFUSED)

    def _print(self, report: preflight.Report) -> None:
        for finding in report.findings:
            self.print_finding(finding)
        if report.outlook is not None:
            self._print_outlook(report.outlook)
        if report.blockers:
            self.say(
                f"Findings that block: {len(report.blockers)}; migrate will not begin."
                " Nothing has been changed."
            )
        else:
            following = guide.next_step(
                guide.steps(self.connection, settings.BACKUP_DIR)
            )
            command = following.command if following else "migration_status"
            self.say(f"Nothing blocks. Next: python manage.py {command}")

    def _print_outlook(self, outlook: Outlook) -> None:
        self.say(
            f"\n{sum(outlook.rows.values()):,} rows, {outlook.bytes / 1e6:,.0f} MB:"
            f" the copies will take about {outlook.seconds:,.0f} s."
        )
        alike: dict[tuple[str, str, str], list[Lock]] = {}
        for lock in outlook.locks:
            alike.setdefault((lock.mode, lock.blocks, lock.lasting), []).append(lock)
        for (mode, blocks, lasting), locks in alike.items():
            steps = ", ".join(lock.step for lock in locks)
            tables = ", ".join(table for lock in locks for table in lock.tables)
            lock_ = "locks" if len(locks) == 1 else "lock, each its own table,"
            self.say(
                f"  {steps} {lock_} {tables}: {mode}, which blocks {blocks}, for {lasting}."
            )

    def print_finding(self, finding: Finding) -> None:
        marks = {Severity.BLOCKS: "✗", Severity.WARNS: "!", Severity.TELLS: "·"}
        mark = self.mark(marks.get(finding.severity, "✓"))
        self.say(f"{mark} {finding.sentence}")
        for row in finding.rows:
            self.say(
                "    " + ", ".join(f"{name} {value}" for name, value in row.items())
            )
        if finding.count > len(finding.rows):
            self.say(f"    … and {finding.count - len(finding.rows):,} more")
        if finding.remedy:
            self.say(f"  → {finding.remedy}")
