"""Interleavings drawn at random: who says what next, at which both sides have to stay in step.

A schedule is a list of steps, each a statement of one session, made from a seed before
anything runs.  A session that has to wait is left waiting, and its later steps with it, until
it goes on.  A session may also be a command (a copy, batch by batch; settle; back and
forward), which is a thread stopped between the statement of a batch and its commit.

A model remembers what was acknowledged: the last value written to a row by whichever
application, how often a counter was raised, what was inserted and deleted.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from django.db import connection as django_connection
from psycopg.pq import TransactionStatus

from terrain.legacy import carrying, closing, copying, customers, settling, sql
from terrain.legacy.mapping import LENSES
from terrain.legacy.place import LEGACY
from tests.conftest import Database
from tests.legacy import named
from tests.stepping import PATIENCE, Command, Outcome, Session


@dataclass(frozen=True)
class Step:
    """A statement, and what the model is to remember if it is committed.

    ``table`` and ``does`` say it of the rows whose ids the statement returns (and of
    ``also``): a text is the new value of the row's token, +1 a counter raised, ``delete``
    and ``move`` what they say, ``insert`` with a token a new row.
    """

    actor: str
    statement: str
    table: str = ""
    does: str = ""
    token: str = ""
    also: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.actor}: {self.statement}"


# --- what they say -------------------------------------------------------------------------

ARTISTS = ("#a1", "#a2", "#a3")
MODELS = ("#m1", "#m2", "#m3", "#m4")
TABLES = ("#t1", "#t2", "#t3", "#t4")
EXAMPLES = ("#t1", "#e1", "#e2")
ORDERS = ("#o1", "#o2", "#o3")
PAYMENTS = ("#p1", "#p2")
EMAILS = ("a1@x.example", "A2@x.example", "a2@x.example", "b@x.example")
SHARES = ("'s1'", "'s2'", "'s3'", "NULL")
ITEMS = ("[]", "[{{}}]", '[{"asset_id": "%s", "quantity": %d}]')
#: What a trigger of the shop's may refuse.
FORBIDDEN = "forbidden"


class Writer:
    """Draws statements; every token is another one."""

    def __init__(self, random_: random.Random) -> None:
        self.random = random_
        self.tokens = 0

    def token(self) -> str:
        self.tokens += 1
        return f"w{self.tokens}"

    def one(self, of: tuple[str, ...]) -> str:
        return self.random.choice(of)

    def items(self) -> str:
        kind = self.random.random()
        if kind < 0.15:
            return '[{"asset_id": "x"}]'
        if kind < 0.2:
            return "{}"
        return "[%s]" % ", ".join(
            '{"asset_id": "%s", "quantity": %d}'
            % (self.one(MODELS), self.random.randint(1, 3))
            for _ in range(self.random.randint(0, 3))
        )

    def old(self, actor: str) -> Step:
        return self.random.choices(
            [
                self.old_renames,
                self.old_other_column,
                self.old_counts,
                self.old_inserts,
                self.old_upserts,
                self.old_deletes,
                self.old_moves,
                self.old_changes_items,
                self.old_breaks_or_repairs,
                self.old_changes_unique,
                self.old_many,
                self.old_copies,
                self.old_truncates,
            ],
            [14, 10, 8, 14, 8, 12, 4, 12, 8, 8, 6, 3, 1],
        )[0](actor)

    def _row(self) -> tuple[str, str]:
        table, keys = self.random.choice(
            [
                ("artists", ARTISTS),
                ("assets", MODELS),
                ("user_tables", TABLES),
                ("example_tables", EXAMPLES),
                ("orders", ORDERS),
            ]
        )
        return table, self.one(keys)

    def old_renames(self, actor: str) -> Step:
        table, key = self._row()
        token = self.token()
        return Step(
            actor,
            f"UPDATE {table} SET {TOKEN[table]} = '{token}' WHERE id = '{key}' RETURNING id",
            table,
            "set",
            token,
        )

    def old_other_column(self, actor: str) -> Step:
        return Step(
            actor,
            self.random.choice(
                [
                    f"UPDATE artists SET bio = NULL WHERE id = '{self.one(ARTISTS)}'",
                    f"UPDATE artists SET bio = 'b' WHERE id = '{self.one(ARTISTS)}'",
                    "UPDATE artists SET commission_rate = 'NaN'"
                    f" WHERE id = '{self.one(ARTISTS)}'",
                    f"UPDATE artists SET commission_rate = 0.8 WHERE id = '{self.one(ARTISTS)}'",
                    "UPDATE assets SET base_price = base_price + 1"
                    f" WHERE id = '{self.one(MODELS)}'",
                    f"UPDATE assets SET base_price = 0 WHERE id = '{self.one(MODELS)}'",
                    f"UPDATE assets SET artist_id = '{self.one(ARTISTS)}'"
                    f" WHERE id = '{self.one(MODELS)}'",
                    f"UPDATE user_tables SET table_config = '{{\"width\": 9}}'"
                    f" WHERE id = '{self.one(TABLES)}'",
                    "UPDATE user_tables SET created_at = 'infinity'"
                    f" WHERE id = '{self.one(TABLES)}'",
                    f"UPDATE orders SET user_email = '{self.one(EMAILS)}'"
                    f" WHERE id = '{self.one(ORDERS)}'",
                    f"UPDATE user_tables SET user_email = '{self.one(EMAILS)}'"
                    f" WHERE id = '{self.one(TABLES)}'",
                    f"UPDATE user_tables SET user_email = NULL WHERE id = '{self.one(TABLES)}'",
                    f"UPDATE orders SET status = 'paid' WHERE id = '{self.one(ORDERS)}'",
                    "UPDATE orders SET pricing = '{\"model_subtotal\": 4}'"
                    f" WHERE id = '{self.one(ORDERS)}'",
                    f"UPDATE stripe_transfers SET amount = 0 WHERE id = '{self.one(PAYMENTS)}'",
                    f"UPDATE stripe_transfers SET amount = 2 WHERE id = '{self.one(PAYMENTS)}'",
                    f"SELECT id FROM orders WHERE id = '{self.one(ORDERS)}' FOR UPDATE",
                    f"SELECT id FROM artists WHERE id = '{self.one(ARTISTS)}' FOR SHARE",
                    f"UPDATE artists SET name = '{FORBIDDEN}' WHERE id = '{self.one(ARTISTS)}'",
                ]
            ),
        )

    def old_counts(self, actor: str) -> Step:
        return Step(
            actor,
            "UPDATE assets SET view_count = view_count + 1"
            f" WHERE id = '{self.one(MODELS)}' RETURNING id",
            "assets",
            "count",
        )

    def old_inserts(self, actor: str) -> Step:
        table, key = self.random.choice(
            [self._row(), ("stripe_transfers", self.one(PAYMENTS))]
        )
        token = self.token()
        values = {
            "artists": "(id, email, password_hash, name) VALUES"
            f" ('{key}', '{self.one(EMAILS)}', 'h', '{token}')",
            "assets": "(id, artist_id, name, base_price, file_paths) VALUES"
            f" ('{key}', '{self.one(ARTISTS)}', '{token}', 2, '{{}}')",
            "user_tables": "(id, user_email, name, table_config, layout_data, share_token) VALUES"
            f" ('{key}', '{self.one(EMAILS)}', '{token}', '{{}}', '{{}}', {self.one(SHARES)})",
            "example_tables": "(id, artist_id, name, table_config, layout_data) VALUES"
            f" ('{key}', '{self.one(ARTISTS)}', '{token}', '{{}}', '{{}}')",
            "orders": "(id, order_number, user_email, user_name, shipping_address, items, pricing,"
            f" notes) VALUES ('{key}', '{key}', '{self.one(EMAILS)}', 'B', '{{}}',"
            f" '{self.items()}', '{{\"model_subtotal\": 4}}', '{token}')",
            "stripe_transfers": "(id, order_id, artist_id, stripe_transfer_id, amount) VALUES"
            f" ('{key}', '{self.one(ORDERS)}', '{self.one(ARTISTS)}', 'tr', 1)",
        }[table]
        if table == "assets" and self.random.random() < 0.2:
            artist = self.one(ARTISTS)
            return Step(
                actor,
                "WITH a AS (INSERT INTO artists (id, email, password_hash, name) VALUES"
                f" ('{artist}', '{self.one(EMAILS)}', 'h', 'made') RETURNING id)"
                " INSERT INTO assets (id, artist_id, name, base_price, file_paths)"
                f" SELECT '{key}', id, '{token}', 2, '{{}}' FROM a RETURNING id",
                table,
                "insert",
                token,
            )
        return Step(
            actor,
            f"INSERT INTO {table} {values} RETURNING id",
            table,
            "insert",
            token,
        )

    def old_upserts(self, actor: str) -> Step:
        token = self.token()
        if self.random.random() < 0.5:
            return Step(
                actor,
                "INSERT INTO artists (id, email, password_hash, name) VALUES"
                f" ('{self.one(ARTISTS)}', '{self.one(EMAILS)}', 'h', '{token}')"
                " ON CONFLICT (email) DO UPDATE SET name = excluded.name RETURNING id",
                "artists",
                "upsert",
                token,
            )
        return Step(
            actor,
            "INSERT INTO user_tables (id, name, table_config, layout_data, share_token) VALUES"
            f" ('{self.one(TABLES)}', '{token}', '{{}}', '{{}}', {self.one(SHARES)})"
            " ON CONFLICT (share_token) DO UPDATE SET name = excluded.name RETURNING id",
            "user_tables",
            "upsert",
            token,
        )

    def old_deletes(self, actor: str) -> Step:
        table, key = self._row()
        if self.random.random() < 0.2:
            table, key = "stripe_transfers", self.one(PAYMENTS)
        return Step(
            actor,
            f"DELETE FROM {table} WHERE id = '{key}' RETURNING id",
            table,
            "delete",
        )

    def old_moves(self, actor: str) -> Step:
        table, key = self._row()
        to = self.random.choice(
            {
                "artists": ARTISTS,
                "assets": MODELS,
                "user_tables": TABLES,
                "example_tables": EXAMPLES,
                "orders": ORDERS,
            }[table]
        )
        return Step(
            actor,
            f"UPDATE {table} SET id = '{to}' WHERE id = '{key}' RETURNING id",
            table,
            "move",
            also=(key,),
        )

    def old_changes_items(self, actor: str) -> Step:
        return Step(
            actor,
            f"UPDATE orders SET items = '{self.items()}' WHERE id = '{self.one(ORDERS)}'",
        )

    def old_breaks_or_repairs(self, actor: str) -> Step:
        table, keys = self.random.choice(
            [("user_tables", TABLES), ("example_tables", EXAMPLES)]
        )
        column = self.random.choice(["layout_data", "table_config"])
        value = self.random.choice(["[]", "{}", "{}"])
        return Step(
            actor,
            f"UPDATE {table} SET {column} = '{value}' WHERE id = '{self.one(keys)}'",
        )

    def old_changes_unique(self, actor: str) -> Step:
        return Step(
            actor,
            self.random.choice(
                [
                    f"UPDATE artists SET email = '{self.one(EMAILS)}'"
                    f" WHERE id = '{self.one(ARTISTS)}'",
                    f"UPDATE user_tables SET share_token = {self.one(SHARES)}"
                    f" WHERE id = '{self.one(TABLES)}'",
                    f"UPDATE orders SET order_number = '{self.one(ORDERS)}'"
                    f" WHERE id = '{self.one(ORDERS)}'",
                ]
            ),
        )

    def old_many(self, actor: str) -> Step:
        return Step(
            actor,
            self.random.choice(
                [
                    "UPDATE orders SET status = 'many'",
                    "UPDATE assets SET tags = tags || 't'::text",
                    "UPDATE user_tables SET is_public = NOT is_public",
                    "UPDATE artists SET bio = coalesce(bio, '') || 'x'",
                    "UPDATE artists SET email = email || '.uk' WHERE email LIKE 'b%'",
                    "DELETE FROM stripe_transfers",
                    f"DELETE FROM assets WHERE artist_id = '{self.one(ARTISTS)}'",
                ]
            ),
        )

    def old_copies(self, actor: str) -> Step:
        """COPY … FROM STDIN; the row comes after the line's end."""
        return Step(
            actor,
            "COPY user_tables (id, name, table_config, layout_data) FROM STDIN\n"
            f"{self.one(TABLES)}\tcopied\t{{}}\t{self.random.choice(['{}', '[]'])}\n",
            "user_tables",
            "lost",
            also=TABLES,
        )

    def old_truncates(self, actor: str) -> Step:
        table, keys = self.random.choice(
            [
                ("user_tables", TABLES),
                ("stripe_transfers", PAYMENTS),
                ("orders", ORDERS),
            ]
        )
        cascade = " CASCADE" if table == "orders" else ""
        return Step(actor, f"TRUNCATE {table}{cascade}", table, "delete", also=keys)

    def new(self, actor: str) -> Step:
        table, key = self._row()
        token = self.token()
        new, column = NEW[table]
        kind = {"user_tables": "user", "example_tables": "example"}.get(table)
        where = f"id = '{key}'" + (f" AND kind = '{kind}'" if kind else "")
        renames = Step(
            actor,
            f"UPDATE {new} SET {column} = '{token}' WHERE {where} RETURNING id",
            table if table != "artists" else "",
            "set",
            token,
        )
        order, table_, model = self.one(ORDERS), self.one(TABLES), self.one(MODELS)
        artist = self.one(ARTISTS)
        others = [
            Step(
                actor,
                f"UPDATE models SET view_count = view_count + 1 WHERE id = '{model}' RETURNING id",
                "assets",
                "count",
            ),
            Step(actor, f"UPDATE users SET bio = 'new {token}' WHERE id = '{artist}'"),
            Step(
                actor,
                f"UPDATE order_items SET quantity = quantity + 1 WHERE order_id = '{order}'",
            ),
            Step(
                actor,
                "INSERT INTO order_items (id, order_id, position, quantity, asset_ref)"
                f" SELECT gen_random_uuid(), '{order}', coalesce(max(position), 0) + 1, 1, 'new'"
                f" FROM order_items WHERE order_id = '{order}'",
            ),
            Step(actor, f"DELETE FROM order_items WHERE order_id = '{order}'"),
            Step(actor, f"UPDATE orders SET status = 'new' WHERE id = '{order}'"),
            Step(
                actor,
                f"DELETE FROM tables WHERE id = '{table_}' AND kind = 'user' RETURNING id",
                "user_tables",
                "delete",
            ),
            Step(
                actor,
                "INSERT INTO tables (id, kind, name, config, layout, contact_email, share_code)"
                f" VALUES ('{table_}', 'user', '{token}', '{{}}', '{{}}', '{self.one(EMAILS)}',"
                f" {self.one(SHARES)}) RETURNING id",
                "user_tables",
                "insert",
                token,
            ),
            Step(
                actor,
                f"UPDATE tables SET share_code = {self.one(SHARES)} WHERE id = '{table_}'",
            ),
            Step(actor, f"UPDATE tables SET width = 5 WHERE id = '{table_}'"),
            Step(actor, f"DELETE FROM users WHERE id = '{artist}'"),
            Step(
                actor,
                "INSERT INTO asset_sets (id, name, owner_id)"
                f" VALUES (gen_random_uuid(), 's', '{artist}')",
            ),
            Step(actor, f"UPDATE users SET role = 'customer' WHERE id = '{artist}'"),
            Step(
                actor,
                f"UPDATE users SET email = '{self.one(EMAILS)}' WHERE id = '{artist}'",
            ),
            Step(
                actor,
                f"DELETE FROM models WHERE id = '{model}' RETURNING id",
                "assets",
                "delete",
            ),
            Step(
                actor,
                f"UPDATE payments SET status = 'failed' WHERE id = '{self.one(PAYMENTS)}'",
            ),
        ]
        return self.random.choice([renames, *self.random.sample(others, 2)])


