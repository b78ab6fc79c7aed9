"""From the declaration to SQL: pure functions, no connection.

``Types`` says which columns each new table has, in order, and their types; the engine
takes it from the Django models.  Everything else comes from ``mapping.py`` and from the
templates in ``functions.sql`` and ``queries.sql``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from psycopg import sql as pg

from terrain import locks
from terrain.legacy import mapping
from terrain.legacy.schema import Lens, Rule
from terrain.sqlfiles import render, statements

Types = Mapping[str, Mapping[str, str]]

#: How long the new application waits for a legacy row before it yields.
NEW_SIDE_LOCK_TIMEOUT = "80ms"
#: Trigger depth at which two sides that keep correcting each other are given up on.
DEEPEST = 24

#: Columns that refer to an account.  Those of ``MIRRORED`` tables come from a legacy row
#: that refers to the artist too.
USER_REFERENCES = (
    ("models", "artist_id"),
    ("tables", "user_id"),
    ("orders", "user_id"),
    ("order_items", "artist_id"),
    ("payments", "artist_id"),
    ("assets", "artist_id"),
    ("asset_sets", "owner_id"),
)
MIRRORED = ("models", "order_items", "payments")

#: Rows of the new application alone that go where a table goes.
CHILDREN: Mapping[str, tuple[tuple[str, str], ...]] = {
    "tables": (("table_assets", "table_id"), ("table_sets", "table_id")),
}

#: Legacy columns whose change is something for ``settle``.  Rows that are to have an owner
#: are queued where they are written, while they have none.
SETTLED_BY: Mapping[str, tuple[str, ...]] = {"artists": ("email",)}

#: Where hand-written and generated statements take their ranges of keys from.
RANGE = (
    "(%(after)s::uuid IS NULL OR {0}.id > %(after)s::uuid)"
    " AND (%(upto)s::uuid IS NULL OR {0}.id <= %(upto)s::uuid)"
)


# --- text ----------------------------------------------------------------------------------


def templates(name: str) -> Mapping[str, str]:
    """The named statements of one ``.sql`` file beside this module."""
    return statements(Path(__file__).parent / name)


def ident(*names: str) -> str:
    """A quoted, dotted identifier."""
    return pg.Identifier(*names).as_string(None)


def plain(name: str) -> str:
    """An identifier that needs no quotes, so that others can be made from it."""
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", name):
        raise ValueError(f"{name!r} is not a plain identifier.")
    return name


def literal(value: object) -> str:
    """A quoted literal."""
    return pg.Literal(value).as_string(None)


def joined(parts: Iterable[str]) -> str:
    return ", ".join(parts)


def texts(values: Iterable[str]) -> str:
    """A text array."""
    return f"ARRAY[{joined(map(literal, values))}]::text[]"


# --- rules ---------------------------------------------------------------------------------


def held(lens: Lens, *, forecast: Mapping[str, str] | None = None) -> str:
    """The code of the first rule that holds ``l``, or NULL.

    With ``forecast``, a map of table name -> qualified name, as it will be: nothing of
    the new schema is referred to.
    """
    if not lens.held:
        return "NULL::text"
    of_row = [rule for rule in lens.held if not rule.of_element]
    whens = joined_whens((_when(rule, forecast), literal(rule.code)) for rule in of_row)
    return f"(CASE{whens} ELSE {_first_of_elements(lens)} END)"


def _first_of_elements(lens: Lens) -> str:
    """The code of the first rule that any element meets: one look at each."""
    rules = [rule for rule in lens.held if rule.of_element]
    if lens.part is None or not rules:
        return "NULL"
    ranks = joined_whens((rule.when, str(rank)) for rank, rule in enumerate(rules, 1))
    return (
        f"CASE WHEN NOT ({lens.part.fine}) THEN"
        f" ({texts(rule.code for rule in rules)})[(SELECT min(CASE{ranks} END)"
        f" FROM jsonb_array_elements(l.{lens.part.column}) AS e (item))] END"
    )


def joined_whens(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f" WHEN {condition} THEN {result}" for condition, result in pairs)


def _when(rule: Rule, forecast: Mapping[str, str] | None) -> str:
    if forecast is None or rule.forecast is None:
        return rule.when
    return render(rule.forecast, **forecast)


def detail(lens: Lens, rules: Iterable[Rule], code: str) -> str:
    """The sentence about ``l`` for the rule whose code the expression ``code`` gives."""
    whens = joined_whens(
        (f"{code} = {literal(rule.code)}", literal(f" {rule.sentence}. {rule.remedy}"))
        for rule in rules
    )
    return f"({literal(lens.legacy + ' ')} || l.id || CASE{whens} END)"


def price_rules() -> tuple[Rule, ...]:
    """Flags that come from the lines of an order together, not from its row alone."""
    remedy = "Compare the lines with what the customer paid, and correct either, or accept it."
    return (
        Rule(
            "subtotal_missing",
            "",
            "has no model_subtotal to check its lines against",
            remedy,
        ),
        Rule(
            "prices_disagree",
            "",
            "has lines that do not add up to its model_subtotal",
            remedy,
        ),
    )


# --- columns -------------------------------------------------------------------------------


def cast(expression: str, type_: str) -> str:
    return f"({expression})::{type_}"


def written(lens: Lens, types: Types) -> dict[str, str]:
    """New column -> expression over ``l``, for all that a new row is made with."""
    columns = {**lens.up, **lens.constants, **lens.first}
    return {name: cast(columns[name], types[lens.new][name]) for name in columns}


def synced(lens: Lens) -> tuple[str, ...]:
    """The new columns that stay in step, without the key."""
    return tuple(name for name in lens.up if name != lens.key)


def down(lens: Lens) -> dict[str, str]:
    """Legacy column -> expression over ``n`` that restores it, with its type."""
    columns = {
        column.name: cast(column.down or "NULL", column.type) for column in lens.mapped
    }
    if lens.part is not None:
        columns[lens.part.column] = (
            "coalesce((SELECT jsonb_agg(e.item ORDER BY e.position) FROM"
            f" (SELECT i.position, {lens.part.down} AS item"
            f" FROM {ident('public', lens.part.table)} i"
            f" WHERE i.{ident(lens.part.parent)} = n.id) e), '[]')"
        )
    return columns


def new_only(lens: Lens, types: Types) -> tuple[str, ...]:
    """Columns of the new table that the legacy one knows nothing of."""
    taken = {*lens.up, *lens.constants}
    if lens.owner is not None:
        taken |= {lens.owner.column, lens.owner.or_session or lens.owner.column}
    return tuple(name for name in types[lens.new] if name not in taken)


# --- the view, and the proof ---------------------------------------------------------------


def rebuilt_view(lens: Lens, order: Iterable[str]) -> str:
    """``rebuilt.<table>``: the legacy table from the new schema, columns in ``order``."""
    columns = down(lens)
    return (
        f"CREATE OR REPLACE VIEW {ident('rebuilt', lens.legacy)} AS SELECT\n    "
        + ",\n    ".join(f"{columns[name]} AS {ident(name)}" for name in order)
        + f"\n  FROM {ident('public', lens.new)} n WHERE {lens.own}"
    )


def round_trip(lens: Lens, types: Types, tables: Mapping[str, str]) -> str:
    """A query for the rows that ``down(up(row))`` does not give back: none, if law 1 holds.

    Columns: id, the row as it is and as it would come back (both text).  It reads the
    legacy table alone, whose qualified name is in ``tables``.  Held rows are left out,
    or, where only a part is held, that part of them.
    """
    up = {
        name: cast(expression, types[lens.new][name])
        for name, expression in {**lens.up, **lens.constants}.items()
    }
    made = joined(f"{expression} AS {ident(name)}" for name, expression in up.items())
    back = {
        column.name: cast(column.down or "NULL", column.type) for column in lens.mapped
    }
    is_held = f"{held(lens, forecast=tables)} IS NOT NULL"
    if lens.part is not None:
        back[lens.part.column] = (
            f"CASE WHEN {is_held} THEN l.{lens.part.column}"
            f" ELSE {_part_there_and_back(lens, types)} END"
        )
        is_held = "false"
    names = [column.name for column in lens.mapped]
    return (
        "SELECT x.id, x.is_now, x.comes_back FROM ("
        f"SELECT l.id, ROW({joined(f'l.{ident(name)}' for name in names)})::text AS is_now,"
        f" ROW({joined(back[name] for name in names)})::text AS comes_back"
        f" FROM {tables[lens.legacy]} l CROSS JOIN LATERAL (SELECT {made} OFFSET 0) n"
        f" WHERE NOT ({is_held})) x WHERE x.is_now IS DISTINCT FROM x.comes_back"
    )


def _part_there_and_back(lens: Lens, types: Types) -> str:
    part = lens.part
    assert part is not None
    made = {
        name: cast(expression, types[part.table][name])
        for name, expression in part.up.items()
    }
    own = mapping.own_price("e.item")
    made["unit_price"] = cast(own, types[part.table]["unit_price"])
    made["price_source"] = (
        f"CASE WHEN {own} IS NOT NULL THEN 'own' ELSE 'catalogue' END"
    )
    columns = joined(f"{expression} AS {name}" for name, expression in made.items())
    return (
        f"coalesce((SELECT jsonb_agg(i.back ORDER BY i.position) FROM"
        f" (SELECT i.position, {part.down} AS back FROM"
        f" (SELECT e.position, {columns} FROM jsonb_array_elements(l.{part.column})"
        f" WITH ORDINALITY AS e (item, position) OFFSET 0) i) i), '[]')"
    )


def price_forecast(lens: Lens, tables: Mapping[str, str]) -> str:
    """A query for orders whose lines will not add up: code and id, before anything moves."""
    is_held = f"{held(lens, forecast=tables)} IS NOT NULL"
    return query(
        "price_forecast",
        orders=tables[lens.legacy],
        is_held=is_held,
        subtotal=subtotal("l"),
        pricing=pricing(tables["assets"]),
    )


# --- order lines ---------------------------------------------------------------------------


def pricing(models: str) -> str:
    """The CTEs that price the lines of ``line``; ``models`` is where catalogue prices are."""
    return render(
        templates("functions.sql")["pricing"].strip(),
        models=models,
        quantity=mapping.whole_number("e.item -> 'quantity'"),
        own_price=mapping.own_price("e.item"),
        asset_ref=mapping.plain_text("(e.item -> 'asset_id')"),
        is_uuid=mapping.is_uuid("k.asset_ref"),
    )


def subtotal(row: str) -> str:
    """What the models of an order cost together, by its own account, or NULL."""
    return mapping.sane_amount(f"{row}.pricing -> 'model_subtotal'")


def line_values(lens: Lens, types: Types) -> dict[str, str]:
    """Column of the part -> expression over a priced line ``e``."""
    part = lens.part
    assert part is not None
    known = {name: f"e.{name}" for name in (*part.identity, *part.derived)}
    columns = {**part.up, **known}
    return {name: cast(sql, types[part.table][name]) for name, sql in columns.items()}


# --- the functions that keep both in step --------------------------------------------------


def common_functions() -> list[str]:
    """What all tables share.  Can be run again."""
    source = templates("functions.sql")
    references = joined(
        f"({literal(table)}, {literal(column)})" for table, column in USER_REFERENCES
    )
    mirrored = joined(f"{literal('public.' + table)}::regclass" for table in MIRRORED)
    return [
        source["schema"],
        source["queue"],
        source["hold"],
        source["release"],
        source["flag"],
        render(source["user_references"], user_references=references),
        render(source["user_is_needed"], mirrored=f"ARRAY[{mirrored}]"),
        source["repoint_user"],
        render(
            source["to_customer"],
            is_address=mapping.is_address("n.email"),
            normal_address=mapping.normal_address("n.email"),
        ),
        source["would_take_along"],
        source["on_new_truncate"],
        render(source["yield_to_old"], lock_timeout=NEW_SIDE_LOCK_TIMEOUT),
        source["yielded_to_old"],
    ]


def functions(lens: Lens, types: Types, order: Iterable[str]) -> list[str]:
    """The view and the functions of one lens.  Can be run again."""
    source = templates("functions.sql")
    names = {"legacy": plain(lens.legacy), "new": plain(lens.new), "own": lens.own}
    order = tuple(order)
    made = [
        rebuilt_view(lens, order),
        render(source["held"], held=held(lens), **names),
        render(
            source["gone_user" if lens.new == "users" else "gone"],
            delete_children="\n    ".join(
                f"DELETE FROM public.{table} c WHERE c.{column} = _key;"
                for table, column in _dependents(lens)
            ),
            **names,
        ),
        render(source["moved"], move_children=_move_children(lens), **names),
        _to_new(lens, types, names),
        _to_legacy(lens, order, names),
        render(
            source["on_legacy"],
            wait_for_batches=_wait_for_batches(lens),
            part_changed=_part_changed(lens),
            notify_settle=_notify_settle(lens, names),
            **names,
        ),
        render(source["on_legacy_truncate"], **names),
    ]
    if lens.part is not None:
        made.append(
            render(
                source["on_new_part"],
                part=lens.part.table,
                parent=lens.part.parent,
                **names,
            )
        )
    return made


def on_new_function(new: str, lenses: Iterable[Lens]) -> str:
    """The trigger function of a new table, for all legacy tables it holds rows of."""
    source = templates("functions.sql")
    carried = [
        render(
            source["carry_over"],
            legacy=plain(lens.legacy),
            owns_new=_in_trigger(lens.own, "NEW"),
            owns_old=_in_trigger(lens.own, "OLD"),
            settle_new=_settle_new(lens),
        )
        for lens in lenses
    ]
    return render(source["on_new"], new=plain(new), carry_over="".join(carried))


def _in_trigger(condition: str, row: str) -> str:
    return f"({condition.replace('n.', f'{row}.')})"


def _settle_new(lens: Lens) -> str:
    if lens.owner is not None:
        columns = [lens.owner.column, *filter(None, [lens.owner.or_session])]
        return " AND ".join(f"NEW.{column} IS NULL" for column in columns)
    if lens.new == "users":
        return "OLD.email IS DISTINCT FROM NEW.email"
    return "false"


def _dependents(lens: Lens) -> list[tuple[str, str]]:
    """(table, column) of the rows that go where a row of the lens goes."""
    part = [(lens.part.table, lens.part.parent)] if lens.part else []
    return [*part, *CHILDREN.get(lens.new, ())]


def _move_children(lens: Lens) -> str:
    if lens.new == "users":
        return "PERFORM rebuilt.repoint_user(_old, _new);"
    moves = [
        f"UPDATE public.{table} c SET {column} = _new WHERE c.{column} = _old;"
        for table, column in _dependents(lens)
    ]
    if lens.part is not None:
        table, parent = lens.part.table, lens.part.parent
        moves.append(
            f"UPDATE public.{table} c SET id = md5(_new || ':' || c.position)::uuid"
            f" WHERE c.{parent} = _new AND c.id = md5(_old || ':' || c.position)::uuid;"
        )
    return "\n        ".join(moves)


def _to_new(lens: Lens, types: Types, names: Mapping[str, str]) -> str:
    source = templates("functions.sql")
    values = written(lens, types)
    columns = synced(lens)
    assignments = [f"{name} = excluded.{name}" for name in columns]
    updates = [f"{name} = v.{name}" for name in columns]
    if lens.owner is not None:
        assignments.append(_forget_owner(lens, "excluded"))
        updates.append(_forget_owner(lens, "v"))
    return render(
        source["to_new"],
        waits=f" RETURNING {waits(lens)} INTO waits" if lens.owner else "",
        queue=render(source["queue_for_settle"], **names) if lens.owner else "",
        updates=joined(updates),
        synced_values=joined(f"{values[name]} AS {name}" for name in columns),
        wanted=joined(f"v.{name}" for name in columns),
        held=held(lens),
        hold_whole=(
            "" if lens.part or not lens.held else _hold_whole(lens, types, names)
        ),
        displace="".join(_displace(lens, column, names) for column in lens.unique)
        or "NULL;",
        carry_displaced=(
            f"PERFORM rebuilt.{lens.legacy}_to_new(d.id) FROM unnest(displaced) AS d (id);"
            if lens.unique
            else ""
        ),
        refused=f"{literal(f'{lens.legacy} ')} || _key || ' was refused by the new table: '"
        " || SQLERRM || '. Correct the row, then retry.'",
        columns=joined(map(ident, values)),
        values=joined(values.values()),
        assignments=joined(assignments),
        same_kind=" AND ".join(
            f"n.{name} = {sql}" for name, sql in lens.constants.items()
        )
        or "true",
        stored=joined(f"n.{name}" for name in columns),
        excluded=joined(f"excluded.{name}" for name in columns),
        part_too=f"_part := true; why := {held(lens)};" if lens.part else "",
        lines=_lines(lens, types, names),
        unpark=_unpark(lens, types),
        flags=_flags(lens, names),
        watch_triggers=render(
            source["watch_triggers"],
            watched=" OR ".join(
                f"EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = {literal(f'public.{table}')}"
                "::regclass AND NOT t.tgisinternal AND t.tgtype & 3 = 3 AND t.tgenabled <> 'D')"
                for table in [lens.new, *([lens.part.table] if lens.part else [])]
            ),
            **names,
        ),
        **names,
    )


def _forget_owner(lens: Lens, given: str) -> str:
    """A row whose address became another's is settled anew."""
    owner = lens.owner
    assert owner is not None
    moved = _other_address(f"n.{owner.stored}", f"{given}.{owner.stored}")
    return f"{owner.column} = CASE WHEN {moved} THEN NULL ELSE n.{owner.column} END"


