"""The old application at work while it is moved: what it waits, and whether it loses anything.

The same clients work on three clones of one shop: beside the project's own commands, there
and back; beside nothing; and beside the plain way, the same renames and copies in a single
transaction.  What they were told is compared with what is there at the end.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import chart, clients, copying, remembered, report, shop
from bench.clients import Load
from bench.traffic import TABLES, Told
from bench.waits import Watch

#: The guide, forward; what it does meanwhile is for the clients not to notice.
FORWARD = (
    "preflight",
    "migrate",
    "settle",
    "copy_models_to_assets",
    "verify_migration",
)
#: What the clients may be kept waiting, in seconds.
WANTED = 0.25


@dataclass(frozen=True)
class Phase:
    """Something that went on meanwhile, by the clock."""

    name: str
    began: float
    ended: float


@dataclass
class Turn:
    """One way's turn: what went on, what the clients saw of it, and what was wrong."""

    way: str
    phases: list[Phase] = field(default_factory=list)
    told: Told = field(default_factory=Told)
    faults: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    copies: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        print(f"{self.way}: {name}", file=sys.stderr)
        began = time.time()
        yield
        self.phases.append(Phase(name, began, time.time()))

    def quiet(self, name: str, seconds: float) -> None:
        """Nothing but the clients."""
        with self.phase(name):
            time.sleep(seconds)


@dataclass(frozen=True)
class Waits:
    """What the clients saw of a phase; times are milliseconds."""

    phase: str
    seconds: float
    statements: int
    per_second: float
    failed: int
    p50: float
    p99: float
    p999: float
    longest: float


def waits(turn: Turn) -> list[Waits]:
    """By phase, in order of appearance; phases of one name are one."""
    names = list(dict.fromkeys(phase.name for phase in turn.phases))
    return [
        _waits(turn.told, name, [p for p in turn.phases if p.name == name])
        for name in names
    ]


def _waits(told: Told, name: str, phases: list[Phase]) -> Waits:
    def within(moment: float) -> bool:
        return any(phase.began <= moment < phase.ended for phase in phases)

    taken = sorted(
        seconds
        for at, seconds in zip(told.started, told.seconds, strict=True)
        if within(at)
    )
    length = sum(phase.ended - phase.began for phase in phases)

    def quantile(part: float) -> float:
        return taken[int(part * (len(taken) - 1))] * 1000 if taken else 0.0

    return Waits(
        name,
        length,
        len(taken),
        len(taken) / length if length else 0.0,
        sum(within(at) for at, _kind, _said in told.refused),
        *map(quantile, (0.5, 0.99, 0.999, 1)),
    )


# --- the three ways ------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What is measured: the shop's size, the clients' rate, and how long and how often."""

    scale: float
    rate: float = 600
    rounds: int = 1
    quiet: float = 10
    backup: bool = False


@contextmanager
def _beside_clients(turn: Turn, database: str, rate: float) -> Iterator[Load]:
    with ExitStack() as stack:
        watch = stack.enter_context(Watch(database))
        load = stack.enter_context(clients.at_work(database, rate=rate))
        yield load
    turn.told = load.told
    turn.slow = [str(seen) for seen in watch.seen[:20]]


def project(plan: Plan) -> Turn:
    """There, back, and there again, as often as the plan says."""
    turn = Turn("project")
    template = shop.shop(plan.scale)
    with shop.clone(template) as database:
        clients.admit(database)
        shop.run(database, "manage.py", "prepare_database")
        with _beside_clients(turn, database, plan.rate):
            turn.quiet("before", plan.quiet)
            if plan.backup:
                _back_up(turn, database)
            for _ in range(plan.rounds):
                _forward(turn, database)
                turn.quiet("in step", plan.quiet / 2)
                with turn.phase("rollback"):
                    shop.run(database, "manage.py", "rollback_migration", "--yes")
                turn.quiet("back", plan.quiet / 2)
            _forward(turn, database)
            turn.quiet("after", plan.quiet)
        turn.copies = _copies(database)
        _judge(turn, database, template)
    return turn


def _forward(turn: Turn, database: str) -> None:
    for command in FORWARD:
        if command == "verify_migration":
            with turn.phase(command):
                _verify(turn, database)
            continue
        if command != "migrate":
            with turn.phase(command):
                shop.run(database, "manage.py", command)
            continue
        began = time.time()
        print(f"{turn.way}: migrate", file=sys.stderr)
        shop.run(database, "manage.py", command)
        turn.phases += _parts(database, began, time.time())


def _parts(database: str, began: float, ended: float) -> list[Phase]:
    """What ``migrate`` did when, by its own ledger."""
    runs = shop.ask(
        database,
        "SELECT split_part(step, ' ', 1), extract(epoch FROM started_at)::float,"
        "       extract(epoch FROM finished_at)::float FROM public.legacy_run"
        " WHERE split_part(step, ' ', 1) IN ('move', 'copy') AND finished_at IS NOT NULL"
        f"  AND extract(epoch FROM started_at) > {began:.6f} ORDER BY started_at",
    )
    parts, at = [], began
    for step, start, end in runs:
        if start > at:
            parts.append(Phase("migrate, the rest", at, start))
        parts.append(Phase(f"migrate, {step}", start, end))
        at = end
    return [*parts, Phase("migrate, the rest", at, ended)]


def _copies(database: str) -> dict[str, float]:
    """Seconds of the first copy of each table: later ones find most rows there."""
    found = shop.ask(
        database,
        "SELECT step, seconds FROM public.legacy_run WHERE step LIKE 'copy %' ORDER BY id DESC",
    )
    return dict(found)