#: Where a row's token is.
TOKEN = {
    "artists": "name",
    "assets": "name",
    "user_tables": "name",
    "example_tables": "name",
    "orders": "notes",
}
NEW = {
    "artists": ("users", "display_name"),
    "assets": ("models", "name"),
    "user_tables": ("tables", "name"),
    "example_tables": ("tables", "name"),
    "orders": ("orders", "notes"),
}


def script(writer: Writer, actor: str, length: int) -> list[Step]:
    """What one session says, from beginning to end: transactions, savepoints, single ones."""
    random_ = writer.random
    draw = writer.new if actor.startswith("new") else writer.old
    said: list[Step] = []
    while len(said) < length:
        if random_.random() < 0.35:
            said.append(draw(actor))
            continue
        level = random_.choice(["", "", "", " ISOLATION LEVEL REPEATABLE READ"])
        said.append(Step(actor, f"BEGIN{level if actor.startswith('old') else ''}"))
        for _ in range(random_.randint(1, 4)):
            if random_.random() < 0.2:
                said += [Step(actor, "SAVEPOINT s"), draw(actor)]
                said.append(
                    Step(
                        actor, random_.choice(["ROLLBACK TO s", "RELEASE SAVEPOINT s"])
                    )
                )
            else:
                said.append(draw(actor))
        said.append(Step(actor, random_.choice(["COMMIT", "COMMIT", "ROLLBACK"])))
    return said


