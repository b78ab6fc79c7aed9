"""What a database is made like, object by object, to be compared with another's.

Read from scripts of ``pg_dump`` and ``pg_restore``, who know every kind of object there is,
with its owner, grants and comment.  Pure: text in, sentences out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

#: What precedes each object in a script.
_HEADER = re.compile(
    r"^--\n-- (?:Data for )?Name: (?P<name>.*); Type: (?P<kind>[A-Z ]+); Schema: (?P<schema>.*);"
    r" Owner: .*\n--$",
    re.MULTILINE,
)
#: Lines that set up the session and say nothing about the object they stand with, tablespaces
#: among them: where a table is kept is the server's affair.  Empty lines, the end of the script.
_ABOUT_THE_SESSION = re.compile(
    r"SET default_\w+ = .*;|SELECT pg_catalog\.set_config\(.*|\\(un)?restrict .*|\s*"
    r"|--(?: PostgreSQL database dump complete)?"
)
#: Statements of a script that say whose things are.  Where a role is missing or out of reach
#: they fail, what they are about belongs to whoever restores, and no row is lost by that.
OWNERSHIP = re.compile(
    r"(GRANT|REVOKE|ALTER DEFAULT PRIVILEGES|COMMENT ON EXTENSION|SECURITY LABEL)\b"
    r"|ALTER .+ OWNER TO ",
    re.DOTALL,
)
#: What the server writes otherwise once it has read its own words: an IN over varchar gets
#: its casts element by element, to the same effect.
_CASTS = re.compile(r"::(text|character varying)(\(\d+\))?(\[\])?|[()]")


@dataclass(frozen=True)
class Object:
    """Something that was defined: its kind, and its name with what is told it by."""

    kind: str
    schema: str
    name: str

    def __str__(self) -> str:
        where = "" if self.schema in ("-", "") else f"{self.schema}."
        return f"{self.kind.lower()} {where}{self.name}"


#: Object -> the lines that define it, and those that say whose it is, in order.
Definitions = Mapping[Object, tuple[tuple[str, ...], tuple[str, ...]]]


def of(script: str) -> Definitions:
    """The definitions in a script of ``pg_dump`` or ``pg_restore`` for sections without data."""
    found: dict[Object, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    headers = list(_HEADER.finditer(script))
    starts = [header.start() for header in headers] + [len(script)]
    for header, end in zip(headers, starts[1:], strict=True):
        what = Object(header["kind"], header["schema"], header["name"])
        if what.schema == "pg_catalog":
            continue  # PostgreSQL's own; what was granted there only superusers can grant
        lines = script[header.end() : end].split("\n")
        kept = [line for line in lines if not _ABOUT_THE_SESSION.fullmatch(line)]
        made = tuple(line for line in kept if not OWNERSHIP.match(line))
        whose = tuple(line for line in kept if OWNERSHIP.match(line))
        before = found.get(what, ((), ()))
        found[what] = (before[0] + made, tuple(sorted(before[1] + whose)))
    return found


def differences(
    before: Definitions, after: Definitions, failed: Collection[str] = ()
) -> list[str]:
    """Where two databases are made differently, a sentence for each object.

    ``failed`` are the statements of :data:`OWNERSHIP` that could not be carried out: they
    are told by themselves, and what follows from them is no difference.
    """
    lost = {f"{statement.rstrip(';')};" for statement in failed}
    return list(_differences(before, after, lost))


def _differences(
    before: Definitions, after: Definitions, lost: Collection[str]
) -> Iterator[str]:
    for what in sorted({*before, *after}, key=str):
        was, whose = before.get(what, ((), ()))
        is_, whose_now = after.get(what, ((), ()))
        if was != is_ and _plain(was) != _plain(is_):
            if not is_:
                yield f"The {what} was not restored."
            elif not was:
                yield f"The {what} is not in the backup."
            else:
                yield f"The {what} is defined otherwise restored than in the backup."
        elif set(whose) - set(whose_now) - set(lost) or (
            not lost and set(whose_now) - set(whose)
        ):
            yield f"The {what} has another owner or other grants restored than in the backup."


def _plain(lines: tuple[str, ...]) -> str:
    return _CASTS.sub("", "\n".join(lines))
