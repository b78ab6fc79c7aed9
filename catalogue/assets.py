"""From models to the global catalogue of assets, and from layouts to the tables' libraries.

Everything is done in short batches over ranges of keys, so nobody waits long, and each
batch can be done again: a second run finds nothing left to do.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from django.db import IntegrityError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.dispatch import Signal
from psycopg.errors import ForeignKeyViolation

from terrain import locks
from terrain.pace import Pace
from terrain.pace.governor import Ungoverned, governed
from terrain.progress import measured
from terrain.qualified import all_qualified
from terrain.sqlfiles import render, statements

#: Sent before models are copied, with ``connection``: whatever must come first.
before_copy = Signal()
#: Sent afterwards, with ``connection`` and ``held``, an iterable of :class:`Held`.
after_copy = Signal()

#: What the copy writes and an edit may change; the digest is over these.
COLUMNS = (
    "artist_id",
    "name",
    "description",
    "category",
    "tags",
    "file_ref",
    "glb_file_path",
    "preview_url",
    "thumbnail_path",
    "dimensions_mm",
    "triangle_count",
    "base_price",
    "status",
    "visibility",
    "published_at",
)

#: Why a model cannot be an asset: reason -> what is wrong with it, and what to do.
REASONS = {
    "model_without_file": (
        "has neither an STL nor a GLB file. Give it one (file_paths), then run"
        " copy_models_to_assets again."
    ),
    "model_price_nan": (
        "has the price NaN, not a number. Correct base_price, then run"
        " copy_models_to_assets again."
    ),
}

#: What the copy is called where its pace is told.
STEP = "copy_models_to_assets"
#: How often a batch is begun, if each time something it refers to is deleted meanwhile.
ATTEMPTS = 20


@dataclass(frozen=True)
class Held:
    """A model that cannot be an asset; ``row`` is the model as JSON text."""

    id: uuid.UUID
    reason: str
    row: str

    @property
    def sentence(self) -> str:
        return f"models {self.id} {REASONS[self.reason]}"


@dataclass(frozen=True)
class Copied:
    """What a copy has done, or would do, in rows."""

    added: int = 0
    refreshed: int = 0
    edited: int = 0
    held: tuple[tuple[str, int], ...] = ()
    placed: int = 0
    replaced: int = 0
    removed: int = 0

    @property
    def nothing(self) -> bool:
        """Whether there was nothing to write."""
        return not any(
            (self.added, self.refreshed, self.placed, self.replaced, self.removed)
        )


class NoModels(Exception):
    """The tables of the catalogue are not there."""


def copy(connection: BaseDatabaseWrapper, *, dry_run: bool = False) -> Copied:
    """Make an asset of every model, and fill every table's library from its layout.

    An asset has its model's id.  What nobody has edited since the last copy is refreshed,
    what somebody has is left alone.  With ``dry_run`` nothing is written.  Raises
    :class:`NoModels` before ``migrate`` and :class:`terrain.locks.Busy`.
    """
    with connection.cursor() as cursor:
        # By name alone: to a role that may not enter the schema it is there, and not found.
        cursor.execute(
            "SELECT FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace"
            " WHERE s.nspname = ANY (%s) AND c.relname = 'table_assets'",
            [list(connection.own_path)],  # type: ignore[attr-defined]
        )
        if cursor.fetchone() is None:
            raise NoModels(
                "There are no models to copy: the tables of the catalogue are not there."
                " Run: python manage.py migrate"
            )
    if dry_run:
        return _copy(connection, "forecast_models", "forecast_libraries", Ungoverned())
    with locks.exclusive(connection):
        before_copy.send(copy, connection=connection)
        with governed(connection, STEP) as governor:
            copied = _copy(connection, "copy_models", "fill_libraries", governor)
            _count_uses(connection, governor)
        after_copy.send(copy, connection=connection, held=held_models(connection))
    return copied


def _copy(
    connection: BaseDatabaseWrapper, models: str, libraries: str, governor: Ungoverned
) -> Copied:
    added, refreshed = _in_batches(connection, "models", models, governor)
    placed, replaced, removed = _in_batches(connection, "tables", libraries, governor)
    with connection.cursor() as cursor:
        _pin(cursor)
        cursor.execute(_sql("edited_assets"))
        (edited,) = cursor.fetchone()
        cursor.execute(_sql("count_held"))
        held = tuple(cursor.fetchall())
    return Copied(added, refreshed, edited, held, placed, replaced, removed)


def _count_uses(connection: BaseDatabaseWrapper, governor: Ungoverned) -> None:
    """``add_count`` and ``use_count`` of every asset, from the libraries."""
    for bounds in _ranges(connection, "assets", governor):
        _batch(connection, "assets", "count_uses", bounds, governor)


def held_models(connection: BaseDatabaseWrapper) -> Iterator[Held]:
    """The models that cannot be assets, by id."""
    with connection.cursor() as cursor:
        cursor.execute(_sql("held_models"))
        for row in cursor:
            yield Held(*row)


# --- batches -------------------------------------------------------------------------------


def _in_batches(
    connection: BaseDatabaseWrapper, table: str, statement: str, governor: Ungoverned
) -> list[int]:
    """Run a statement over all keys of a table; returns the sums of what it returns."""
    totals: list[int] = []
    step = "models to assets" if table == "models" else "libraries of tables"
    with measured(step, _planned(connection, table)) as advance:
        for bounds in _ranges(connection, table, governor):
            counts = _batch(connection, table, statement, bounds, governor)
            totals = [a + b for a, b in zip(totals or [0] * len(counts), counts)]
            advance(bounds["rows"])
    width = 3 if table == "tables" else 2
    return totals or [0] * width


def _planned(connection: BaseDatabaseWrapper, table: str) -> int | None:
    """Rows of a table by the planner's count, None if it has none."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT nullif(greatest(reltuples, 0), 0)::bigint FROM pg_class"
            " WHERE oid = to_regclass(%s)",
            [table],
        )
        found: int | None = cursor.fetchone()[0]
        return found


