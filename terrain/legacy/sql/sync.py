"""The functions that keep both sides in step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from terrain.legacy import mapping
from terrain.legacy.schema import Lens
from terrain.legacy.sql.batches import WORKERS, copy_lock
from terrain.legacy.sql.conditions import (
    carried_over,
    changed_columns,
    columns_on_legacy,
    columns_on_new,
    columns_on_part,
    unchanged,
)
from terrain.legacy.sql.relations import (
    MIRRORED,
    PARENTS,
    USER_REFERENCES,
    dependents,
    referring,
)
from terrain.legacy.sql.rules import held
from terrain.legacy.sql.text import (
    Types,
    ident,
    joined,
    literal,
    new_table,
    plain,
    templates,
)
from terrain.legacy.sql.to_new import put, to_new
from terrain.legacy.sql.views import rebuilt_view
from terrain.sqlfiles import render

#: How long the new application waits for a legacy row before it yields.
NEW_SIDE_LOCK_TIMEOUT = "80ms"

#: How long a statement of the old application waits for what the sync needs, before its row
#: is late; and how long once that has happened in its transaction.  Longer than the new
#: side waits, which so yields first; much shorter than ``deadlock_timeout`` (1 s), so that
#: a wait of the sync is never part of a deadlock that anybody looks at.
OLD_SIDE_LOCK_TIMEOUT, OLD_SIDE_LOCK_TIMEOUT_AGAIN = "100ms", "10ms"

#: The key of an entry in the queue that is about a whole table.
EVERY_ROW = "00000000-0000-0000-0000-000000000000"

#: Trigger depth at which two sides that keep correcting each other are given up on.
DEEPEST = 24

#: Legacy columns whose change is something for ``settle``.  Rows that are to have an owner
#: are queued where they are written, while they have none.
SETTLED_BY: Mapping[str, tuple[str, ...]] = {"artists": ("email",)}

#: What the lines of an order are judged by, besides what they are made from.
_JUDGED_BY = ("id", "pricing")


def common_functions() -> list[str]:
    """What all tables share.  Can be run again."""
    source = templates("functions.sql")
    references = joined(
        f"('{new_table(table)}', {literal(column)})"
        for table, column in USER_REFERENCES
    )
    mirrored = joined(f"'{new_table(table)}'::regclass" for table in MIRRORED)
    return [
        source["schema"],
        source["queue"],
        source["used"],
        source["note_use"],
        source["late"],
        source["to_settle"],
        _not_beside_a_batch(source["not_beside_a_batch"]),
        source["not_unseen"],
        source["hold"],
        source["held_since"],
        source["release"],
        source["flag"],
        render(source["user_references"], user_references=references),
        render(source["user_is_needed"], mirrored=f"ARRAY[{mirrored}]"),
        source["has_foreign_key"],
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
    notes_use = render(source["notes_use"], **names).strip()
    order = tuple(order)
    made = [
        rebuilt_view(lens, order),
        render(
            source["gone_user" if lens.new == "users" else "gone"],
            has_children=_has_children(lens),
            delete_children=_delete_children(lens),
            nothing_left=_nothing_left(lens),
            **names,
        ),
        render(source["moved"], move_children=_move_children(lens), **names),
        put(lens, types, names),
        to_new(lens, names),
        _to_legacy(lens, order, names),
        render(
            source["from_old"],
            lock_timeout=OLD_SIDE_LOCK_TIMEOUT,
            short_lock_timeout=OLD_SIDE_LOCK_TIMEOUT_AGAIN,
            **names,
        ),
        render(
            source["on_legacy"],
            lock_timeout=OLD_SIDE_LOCK_TIMEOUT,
            short_lock_timeout=OLD_SIDE_LOCK_TIMEOUT_AGAIN,
            carried_over=carried_over(
                f"legacy.{lens.legacy}", "coalesce(NEW.id, OLD.id)"
            ),
            unchanged=unchanged(columns_on_legacy(lens)),
            part_changed=_part_changed(lens),
            refers=_refers(lens),
            notify_settle=_notify_settle(lens, names),
            notes_use=notes_use,
            **names,
        ),
        render(
            source["on_legacy_truncate"],
            lock_timeout=OLD_SIDE_LOCK_TIMEOUT,
            every_row=EVERY_ROW,
            notes_use=notes_use,
            **names,
        ),
    ]
    if lens.part is not None:
        made.append(
            render(
                source["on_new_part"],
                part=lens.part.table,
                parent=lens.part.parent,
                unchanged=unchanged(columns_on_part(lens.part)),
                **names,
            )
        )
    return made


def _not_beside_a_batch(source: str) -> str:
    shared = "pg_{}advisory_xact_lock_shared({})"
    arguments = [copy_lock(worker) for worker in range(WORKERS)]
    return render(
        source,
        waits=joined(shared.format("", each) for each in arguments),
        tries=" AND ".join(shared.format("try_", each) for each in arguments),
    )


def _has_children(lens: Lens) -> str:
    found = (
        f"EXISTS (SELECT FROM @new.{child} c WHERE c.{column} = _key)"
        for child, column in dependents(lens)
    )
    return " OR ".join(found) or "false"


def _delete_children(lens: Lens) -> str:
    if not dependents(lens):
        return ""
    return render(
        templates("functions.sql")["delete_children"],
        deletions="\n        ".join(
            f"DELETE FROM @new.{child} c WHERE c.{column} = _key;"
            for child, column in dependents(lens)
        ),
    )


def _nothing_left(lens: Lens) -> str:
    return "".join(
        render(
            templates("functions.sql")["nothing_left"],
            new=lens.new,
            child=child.legacy,
            child_new=child.new,
            column=column,
            own=child.own,
        )
        for child, column in referring(lens.new)
    )


def on_new_function(new: str, lenses: Iterable[Lens]) -> str:
    """The trigger function of a new table, for all legacy tables it holds rows of."""
    source = templates("functions.sql")
    lenses = tuple(lenses)
    carried = [
        render(
            source["carry_over"],
            legacy=plain(lens.legacy),
            owns_new=_in_trigger(lens.own, "NEW"),
            owns_old=_in_trigger(lens.own, "OLD"),
            settle_new=_settle_new(lens),
            changed_columns=changed_columns(lens),
        )
        for lens in lenses
    ]
    return render(
        source["on_new"],
        new=plain(new),
        unchanged=unchanged(columns_on_new(lenses)),
        carry_over="".join(carried),
    )


def _in_trigger(condition: str, row: str) -> str:
    return f"({condition.replace('n.', f'{row}.')})"


def _settle_new(lens: Lens) -> str:
    if lens.owner is not None:
        columns = [lens.owner.column, *filter(None, [lens.owner.or_session])]
        return " AND ".join(f"NEW.{column} IS NULL" for column in columns)
    if lens.new == "users":
        return "OLD.email IS DISTINCT FROM NEW.email"
    return "false"


def _move_children(lens: Lens) -> str:
    if lens.new == "users":
        return "PERFORM rebuilt.repoint_user(_old, _new);"
    moves = [
        f"UPDATE @new.{table} c SET {column} = _new WHERE c.{column} = _old;"
        for table, column in dependents(lens)
    ]
    if lens.part is not None:
        table, parent = lens.part.table, lens.part.parent
        moves.append(
            f"BEGIN UPDATE @new.{table} c SET id = md5(_new || ':' || c.position)::uuid"
            f" WHERE c.{parent} = _new AND c.id = md5(_old || ':' || c.position)::uuid;"
            " EXCEPTION WHEN foreign_key_violation THEN NULL; END;"
        )
    return "\n        ".join(moves)


def _to_legacy(lens: Lens, order: tuple[str, ...], names: Mapping[str, str]) -> str:
    source = templates("functions.sql")
    part = lens.part.column if lens.part is not None else None
    compare = "\n            ".join(
        f"IF {'_part IS NOT FALSE' if name == part else _may_write(name)}"
        f" AND w.{ident(name)}::text IS DISTINCT FROM l.{ident(name)}::text THEN"
        f" sets := sets || {literal(f', {ident(name)} = ($1).{ident(name)}')}; END IF;"
        for name in (column.name for column in lens.mapped)
    )
    keep = ""
    if lens.part is not None:
        keep = render(
            source["keep_held_part"],
            part=lens.part.table,
            parent=lens.part.parent,
            part_column=lens.part.column,
            held=held(lens),
            **names,
        )
    elif lens.held:
        keep = render(source["keep_held_whole"], held=held(lens), **names)
    mapped = [ident(column.name) for column in lens.mapped]
    return render(
        source["to_legacy"],
        lock_timeout=NEW_SIDE_LOCK_TIMEOUT,
        deepest=str(DEEPEST),
        every_row=EVERY_ROW,
        in_order=joined(f"r.{ident(name)}" for name in order),
        keep_held=keep,
        compare=compare,
        legacy_columns=joined(mapped),
        w_columns=joined(f"w.{name}" for name in mapped),
        **names,
    )


def _may_write(column: str) -> str:
    return f"_part IS NOT TRUE AND (_columns IS NULL OR {literal(column)} = ANY (_columns))"


def _refers(lens: Lens) -> str:
    """Whether what a legacy row refers to may be another."""
    columns = [column for column, _parent in PARENTS.get(lens.legacy, ())]
    if not columns:
        return "false"
    changed = " OR ".join(
        f"OLD.{column} IS DISTINCT FROM NEW.{column}" for column in columns
    )
    return f"TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND ({changed})"


def _part_changed(lens: Lens) -> str:
    """Whether what the part is made from has changed, and NULL if only what it is judged by."""
    if lens.part is None:
        return "false"
    column = lens.part.column
    old, new = (
        joined(f"{row}.{name}" for name in _JUDGED_BY) for row in ("OLD", "NEW")
    )
    return (
        f"CASE WHEN TG_OP <> 'UPDATE' THEN true"
        f" WHEN ROW(OLD.{column})::record *<> ROW(NEW.{column})::record THEN true"
        f" WHEN ROW({old})::record *<> ROW({new})::record THEN NULL ELSE false END"
    )


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
