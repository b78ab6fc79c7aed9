"""Who stands in the way of a lock, and what to do about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from terrain import sqlfiles

_SQL = Path(__file__).with_suffix(".sql")


class Mode(StrEnum):
    """The locks on a table that are asked for here, by their names in SQL."""

    ROW_EXCLUSIVE = "ROW EXCLUSIVE"
    SHARE_UPDATE_EXCLUSIVE = "SHARE UPDATE EXCLUSIVE"
    SHARE_ROW_EXCLUSIVE = "SHARE ROW EXCLUSIVE"
    ACCESS_EXCLUSIVE = "ACCESS EXCLUSIVE"


_ALL = (
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)

#: Mode -> the modes of others that it does not go with (PostgreSQL's table of conflicts).
CONFLICTS: Mapping[Mode, tuple[str, ...]] = {
    Mode.ROW_EXCLUSIVE: _ALL[4:],
    Mode.SHARE_UPDATE_EXCLUSIVE: _ALL[3:],
    Mode.SHARE_ROW_EXCLUSIVE: _ALL[2:],
    Mode.ACCESS_EXCLUSIVE: _ALL,
}

#: Who may hold a lock on a row: everybody who does more than read.
_HOLDS_ROWS = _ALL[1:]


class Kind(StrEnum):
    """What somebody who is in the way is doing."""

    SESSION = "session"
    IDLE = "idle"
    BACKUP = "backup"
    VACUUM = "vacuum"
    INDEX = "index"
    AUTOVACUUM = "autovacuum"
    WRAPAROUND = "wraparound"
    PREPARED = "prepared"


@dataclass(frozen=True)
class Blocker:
    """Somebody who holds a lock that is wanted.

    ``pid`` is None for a prepared transaction, which has a ``gid`` instead.  ``seconds``
    it has been in its transaction, and ``idle`` of these since its last statement; None
    where that is not for the current role to see.  ``tables`` are those it has locked,
    as far as they were asked about.  ``ours`` says whether the current role may end it,
    ``transaction`` which of its transactions it is.
    """

    kind: Kind
    pid: int | None
    gid: str
    role: str
    application: str
    seconds: float | None
    idle: float | None
    statement: str
    tables: str
    ours: bool
    transaction: str

    @property
    def who(self) -> str:
        if self.kind == Kind.PREPARED:
            return f"the prepared transaction {_quoted(self.gid)} (role {self.role})"
        if self.kind in (Kind.AUTOVACUUM, Kind.WRAPAROUND):
            return f"process {self.pid} (autovacuum)"
        named = self.application or "unnamed"
        return f"process {self.pid} (role {self.role}, {named})"

    @property
    def doing(self) -> str:
        """What it is at, and for how long."""
        statement = " ".join(self.statement.split())[:80]
        lasting = "" if self.seconds is None else f" for {self.seconds:,.0f} s"
        of = f" of {self.tables}" if self.tables else ""
        if self.kind == Kind.IDLE:
            return (
                f"in its transaction{lasting}, idle since {self.idle or 0:,.0f} s after:"
                f" {statement or 'nothing'}"
            )
        if self.kind == Kind.SESSION:
            shown = statement or "its statement is not for this role to see"
            return f"in its transaction{lasting}: {shown}"
        return {
            Kind.PREPARED: f"waiting to be committed{lasting}",
            Kind.BACKUP: f"a backup by pg_dump{lasting}",
            Kind.VACUUM: f"VACUUM or ANALYZE{of}{lasting}",
            Kind.INDEX: f"building an index{lasting}",
            Kind.AUTOVACUUM: f"vacuuming or analysing{of or ' a table'}{lasting}",
            Kind.WRAPAROUND: (
                f"vacuuming{of or ' a table'} against transaction id wraparound{lasting},"
                " for which it never makes way"
            ),
        }[self.kind]

    @property
    def advice(self) -> str:
        """What to do about it."""
        end = f"SELECT pg_terminate_backend({self.pid});"
        if not self.ours:
            end = f"as role {self.role} or a superuser, {end}"
        return {
            Kind.SESSION: f"let it end, or end it: {end}",
            Kind.IDLE: f"end it: {end}",
            Kind.BACKUP: "let it end, and begin no other",
            Kind.VACUUM: f"let it end, or end it: {end}",
            Kind.INDEX: "let it end: interrupted, it leaves an invalid index behind",
            Kind.AUTOVACUUM: "it makes way by itself when it is asked again",
            Kind.WRAPAROUND: "let it end",
            Kind.PREPARED: (
                f"end it: COMMIT PREPARED {_quoted(self.gid)}; or"
                f" ROLLBACK PREPARED {_quoted(self.gid)};"
            ),
        }[self.kind]

    def __str__(self) -> str:
        return f"{self.who}, {self.doing} ({self.advice})"

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": str(self.kind),
            "process": self.pid,
            "gid": self.gid or None,
            "role": self.role or None,
            "application": self.application or None,
            "seconds": self.seconds,
            "idle_seconds": self.idle,
            "statement": self.statement or None,
            "tables": self.tables.split(", ") if self.tables else [],
            "advice": self.advice,
        }


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def who_blocks(
    connection: BaseDatabaseWrapper, tables: tuple[str, ...], mode: Mode | None = None
) -> list[Blocker]:
    """Who holds a lock on any of ``tables`` that does not go with ``mode``, longest first.

    ``tables`` are qualified names, those that are not there are passed over.  Without a
    mode it is locks on rows that are wanted, and everybody who may have some is named.
    """
    modes = _HOLDS_ROWS if mode is None else CONFLICTS[mode]
    return _described(
        connection, "holders", {"tables": list(tables), "modes": list(modes)}
    )


def waited_for(connection: BaseDatabaseWrapper, pid: int) -> list[Blocker]:
    """Whom a process waits for at this moment; ``connection`` is another one's."""
    return _described(connection, "waited_for", {"pid": pid})


def in_transaction(connection: BaseDatabaseWrapper) -> list[Blocker]:
    """Everybody else who is in a transaction in this database, longest first."""
    return _described(connection, "in_transaction", {})


def _described(
    connection: BaseDatabaseWrapper, name: str, params: dict[str, Any]
) -> list[Blocker]:
    queries = sqlfiles.statements(_SQL)
    with connection.cursor() as cursor:
        cursor.execute(
            sqlfiles.render(queries["described"], found=queries[name]), params
        )
        return [Blocker(Kind(kind), *rest) for kind, *rest in cursor.fetchall()]
