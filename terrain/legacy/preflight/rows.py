"""Questions about every row.  What each is doing, its docstring tells the waiting user."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from terrain import progress
from terrain.legacy import catalog, sql
from terrain.legacy.findings import EXAMPLES, Finding, Severity, passed
from terrain.legacy.preflight.asking import Question, Situation, found
from terrain.legacy.schema import Column, Lens, Repeat, Rule
from terrain.progress import Progress
from terrain.words import counted


def empty_values(situation: Situation) -> Iterator[Finding]:
    """Looking for values that are missing where the new schema needs one."""
    for lens in situation.lenses:
        schema = situation.tables[lens.legacy]
        loose = {
            column.name
            for column in catalog.columns(situation.connection, schema, lens.legacy)
            if column.nullable
        }
        for column in lens.mapped:
            if column.nullable or column.name not in loose:
                continue
            rows = situation.rows(
                f"SELECT l.id FROM {situation.qualified[lens.legacy]} l"
                f" WHERE l.{sql.ident(column.name)} IS NULL LIMIT 100"
            )
            yield from found(
                "empty-values",
                [{"table": lens.legacy, "id": key} for (key,) in rows],
                f"{lens.legacy}.{column.name} is empty where it must not be.",
                f"Fill it, then: ALTER TABLE {lens.legacy}"
                f" ALTER COLUMN {column.name} SET NOT NULL.",
            )


def duplicates(situation: Situation) -> Iterator[Finding]:
    """Looking for values that are there twice where the new schema allows one."""
    for lens in situation.lenses:
        for new in lens.unique:
            column = _source(lens, new)
            rows = situation.rows(
                f"SELECT l.{column.name} FROM {situation.qualified[lens.legacy]} l"
                f" WHERE l.{column.name} IS NOT NULL GROUP BY 1 HAVING count(*) > 1 LIMIT 100"
            )
            yield from found(
                "duplicates",
                [{"table": lens.legacy, column.name: value} for (value,) in rows],
                f"{lens.legacy}.{column.name} has values that occur more than once.",
                "Correct them, and put the UNIQUE constraint back.",
            )


def _source(lens: Lens, new: str) -> Column:
    return next(column for column in lens.mapped if new in column.up)


#: Legacy references that the new schema has too: (table, column, target).
REFERENCES = (
    ("assets", "artist_id", "artists"),
    ("example_tables", "artist_id", "artists"),
    ("stripe_transfers", "artist_id", "artists"),
    ("stripe_transfers", "order_id", "orders"),
)


def orphans(situation: Situation) -> Iterator[Finding]:
    """Looking for rows that refer to nothing."""
    for table, column, target in REFERENCES:
        rows = situation.rows(
            f"SELECT l.id, l.{column} FROM {situation.qualified[table]} l"
            f" WHERE l.{column} IS NOT NULL"
            f" AND NOT EXISTS (SELECT FROM {situation.qualified[target]} t"
            f" WHERE t.id = l.{column}) LIMIT 100"
        )
        yield from found(
            "orphans",
            [{"table": table, "id": key, column: value} for key, value in rows],
            f"{table}.{column} refers to {target} that are not there.",
            f"Correct or delete these rows, and put the foreign key on {table}.{column} back.",
        )


def roles(situation: Situation) -> Iterator[Finding]:
    """Looking for artists with a role that means something else."""
    rows = situation.rows(
        f"SELECT l.id, l.role FROM {situation.qualified['artists']} l"
        " WHERE l.role NOT IN ('artist', 'admin') LIMIT 100"
    )
    yield from found(
        "roles",
        [{"table": "artists", "id": key, "role": role} for key, role in rows],
        "Artists have a role that is neither artist nor admin.",
        "Make them one or the other, and put the CHECK constraint on artists.role back.",
    )


def round_trip(situation: Situation) -> Iterator[Finding]:
    """Proving on every row that it can be read back from the new schema as it is."""
    types = catalog.types(situation.connection)
    read = 0
    failed = False
    for lens in situation.lenses:
        there = situation.value(
            f"SELECT count(*) FROM {situation.qualified[lens.legacy]}"
        )
        read += there
        note = f"{there:,} rows there and back"
        progress.report(Progress(f"prove {lens.legacy}", 0, None, 0, note))
        rows = situation.rows(
            sql.round_trip(lens, types, situation.qualified) + f" LIMIT {EXAMPLES + 1}"
        )
        failed = failed or bool(rows)
        yield from found(
            "round-trip",
            [
                {"table": lens.legacy, "id": key, "is": now, "would be": back}
                for key, now, back in rows
            ],
            f"Rows of {lens.legacy} would not be read back as they are.",
            "This is a fault of the declaration in terrain/legacy/mapping.py; nothing has"
            " been changed. Report these rows.",
        )
    if not failed:
        yield passed(
            "round-trip",
            f"All {read:,} rows can be read back as they are, to the byte.",
        )


#: (kind, code) -> ids, for the rows of one table.
Forecast = dict[tuple[str, str], list[Any]]


def forecast(situation: Situation) -> Iterator[Finding]:
    """Looking for rows that will be held or flagged."""
    for lens in situation.lenses:
        rules: dict[tuple[str, str], Rule | Repeat] = {
            **{("held", rule.code): rule for rule in lens.held},
            **{("flagged", rule.code): rule for rule in lens.flagged},
            **{("flagged", rule.code): rule for rule in sql.price_rules()},
            **{("flagged", repeat.code): repeat for repeat in lens.repeats},
        }
        for (kind, code), ids in forecast_rows(situation, lens).items():
            rule = rules[kind, code]
            part = f"the {lens.part.column} of " if lens.part and kind == "held" else ""
            yield Finding(
                kind,
                Severity.WARNS,
                f"{part}{counted(len(ids), 'row')} of {lens.legacy} will be {kind}"
                f" ({code}): {'it' if len(ids) == 1 else 'each'} {rule.sentence}.",
                rule.remedy,
                tuple({"table": lens.legacy, "id": key} for key in ids[:EXAMPLES]),
                len(ids),
            )


def forecast_rows(situation: Situation, lens: Lens) -> Forecast:
    """The ids of the rows that will be held or flagged, by kind and code."""
    table = situation.qualified[lens.legacy]
    held = sql.held(lens, forecast=situation.qualified)
    made: Forecast = {}
    for code, key in situation.rows(
        f"SELECT x.code, x.id FROM (SELECT l.id, {held} AS code FROM {table} l) x"
        " WHERE x.code IS NOT NULL ORDER BY 1, 2"
    ):
        made.setdefault(("held", code), []).append(key)
    for code, key in _flagged(situation, lens, held):
        made.setdefault(("flagged", code), []).append(key)
    for number, repeat in enumerate(lens.repeats):
        for (key,) in situation.rows(sql.repeats(lens, table, number)):
            made.setdefault(("flagged", repeat.code), []).append(key)
    return made


def _flagged(situation: Situation, lens: Lens, held: str) -> list[tuple[Any, ...]]:
    """(code, id) of the rows that their own values, or their lines, will flag."""
    flags: list[tuple[Any, ...]] = []
    if lens.flagged:
        codes = sql.joined(f"({code})" for code, _sentence in sql.flag_rows(lens))
        not_held = "true" if lens.part is not None else f"{held} IS NULL"
        flags = situation.rows(
            f"SELECT f.code, l.id FROM {situation.qualified[lens.legacy]} l"
            f" CROSS JOIN LATERAL (VALUES {codes}) AS f (code)"
            f" WHERE f.code IS NOT NULL AND {not_held} ORDER BY 1, 2"
        )
    if lens.part is not None:
        flags += situation.rows(sql.price_forecast(lens, situation.qualified))
    return flags


ROW_QUESTIONS: tuple[Question, ...] = (
    empty_values,
    duplicates,
    orphans,
    roles,
    round_trip,
    forecast,
)
