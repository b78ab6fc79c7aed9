"""Copying assets, tables and orders: the project against a plain statement and RunPython.

The three take turns on clones of the same shop, so that whatever else the machine does meanwhile
falls on all.  That they make the same rows is checked before anything is reported.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import report, shop


@dataclass(frozen=True)
class Subject:
    """What is copied: the legacy tables, and the new ones that come of them.

    ``rows`` is the table whose rows are counted; ``unlike`` are columns that no two ways
    of copying fill alike.
    """

    name: str
    legacy: tuple[str, ...]
    new: tuple[str, ...]
    rows: str
    unlike: tuple[str, ...] = ()


SUBJECTS = (
    Subject("assets", ("assets",), ("models",), "models"),
    Subject(
        "tables",
        ("user_tables", "example_tables"),
        ("anonymous_sessions", "tables"),
        "tables",
        ("session_token",),
    ),
    Subject(
        "orders",
        ("orders",),
        ("orders", "order_items"),
        "order_items",
        # By way of Python 8.50 becomes 8.5.
        ("pricing",),
    ),
)


@dataclass
class Copied:
    """One way's turn: seconds and, where it is known, megabytes, by subject; the rest."""

    seconds: dict[str, float] = field(default_factory=dict)
    megabytes: dict[str, float] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)


def project(scale: float) -> Copied:
    """``manage.py migrate``: each copy, then what its tables' indexes and constraints take."""
    with shop.clone(shop.shop(scale)) as database:
        shop.checkpoint()
        run = shop.run(database, "-m", "bench.watch", "migrate", "--verbosity", "0")
        builds, copies = run.said["builds"], run.said["copies"]
        done = Copied()
        for subject in SUBJECTS:
            touched = {*subject.legacy, *subject.new}
            done.seconds[subject.name] = sum(
                copies[table] for table in subject.legacy
            ) + sum(builds.get(table, 0.0) for table in touched)
            done.megabytes[subject.name] = run.megabytes
        _judge(database, "terrain", done)
        done.more = {
            "migrate_seconds": run.seconds,
            "builds": builds,
            "copies": copies,
            "legacy_bytes": shop.size(database, "public", shop.LEGACY),
            "new_bytes": shop.size(database, "terrain", NEW_TABLES),
        }
        return done


NEW_TABLES = (
    "users",
    "anonymous_sessions",
    "models",
    "tables",
    "orders",
    "order_items",
    "payments",
)


def plain(scale: float) -> Copied:
    """The statements of the ``.sql`` files beside this one, each file one transaction."""
    with shop.clone(shop.reference(scale)) as database:
        done = Copied()
        # The limits of tables are for people, not for what was there before them.
        with shop.connect(database, options="-c terrain.sync=on") as connection:
            connection.execute(statements("accounts"))  # type: ignore[call-overload]
            for subject in SUBJECTS:
                shop.checkpoint()
                started = time.perf_counter()
                with connection.transaction():
                    connection.execute(statements(subject.name))  # type: ignore[call-overload]
                done.seconds[subject.name] = time.perf_counter() - started
        _judge(database, "public", done)
        return done


def textbook(scale: float) -> Copied:
    """RunPython as the documentation has it."""
    with shop.clone(shop.reference(scale)) as database:
        done = Copied()
        with shop.connect(database) as connection:
            connection.execute(statements("accounts"))  # type: ignore[call-overload]
        for subject in SUBJECTS:
            shop.checkpoint()
            run = shop.run(database, "-m", "bench.textbook", subject.name)
            done.seconds[subject.name] = run.said["seconds"]
            done.megabytes[subject.name] = run.megabytes
        _judge(database, "public", done)
        return done


WAYS: Mapping[str, Callable[[float], Copied]] = {
    "project": project,
    "plain": plain,
    "textbook": textbook,
}


def statements(name: str) -> str:
    return Path(__file__).with_name(f"{name}.sql").read_text(encoding="utf-8")


