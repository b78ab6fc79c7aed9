"""manage.py preflight: what would go wrong, found before anything is changed."""

from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from terrain import locks
from terrain.blockers import Blocker, Mode
from terrain.commands import REFUSED
from terrain.commands import Command as BaseCommand
from terrain.legacy import guide, preflight
from terrain.legacy.findings import Finding, Severity
from terrain.legacy.preflight.locking import Lock
from terrain.legacy.preflight.outlook import Outlook


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
        self.say(
            f"What it locks. Each try waits {locks.FIRST_TIMEOUT} to {locks.LOCK_TIMEOUT} ms for"
            f" its lock, then steps aside; after {locks.TOTAL_LIMIT:.0f} s it stops, and can be"
            " run again."
        )
        self.print_table(
            ["step", "lock", "who waits meanwhile", "ms", "tables at a time"],
            [self._row(lock) for lock in outlook.locks],
            {3, 4},
        )
        self._print_in_the_way(outlook)

    def _row(self, lock: Lock) -> list[Any]:
        nobody = lock.mode == Mode.SHARE_UPDATE_EXCLUSIVE
        milliseconds = "" if nobody else f"{lock.seconds * 1000:,.0f}"
        return [lock.step, lock.mode, lock.blocks, milliseconds, lock.together]

    def _print_in_the_way(self, outlook: Outlook) -> None:
        """Each of them once, with all that they would hold up."""
        found: dict[str, tuple[Blocker, list[str]]] = {}
        for lock in outlook.locks:
            for blocker in lock.in_the_way:
                _, steps = found.setdefault(blocker.transaction, (blocker, []))
                steps.append(lock.step)
        if not found:
            self.say("Nobody would be in the way of these locks now.")
        for blocker, steps in found.values():
            self.say(f"  In the way now: {blocker}")
            self.say(f"    of: {', '.join(steps)}")

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
