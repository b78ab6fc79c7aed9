"""The project's own way: there and back, both applications at work, judged after each move.

At the end of each round the names change places and back, while the old application rests.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bench import clients, new_side, remembered, shop
from bench.crew import Crew
from bench.phases import Phase, Turn, headings, line, round_of
from bench.told import Shop
from bench.waits import Watch

#: The guide, forward; what it does meanwhile is for the clients not to notice.
FORWARD = (
    "preflight",
    "migrate",
    "settle",
    "copy_models_to_assets",
    "verify_migration",
)
#: What of it is done in the rounds between the first and the last.
IN_SHORT = ("migrate", "settle", "copy_models_to_assets")
#: How often a command is run that does not end well: as often as an operator would.
ATTEMPTS = 3


@dataclass(frozen=True)
class Plan:
    """What is measured: the shop's size, the clients' rate, and how long and how often."""

    scale: float
    rate: float = 600
    rounds: int = 1
    quiet: float = 10
    backup: bool = False

    @property
    def limit(self) -> float:
        """Seconds after which the clients end, whatever happens: far more than it takes."""
        moves = 2 * self.rounds + 2
        return 600 + moves * (60 + 1200 * self.scale + self.quiet)


@contextmanager
def beside_clients(turn: Turn, database: str, plan: Plan) -> Iterator[Crew]:
    with shop.connect(database) as connection:
        found = Shop.of(connection)
    with ExitStack() as stack:
        watch = stack.enter_context(Watch(database))
        crew = clients.at_work(database, found, plan.rate, plan.limit)
        crew.told = turn.told
        yield stack.enter_context(crew)
    turn.slow = [str(seen) for seen in watch.seen[:20]]


def project(plan: Plan) -> Turn:
    """There, back, and there again, as often as the plan says."""
    turn = Turn("project")
    template = shop.shop(plan.scale)
    with shop.clone(template) as database:
        clients.admit(database)
        with beside_clients(turn, database, plan) as old:
            with new_side.at_work(database, old.arguments[1], plan.limit) as new:
                new.told = turn.new
                move = Move(plan, turn, database, remembered.Before(template), old, new)
                move.there_and_back()
        turn.copies = copies(database)
        move.judge_at_the_end()
    return turn


@dataclass
class Move:
    """The moves of one database, there and back, and what is found after each."""

    plan: Plan
    turn: Turn
    database: str
    before: remembered.Before
    old: Crew
    new: Crew

    def there_and_back(self) -> None:
        turn, plan = self.turn, self.plan
        turn.quiet("before", plan.quiet)
        if plan.backup:
            self.back_up()
        print(headings(), flush=True)
        for number in range(1, plan.rounds + 1):
            turn.round = number
            self.forward(FORWARD if number == 1 else IN_SHORT)
            turn.quiet("in step", plan.quiet / 2)
            self.judge_in_step()
            self.cut_over_and_back()
            turn.quiet("undone", plan.quiet / 2)
            self.back()
            turn.quiet("back", plan.quiet / 2)
            self.judge_back()
            print(line(round_of(turn, number)), flush=True)
        turn.round = 0
        self.forward(FORWARD)
        turn.quiet("after", plan.quiet)

    def run(self, *command: str) -> None:
        """Run a command, and again if it did not end well, as its sentence says to."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                shop.run(self.database, "manage.py", *command)
                return
            except shop.Failed as failed:
                said = " ".join(str(failed).split())[-600:]
                self.turn.again.append(f"round {self.turn.round or 'last'}: {said}")
                self.turn.say(f"again: {said}")
                if attempt == ATTEMPTS:
                    raise

    def forward(self, commands: Sequence[str]) -> None:
        for command in commands:
            if command == "migrate":
                began = time.time()
                self.turn.say(command)
                self.run(command)
                self.turn.add(*_parts(self.database, began, time.time()))
                self.new.go_on()
            elif command == "verify_migration":
                with self.turn.phase(command):
                    self.verify()
            else:
                with self.turn.phase(command):
                    self.run(command)

    def cut_over_and_back(self) -> None:
        """The names change places and back.

        The old application's clients rest meanwhile, with their connections open; the new
        application's work throughout.
        """
        with self.old.held():
            with self.turn.phase("cut over"):
                # They have only just written, and are still connected.
                self.run("cut_over", "--yes", "--ignore-activity")
            self.judge_in_step()
            with self.turn.phase("undo"):
                self.run("cut_over", "--undo", "--yes")
            self.turn.swaps += swaps(self.database)[-2:]

    def back(self) -> None:
        """The new application stops first, as the runbook has it."""
        self.new.hold()
        with self.turn.phase("rollback"):
            self.run("rollback_migration", "--yes")

    def back_up(self) -> None:
        with tempfile.TemporaryDirectory() as folder, self.turn.phase(
            "backup_database"
        ):
            self.run("backup_database", "--output", folder)

    def verify(self) -> None:
        """What verification finds wrong is a fault of the turn's, not its end."""
        try:
            shop.run(self.database, "manage.py", "verify_migration")
        except shop.Failed as failed:
            said = str(failed)
            if "✗" not in said:
                raise
            self.turn.found(
                " ".join(line.split())[:400]
                for line in re.split(r"\n(?=\S)", said)
                if line.startswith("✗")
            )

    # --- judging ---------------------------------------------------------------------------

    def judge_in_step(self) -> None:
        """Both sides are as both applications were told, and agree row for row.

        A row that is late is the next ``settle``'s to carry over: it has to.
        """
        with self.turn.phase("judged"):
            late = self.judge(agree=True)
        if late:
            self.turn.late += len(late)
            with self.turn.phase("settle"):
                self.run("settle")
            with remembered.snapshot(self.database, self.old, self.new) as (seen, _):
                still = late & remembered.late(seen)
            self.found(f"{table} {key} is still late." for table, key in still)

    def judge_back(self) -> None:
        with self.turn.phase("judged"):
            self.judge()

    def judge(self, agree: bool = False) -> remembered.Rows:
        """Note what is not as was told; returns which rows are late, if both are there."""
        late: remembered.Rows = set()
        with remembered.snapshot(self.database, self.old, self.new) as (seen, told):
            there = shop.place(seen)
            only_new = there.own[-1] if agree else "legacy_parked"
            found = [*remembered.faults(seen, there.legacy, self.before, told)]
            for table in new_side.ONLY_NEW:
                found += remembered.rows(seen, only_new, table, told)
            if agree:
                late = remembered.late(seen)
                found += remembered.disagreements(seen, but=late)
        self.found(found)
        return late

    def found(self, faults: Iterable[str]) -> None:
        found = [f"round {self.turn.round}: {fault}" for fault in faults]
        self.turn.found(found)
        if found:
            self.turn.say(f"{len(found)} wrong: {found[0]}")

    def judge_at_the_end(self) -> None:
        """All that both were told, on both sides; and all that verification looks at."""
        with remembered.snapshot(self.database) as (seen, told):
            told.merge(self.turn.told, times=False)
            told.merge(self.turn.new, times=False)
            there = shop.place(seen)
            for schema in (there.legacy, "rebuilt"):
                self.turn.found(remembered.faults(seen, schema, self.before, told))
            for table in new_side.ONLY_NEW:
                self.turn.found(remembered.rows(seen, there.own[-1], table, told))
            self.turn.found(remembered.disagreements(seen))
        shop.run(self.database, "manage.py", "settle")
        self.verify()


