"""Text: identifiers, literals, and the statements of the ``.sql`` files beside this module."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql as pg

from terrain.sqlfiles import render, statements

Types = Mapping[str, Mapping[str, str]]

#: Where hand-written and generated statements take their ranges of keys from.
RANGE = (
    "(%(after)s::uuid IS NULL OR {0}.id > %(after)s::uuid)"
    " AND (%(upto)s::uuid IS NULL OR {0}.id <= %(upto)s::uuid)"
)


def templates(name: str) -> Mapping[str, str]:
    """The named statements of one ``.sql`` file beside this module."""
    return statements(Path(__file__).parent / name)


def query(statement: str, /, **parts: str) -> str:
    """A statement of ``queries.sql``."""
    return render(templates("queries.sql")[statement].strip(), **parts)


@dataclass(frozen=True)
class Signature:
    """A function of ``rebuilt``: its name there, that name with the types of its arguments, its
    result, and its arguments' names, which ``CREATE OR REPLACE`` does not change."""

    name: str
    identity: str
    result: str
    arguments: str


def signature(statement: str) -> Signature | None:
    """The function that a statement made here creates, if it creates one with one result."""
    found = re.search(
        r"CREATE OR REPLACE FUNCTION rebuilt\.(\w+)\(([^()]*)\)\s+RETURNS (?!TABLE\b)(\w+)",
        statement,
    )
    if found is None:
        return None
    name, arguments, result = found.groups()
    each = [argument.split() for argument in arguments.split(",") if argument.strip()]
    return Signature(
        name,
        f"rebuilt.{name}({joined(words[-1] for words in each)})",
        result,
        " ".join(words[0] for words in each),
    )


def ident(*names: str) -> str:
    """A quoted, dotted identifier."""
    return pg.Identifier(*names).as_string(None)


def legacy_table(name: str) -> str:
    """A legacy table, wherever it is when the statement is run: see ``place.py``."""
    return f"@legacy.{ident(name)}"


def new_table(name: str) -> str:
    """A table of the new schema, wherever it is when the statement is run."""
    return f"@new.{ident(name)}"


def plain(name: str) -> str:
    """An identifier that needs no quotes, so that others can be made from it."""
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", name):
        raise ValueError(f"{name!r} is not a plain identifier.")
    return name


def literal(value: object) -> str:
    """A quoted literal."""
    return pg.Literal(value).as_string(None)


def cast(expression: str, type_: str) -> str:
    return f"({expression})::{type_}"


def joined(parts: Iterable[str]) -> str:
    return ", ".join(parts)


def joined_whens(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f" WHEN {condition} THEN {result}" for condition, result in pairs)


def joined_by_or(conditions: Iterable[str]) -> str:
    return " OR ".join(f"({condition})" for condition in conditions) or "false"


def texts(values: Iterable[str]) -> str:
    """A text array."""
    return f"ARRAY[{joined(map(literal, values))}]::text[]"
