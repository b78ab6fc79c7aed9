"""The old application at work while it is moved: what it waits, and whether it loses anything.

The same clients work on three clones of one shop: beside the project's own commands, there
and back, with the new application at work whenever it has its tables, and a cut-over and its
undoing in each round; beside nothing; and
beside the plain way, the same renames and copies in a single transaction.  What both
applications were told is compared with what is there after each move.
"""

from __future__ import annotations

import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import chart, clients, plain, remembered, report, shop
from bench.move import Plan, beside_clients, copies, project
from bench.phases import ROUND_COLUMNS, Turn, rounds, waits

#: What the clients may be kept waiting, in seconds.
WANTED = 0.25
#: Seconds that the untouched database is watched at most: one checkpoint and more.
UNTOUCHED = 330.0


# --- beside it -----------------------------------------------------------------------------


def undisturbed(plan: Plan) -> dict[str, float]:
    """Seconds of each copy when nobody else is there."""
    with shop.clone(shop.shop(plan.scale)) as database:
        print("undisturbed: migrate", file=sys.stderr)
        shop.run(database, "manage.py", "migrate", "--verbosity", "0")
        return copies(database)


def untouched(plan: Plan, seconds: float) -> Turn:
    """The clients, and nothing else."""
    turn = Turn("untouched")
    template = shop.shop(plan.scale)
    with shop.clone(template) as database:
        clients.admit(database)
        with beside_clients(turn, database, plan):
            turn.quiet("untouched", seconds)
        _judge_one(turn, database, "public", template)
    return turn


def in_one_transaction(plan: Plan) -> Turn:
    """The plain way."""
    turn = Turn("plain")
    with shop.clone(shop.reference(plan.scale)) as database:
        plain.undo_names(database)
        clients.admit(database)
        with beside_clients(turn, database, plan):
            turn.quiet("before", plan.quiet)
            with turn.phase("one transaction"):
                plain.move(database)
            turn.quiet("after", plan.quiet)
        _judge_one(turn, database, "legacy", shop.shop(plan.scale))
    return turn


def _judge_one(turn: Turn, database: str, schema: str, template: str) -> None:
    before = remembered.Before(template)
    with shop.connect(database) as connection:
        turn.found(remembered.faults(connection, schema, before, turn.told))


# --- what comes of it ----------------------------------------------------------------------


def measure(plan: Plan) -> tuple[list[Turn], dict[str, Any]]:
    """All ways' turns, and what they say about what is wanted."""
    alone = undisturbed(plan)
    mine = project(plan)
    length = mine.phases[-1].ended - mine.phases[0].began
    turns = [
        mine,
        untouched(plan, min(max(length, plan.quiet), UNTOUCHED)),
        in_one_transaction(plan),
    ]
    phases = {turn.way: waits(turn.told, turn.phases) for turn in turns}
    seen = {way: {each.phase: each for each in found} for way, found in phases.items()}
    first = [phase for phase in mine.phases if phase.round <= 1]
    copy = next(w for w in waits(mine.told, first) if w.phase == "migrate, copy")
    statements = sum(each.statements for each in phases["project"])
    results = {
        "plan": asdict(plan),
        "statements": statements,
        "per_second": statements / sum(each.seconds for each in phases["project"]),
        "failed": len(mine.told.refused),
        "faults": len(mine.faults),
        "longest": max(each.longest for each in phases["project"]),
        "longest_untouched": seen["untouched"]["untouched"].longest,
        "longest_plain": seen["plain"]["one transaction"].longest,
        "throughput_during_copy": copy.per_second
        / seen["project"]["before"].per_second,
        "speed_of_copy": sum(alone.values()) / sum(mine.copies.values()),
        "copies": {"undisturbed": alone, "project": mine.copies},
        "phases": {
            way: [asdict(each) for each in found] for way, found in phases.items()
        },
        "rounds": [asdict(each) for each in rounds(mine)],
        "again": mine.again,
        "late": mine.late,
        "swaps": [seconds * 1000 for seconds in mine.swaps],
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "new": _of_the_new(mine),
        "refused": {turn.way: turn.told.refused[:50] for turn in turns},
        "wrong": {turn.way: turn.faults[:50] for turn in turns},
        "slow": {turn.way: turn.slow for turn in turns},
    }
    return turns, results