def _other_address(was: str, is_: str) -> str:
    """Whether two texts are different addresses.  What is none is like any other that is none."""
    before, after = (
        f"CASE WHEN {mapping.is_address(text)} THEN {mapping.normal_address(text)} END"
        for text in (was, is_)
    )
    return f"({before}) IS DISTINCT FROM ({after})"


def waits(lens: Lens) -> str:
    """Whether ``n`` is to have an owner and has none yet: something for ``settle``."""
    owner = lens.owner
    assert owner is not None
    no_session = f" OR n.{owner.or_session} IS NULL" if owner.or_session else ""
    is_address = mapping.is_address(f"n.{owner.stored}")
    return f"n.{owner.column} IS NULL AND ({is_address}{no_session})"


def _hold_whole(lens: Lens, types: Types, names: Mapping[str, str]) -> str:
    children = "".join(
        f", {literal(table)}, (SELECT coalesce(jsonb_agg(to_jsonb(c)), '[]') FROM public.{table} c"
        f" WHERE c.{column} = _key)"
        for table, column in CHILDREN.get(lens.new, ())
    )
    return render(
        templates("functions.sql")["hold_whole"],
        held_detail=detail(lens, lens.held, "why"),
        park=f"(SELECT jsonb_build_object({literal(lens.new)}, to_jsonb(n){children})"
        f" FROM public.{lens.new} n WHERE n.id = _key AND {lens.own})",
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
        f" UPDATE public.{lens.new} n SET ({joined(columns)}) ="
        f" (SELECT {joined(f'r.{name}' for name in columns)} FROM"
        f" jsonb_populate_record(NULL::public.{lens.new}, parked -> {literal(lens.new)}) r)"
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
            f"INSERT INTO public.{table} SELECT (jsonb_populate_record(r,"
            f" jsonb_build_object({literal(column)}, _key))).* FROM"
            f" jsonb_populate_recordset(NULL::public.{table},"
            f" coalesce(parked -> {literal(table)}, '[]')) r"
            f" WHERE EXISTS (SELECT FROM public.{target} a WHERE a.id = r.{key})"
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
        f"(SELECT o.id FROM public.{targets[name]} o"
        f" WHERE o.id = (parked -> {literal(lens.new)} ->> {literal(name)})::uuid FOR KEY SHARE)"
        for name in columns
    )
    was = f"(parked -> {literal(lens.new)} ->> {literal(owner.stored)})"
    sets = joined(f"{a} = {b}" for a, b in zip(columns, found, strict=True))
    return [
        f"UPDATE public.{lens.new} n SET {sets}"
        f" WHERE n.id = _key AND NOT {_other_address(was, f'n.{owner.stored}')};"
    ]


