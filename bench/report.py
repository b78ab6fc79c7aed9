"""How results are shown: a table for the reader, JSON for the next comparison."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bench import shop

RESULTS = Path(__file__).resolve().parent / "results"


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows in columns; the first is text, the others are numbers."""
    cells = [[_text(cell) for cell in row] for row in rows]
    widths = [
        max(len(row[place]) for row in [list(headings), *cells])
        for place in range(len(headings))
    ]
    print(f"\n{title}\n")
    for row in [list(headings), *cells]:
        print(
            "  ".join(
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
        )
    print(flush=True)


def each_scale(
    name: str,
    parser: argparse.ArgumentParser,
    measure: Callable[[float, argparse.Namespace], Any],
    show: Callable[[Any], None],
) -> None:
    """Measure at every scale asked for (0.1), show each, and save all under ``name``."""
    options = parser.parse_args()
    shop.CLUSTER.lease()
    results = []
    for scale in options.scale or [0.1]:
        results.append(measure(scale, options))
        show(results[-1])
    save(name, results)


def _text(cell: Any) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:,.2f}" if abs(cell) < 100 else f"{cell:,.0f}"
    if isinstance(cell, int):
        return f"{cell:,}"
    return str(cell)


def save(name: str, results: Any) -> Path:
    """Write what was measured, and on what, to a file of its own."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    path = RESULTS / f"{name}-{now:%Y%m%dT%H%M%S}.json"
    version = shop.ask("postgres", "SHOW server_version")[0][0]
    document = {
        "measured": now.isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg(),
        "python": platform.python_version(),
        "postgresql": version,
        "results": results,
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {path.relative_to(shop.BASE_DIR)}")
    return path


def arguments(description: str) -> argparse.ArgumentParser:
    """What every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--scale",
        type=float,
        action="append",
        help="size of the shop; 1 is half a million orders (again for another; 0.1)",
    )
    return parser