def schedule(
    seed: int, actors: tuple[str, ...], commands: tuple[str, ...]
) -> list[Step]:
    """All scripts, merged at random, commands among them."""
    random_ = random.Random(seed)
    writer = Writer(random_)
    scripts = [script(writer, actor, random_.randint(4, 9)) for actor in actors]
    scripts += [
        [Step(command, "go on")] * random_.randint(2, 12) for command in commands
    ]
    merged: list[Step] = []
    while any(scripts):
        merged.append(random_.choice([some for some in scripts if some]).pop(0))
    return merged


# --- the model -----------------------------------------------------------------------------

Effect = tuple[int, str, str, str, str]


@dataclass
class Model:
    """What was acknowledged, in the order in which statements ended."""

    effects: list[Effect] = field(default_factory=list)
    pending: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    clock: int = 0

    def ended(self, step: Step, outcome: Outcome, status: TransactionStatus) -> None:
        """A statement is over: remember what it did, and decide what became of a transaction."""
        said, mine = step.statement, self.pending[step.actor]
        if not outcome.failed:
            if said.startswith("SAVEPOINT"):
                mine.append(None)
            elif said.startswith("ROLLBACK TO"):
                while mine and mine[-1] is not None:
                    mine.pop()
            elif said.startswith("RELEASE"):
                del mine[len(mine) - 1 - mine[::-1].index(None)]
            mine += self._effects(step, outcome)
        if status == TransactionStatus.IDLE:
            if outcome.status != "ROLLBACK" and not outcome.failed:
                self.effects += [effect for effect in mine if effect is not None]
            mine.clear()

    def _effects(self, step: Step, outcome: Outcome) -> Iterator[Effect]:
        if not step.table:
            return
        self.clock += 1
        for key in [row[0] for row in outcome.rows] + list(step.also):
            yield self.clock, step.table, key, step.does, step.token

    def violations(self, database: Database) -> Iterator[str]:
        """Acknowledged writes that the legacy tables know nothing of."""
        for table, column in TOKEN.items():
            there = {
                named(key): value
                for key, value in database.rows(
                    f"SELECT id, {column} FROM @legacy.{table}"
                )
            }
            by_key = defaultdict(list)
            for effect in sorted(self.effects):
                if effect[1] == table:
                    by_key[effect[2]].append(effect)
            for key, effects in by_key.items():
                yield from self._judge(table, key, effects, there)
        counts = {
            named(key): count
            for key, count in database.rows("SELECT id, view_count FROM @legacy.assets")
        }
        for key, expected in self._counted().items():
            if key in counts and counts[key] != expected:
                yield f"assets {key} counted {counts[key]}, not {expected}"

    def _judge(
        self, table: str, key: str, effects: list[Effect], there: dict[str, str]
    ) -> Iterator[str]:
        does, token = effects[-1][3], effects[-1][4]
        if any(effect[3] in ("move", "lost") for effect in effects):
            return
        cascades = table in ("assets", "example_tables")
        if does == "delete" and key in there:
            yield f"{table} {key} was deleted and is there"
        if does in ("insert", "upsert") and key not in there and not cascades:
            if table != "artists":
                yield f"{table} {key} was inserted and is not there"
        if does in ("set", "insert", "upsert") and key in there:
            if there[key] != token and table != "artists":
                yield f"{table} {key} says {there[key]}, not {token}"

    def _counted(self) -> dict[str, int]:
        """Of models that were there all the time."""
        counted = dict.fromkeys(MODELS, 0)
        for _, table, key, does, _ in self.effects:
            if table == "assets" and does == "count":
                counted[key] += 1
            elif table == "assets" and does != "set":
                counted.pop(key, None)
                counted[key] = -(10**6)
        return {key: count for key, count in counted.items() if count >= 0}