def _lines(lens: Lens, types: Types, names: Mapping[str, str]) -> str:
    part = lens.part
    if part is None:
        return ""
    source = templates("functions.sql")
    values = line_values(lens, types)
    unpark = (
        f"INSERT INTO public.{part.table}"
        f" SELECT (jsonb_populate_record(r, jsonb_build_object("
        # The order may have been given another key meanwhile.
        f"{literal(part.parent)}, _key,"
        " 'model_id', (SELECT m.id FROM public.models m WHERE m.id = r.model_id),"
        " 'artist_id', (SELECT u.id FROM public.users u WHERE u.id = r.artist_id)))).*"
        f" FROM jsonb_populate_recordset(NULL::public.{part.table},"
        f" parked -> {literal(part.table)}) r"
        " ON CONFLICT DO NOTHING;"
    )
    write = render(
        source["write_lines"],
        line_price="CASE WHEN i.price_source = 'own' THEN i.unit_price END",
        asset_ref=mapping.plain_text("(e.item -> 'asset_id')"),
        quantity=mapping.whole_number("e.item -> 'quantity'"),
        own_price=mapping.own_price("e.item"),
        subtotal=subtotal("l"),
        pricing=pricing("public.models"),
        line_values=joined(f"{sql} AS {name}" for name, sql in values.items()),
        line_columns=joined(values),
        line_assignments=joined(f"{name} = f.{name}" for name in values),
        line_stored=joined(f"i.{name}" for name in values),
        line_final=joined(f"f.{name}" for name in values),
    )
    return render(
        source["lines"],
        held_detail=detail(lens, lens.held, "why"),
        park=f"(SELECT jsonb_build_object({literal(part.table)}, jsonb_agg(to_jsonb(i)))"
        f" FROM public.{part.table} i WHERE i.{part.parent} = _key HAVING count(*) > 0)",
        part=part.table,
        parent=part.parent,
        part_column=part.column,
        unpark_lines=unpark,
        write_lines=write,
        **names,
    )