def _of_the_new(mine: Turn) -> dict[str, Any]:
    """What the new application saw: acts (a statement or a few), and those it let go of."""
    taken = sorted(mine.new.seconds) or [0.0]
    return {
        "acts": len(mine.new.started),
        "failed": len(mine.new.refused),
        "gave_way": len(mine.new.gave_way),
        "p50": taken[len(taken) // 2] * 1000,
        "p99": taken[int(0.99 * (len(taken) - 1))] * 1000,
        "longest": taken[-1] * 1000,
        "refused": mine.new.refused[:50],
    }


def show(results: dict[str, Any]) -> None:
    plan = results["plan"]
    for way, phases in results["phases"].items():
        report.table(
            f"{way}, scale {plan['scale']:g}, {plan['rate']:g} acts/s wanted; milliseconds",
            ["", "s", "statements", "/s", "failed", "p50", "p99", "p99.9", "longest"],
            [list(each.values()) for each in phases],
        )
        for said in [*results["refused"][way][:5], *results["wrong"][way][:5]]:
            print(f"  wrong: {said}")
        for said in results["slow"][way][:5]:
            print(f"  {said}")
    if len(results["rounds"]) > 1:
        report.table(
            "Rounds there and back",
            ROUND_COLUMNS,
            [list(each.values()) for each in results["rounds"]],
        )
    new = results["new"]
    for said in [*new["refused"][:5], *results["again"][:5]]:
        print(f"  wrong: {said}")
    report.table(
        "Wanted and found",
        ["", "wanted", "found"],
        [
            ["statements", None, results["statements"]],
            ["  a second", 500, results["per_second"]],
            ["there and back", plan["rounds"], len(results["rounds"])],
            ["failed statements", 0, results["failed"]],
            ["lost or wrong values", 0, results["faults"]],
            ["rows late until the next settle", None, results["late"]],
            ["commands run once more", 0, len(results["again"])],
            ["acts of the new application", None, new["acts"]],
            ["  failed", 0, new["failed"]],
            ["  gave way after all its patience", None, new["gave_way"]],
            ["cut over and undone", 2 * plan["rounds"], len(results["swaps"])],
            ["  longest locked, ms", None, max(results["swaps"], default=None)],
            ["longest wait, ms", WANTED * 1000, results["longest"]],
            ["  of the untouched database", None, results["longest_untouched"]],
            ["  of the plain way", None, results["longest_plain"]],
            ["throughput during the copy", 0.8, results["throughput_during_copy"]],
            ["speed of the copy", 0.5, results["speed_of_copy"]],
            ["MB of this process", None, results["megabytes"]],
        ],
    )


def main() -> None:
    parser = report.arguments(__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--rate", type=float, default=600, help="acts a second (600)")
    parser.add_argument(
        "--rounds", type=int, default=1, help="how often there and back (1)"
    )
    parser.add_argument(
        "--quiet", type=float, default=10, help="seconds before and after (10)"
    )
    parser.add_argument(
        "--backup", action="store_true", help="with backup_database, as upgrade does"
    )
    parser.add_argument("--chart", type=Path, help="write the chart to this SVG file")
    options = parser.parse_args()
    shop.CLUSTER.lease()
    saved = []
    for scale in options.scale or [0.1]:
        plan = Plan(scale, options.rate, options.rounds, options.quiet, options.backup)
        turns, results = measure(plan)
        show(results)
        saved.append(results)
        if options.chart:
            drawn = chart.draw(chart.panels(turns), WANTED)
            options.chart.write_text(drawn, encoding="utf-8")
    report.save("live", saved)


if __name__ == "__main__":
    main()