# --- running one ---------------------------------------------------------------------------


class Broken(AssertionError):
    """A law is broken."""


@dataclass
class Run:
    """One schedule on one database."""

    database: Database
    commands: dict[str, Command]
    model: Model = field(default_factory=Model)
    sessions: dict[str, Session] = field(default_factory=dict)
    at: dict[str, Step] = field(default_factory=dict)
    backlog: dict[str, list[Step]] = field(default_factory=lambda: defaultdict(list))
    history: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.legacy = {None, LEGACY, self.database.place.legacy}

    def follow(self, steps: list[Step]) -> None:
        monitor = self.database.superuser
        for step in steps:
            if step.actor in self.commands:
                self.commands[step.actor].go_on()
                continue
            if step.actor not in self.sessions:
                connect = (
                    self.database.old
                    if step.actor.startswith("old")
                    else self.database.new
                )
                self.sessions[step.actor] = Session(connect(), monitor, step.actor)
            self.backlog[step.actor].append(step)
            self._go_on(step.actor)
            for other in list(self.at):
                self._look(other)
        self._end()

    def _go_on(self, actor: str) -> None:
        session = self.sessions[actor]
        while self.backlog[actor] and actor not in self.at:
            step = self.backlog[actor].pop(0)
            self.at[actor] = step
            said, *row = step.statement.split("\n", 1)
            session.send(said, row=row[0] if row else None)
            deadline = time.monotonic() + PATIENCE
            while actor in self.at and time.monotonic() < deadline:
                self._look(actor)
                if actor in self.at and not session.blockers():
                    deadline = time.monotonic() + PATIENCE
            if actor in self.at:
                self._judge_wait(actor, session)

    def _look(self, actor: str) -> None:
        """Whether a statement that was sent is over."""
        outcome = self.sessions[actor].poll()
        if outcome is None:
            return
        step = self.at.pop(actor)
        status = self.sessions[actor].connection.pgconn.transaction_status
        self.history.append(
            f"{step}  -- {outcome.sqlstate or outcome.status} {outcome.message}"
        )
        self.model.ended(step, outcome, TransactionStatus(status))
        if actor.startswith("old"):
            self._judge_failure(step, outcome)

    def _judge_failure(self, step: Step, outcome: Outcome) -> None:
        """Law 7: it would have failed without the project as well."""
        if not outcome.failed or outcome.sqlstate == "25P02":
            return
        # It is looked at some time after it failed: the names may have changed places since.
        self.legacy.add(self.database.place.legacy)
        if "rebuilt." in outcome.context or outcome.schema not in self.legacy:
            raise Broken(f"{step} failed: {outcome.message}\n{outcome.context[-600:]}")
        if step.statement == "COMMIT":
            raise Broken(f"{step} failed: {outcome.message}")

    def _judge_wait(self, actor: str, session: Session) -> None:
        if not actor.startswith("old"):
            return
        blockers = session.blockers()
        for command in self.commands.values():
            if command.pid in blockers and not command.stopped.is_set():
                raise Broken(f"{self.at[actor]} waits for {command.name}")

    def _end(self) -> None:
        """Everybody finishes what they have begun."""
        deadline = time.monotonic() + 30
        while self.at or any(self.backlog.values()):
            for actor in self.sessions:
                if actor in self.at:
                    self._look(actor)
                self._go_on(actor)
                status = self.sessions[actor].connection.pgconn.transaction_status
                if actor not in self.at and status in (
                    TransactionStatus.INTRANS,
                    TransactionStatus.INERROR,
                ):
                    self.backlog[actor].append(Step(actor, "COMMIT"))
            if self.commands and all(
                each.stopped.is_set() for each in self.commands.values()
            ):
                # A batch that is stopped may be what they wait for.
                for command in self.commands.values():
                    command.go_on()
            assert time.monotonic() < deadline, f"still waiting: {self.at}"
        for actor, session in self.sessions.items():
            status = session.connection.pgconn.transaction_status
            if status != TransactionStatus.IDLE:
                self.backlog[actor].append(Step(actor, "COMMIT"))
        if any(self.backlog.values()):
            self._end()
        for command in self.commands.values():
            command.finish()


