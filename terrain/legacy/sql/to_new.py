"""The function that makes a new row agree with its legacy row."""

from __future__ import annotations

from collections.abc import Mapping

from terrain.legacy import mapping
from terrain.legacy.schema import Lens
from terrain.legacy.sql.columns import new_only, synced, written
from terrain.legacy.sql.lines import line_values, pricing, subtotal
from terrain.legacy.sql.owners import other_address, waits
from terrain.legacy.sql.relations import CHILDREN, PARENTS
from terrain.legacy.sql.rules import (
    any_flag,
    detail,
    flag_rows,
    held,
    known_flags,
    may_be_held,
    price_rules,
)
from terrain.legacy.sql.text import Types, ident, joined, literal, templates, texts
from terrain.sqlfiles import render


def to_new(lens: Lens, names: Mapping[str, str]) -> str:
    """The function ``<legacy>_to_new``, which displaces and holds."""
    return render(
        templates("functions.sql")["to_new"],
        displace="".join(_displace(lens, column, names) for column in lens.unique)
        or "NULL;",
        carry_displaced=(
            f"PERFORM rebuilt.{lens.legacy}_to_new(d.id) FROM unnest(displaced) AS d (id);"
            if lens.unique
            else ""
        ),
        refused=f"{literal(f'{lens.legacy} ')} || _key || ' was refused by the new table: '"
        " || SQLERRM || '. Correct the row, then retry.'",
        **names,
    )


def put(lens: Lens, types: Types, names: Mapping[str, str]) -> str:
    """The function ``<legacy>_put``, which writes."""
    source = templates("functions.sql")
    values = written(lens, types)
    columns = synced(lens)
    overtaken = render(source["overtaken"], **names)
    given = {name: f"given.f{number}" for number, name in enumerate(columns, 1)}
    assignments = [f"{name} = excluded.{name}" for name in columns]
    updates = [f"{name} = {given[name]}" for name in columns]
    if lens.owner is not None:
        stored = lens.owner.stored
        assignments.append(_forget_owner(lens, f"excluded.{stored}"))
        updates.append(_forget_owner(lens, given[stored]))
    return render(
        source["put"],
        # That the id is another row's is seen by what is written.
        judge=_if_held_whole("judge_whole", lens, names, alone=bool(lens.constants)),
        updates=joined(updates),
        given=joined(values[name] for name in columns),
        waits=f", {waits(lens)}" if lens.owner else "",
        into_waits=", waits" if lens.owner else "",
        # A line is written after its order, and not by the same statement.
        otherwise=(
            _watched(lens)
            if lens.part
            else f"ROW({joined(f'n.{name}' for name in columns)})::record *<> given"
        ),
        orphaned=_orphaned(lens),
        queue=render(source["queue_for_settle"], **names) if lens.owner else "",
        columns=joined(map(ident, values)),
        values=joined((values | given).values()),
        assignments=joined(assignments),
        same_kind=" AND ".join(
            f"n.{name} = {sql}" for name, sql in lens.constants.items()
        )
        or "true",
        stored=joined(f"n.{name}" for name in columns),
        excluded=joined(f"excluded.{name}" for name in columns),
        taken=_if_held_whole("taken", lens, names) if lens.constants else "",
        parents=_parents(lens),
        lock_parents=_lock_parents(lens),
        lines=_lines(lens, types, names),
        overtaken=overtaken,
        overtaken_by_lines=overtaken if lens.part else "",
        unpark=_unpark(lens, types),
        flags=_flags(lens, names),
        watch_triggers=render(
            source["watch_triggers"],
            bounced=(
                "CASE WHEN differs THEN NULL ELSE false END" if lens.part else "false"
            ),
            **names,
        ),
        more_variables=(
            "_subtotal numeric;\n    _sum numeric;\n    price text;\n    odd boolean;"
            "\n    differs boolean;"
            if lens.part
            else ""
        ),
        **names,
    )


def _if_held_whole(
    template: str, lens: Lens, names: Mapping[str, str], *, alone: bool = False
) -> str:
    """A step of lenses whose rows are held as a whole, if they are held."""
    if lens.part is not None or not lens.held:
        return ""
    return render(
        templates("functions.sql")[template],
        held=held(lens, alone=alone),
        hold_whole=_hold_whole(lens, names),
        **names,
    )


