"""What each step locks, for how long, and who would be in its way now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings
from django.db.backends.base.base import BaseDatabaseWrapper

from terrain.blockers import Blocker, Kind, Mode, in_transaction, who_blocks
from terrain.legacy import catalog, cut_over, ledger, rehearsed
from terrain.legacy.mapping import BY_NEW, LENSES
from terrain.legacy.preflight.asking import Situation
from terrain.legacy.schema import Lens
from terrain.pace import BESIDE_OTHERS

#: Seconds that what is locked is taken to stay so, with the commit, where neither the ledger
#: nor a rehearsal has a measure of it.  On purpose more than was found: at scale 0.01, two idle
#: cores, nothing on a table in use was locked for more than 5 ms, there or back.
ASSUMED: Mapping[str, float] = {
    "triggers on": 0.035,
    "unique": 0.010,
    "foreign key": 0.015,
    "limits": 0.020,
    "open": 0.010,
    "triggers off": 0.030,
    "cut over": 0.100,
    "cleanup": 0.100,
}

#: What the old application waits for, by the mode of a lock.
BLOCKS: Mapping[Mode, str] = {
    Mode.ACCESS_EXCLUSIVE: "readers and writers",
    Mode.SHARE_ROW_EXCLUSIVE: "writers",
    Mode.SHARE_UPDATE_EXCLUSIVE: "nobody",
    Mode.ROW_EXCLUSIVE: "deletions in one batch",
}


@dataclass(frozen=True)
class Lock:
    """What a step locks.

    ``tables`` are qualified names, ``together`` how many of them at a time; ``blocks`` says
    whom, ``seconds`` for how long each time, ``in_the_way`` who would delay it now.
    """

    step: str
    tables: tuple[str, ...]
    together: int
    mode: Mode
    blocks: str
    seconds: float
    in_the_way: tuple[Blocker, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "tables": list(self.tables),
            "together": self.together,
            "mode": str(self.mode),
            "blocks": self.blocks,
            "seconds": round(self.seconds, 4),
            "in_the_way": [each.as_json() for each in self.in_the_way],
        }


@dataclass(frozen=True)
class _Asked:
    """What is known when the locks are foretold."""

    situation: Situation
    before: Mapping[str, float]
    seen: frozenset[str]
    everybody: tuple[Blocker, ...]

    def lock(
        self,
        step: str,
        tables: Iterable[str],
        together: int,
        mode: Mode,
        kind: str,
        past: str,
    ) -> Lock:
        """``kind`` is a key of ASSUMED, ``past`` the ledger's name of it, % for a table."""
        named = tuple(dict.fromkeys(tables))
        begin, _, end = past.partition("%")
        known = [
            seconds
            for what, seconds in self.before.items()
            if what.startswith(begin) and what.endswith(end)
        ]
        return Lock(
            step,
            named,
            together,
            mode,
            BLOCKS[mode],
            max(known, default=ASSUMED.get(kind, 0.0)),
            self._in_the_way(named, mode),
        )

    def names(self, tokens: Iterable[str]) -> list[str]:
        return list(catalog.names(self.situation.connection, *tokens))

    def _in_the_way(self, tables: tuple[str, ...], mode: Mode) -> tuple[Blocker, ...]:
        """Who holds one of the tables, or a legacy one that it is written with."""
        asked = [name for table in tables for name in _now(self.situation, table)]
        found = who_blocks(self.situation.connection, tuple(asked), mode)
        return tuple(each for each in found if self.stays(each))

    def stays(self, blocker: Blocker) -> bool:
        """Whether it will still be there: nobody wants to hear of every passing statement."""
        if blocker.kind not in (Kind.SESSION, Kind.IDLE):
            return True
        if blocker.seconds is None:  # not for us to see: but it was there a while ago
            return blocker.transaction in self.seen
        return blocker.seconds >= self.situation.patience


def _now(situation: Situation, table: str) -> Iterator[str]:
    """The table, and for a new one the legacy ones whose writers lock it through triggers."""
    schema, _, name = table.partition(".")
    if situation.value(
        "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = %s",
        [schema],
    ):
        yield table
    if situation.tables.get(name) == schema:
        return
    for lens in _written_to(name):
        if lens.legacy in situation.tables:
            yield f"{situation.tables[lens.legacy]}.{lens.legacy}"


def _written_to(new: str) -> list[Lens]:
    return [
        lens
        for lens in LENSES
        if lens.new == new or lens.part is not None and lens.part.table == new
    ]