def flag_rows(lens: Lens) -> list[tuple[str, str]]:
    """(code or NULL, sentence) as expressions over ``l``, a pair for each flag a row may have."""
    rows = [
        (
            f"CASE WHEN {rule.when} THEN {literal(rule.code)} END",
            detail(lens, [rule], literal(rule.code)),
        )
        for rule in lens.flagged
    ]
    return rows


def any_flag(lens: Lens) -> str:
    """Whether ``l`` may have a flag at all, which is quicker to tell than which."""
    return " OR ".join(f"({rule.when})" for rule in lens.flagged) or "false"


def known_flags(lens: Lens) -> list[str]:
    codes = [rule.code for rule in lens.flagged]
    return [*codes, *(rule.code for rule in price_rules())] if lens.part else codes


def _flags(lens: Lens, names: Mapping[str, str]) -> str:
    rows = flag_rows(lens)
    conditions = [f"({rule.when})" for rule in lens.flagged]
    if lens.part is not None:
        price = templates("functions.sql")["price_flag"]
        price = render(price[price.index("(SELECT") :].strip(), subtotal=subtotal("l"))
        conditions.append(f"_part AND {price} IS NOT NULL")
        rows += [
            (
                f"CASE WHEN why IS NULL AND {price} = {literal(rule.code)}"
                f" THEN {literal(rule.code)} END",
                detail(lens, [rule], literal(rule.code)),
            )
            for rule in price_rules()
        ]
    return render(
        templates("functions.sql")["flags"],
        any_flag=" OR ".join(conditions),
        flag_rows=joined(f"({code}, {sentence})" for code, sentence in rows),
        known=texts(known_flags(lens)),
        **names,
    )