def _orphaned(lens: Lens, *, refused: bool = False) -> str:
    """Whether something that the legacy row refers to has no new row; which may be refused."""
    foreign_key = " AND rebuilt.has_foreign_key('@new.{}', '@new.{}')"
    return (
        " OR ".join(
            f"NOT EXISTS (SELECT FROM @new.{parent} p WHERE p.id = l.{column})"
            + (foreign_key.format(lens.new, parent) if refused else "")
            for column, parent in PARENTS.get(lens.legacy, ())
        )
        or "false"
    )


def _parents(lens: Lens) -> str:
    """A foreign key that the commit looks at must not be what the commit fails of."""
    if lens.legacy not in PARENTS:
        return ""
    return render(
        templates("functions.sql")["parents"],
        refused=_orphaned(lens, refused=True),
    )


def _lock_parents(lens: Lens) -> str:
    parents = PARENTS.get(lens.legacy, ())
    if not parents:
        return ""
    return render(
        templates("functions.sql")["lock_parents"],
        locks="\n        ".join(
            f"PERFORM FROM @new.{parent} p WHERE p.id = l.{column} FOR KEY SHARE;"
            for column, parent in parents
        ),
    )


def _watched(lens: Lens) -> str:
    """Whether a BEFORE trigger may store something else in the new tables than it is given."""
    tables = [lens.new, *([lens.part.table] if lens.part else [])]
    relations = joined(literal(f"@new.{table}") + "::regclass" for table in tables)
    return (
        f"EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid IN ({relations})"
        " AND NOT t.tgisinternal AND t.tgtype & 3 = 3 AND t.tgenabled <> 'D')"
    )


def _forget_owner(lens: Lens, given: str) -> str:
    """A row whose address became another's is settled anew."""
    owner = lens.owner
    assert owner is not None
    moved = other_address(f"n.{owner.stored}", given)
    return f"{owner.column} = CASE WHEN {moved} THEN NULL ELSE n.{owner.column} END"


def _hold_whole(lens: Lens, names: Mapping[str, str]) -> str:
    children = "".join(
        f", {literal(table)}, (SELECT coalesce(jsonb_agg(to_jsonb(c)), '[]') FROM @new.{table} c"
        f" WHERE c.{column} = _key)"
        for table, column in CHILDREN.get(lens.new, ())
    )
    return render(
        templates("functions.sql")["hold_whole"],
        held_detail=detail(lens, lens.held, "why"),
        park=f"(SELECT jsonb_build_object({literal(lens.new)}, to_jsonb(n){children})"
        f" FROM @new.{lens.new} n WHERE n.id = _key AND {lens.own})",
        **names,
    )


def _displace(lens: Lens, column: str, names: Mapping[str, str]) -> str:
    legacy = next(c for c in lens.mapped if column in c.up)
    return render(
        templates("functions.sql")["displace"],
        column=column,
        legacy_column=legacy.name,
        value=legacy.up[column],
        **names,
    )


def _unpark(lens: Lens, types: Types) -> str:
    if lens.part is not None or not lens.held:
        return ""
    columns = new_only(lens, types)
    statements = [
        # Limits are for people, not for what was there before them.
        "IF parked IS NOT NULL THEN"
        " limits := current_setting('terrain.sync', true);"
        " PERFORM set_config('terrain.sync', 'on', true);"
        f" UPDATE @new.{lens.new} n SET ({joined(columns)}) ="
        f" (SELECT {joined(f'r.{name}' for name in columns)} FROM"
        f" jsonb_populate_record(NULL::@new.{lens.new}, parked -> {literal(lens.new)}) r)"
        " WHERE n.id = _key;",
        *_unpark_owner(lens),
    ]
    for table, column in CHILDREN.get(lens.new, ()):
        other = {
            "table_assets": ("assets", "asset_id"),
            "table_sets": ("asset_sets", "asset_set_id"),
        }
        target, key = other[table]
        statements.append(
            # Its table may have been given another key meanwhile.
            f"INSERT INTO @new.{table} SELECT (jsonb_populate_record(r,"
            f" jsonb_build_object({literal(column)}, _key))).* FROM"
            f" jsonb_populate_recordset(NULL::@new.{table},"
            f" coalesce(parked -> {literal(table)}, '[]')) r"
            f" WHERE EXISTS (SELECT FROM @new.{target} a WHERE a.id = r.{key})"
            " ON CONFLICT DO NOTHING;"
        )
    return "\n        ".join(
        [
            *statements,
            "PERFORM set_config('terrain.sync', coalesce(limits, ''), true);",
            "END IF;",
        ]
    )


