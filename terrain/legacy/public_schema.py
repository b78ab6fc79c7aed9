"""What the new tables look like in the catalog, and what they should look like.

``public_schema.json`` describes them as the migrations make them on an empty database; a
test keeps it so.  A migrated database must have the same (law 5).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from django.db.backends.base.base import BaseDatabaseWrapper

from terrain.legacy import catalog, sql

DESCRIPTION = Path(__file__).parent / "public_schema.json"

#: One row for each column, constraint, index, trigger and function: its name and definition.
_DESCRIBE = """
WITH tables AS (
    SELECT c.oid, c.relname FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
     WHERE s.nspname = ANY (%(schemas)s) AND c.relkind = 'r' AND c.relname = ANY (%(tables)s)
       AND pg_table_is_visible(c.oid)
)
SELECT 'column ' || t.relname || '.' || a.attname,
       format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
       || coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '')
       || CASE a.attidentity WHEN '' THEN '' ELSE ' IDENTITY' END
  FROM tables t
  JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = t.oid AND d.adnum = a.attnum
UNION ALL
SELECT 'constraint ' || t.relname || '.' || k.conname,
       pg_get_constraintdef(k.oid)
  FROM tables t JOIN pg_constraint k ON k.conrelid = t.oid AND k.contype <> 'n'
UNION ALL
SELECT 'index ' || t.relname || '.' || i.relname,
       pg_get_indexdef(x.indexrelid, 0, true) || CASE WHEN x.indisvalid THEN '' ELSE ' INVALID' END
  FROM tables t JOIN pg_index x ON x.indrelid = t.oid JOIN pg_class i ON i.oid = x.indexrelid
UNION ALL
SELECT 'trigger ' || t.relname || '.' || g.tgname, pg_get_triggerdef(g.oid, true)
  FROM tables t JOIN pg_trigger g ON g.tgrelid = t.oid
 WHERE NOT g.tgisinternal AND g.tgname NOT LIKE %(sync)s AND g.tgname LIKE %(own)s
UNION ALL
SELECT 'function ' || p.oid::regprocedure, md5(p.prosrc)
  FROM pg_proc p JOIN pg_namespace s ON s.oid = p.pronamespace
 WHERE s.nspname = ANY (%(schemas)s) AND p.proname LIKE %(own)s
"""


def describe(connection: BaseDatabaseWrapper) -> dict[str, str]:
    """Object -> definition, for everything the migrations make for the new tables."""
    found = catalog.rows(
        connection,
        _DESCRIBE,
        {
            "tables": [*catalog.NEW_TABLES, *catalog.LEDGER_TABLES],
            "sync": f"{sql.TRIGGER_PREFIX}%",
            "own": "terrain\\_%",
            "schemas": list(catalog.where(connection).own),
        },
    )
    return dict(sorted(found))


def expected() -> dict[str, str]:
    """The description that belongs to this version of the project."""
    described: dict[str, str] = json.loads(DESCRIPTION.read_text(encoding="utf-8"))
    return described


def _as_restored(definition: str) -> str:
    """A definition as PostgreSQL writes it after a dump and a restore.

    ``x IN ('a', …)`` on a varchar is written ``ANY ((ARRAY['a'::character varying, …])::text[])``;
    read again, the cast is each element's own.
    """

    def by_element(match: re.Match[str]) -> str:
        elements = re.sub(
            r"('(?:[^']|'')*'::character varying)", r"(\1)::text", match[1]
        )
        return f"ARRAY[{elements}]"

    return re.sub(r"\(ARRAY\[([^]]*)\]\)::text\[\]", by_element, definition)


def differences(connection: BaseDatabaseWrapper) -> list[tuple[str, str, str]]:
    """(object, what it is, what it should be), for what differs."""
    is_, should = describe(connection), expected()
    return [
        (name, is_.get(name, "missing"), should.get(name, "not there"))
        for name in sorted({*is_, *should})
        if _as_restored(is_.get(name, "")) != _as_restored(should.get(name, ""))
    ]


def write(connection: BaseDatabaseWrapper) -> None:
    """Describe this database, which must be a fresh one, for the versions to come."""
    DESCRIPTION.write_text(
        json.dumps(describe(connection), indent=1, ensure_ascii=True) + "\n",
        encoding="utf-8",
    )
