"""Run a management command as manage.py does, and say where its statements' time went.

``python -m bench.watch migrate``: to the file that BENCH_REPORT names it writes the seconds of
each statement that builds or looks through a table, by table, and those of each copy by
the project's own ledger.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

_BUILDS = re.compile(
    r"(?P<verb>ANALYZE(?: \(SKIP_LOCKED\))?|CREATE (?:UNIQUE )?INDEX|ALTER TABLE|UPDATE)(?= )"
    r"(?:.*? ON)? ?(?:\"?\w+\"?\.)?\"?(?P<table>\w+)\"?",
    re.DOTALL,
)


class Watch:
    """Seconds of the statements that build something, by table."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def __call__(
        self,
        execute: Callable[..., Any],
        statement: str,
        params: Any,
        many: bool,
        context: Any,
    ) -> Any:
        started = time.perf_counter()
        try:
            return execute(statement, params, many, context)
        finally:
            found = _BUILDS.match(str(statement))
            if found is not None:
                self.seconds[found["table"]] += time.perf_counter() - started


def copies() -> dict[str, float]:
    """Seconds of each copy, by legacy table."""
    from terrain.legacy.models import Run

    return {
        step.removeprefix("copy "): seconds
        for step, seconds in Run.objects.filter(step__startswith="copy ").values_list(
            "step", "seconds"
        )
    }


def main() -> int:
    import django
    from django.db import connection

    from terrain import cli

    django.setup()
    watch = Watch()
    with connection.execute_wrapper(watch):
        code = cli.run(["manage.py", *sys.argv[1:]])
    Path(os.environ["BENCH_REPORT"]).write_text(
        json.dumps({"builds": watch.seconds, "copies": copies()}), encoding="utf-8"
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