def _to_legacy(lens: Lens, order: tuple[str, ...], names: Mapping[str, str]) -> str:
    source = templates("functions.sql")
    compare = "\n            ".join(
        f"IF w.{name}::text IS DISTINCT FROM l.{name}::text THEN"
        f" sets := sets || {literal(f', {name} = ($1).{name}')}; END IF;"
        for name in map(ident, (column.name for column in lens.mapped))
    )
    keep = ""
    if lens.part is not None:
        keep = render(
            source["keep_held_part"],
            part=lens.part.table,
            parent=lens.part.parent,
            part_column=lens.part.column,
            **names,
        )
    elif lens.held:
        keep = render(source["keep_held_whole"], **names)
    mapped = [ident(column.name) for column in lens.mapped]
    return render(
        source["to_legacy"],
        lock_timeout=NEW_SIDE_LOCK_TIMEOUT,
        deepest=str(DEEPEST),
        in_order=joined(f"r.{ident(name)}" for name in order),
        keep_held=keep,
        compare=compare,
        legacy_columns=joined(mapped),
        w_columns=joined(f"w.{name}" for name in mapped),
        **names,
    )


#: What the lines of an order, and the judgement of them, are made from.
_OF_THE_PART = ("items", "pricing")


def _part_changed(lens: Lens) -> str:
    if lens.part is None:
        return "true"
    old, new = (
        joined(f"{row}.{name}" for name in _OF_THE_PART) for row in ("OLD", "NEW")
    )
    return f"TG_OP = 'INSERT' OR OLD.id <> NEW.id OR ROW({old})::record *<> ROW({new})::record"


