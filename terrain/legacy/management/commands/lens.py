"""manage.py lens: the declaration, for a reader."""

from __future__ import annotations

import textwrap
from typing import Any

from django.core.management.base import CommandParser

from terrain.commands import Command as BaseCommand
from terrain.legacy import catalog, sql
from terrain.legacy.mapping import BY_LEGACY, LENSES
from terrain.legacy.place import BEFORE
from terrain.legacy.schema import Column, Lens, Repeat, Rule

#: What the functions of the sync pin where no search path is set.
PATH = "public, pg_temp"


class Command(BaseCommand):
    help = (
        "Print where each legacy column goes and how it comes back; with --sql, all the SQL"
        " that is made from it. Changes nothing and needs no database."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "table", nargs="?", choices=sorted(BY_LEGACY), help="default: all"
        )
        parser.add_argument("--sql", action="store_true", help="the SQL made from it")

    def handle(self, *args: Any, **options: Any) -> None:
        table = options["table"]
        for lens in [BY_LEGACY[table]] if table else LENSES:
            if options["sql"]:
                self._print_sql(lens)
            else:
                self._print(lens)

    def _print(self, lens: Lens) -> None:
        new = f"{lens.new} and {lens.part.table}" if lens.part else lens.new
        self.say(f"{lens.legacy} → {new}")
        for column in lens.columns:
            self.say(f"  {column.name} ({column.type})")
            if isinstance(column, Column):
                self._print_column(lens, column)
            else:
                self.say(f"    dropped: {column.reason}")
        for rule in lens.held:
            self.say(f"  held if it {rule.sentence} ({rule.code})")
        flags: list[Rule | Repeat] = [*lens.flagged, *lens.repeats]
        for flag in flags:
            self.say(f"  flagged if it {flag.sentence} ({flag.code})")
        self.say()

    def _print_column(self, lens: Lens, column: Column) -> None:
        up = dict(column.up)
        if lens.part is not None and lens.part.column == column.name:
            up = {
                f"{lens.part.table}.{name}": each for name, each in lens.part.up.items()
            }
            up |= {
                f"{lens.part.table}.{name}": "computed once"
                for name in lens.part.derived
            }
        self.say(f"    to   {', '.join(up)}: {column.how}")
        back = sql.down(lens)[column.name]
        self.say(
            f"    back {textwrap.shorten(back, 200, placeholder=' … (--sql has all)')}"
        )

    def _print_sql(self, lens: Lens) -> None:
        types = catalog.types(self.connection)
        order = [column.name for column in lens.mapped]
        tables = {each.legacy: sql.legacy_table(each.legacy) for each in LENSES}
        self._say_sql(
            f"-- {lens.legacy}: the copy, a batch of it\n{sql.copy_batch(lens, types, 3)};\n"
        )
        self._say_sql(
            f"-- {lens.legacy}: the round-trip proof\n{sql.round_trip(lens, types, tables)};\n"
        )
        self.say(f"-- {lens.legacy}: the view, the functions and the triggers")
        for statement in (
            *sql.functions(lens, types, order),
            sql.on_new_function(lens.new, [lens]),
            *sql.triggers_on_legacy(lens),
            *sql.triggers_on_new(lens.new, [lens]),
        ):
            self._say_sql(f"{statement.strip().rstrip(';')};\n")

    def _say_sql(self, text: str) -> None:
        """SQL as it is before the cut-over, where the old application has PostgreSQL's path."""
        self.say(BEFORE.fill(text).replace("@path", PATH))