def _unpark_owner(lens: Lens) -> list[str]:
    """Who had the row has it again, unless its address is another by now."""
    owner = lens.owner
    if owner is None:
        return []
    targets = {owner.column: "users", owner.or_session: "anonymous_sessions"}
    columns = [name for name in targets if name is not None]
    found = (
        # Locked, because the key is checked at the commit only.
        f"(SELECT o.id FROM @new.{targets[name]} o"
        f" WHERE o.id = (parked -> {literal(lens.new)} ->> {literal(name)})::uuid FOR KEY SHARE)"
        for name in columns
    )
    was = f"(parked -> {literal(lens.new)} ->> {literal(owner.stored)})"
    sets = joined(f"{a} = {b}" for a, b in zip(columns, found, strict=True))
    return [
        f"UPDATE @new.{lens.new} n SET {sets}"
        f" WHERE n.id = _key AND NOT {other_address(was, f'n.{owner.stored}')};"
    ]


def _lines(lens: Lens, types: Types, names: Mapping[str, str]) -> str:
    part = lens.part
    if part is None:
        return ""
    source = templates("functions.sql")
    values = line_values(lens, types)
    unpark = (
        f"INSERT INTO @new.{part.table}"
        f" SELECT (jsonb_populate_record(r, jsonb_build_object("
        # The order may have been given another key meanwhile.
        f"{literal(part.parent)}, _key,"
        " 'model_id', (SELECT m.id FROM @new.models m WHERE m.id = r.model_id),"
        " 'artist_id', (SELECT u.id FROM @new.users u WHERE u.id = r.artist_id)))).*"
        f" FROM jsonb_populate_recordset(NULL::@new.{part.table},"
        f" parked -> {literal(part.table)}) r"
        " ON CONFLICT DO NOTHING;"
    )
    parts = {
        "pricing": pricing("@new.models", of_one=True),
        "line_values": joined(f"{sql} AS {name}" for name, sql in values.items()),
        "line_columns": joined(values),
        "line_price": "CASE WHEN i.price_source = 'own' THEN i.unit_price END",
        "asset_ref": mapping.plain_text("(e.item -> 'asset_id')"),
        "quantity": mapping.whole_number("e.item -> 'quantity'"),
        "own_price": mapping.own_price("e.item"),
        "line_assignments": joined(f"{name} = f.{name}" for name in values),
        "line_stored": joined(f"i.{name}" for name in values),
        "line_final": joined(f"f.{name}" for name in values),
    }
    return render(
        source["lines"],
        held=held(lens),
        may_be_held=may_be_held(lens),
        held_detail=detail(lens, lens.held, "why"),
        park=f"(SELECT jsonb_build_object({literal(part.table)}, jsonb_agg(to_jsonb(i)))"
        f" FROM @new.{part.table} i WHERE i.{part.parent} = _key HAVING count(*) > 0)",
        part=part.table,
        parent=part.parent,
        part_column=part.column,
        unpark_lines=unpark,
        write_lines=render(
            source["write_lines"], line_id=render(source["line_id"], row="f"), **parts
        ),
        first_lines=render(
            source["first_lines"], line_id=render(source["line_id"], row="e"), **parts
        ),
        subtotal=subtotal("l"),
        watched=_watched(lens),
        **names,
    )


def _flags(lens: Lens, names: Mapping[str, str]) -> str:
    source = templates("functions.sql")
    rows = flag_rows(lens)
    noteworthy = f"noted OR {any_flag(lens)}"
    price = ""
    if lens.part is not None:
        price = render(
            source["price"],
            any_flag=any_flag(lens),
            subtotal=subtotal("l"),
            part=lens.part.table,
            parent=lens.part.parent,
        )
        noteworthy = "odd OR price IS NOT NULL"
        rows += [
            (
                f"CASE WHEN why IS NULL AND price = {literal(rule.code)}"
                f" THEN {literal(rule.code)} END",
                detail(lens, [rule], literal(rule.code)),
            )
            for rule in price_rules()
        ]
    return render(
        source["flags"],
        price=price,
        noteworthy=noteworthy,
        flag_rows=joined(f"({code}, {sentence})" for code, sentence in rows),
        known=texts(known_flags(lens)),
        **names,
    )
