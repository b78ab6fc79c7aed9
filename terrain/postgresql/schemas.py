"""Which schema the tables of this project are in: the search path of its connections.

The database may be another application's too.  Its tables, and another Django's, can have the
names of ours, so a connection looks in the schema that is ours and in no other.  Which that is
is written on the schema ``terrain`` as a comment, in the transaction that makes the schema or
moves tables.  Where there is no such comment, ``public`` is ours if our migrations made what it
holds; see :func:`find`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from django.apps import apps

#: Where this project's tables are while ``public`` holds another application's of their names.
SCHEMA = "terrain"
PUBLIC = "public"

#: What the comment on the schema ends with.
#: Advisory lock that each session of ours shares as long as it lives.  The undoing of a cut-over,
#: which moves our tables out of ``public``, takes it exclusively, for fewer seconds than a new
#: session waits for it.
PLACE_LOCK = 0x7E44A105
PLACE_PATIENCE = 10.0

_MARK = re.compile(r"search_path=([a-z_]+(?:, [a-z_]+)*)$")

_LOOK = """
SELECT (SELECT pg_catalog.obj_description(n.oid, 'pg_namespace')
          FROM pg_catalog.pg_namespace n
          JOIN pg_catalog.pg_roles o ON o.oid = n.nspowner
          JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
         -- A role that may create schemas could create this one, with a mark of its own.
         WHERE n.nspname = 'terrain'
           AND (o.rolsuper OR o.oid = d.datdba OR pg_catalog.pg_has_role(o.oid, 'USAGE'))),
       CASE WHEN m.oid IS NOT NULL THEN pg_catalog.has_table_privilege(m.oid, 'SELECT') END,
       ARRAY(SELECT c.relname::text FROM pg_catalog.pg_class c
              WHERE c.relnamespace = pg_catalog.to_regnamespace('public')
                AND c.relname = ANY (%s) AND c.relkind <> 'i')
  FROM (SELECT pg_catalog.to_regclass('public.django_migrations')::oid AS oid) m
"""

_HOLDERS = """
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_locks l
      JOIN pg_catalog.pg_stat_activity s ON s.pid = l.pid
      JOIN pg_catalog.pg_namespace n ON n.nspname = 'terrain'
     WHERE l.locktype = 'advisory' AND l.classid = 0 AND l.objid = %s
       AND l.mode = 'ExclusiveLock'
       AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d
                          WHERE d.datname = pg_catalog.current_database())
       AND pg_catalog.pg_has_role(s.usesysid, n.nspowner, 'USAGE'))
"""

_APPLIED = "SELECT DISTINCT m.app::text FROM public.django_migrations m"


def mark(path: Sequence[str]) -> str:
    """The comment on the schema ``terrain`` that makes ``path`` the path of our connections."""
    return f"Tables of the asset library. search_path={', '.join(path)}"


def marked(comment: str | None) -> tuple[str, ...] | None:
    """The path that such a comment names; None where it is none of ours."""
    found = _MARK.search(comment or "")
    return tuple(found[1].split(", ")) if found else None


def settle_in(cursor: Any) -> tuple[str, ...]:
    """What :func:`find` says, which no other session may change as long as this one lives.

    Tables of ours that leave ``public`` may leave another application's of the same names there.
    A session whose path is ``public`` must not live to see that.
    """
    deadline = time.monotonic() + PLACE_PATIENCE
    # A blocking wait could last for ever; this one ends.
    while not _share(cursor) and _is_being_undone(cursor):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return find(cursor)


def _share(cursor: Any) -> bool:
    cursor.execute("SELECT pg_catalog.pg_try_advisory_lock_shared(%s)", [PLACE_LOCK])
    (is_shared,) = cursor.fetchone()
    return bool(is_shared)


def _is_being_undone(cursor: Any) -> bool:
    """Whether the lock is held, or waited for, by a role that may move our tables.

    Any role that may connect can take an advisory lock, and would delay every session of ours.
    """
    cursor.execute(_HOLDERS, [PLACE_LOCK])
    (is_ours,) = cursor.fetchone()
    return bool(is_ours)


def find(cursor: Any) -> tuple[str, ...]:
    """The schemas in which our tables are, in the order in which they are looked through.

    One: ``terrain`` (it may not be there yet) or ``public``.  Two only where a table of ours
    could not move to ``public`` because its name is taken there: ``terrain``, then ``public``.
    Without a mark ``public`` is ours if it is free of our names, or if the migrations that are
    recorded there are ours and made all that has them.
    """
    tables = {model._meta.db_table: model._meta.app_label for model in _models()}
    cursor.execute(_LOOK, [list(tables)])
    comment, may_read, taken = cursor.fetchone()
    path = marked(comment)
    if path is not None:
        return path
    if may_read is None:  # nothing has been migrated in public
        return (SCHEMA,) if taken else (PUBLIC,)
    if not may_read:
        return (PUBLIC,)
    cursor.execute(_APPLIED)
    applied = {app for (app,) in cursor.fetchall()}
    labels = {config.label for config in apps.get_app_configs()}
    is_ours = "terrain" in applied or applied <= labels
    made_by_us = all(tables[table] in applied for table in taken)
    return (PUBLIC,) if is_ours and made_by_us else (SCHEMA,)


def _models() -> list[Any]:
    if not apps.models_ready:
        return []
    return [
        model
        for model in apps.get_models(include_auto_created=True)
        if model._meta.managed
    ]