# --- afterwards ----------------------------------------------------------------------------


def violations(database: Database) -> Iterator[str]:
    """Laws 2 and 3, and what settle owes, once all is quiet and settled."""
    for late in carrying.still_late(django_connection):
        yield f"late: {named(late)}"
    bounds = {"after": None, "upto": None}
    for lens in LENSES:
        with django_connection.cursor() as cursor:
            cursor.execute(sql.differences(lens), bounds)
            for row in cursor.fetchall():
                yield f"{lens.legacy} differs: {named(row)}"
    place = database.place
    for name, query in QUERIES.items():
        for row in database.rows(place.fill(query.replace("%", "%%"))):
            yield f"{name}: {named(row)}"


def _queries() -> Iterator[tuple[str, str]]:
    for lens in LENSES:
        yield f"{lens.legacy} neither migrated nor held", (
            f"SELECT l.id FROM @legacy.{lens.legacy} l WHERE NOT EXISTS (SELECT FROM"
            f" @new.{lens.new} n WHERE n.id = l.id AND {lens.own}) AND NOT EXISTS"
            " (SELECT FROM legacy_quarantine q WHERE q.kind = 'held'"
            f" AND q.legacy_table = '{lens.legacy}' AND q.legacy_id = l.id)"
        )
        yield f"{lens.legacy} in quarantine and not there", (
            "SELECT q.legacy_id, q.reason FROM legacy_quarantine q WHERE q.legacy_table ="
            f" '{lens.legacy}' AND NOT EXISTS (SELECT FROM @legacy.{lens.legacy} l"
            " WHERE l.id = q.legacy_id)"
        )
        if lens.part is None:
            yield f"{lens.legacy} migrated and held", (
                f"SELECT n.id, q.reason FROM @new.{lens.new} n JOIN legacy_quarantine q"
                f" ON q.legacy_table = '{lens.legacy}' AND q.legacy_id = n.id"
                f" AND q.kind = 'held' WHERE {lens.own} AND q.reason <> 'refused'"
            )
        yield f"{lens.legacy} held for what it is not", (
            f"SELECT q.legacy_id, q.reason FROM legacy_quarantine q JOIN @legacy.{lens.legacy} l"
            f" ON l.id = q.legacy_id WHERE q.legacy_table = '{lens.legacy}'"
            f" AND q.kind = 'held' AND q.reason NOT IN ('refused', coalesce({sql.held(lens)}, ''))"
        )
        for rule in lens.flagged:
            yield f"{lens.legacy} {rule.code}", (
                f"SELECT l.id, l.why, l.q FROM (SELECT l.id, ({rule.when}) IS TRUE AS why,"
                " EXISTS (SELECT FROM legacy_quarantine q WHERE q.kind = 'flagged'"
                f" AND q.legacy_table = '{lens.legacy}' AND q.legacy_id = l.id"
                f" AND q.reason = '{rule.code}') AS q FROM @legacy.{lens.legacy} l"
                f" JOIN @new.{lens.new} n ON n.id = l.id AND {lens.own}) l"
                " WHERE l.why <> l.q"
            )
    yield "lines do not add up and are not flagged", (
        "SELECT o.id FROM @new.orders o LEFT JOIN @new.order_items i ON i.order_id = o.id"
        " GROUP BY o.id HAVING (coalesce(sum(i.total_price), 0)"
        "   IS DISTINCT FROM (o.pricing ->> 'model_subtotal')::numeric)"
        " <> EXISTS (SELECT FROM legacy_quarantine q WHERE q.legacy_table = 'orders'"
        "   AND q.legacy_id = o.id AND q.reason IN ('prices_disagree', 'subtotal_missing'))"
        " AND NOT EXISTS (SELECT FROM legacy_quarantine q WHERE q.legacy_table = 'orders'"
        "   AND q.legacy_id = o.id AND q.kind = 'held')"
    )
    yield "an address without an account", (
        "SELECT id FROM @new.orders WHERE user_id IS NULL AND customer_email LIKE '%@%'"
        " UNION ALL SELECT id FROM @new.tables WHERE user_id IS NULL AND kind = 'user'"
        "   AND (contact_email LIKE '%@%' OR session_id IS NULL)"
    )
    # Of the others (ON DELETE SET NULL) AddConstraintOnline takes care.
    for table, column, to in (
        ("models", "artist_id", "users"),
        ("tables", "user_id", "users"),
        ("tables", "session_id", "anonymous_sessions"),
        ("orders", "user_id", "users"),
        ("order_items", "order_id", "orders"),
        ("payments", "order_id", "orders"),
        ("payments", "artist_id", "users"),
    ):
        yield f"{table}.{column} refers to nothing", (
            f"SELECT t.id, t.{column} FROM @new.{table} t WHERE t.{column} IS NOT NULL"
            f" AND NOT EXISTS (SELECT FROM @new.{to} x WHERE x.id = t.{column})"
        )


QUERIES = dict(_queries())


def settle_all(tables: tuple[str, ...] = ()) -> None:
    """What commands do at the end: the copies, then everything that waits."""
    for table in tables:
        copying.copy(django_connection, table)
    if tables:
        customers.copy_customers(django_connection)
        closing.open_all(django_connection)
    settling.settle(django_connection)