def _back_up(turn: Turn, database: str) -> None:
    with tempfile.TemporaryDirectory() as folder, turn.phase("backup_database"):
        shop.run(database, "manage.py", "backup_database", "--output", folder)


def _judge(turn: Turn, database: str, template: str) -> None:
    """Nothing lost or doubled, on either side; and all that verification looks at."""
    for schema in ("legacy", "rebuilt"):
        turn.faults += remembered.faults(database, schema, template, turn.told)
    shop.run(database, "manage.py", "settle")
    _verify(turn, database)


def _verify(turn: Turn, database: str) -> None:
    """What verification finds wrong is a fault of the turn's, not its end."""
    try:
        shop.run(database, "manage.py", "verify_migration")
    except shop.Failed as failed:
        said = str(failed)
        if "✗" not in said:
            raise
        turn.faults += [
            " ".join(line.split())[:400]
            for line in re.split(r"\n(?=\S)", said)
            if line.startswith("✗")
        ]


def undisturbed(plan: Plan) -> dict[str, float]:
    """Seconds of each copy when nobody else is there."""
    with shop.clone(shop.shop(plan.scale)) as database:
        print("undisturbed: migrate", file=sys.stderr)
        shop.run(database, "manage.py", "migrate", "--verbosity", "0")
        return _copies(database)


def untouched(plan: Plan, seconds: float) -> Turn:
    """The clients, and nothing else."""
    turn = Turn("untouched")
    template = shop.shop(plan.scale)
    with shop.clone(template) as database:
        clients.admit(database)
        with _beside_clients(turn, database, plan.rate):
            turn.quiet("untouched", seconds)
        turn.faults = remembered.faults(database, "public", template, turn.told)
    return turn


def plain(plan: Plan) -> Turn:
    """The renames and copies in one transaction, as the statements of bench/copying."""
    turn = Turn("plain")
    template = shop.shop(plan.scale)
    with shop.clone(shop.reference(plan.scale)) as database:
        _undo_names(database)
        clients.admit(database)
        with _beside_clients(turn, database, plan.rate):
            turn.quiet("before", plan.quiet)
            with turn.phase("one transaction"):
                _in_one_transaction(database)
            turn.quiet("after", plan.quiet)
        turn.faults = remembered.faults(database, "legacy", template, turn.told)
    return turn


#: New tables that take the name of a legacy one.
_TAKEN = ("assets", "orders")


def _undo_names(database: str) -> None:
    """The names as they are before: the new tables that take one wait elsewhere."""
    with shop.connect(database) as connection:
        connection.execute("CREATE SCHEMA later")
        for table in _TAKEN:
            connection.execute(f"ALTER TABLE public.{table} SET SCHEMA later")
        for table in TABLES:
            connection.execute(f"ALTER TABLE legacy.{table} SET SCHEMA public")
        connection.execute(f"GRANT USAGE ON SCHEMA legacy TO {clients.ROLE}")
        connection.execute(
            f"ALTER DATABASE {database} SET search_path = legacy, public"
        )


def _in_one_transaction(database: str) -> None:
    # The limits of tables are for people, not for what was there before them.
    options = "-c search_path=public -c terrain.sync=on"
    with shop.connect(database, options=options) as connection:
        with connection.transaction():
            for table in TABLES:
                connection.execute(f"ALTER TABLE public.{table} SET SCHEMA legacy")
            for table in _TAKEN:
                connection.execute(f"ALTER TABLE later.{table} SET SCHEMA public")
            for name in ("accounts", "assets", "tables", "orders"):
                connection.execute(copying.statements(name))  # type: ignore[call-overload]


# --- what comes of it ----------------------------------------------------------------------


def measure(plan: Plan) -> tuple[list[Turn], dict[str, Any]]:
    """All ways' turns, and what they say about what is wanted."""
    alone = undisturbed(plan)
    mine = project(plan)
    length = mine.phases[-1].ended - mine.phases[0].began
    turns = [mine, untouched(plan, min(max(length, plan.quiet), 180)), plain(plan)]
    seen = {turn.way: {each.phase: each for each in waits(turn)} for turn in turns}
    before, copy = seen["project"]["before"], seen["project"]["migrate, copy"]
    results = {
        "plan": asdict(plan),
        "failed": len(mine.told.refused),
        "faults": len(mine.faults),
        "longest": max(each.longest for each in seen["project"].values()),
        "longest_untouched": seen["untouched"]["untouched"].longest,
        "longest_plain": seen["plain"]["one transaction"].longest,
        "throughput_during_copy": copy.per_second / before.per_second,
        "speed_of_copy": sum(alone.values()) / sum(mine.copies.values()),
        "copies": {"undisturbed": alone, "project": mine.copies},
        "phases": {turn.way: [asdict(each) for each in waits(turn)] for turn in turns},
        "refused": {turn.way: turn.told.refused[:50] for turn in turns},
        "wrong": {turn.way: turn.faults[:50] for turn in turns},
        "slow": {turn.way: turn.slow for turn in turns},
    }
    return turns, results


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
    report.table(
        "Wanted and found",
        ["", "wanted", "found"],
        [
            ["failed statements", 0, results["failed"]],
            ["lost or wrong values", 0, results["faults"]],
            ["longest wait, ms", WANTED * 1000, results["longest"]],
            ["  of the untouched database", None, results["longest_untouched"]],
            ["  of the plain way", None, results["longest_plain"]],
            ["throughput during the copy", 0.8, results["throughput_during_copy"]],
            ["speed of the copy", 0.5, results["speed_of_copy"]],
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
            options.chart.write_text(chart.draw(turns, WANTED), encoding="utf-8")
    report.save("live", saved)


if __name__ == "__main__":
    main()
