"""manage.py verify_migration: the proof, on live data."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from terrain.commands import REFUSED, CannotRun
from terrain.commands import Command as BaseCommand
from terrain.legacy import checks, ledger, report
from terrain.legacy.findings import Severity
from terrain.locks import VERIFY_LOCK
from terrain.words import counted


class Command(BaseCommand):
    is_paced = True
    help = (
        "Prove that nothing was lost: compare every legacy row with what the new schema says"
        " of it, and ask what must be true in any case. Rows in quarantine are reported,"
        " not failures. Changes nothing but what waits to be settled. Exit code 1 on any failure."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--json", action="store_true", help="one JSON document, all rows"
        )
        parser.add_argument(
            "--html", type=Path, metavar="FILE", help="write a report to FILE"
        )
        parser.add_argument(
            "--against",
            type=Path,
            metavar="REPORT",
            help="say what has changed since a saved report, JSON or HTML, and verify"
            " nothing; exit code 1 if anything has",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        as_json, html = options["json"], options["html"]
        try:
            checks.ensure_possible(self.connection)
            if options["against"] is not None:
                self._compare(options["against"], as_json)
                return
            if html is not None:
                report.check_writable(html)
            result = self._verify(as_json)
            if as_json or html is not None:
                document = report.document(self.connection, result)
            if html is not None:
                report.write(html, document)
        except (checks.NothingToVerify, report.Unwritable, report.Altered) as error:
            raise CannotRun(str(error)) from error
        if as_json:
            self.print_json(document)
        else:
            self._print(result, html)
        if result.failures:
            sys.exit(REFUSED)

    def _verify(self, every_row: bool) -> checks.Verification:
        with self._alone(), ledger.recorded("verify") as run:
            result = checks.verify(self.connection, every_row=every_row)
            run.detail = {
                "passed": not result.failures,
                "failures": [each.name for each in result.failures],
                "checks": len(result.findings),
                "findings": result.in_brief(),
            }
        return result

    def _compare(self, file: Path, as_json: bool) -> None:
        then = report.load(file)
        found = report.differences(self.connection, then)
        if as_json:
            self.print_json(
                {
                    "database": then["database"],
                    "then": then["at"],
                    "digest": then["digest"],
                    "differences": [each.as_json() for each in found],
                }
            )
        else:
            self.say(
                f"The report is of {then['database']}, {then['at'][:16].replace('T', ' ')}"
                f" UTC, digest {then['digest']}."
            )
            for each in found:
                self.say(f"{self.mark('!')} {each.sentence}")
            self.say(
                f"Different since: {len(found):,}."
                if found
                else f"{self.mark('✓')} Nothing has changed since."
            )
        if found:
            sys.exit(REFUSED)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two would write one entry of the ledger, and take twice as long."""
        try:
            with ledger.exclusive(self.connection, VERIFY_LOCK):
                yield
        except ledger.Busy as error:
            raise CannotRun(str(error)) from error

    def _print(self, result: checks.Verification, html: Path | None) -> None:
        for finding in result.findings:
            mark = {Severity.FAILS: "✗", Severity.WARNS: "!"}.get(finding.severity, "✓")
            self.say(f"{self.mark(mark)} {finding.name}: {finding.sentence}")
            for row in finding.rows:
                self.say(
                    "    " + ", ".join(f"{name} {value}" for name, value in row.items())
                )
            if finding.count > len(finding.rows) and finding.rows:
                self.say(
                    f"    … and {finding.count - len(finding.rows):,} more (--json has all)"
                )
            if finding.remedy:
                self.say(f"  → {finding.remedy}")
        for table, kind, reason, number in result.quarantined:
            self.say(f"· {counted(number, 'row')} of {table} {kind}: {reason}")
        if html is not None:
            self.say(f"The report is in {html}.")
        if result.failures:
            self.say(
                f"\n{len(result.failures)} of {len(result.findings)} checks failed."
            )
        else:
            self.say(f"\nAll {len(result.findings)} checks passed.")