def _ranges(
    connection: BaseDatabaseWrapper, table: str, governor: Ungoverned
) -> Iterator[dict[str, Any]]:
    """Ranges of keys, each as long as the one before it allows."""
    pace = Pace.beside_others(connection)
    after = None
    while governor.turn(connection, pace):
        with connection.cursor() as cursor:
            cursor.execute(
                _sql(f"range_of_{table}"), {"after": after, "limit": pace.rows}
            )
            upto, rows = cursor.fetchone()
        if upto is None:
            return
        started = monotonic()
        yield {"after": after, "upto": upto, "rows": rows}
        pace.took(rows, monotonic() - started)
        after = upto


def _batch(
    connection: BaseDatabaseWrapper,
    table: str,
    statement: str,
    bounds: dict[str, Any],
    governor: Ungoverned,
) -> tuple[int, ...]:
    """A statement in a transaction of its own; returns its row, if it has one.

    It gives way to whoever holds a row it wants.  What was deleted between its look at the
    table and the check of its references, the next attempt does not see.
    """

    def run() -> tuple[int, ...]:
        with connection.cursor() as cursor:
            # No limit applies to what was there before it.
            cursor.execute("SELECT set_config('terrain.sync', 'on', true)")
            cursor.execute("SELECT set_config('work_mem', '64MB', true)")
            _pin(cursor)
            cursor.execute(_sql(statement), bounds)
            found = cursor.fetchone() or () if cursor.description else ()
        governor.committing()
        return found

    involved = all_qualified(connection, [table, "assets", "table_assets"])
    left = ATTEMPTS
    while True:
        left -= 1
        try:
            return locks.run_briefly(
                connection,
                run,
                what=f"The catalogue's copy of {table}",
                tables=involved,
            )
        except IntegrityError as error:
            if not left or not isinstance(error.__cause__, ForeignKeyViolation):
                raise


def _pin(cursor: Any) -> None:
    """A digest is over text, so what text looks like may not depend on the session."""
    cursor.execute("SELECT set_config('TimeZone', 'UTC', false)")


# --- SQL -----------------------------------------------------------------------------------


def _sql(name: str) -> str:
    """A statement of ``assets.sql``, filled in."""
    source = statements(Path(__file__).with_suffix(".sql"))

    def fragment(name: str, **parts: str) -> str:
        text = render(source[name], **parts)
        return "\n".join(
            line for line in text.splitlines() if not line.startswith("--")
        ).strip()

    def file(*keys: str) -> str:
        value = "m.file_paths"
        for key in keys:
            value = f"{value} -> {key}"
        return fragment("text", value=f"({value})")

    def digest(row: str) -> str:
        return fragment(
            "digest", columns=", ".join(f"{row}.{column}" for column in COLUMNS)
        )

    file_ref = f"coalesce({file(chr(39) + 'stl' + chr(39))}, {file(chr(39) + 'glb' + chr(39))})"
    why_held = fragment("why_held", file_ref=file_ref)
    wanted = fragment(
        "wanted",
        file_ref=file_ref,
        glb=file("'glb'"),
        preview=file("'additional_images'", "0"),
        thumbnail=file("'thumbnail'"),
        why_held=f"({why_held})",
    )
    assets_then = fragment("assets_then", why_held=f"({why_held})")
    return render(
        source[name],
        wanted=wanted,
        placed=fragment("placed", assets="assets"),
        placed_then=fragment("placed", assets=f"({assets_then})"),
        why_held=why_held,
        digest_of_wanted=digest("w"),
        digest_of_asset=digest("a"),
        columns=", ".join(("id", "model_id", *COLUMNS)),
        assignments=", ".join(
            f"{column} = excluded.{column}" for column in ("model_id", *COLUMNS)
        ),
    )
