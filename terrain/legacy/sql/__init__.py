"""From the declaration to SQL: pure functions, no connection.

``Types`` says which columns each new table has, in order, and their types; the engine
takes it from the Django models.  Everything else comes from ``mapping.py`` and from the
templates in ``functions.sql`` and ``queries.sql``.
"""

from terrain.legacy.sql.batches import (
    WORKERS,
    copy_batch,
    copy_lock,
    next_range,
)
from terrain.legacy.sql.columns import down, new_only, synced, written
from terrain.legacy.sql.comparing import (
    both_sides,
    checksums,
    differences,
    differing,
    not_own,
    stale,
)
from terrain.legacy.sql.owners import (
    account,
    customers,
    link,
    link_sessions,
    merge_lock,
    merges,
    queue_waiting,
)
from terrain.legacy.sql.quarantine import mark_repeats, repeats, to_retry
from terrain.legacy.sql.rules import (
    any_flag,
    detail,
    flag_rows,
    held,
    known_flags,
    price_rules,
)
from terrain.legacy.sql.sync import (
    EVERY_ROW,
    common_functions,
    functions,
    on_new_function,
)
from terrain.legacy.sql.text import (
    RANGE,
    Signature,
    Types,
    ident,
    joined,
    legacy_table,
    literal,
    new_table,
    plain,
    query,
    signature,
    templates,
    texts,
)
from terrain.legacy.sql.triggers import (
    CLOSING_TRIGGER,
    TRIGGER_PREFIX,
    all_triggers,
    closed_function,
    closing_trigger,
    drop_closed_function,
    drop_triggers,
    opening,
    trigger_names,
    triggers_on_legacy,
    triggers_on_new,
)
from terrain.legacy.sql.views import price_forecast, rebuilt_view, round_trip

__all__ = [
    "CLOSING_TRIGGER",
    "EVERY_ROW",
    "RANGE",
    "Signature",
    "TRIGGER_PREFIX",
    "Types",
    "WORKERS",
    "account",
    "all_triggers",
    "any_flag",
    "both_sides",
    "checksums",
    "closed_function",
    "closing_trigger",
    "common_functions",
    "copy_batch",
    "copy_lock",
    "customers",
    "detail",
    "differences",
    "differing",
    "down",
    "drop_closed_function",
    "drop_triggers",
    "flag_rows",
    "functions",
    "held",
    "ident",
    "joined",
    "known_flags",
    "legacy_table",
    "link",
    "link_sessions",
    "literal",
    "mark_repeats",
    "merge_lock",
    "merges",
    "new_only",
    "new_table",
    "next_range",
    "not_own",
    "opening",
    "on_new_function",
    "plain",
    "price_forecast",
    "price_rules",
    "query",
    "queue_waiting",
    "rebuilt_view",
    "repeats",
    "round_trip",
    "signature",
    "stale",
    "synced",
    "templates",
    "texts",
    "to_retry",
    "trigger_names",
    "triggers_on_legacy",
    "triggers_on_new",
    "written",
]