def _notify_settle(lens: Lens, names: Mapping[str, str]) -> str:
    columns = SETTLED_BY.get(lens.legacy)
    if columns is None:
        return ""
    changed = " OR ".join(
        f"OLD.{column} IS DISTINCT FROM NEW.{column}" for column in columns
    )
    return render(
        templates("functions.sql")["notify_settle"],
        settled_by_changed=f"({changed})",
        **names,
    )


# --- the triggers --------------------------------------------------------------------------

TRIGGER_PREFIX = "zz_terrain_sync"
EVENTS = ("insert", "update", "delete")
YIELDING = ("begin", "end")


def triggers_on_legacy(lens: Lens) -> list[str]:
    """ENABLE ALWAYS, so that not even a replication role writes past them."""
    columns = [ident(column.name) for column in lens.mapped]
    return _triggers(
        ident("legacy", lens.legacy),
        function=f"rebuilt.on_legacy_{lens.legacy}",
        truncate=f"rebuilt.on_legacy_{lens.legacy}_truncate",
        root=lambda row: f"'legacy.{lens.legacy}:' || {row}.id",
        changed=(columns, columns),
        ever=f"'legacy.{lens.legacy}:*'",
    )


#: Derived columns whose change is the legacy table's business, or the quarantine's.
_PRICES = ("unit_price", "total_price", "price_source")


def triggers_on_new(new: str, lenses: Iterable[Lens]) -> list[str]:
    """Only a change of a column that has a legacy counterpart fires them."""
    lenses = tuple(lenses)
    columns = list(
        dict.fromkeys(name for lens in lenses for name in [*lens.up, *lens.constants])
    )
    made = _triggers(
        ident("public", new),
        function=f"rebuilt.on_new_{new}",
        truncate="rebuilt.on_new_truncate",
        root=lambda row: f"'{new}:' || {row}.id",
        changed=(columns, columns),
        ever=f"'{new}:*'",
    )
    made += _yielding(ident("public", new))
    for lens in lenses:
        part = lens.part
        if part is not None:
            columns = [part.parent, "position", *part.up, *_PRICES]
            made += _triggers(
                ident("public", part.table),
                function=f"rebuilt.on_new_{part.table}",
                truncate="rebuilt.on_new_truncate",
                root=lambda row: f"'{new}:' || {row}.{part.parent}",  # noqa: B023
                changed=(columns, columns),
                ever=f"'{new}:*'",
            )
            made += _yielding(ident("public", part.table))
    return made


def _yielding(table: str) -> list[str]:
    """Around every statement that is not a trigger's own: no long wait for a lock."""
    on = f"ON {table} FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0)"
    moments = {"begin": "BEFORE", "end": "AFTER"}
    return [
        statement
        for name, moment in moments.items()
        for statement in _enabled(
            table,
            name,
            f"{moment} INSERT OR UPDATE OR DELETE {on}"
            f" EXECUTE FUNCTION rebuilt.on_new_{name}()",
        )
    ]


