"""Backing up, proving and restoring, against pg_dump and pg_restore as they are typed by hand.

In each round every way takes its turn on the same shop, another first each time: ``taken``
(``dumping.take``: dump, fingerprints, checksums, manifest) beside ``pg_dump -Fd`` with as many
jobs and the same compression; ``proven`` (``proof.prove``: scratch database, restore, every
comparison) beside ``pg_restore`` of the same dump and one scan of each side.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import report, shop
from terrain.embedded import OWNER
from terrain.legacy.backup import dumping, fingerprints, proof, tools
from terrain.legacy.backup.manifest import Backup
from terrain.legacy.backup.server import Server
from terrain.legacy.backup.telling import Teller

JOBS = 2


def server(database: str) -> Server:
    params = {"host": str(shop.CLUSTER.socket_dir), "port": "5432", "user": OWNER}
    return Server(database, params, shop.CLUSTER)


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    shop.checkpoint()
    started = time.perf_counter()
    result = action()
    return time.perf_counter() - started, result


def bare_dump(source: Server, folder: Path) -> None:
    """What somebody would type, compressed as we do."""
    found = tools.find(source, shop.CLUSTER.version)
    method = found.compression()
    subprocess.run(
        [
            found.program("pg_dump"),
            *("-Fd", f"-j{JOBS}", f"--file={folder}", f"--compress={method}"),
            f"--dbname={source.target(source.database)}",
        ],
        check=True,
        env=source.environment(),
    )


def bare_restore(source: Server, folder: Path, database: str) -> None:
    found = tools.find(source, shop.CLUSTER.version)
    subprocess.run(
        [
            found.program("pg_restore"),
            *("-Fd", f"-j{JOBS}", f"--dbname={source.target(database)}"),
            str(folder),
        ],
        check=True,
        env=source.environment(),
    )


def scan(source: Server, database: str) -> None:
    """One look at every row, as a comparison has to."""
    with source.connect(database) as connection:
        with fingerprints.one_moment(connection):
            fingerprints.of(connection)


def measure(scale: float, rounds: int) -> dict[str, Any]:
    source = server(shop.shop(scale))
    seconds: dict[str, list[float]] = {}
    size = 0
    for number in range(rounds):
        with folder() as place:
            taken = _round(source, place, seconds, project_first=number % 2 == 1)
            size = taken.size
    return {
        "scale": scale,
        "rounds": rounds,
        "megabytes": size / 1e6,
        "seconds": {way: statistics.median(each) for way, each in seconds.items()},
        "each": seconds,
        "taken_times_bare": _ratio(seconds, ["taken"], ["pg_dump"]),
        "proven_times_bare": _ratio(
            seconds, ["proven"], ["pg_restore", "scan", "scan of the copy"]
        ),
    }


def _ratio(seconds: dict[str, list[float]], ours: list[str], bare: list[str]) -> float:
    """The median over the rounds of ours, times the bare ones."""
    return statistics.median(
        sum(mine) / sum(theirs)
        for mine, theirs in zip(
            zip(*(seconds[way] for way in ours), strict=True),
            zip(*(seconds[way] for way in bare), strict=True),
            strict=True,
        )
    )


def _round(
    source: Server, place: Path, seconds: dict[str, list[float]], project_first: bool
) -> Backup:
    found: dict[str, Any] = {}

    def turn(way: str, action: Callable[[], Any]) -> None:
        took, found[way] = timed(action)
        seconds.setdefault(way, []).append(took)

    def ours() -> None:
        turn("taken", lambda: dumping.take(source, place, JOBS, Teller()))
        turn("proven", lambda: proof.prove(source, found["taken"], JOBS, Teller()))

    def bare() -> None:
        turn("pg_dump", lambda: bare_dump(source, place / "bare"))
        with shop.empty() as copy:
            turn("pg_restore", lambda: bare_restore(source, place / "bare", copy))
            turn("scan", lambda: scan(source, source.database))
            turn("scan of the copy", lambda: scan(source, copy))
        shutil.rmtree(place / "bare")

    for each in (ours, bare) if project_first else (bare, ours):
        each()
    proven: Backup = found["proven"]
    return proven


@contextmanager
def folder() -> Iterator[Path]:
    """Beside the server's data: what is measured is one disk's."""
    with tempfile.TemporaryDirectory(dir=shop.CLUSTER.folder.parent) as name:
        yield Path(name)


def show(results: dict[str, Any]) -> None:
    ratios = {
        "taken": results["taken_times_bare"],
        "proven": results["proven_times_bare"],
    }
    report.table(
        f"Backing up at scale {results['scale']:g}, median of {results['rounds']}"
        f" ({results['megabytes']:,.1f} MB)",
        ["", "seconds", "times bare"],
        [[way, took, ratios.get(way)] for way, took in results["seconds"].items()],
    )


def main() -> None:
    parser = report.arguments(__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=3, help="how often (3)")
    report.each_scale(
        "backups", parser, lambda scale, options: measure(scale, options.rounds), show
    )


if __name__ == "__main__":
    main()
