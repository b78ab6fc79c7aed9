"""Held rows to look at again, and rows that share what no two should have."""

from __future__ import annotations

from terrain.legacy.schema import Lens
from terrain.legacy.sql.rules import held
from terrain.legacy.sql.text import literal, query, texts


def to_retry(lens: Lens) -> str:
    """Keys of the held rows that may no longer be, by what can be told without trying."""
    return query(
        "to_retry",
        legacy=lens.legacy,
        held=held(lens),
        reasons=texts(rule.code for rule in lens.held),
    )


def mark_repeats(lens: Lens, table: str, index: int) -> str:
    """Parameters: ``table`` and ``reason``, as the quarantine names them."""
    repeat = lens.repeats[index]
    sentence = (
        f"({literal(lens.legacy + ' ')} || l.id ||"
        f" {literal(f' {repeat.sentence}. {repeat.remedy}')})"
    )
    return query("mark_repeats", legacy=table, value=repeat.value, detail=sentence)


def repeats(lens: Lens, table: str, index: int) -> str:
    return query("repeats", legacy=table, value=lens.repeats[index].value)