def transactions(connection: BaseDatabaseWrapper) -> frozenset[str]:
    """All that are open now: who is there now and at the end was there all the while."""
    return frozenset(each.transaction for each in in_transaction(connection))


def foretold(situation: Situation, seen: frozenset[str]) -> tuple[Lock, ...]:
    """Each step's locks, in order; ``seen`` are the transactions of a while ago."""
    connection = situation.connection
    before = _rehearsed(situation)
    if catalog.new_table_exists(connection, "legacy_run"):
        before |= ledger.locks_before(connection.alias)
    asked = _Asked(situation, before, seen, tuple(in_transaction(connection)))
    return (*_forward(asked), *_afterwards(asked))


def _rehearsed(situation: Situation) -> dict[str, float]:
    """What was locked -> seconds, in the last rehearsal."""
    connection = situation.connection
    last = rehearsed.latest(
        settings.BACKUP_DIR,
        connection.settings_dict["NAME"],
        catalog.system(connection),
    )
    return dict(last.get("locks", {})) if last is not None else {}


def _forward(asked: _Asked) -> Iterator[Lock]:
    legacy = asked.names(f"@legacy.{lens.legacy}" for lens in LENSES)
    mirrored = asked.names(f"@new.{table}" for table in _mirrored())
    yield asked.lock(
        "put triggers on",
        [*legacy, *mirrored],
        3,
        Mode.SHARE_ROW_EXCLUSIVE,
        "triggers on",
        "Putting the triggers on",
    )
    yield Lock(
        "copy rows",
        tuple(legacy),
        1,
        Mode.ROW_EXCLUSIVE,
        BLOCKS[Mode.ROW_EXCLUSIVE],
        BESIDE_OTHERS,
    )
    yield _beside(asked, "build indexes", mirrored, "Building index")
    yield asked.lock(
        "unique constraints",
        asked.names(["@new.tables", "@new.orders"]),
        1,
        Mode.ACCESS_EXCLUSIVE,
        "unique",
        "Adding unique constraint",
    )
    yield asked.lock(
        "foreign keys",
        mirrored,
        2,
        Mode.SHARE_ROW_EXCLUSIVE,
        "foreign key",
        "Adding foreign key",
    )
    yield _beside(asked, "validate foreign keys", mirrored, "Validating")
    yield asked.lock(
        "limits of the catalogue",
        asked.names(["@new.tables", "@new.table_assets"]),
        2,
        Mode.SHARE_ROW_EXCLUSIVE,
        "limits",
        "Installing the limits",
    )
    yield asked.lock(
        "open new tables", mirrored, 1, Mode.ACCESS_EXCLUSIVE, "open", "Opening"
    )


def _afterwards(asked: _Asked) -> Iterator[Lock]:
    """The way back, and the end."""
    legacy = asked.names(f"@legacy.{lens.legacy}" for lens in LENSES)
    mirrored = asked.names(f"@new.{table}" for table in _mirrored())
    if not catalog.where(asked.situation.connection).is_cut_over:
        yield asked.lock(
            "cut over: exchange names",
            [*legacy, *asked.names(f"@new.{table}" for table in cut_over.our_names())],
            len(legacy) + len(cut_over.our_names()),
            Mode.ACCESS_EXCLUSIVE,
            "cut over",
            "Cutting over",
        )
    yield asked.lock(
        "rollback: take triggers off",
        [*legacy, *mirrored],
        3,
        Mode.ACCESS_EXCLUSIVE,
        "triggers off",
        "Taking the triggers off",
    )
    yield asked.lock(
        "cleanup: drop tables",
        [*legacy, *mirrored],
        len(legacy) + len(mirrored),
        Mode.ACCESS_EXCLUSIVE,
        "cleanup",
        "Dropping the legacy tables",
    )


def _mirrored() -> list[str]:
    parts = [lens.part.table for lens in LENSES if lens.part is not None]
    return [*BY_NEW, *parts]


def _beside(asked: _Asked, step: str, tables: list[str], past: str) -> Lock:
    """What is done beside the traffic: it waits for others, and nobody for it."""
    lock = asked.lock(step, tables, 1, Mode.SHARE_UPDATE_EXCLUSIVE, "", past)
    old = [each for each in asked.everybody if asked.stays(each)]
    return replace(lock, in_the_way=tuple(old)) if past == "Building index" else lock