def _triggers(
    table: str,
    *,
    function: str,
    truncate: str,
    root: Callable[[str], str],
    changed: tuple[list[str], list[str]],
    ever: str,
) -> list[str]:
    statements = []
    for event in EVENTS:
        row = "OLD" if event == "delete" else "NEW"
        echo = "coalesce(current_setting('terrain.echo', true), '')"
        depth = "'@' || pg_trigger_depth()"
        when = f"{echo} NOT IN ({ever} || {depth}, {root(row)} || {depth})"
        if event == "update":
            old = joined(f"OLD.{name}" for name in changed[0])
            new = joined(f"NEW.{name}" for name in changed[1])
            # Not ROW() on both sides, nor with a cast, which a dump leaves out: restored, it
            # would be a comparison column by column, for which there are no operators.
            when = f"coalesce(ROW({old})) *<> coalesce(ROW({new})) AND {when}"
        statements += _trigger(
            table, event, f"FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION {function}()"
        )
    statements += _trigger(
        table, "truncate", f"FOR EACH STATEMENT EXECUTE FUNCTION {truncate}()"
    )
    return statements


def _trigger(table: str, event: str, rest: str) -> list[str]:
    return _enabled(table, event, f"AFTER {event.upper()} ON {table} {rest}")


def _enabled(table: str, event: str, definition: str) -> list[str]:
    name = ident(f"{TRIGGER_PREFIX}_{event}")
    return [
        f"CREATE OR REPLACE TRIGGER {name} {definition}",
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}",
    ]


def trigger_events(table: str) -> tuple[str, ...]:
    """What the names of the triggers of a qualified table end in."""
    events = (*EVENTS, "truncate")
    return events if table.startswith("legacy.") else (*events, *YIELDING)


def drop_triggers(table: str) -> list[str]:
    """``table`` is a quoted, qualified name."""
    return [
        f"DROP TRIGGER IF EXISTS {ident(f'{TRIGGER_PREFIX}_{event}')} ON {table}"
        for event in (*EVENTS, "truncate", *YIELDING)
    ]


#: Connections that copy a large table, each with its own part of the keys.
WORKERS = 2


def copy_lock(lens: Lens, shard: int) -> str:
    """The arguments of the advisory lock between deletions and one worker's batches."""
    return f"{locks.COPY_LOCK}, {mapping.LENSES.index(lens) * WORKERS + shard}"


def _wait_for_batches(lens: Lens) -> str:
    """A deletion shares the locks of all workers, who do not get in each other's way."""
    taken = (
        f"pg_advisory_xact_lock_shared({copy_lock(lens, shard)})"
        for shard in range(WORKERS)
    )
    return f"PERFORM {joined(taken)};"


# --- copying -------------------------------------------------------------------------------


def query(statement: str, /, **parts: str) -> str:
    """A statement of ``queries.sql``."""
    return render(templates("queries.sql")[statement].strip(), **parts)


def account(address: str) -> str:
    """A join that finds, as ``a.id``, the account behind an address."""
    return query(
        "account",
        address=address,
        normal=mapping.normal_address(address),
        normal_user=mapping.normal_address("u.email"),
        is_address=mapping.is_address(address),
    )


def copy_batch(
    lens: Lens, types: Types, table_limit: int, *, row_lock: bool = False
) -> str:
    """The statement that copies a range of keys; returns rows seen, copied and held.

    Parameters: ``after`` (exclusive, or NULL) and ``upto`` (inclusive), both uuid.
    """
    values = written(lens, types)
    fit = "true" if lens.part is not None else "l.why IS NULL"
    owner_columns = owner_values = more = join = ""
    if lens.owner is not None:
        address = f"l.{lens.owner.address}"
        join = account(address)
        owner_columns, owner_values = f", {lens.owner.column}", ", a.id"
        if lens.owner.or_session is not None:
            is_address = mapping.is_address(address)
            owner_columns += f", {lens.owner.or_session}"
            owner_values += (
                f", CASE WHEN {is_address} IS NOT TRUE"
                " THEN md5('session:' || l.id)::uuid END"
            )
            more = "\n" + query(
                "copy_sessions",
                fit=fit,
                is_address=is_address,
                table_limit=str(table_limit),
            )
    if lens.part is not None:
        more += "\n" + _copy_lines(lens, types)
    rows = flag_rows(lens) or [("NULL::text", "''")]
    return query(
        "copy",
        legacy=lens.legacy,
        new=lens.new,
        own=lens.own,
        held=held(lens),
        columns=joined(map(ident, values)),
        values=joined(values.values()),
        owner_columns=owner_columns,
        owner_values=owner_values,
        account=join,
        fit=fit,
        held_detail=detail(lens, lens.held, "l.why") if lens.held else "''",
        any_flag=any_flag(lens),
        flag_rows=joined(f"({code}, {sentence})" for code, sentence in rows),
        more=more,
        row_lock="FOR KEY SHARE OF l" if row_lock else "",
    )