def _parts(database: str, began: float, ended: float) -> list[Phase]:
    """What ``migrate`` did when, by its own ledger."""
    runs = shop.ask(
        database,
        "SELECT split_part(step, ' ', 1), extract(epoch FROM started_at)::float,"
        "       extract(epoch FROM finished_at)::float FROM terrain.legacy_run"
        " WHERE split_part(step, ' ', 1) = 'copy' AND finished_at IS NOT NULL"
        f"  AND extract(epoch FROM started_at) > {began:.6f} ORDER BY started_at",
    )
    parts, at = [], began
    for step, start, end in runs:
        if start > at:
            parts.append(Phase("migrate, the rest", at, start))
        parts.append(Phase(f"migrate, {step}", start, end))
        at = end
    return [*parts, Phase("migrate, the rest", at, ended)]


def swaps(database: str) -> list[float]:
    """Seconds for which each cut-over, and each undoing of one, had its locks."""
    found = shop.ask(
        database,
        "SELECT seconds FROM terrain.legacy_run WHERE starts_with(step, 'cut over')"
        " ORDER BY id",
    )
    return [seconds for (seconds,) in found]


def copies(database: str) -> dict[str, float]:
    """Seconds of the first copy of each table: later ones find most rows there."""
    found = shop.ask(
        database,
        "SELECT step, seconds FROM terrain.legacy_run WHERE step LIKE 'copy %' ORDER BY id DESC",
    )
    return dict(found)