def _judge(database: str, schema: str, done: Copied) -> None:
    """Count and add up what was made: new tables in ``schema``."""
    for subject in SUBJECTS:
        done.rows[subject.name] = shop.rows(database, f"{schema}.{subject.rows}")
        without = ", ".join(f"'{name}'" for name in subject.unlike)
        for table in subject.new:
            query = (
                "SELECT count(*), sum(hashtextextended((to_jsonb(t)"
                f" - ARRAY[{without}]::text[])::text, 0)::numeric) FROM {schema}.{table} t"
            )
            done.checksums[table] = str(shop.ask(database, query)[0])


def measure(scale: float, rounds: int, ways: list[str]) -> dict[str, Any]:
    """Let the ways take turns; returns their medians and the ratios of the same round."""
    shop.shop(scale), shop.reference(scale)
    turns: dict[str, list[Copied]] = {way: [] for way in ways}
    for number in range(rounds):
        # Another first each time.
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
            print(
                f"scale {scale:g}, round {number + 1} of {rounds}: {way}",
                file=sys.stderr,
            )
            turns[way].append(WAYS[way](scale))
    _check_alike(turns)
    return {
        "scale": scale,
        "rounds": rounds,
        "subjects": [_summary(subject, turns) for subject in SUBJECTS],
        "turns": {way: [vars(turn) for turn in each] for way, each in turns.items()},
    }


def _check_alike(turns: dict[str, list[Copied]]) -> None:
    """Whoever makes fewer rows, or other ones, is no reference."""
    made = {
        (way, table): turn.checksums[table]
        for way, each in turns.items()
        for turn in each
        for table in turn.checksums
    }
    for table in {table for _way, table in made}:
        if len({made[way, table] for way in turns}) > 1:
            raise shop.Failed(f"The ways do not make the same rows of {table}: {made}")


def _summary(subject: Subject, turns: dict[str, list[Copied]]) -> dict[str, Any]:
    seconds = {
        way: [turn.seconds[subject.name] for turn in each]
        for way, each in turns.items()
    }
    memory = {
        way: max(turn.megabytes.get(subject.name, 0.0) for turn in each)
        for way, each in turns.items()
    }
    count = next(iter(turns.values()))[0].rows[subject.name]
    found: dict[str, Any] = {"subject": subject.name, "rows": count}
    for way, taken in seconds.items():
        found[way] = {
            "seconds": statistics.median(taken),
            "microseconds_a_row": statistics.median(taken) * 1e6 / count,
            "megabytes": memory[way] or None,
        }
        if "plain" in seconds:
            found[way]["times_plain"] = statistics.median(
                mine / plain
                for mine, plain in zip(taken, seconds["plain"], strict=True)
            )
    return found


def show(results: dict[str, Any], ways: list[str]) -> None:
    rows = [
        [
            subject["subject"] if way == ways[0] else "",
            way,
            subject["rows"],
            subject[way].get("times_plain"),
            subject[way]["seconds"],
            subject[way]["microseconds_a_row"],
            subject[way]["megabytes"],
        ]
        for subject in results["subjects"]
        for way in ways
    ]
    report.table(
        f"Copying at scale {results['scale']:g}, median of {results['rounds']}",
        ["", "way", "rows", "times plain", "seconds", "µs a row", "MB of Python"],
        rows,
    )


def main() -> None:
    parser = report.arguments(__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument(
        "--rounds", type=int, default=3, help="how often each takes its turn (3)"
    )
    parser.add_argument(
        "--ways",
        default="project,plain,textbook",
        help="which take part; the textbook takes long at scale 1 (all)",
    )
    options = parser.parse_args()
    ways = options.ways.split(",")
    shop.CLUSTER.lease()
    results = []
    for scale in options.scale or [0.1]:
        results.append(measure(scale, options.rounds, ways))
        show(results[-1], ways)
    report.save("copying", results)


if __name__ == "__main__":
    main()