def _copy_lines(lens: Lens, types: Types) -> str:
    part = lens.part
    assert part is not None
    values = line_values(lens, types)
    return query(
        "copy_lines",
        legacy=lens.legacy,
        part=part.table,
        parent=part.parent,
        subtotal=subtotal("l"),
        pricing=pricing("public.models"),
        line_columns=joined(values),
        line_values=joined(values.values()),
        price_detail=detail(lens, price_rules(), "f.reason"),
    )


def customers(lens: Lens, source: str, *, new_side: bool = False) -> str:
    """The statement that makes customers of the addresses in ``source``.

    ``source`` is a table, with a condition if need be, whose rows are ``l``; with
    ``new_side`` it is the new table, where columns have other names.
    """
    owner = lens.owner
    assert owner is not None
    column = owner.stored if new_side else owner.address
    name = (
        {"l.user_name": "l.customer_name"}.get(owner.name, owner.name)
        if new_side
        else owner.name
    )
    created = "l.created_at" if new_side else "(l.created_at AT TIME ZONE 'UTC')"
    return query(
        "customers",
        normal=mapping.normal_address(f"l.{column}"),
        is_address=mapping.is_address(f"l.{column}"),
        name=f"{name}::text",
        created_at=created,
        source=source,
        normal_x=mapping.normal_address("x.email"),
    )


def link(lens: Lens) -> str:
    """Owner links for the rows of the new table in ``keys`` that wait for one."""
    owner = lens.owner
    assert owner is not None
    return query(
        "link",
        new=lens.new,
        own=lens.own.replace("n.", "w."),
        column=owner.column,
        no_session=f", {owner.or_session} = NULL" if owner.or_session else "",
        account=account(f"w.{owner.stored}"),
    )


def link_sessions(lens: Lens, table_limit: int) -> str:
    """Sessions of their own for the rows in ``keys`` that have neither account nor address."""
    owner = lens.owner
    assert owner is not None and owner.or_session is not None
    return query(
        "link_sessions",
        new=lens.new,
        own=lens.own,
        column=owner.column,
        session=owner.or_session,
        is_address=mapping.is_address(f"n.{owner.stored}"),
        table_limit=str(table_limit),
    )


def queue_waiting(lens: Lens) -> str:
    return query(
        "queue_waiting",
        legacy=lens.legacy,
        new=lens.new,
        own=lens.own,
        waits=waits(lens),
    )


def merges() -> str:
    return query(
        "merges",
        normal_t=mapping.normal_address("t.email"),
        normal_k=mapping.normal_address("k.email"),
    )


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


def stale(lens: Lens) -> str:
    return query("stale", new=lens.new, legacy=lens.legacy, own=lens.own)


def not_own(lens: Lens) -> str:
    return query("not_own", new=lens.new, legacy=lens.legacy, own=lens.own)


def differing(lens: Lens) -> str:
    names = [ident(column.name) for column in lens.mapped]
    return query(
        "differing",
        legacy=lens.legacy,
        legacy_columns=joined(f"l.{name}" for name in names),
        rebuilt_columns=joined(f"r.{name}" for name in names),
    )


def next_range(table: str) -> str:
    """Parameters: after, end (uuid or NULL), limit."""
    return query("range", legacy=table)


# --- comparing -----------------------------------------------------------------------------


def both_sides(lens: Lens) -> tuple[str, str]:
    """The legacy rows and the rebuilt ones, as ``id`` and ``row`` (text), held rows aside.

    Of an order whose items are held, everything else is compared.  Parameters: ``after``
    and ``upto``, uuid or NULL.
    """
    names = [column.name for column in lens.mapped]
    held = (
        "EXISTS (SELECT FROM public.legacy_quarantine q WHERE q.kind = 'held'"
        f" AND q.legacy_table = {literal(lens.legacy)} AND q.legacy_id = l.id)"
    )
    before = [f"l.{ident(name)}" for name in names]
    after = [f"l.{ident(name)}" for name in names]
    if lens.part is not None:
        place = names.index(lens.part.column)
        for columns in (before, after):
            columns[place] = f"CASE WHEN {held} THEN NULL ELSE {columns[place]} END"
        keep = "true"
    else:
        keep = f"NOT {held}"
    within = RANGE.format("l")

    def side(table: str, columns: list[str]) -> str:
        return (
            f"SELECT l.id, ROW({joined(columns)})::text AS row FROM {table} l"
            f" WHERE {within} AND {keep}"
        )

    return (
        side(ident("legacy", lens.legacy), before),
        side(ident("rebuilt", lens.legacy), after),
    )


def checksums(lens: Lens) -> str:
    """Rows and checksum of a range on both sides, in one snapshot."""
    before, after = both_sides(lens)
    return query("checksums", before=before, after=after)


def differences(lens: Lens) -> str:
    """The rows of a range that are not the same on both sides: id, before, after."""
    before, after = both_sides(lens)
    return query("differences", before=before, after=after)
