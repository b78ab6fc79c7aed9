"""The words the declaration in ``mapping.py`` is written in: plain data, no behaviour.

SQL expressions refer to a legacy row as ``l``, to a new row as ``n``, to an element of a
JSON array as ``e`` (columns ``item`` and ``position``) and to the row made of it as ``i``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Column:
    """Where one legacy column goes, and how it comes back.

    ``type`` is the column's type as ``format_type`` gives it.  ``up`` gives, for each new
    column the value takes part in, an expression over ``l``; ``down`` is the expression
    over ``n`` that restores the legacy value.  ``how`` says it in words.
    """

    name: str
    type: str
    up: Mapping[str, str]
    down: str
    how: str = "as it was"
    nullable: bool = False


@dataclass(frozen=True)
class Dropped:
    """A legacy column that is left behind, and why."""

    name: str
    type: str
    reason: str


@dataclass(frozen=True)
class Rule:
    """A reason to hold or to flag a row.

    ``when`` is a condition over ``l``; with ``of_element`` it is one over ``e``, and is met
    if any element of the lens's part meets it.  ``forecast`` is the same condition before
    anything has moved, where it has to be put differently.  ``sentence`` follows "this
    row …" and tells a person what is wrong.
    """

    code: str
    when: str
    sentence: str
    remedy: str
    forecast: str | None = None
    of_element: bool = False


@dataclass(frozen=True)
class Repeat:
    """A value that several rows share and should not: all of them are flagged.

    ``value`` is an expression over ``l``, NULL where the row does not take part.
    """

    code: str
    value: str
    sentence: str
    remedy: str


@dataclass(frozen=True)
class Owner:
    """The account behind an address: ``column`` of the new row, from ``address`` of ``l``.

    Set when rows are copied, and by ``settle`` for rows written since.  With
    ``or_session``, a row without an address gets an anonymous session of its own.
    """

    column: str
    address: str
    stored: str
    name: str = "''"
    or_session: str | None = None


@dataclass(frozen=True)
class Part:
    """A JSON array in a legacy column that becomes a row per element.

    ``up`` gives the columns of the new row as expressions over ``e``; ``down`` rebuilds
    the element from ``i``.  ``derived`` are the columns computed once, by the statement
    ``order_lines`` in ``queries.sql``; they stay while the columns in ``identity`` do.
    ``fine`` is a quick test over ``l``: if it passes, no element meets a rule that holds
    the row.
    """

    column: str
    table: str
    parent: str
    up: Mapping[str, str]
    down: str
    derived: tuple[str, ...]
    identity: tuple[str, ...]
    fine: str = "false"
    how: str = ""


@dataclass(frozen=True)
class Lens:
    """How a row of ``legacy`` is put into ``new``, and read back from the new schema alone.

    ``own`` is a condition over ``n``: which rows of the new table are this legacy
    table's.  ``constants`` are what makes them so, as expressions.  ``first`` gives new
    columns a value when the row is made; afterwards they belong to the new application.
    ``held`` rows stay behind, or, where there is a ``part``, that part of them does.
    """

    legacy: str
    new: str
    columns: tuple[Column | Dropped, ...]
    own: str = "true"
    constants: Mapping[str, str] = field(default_factory=dict)
    first: Mapping[str, str] = field(default_factory=dict)
    part: Part | None = None
    owner: Owner | None = None
    held: tuple[Rule, ...] = ()
    flagged: tuple[Rule, ...] = ()
    repeats: tuple[Repeat, ...] = ()
    unique: tuple[str, ...] = ()
    key: str = "id"

    @property
    def mapped(self) -> tuple[Column, ...]:
        """The legacy columns that are not dropped, in the legacy table's order."""
        return tuple(column for column in self.columns if isinstance(column, Column))

    @property
    def up(self) -> dict[str, str]:
        """New column -> expression over ``l``, for every column the sync keeps in step."""
        return {name: sql for column in self.mapped for name, sql in column.up.items()}


def fingerprint(lenses: Iterable[Lens]) -> str:
    """SHA-256 of everything that a declaration says."""
    text = json.dumps([asdict(lens) for lens in lenses], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
