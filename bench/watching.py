"""What being watched costs: a scrape of /metrics, and the counting when a layout is saved.

The scrape is the collector's, in a process of its own: the first, when everything is asked,
and further ones, when what is dear has been kept.  Saving is the old application's, with
the triggers that count and without, taking turns.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import psycopg

from bench import report, shop

#: Layouts saved in each way, and pieces in the large ones.
SAVED, LARGE = 300, 200
#: Savings one after another, before it is the other way's turn.
BLOCK = 50
#: Scrapes after the first.
SCRAPES = 10


def scrape() -> None:
    """In a process of its own: scrape, and write down how long each took."""
    import django

    django.setup()
    from django.db import connection

    from terrain.monitoring.collector import Collector

    connection.ensure_connection()
    took: list[float] = []
    sources: dict[str, float] = {}
    for _ in range(SCRAPES + 1):
        began = time.perf_counter()
        families = list(Collector(connection).collect())
        took.append(time.perf_counter() - began)
        sources = sources or {
            sample.labels["source"]: sample.value
            for family in families
            if family.name == "terrain_source_seconds"
            for sample in family.samples
        }
    Path(os.environ["BENCH_REPORT"]).write_text(
        json.dumps({"took": took, "sources": sources})
    )


def measure(scale: float) -> dict[str, Any]:
    """Seconds of scrapes and of savings, on one migrated shop."""
    with shop.clone(shop.shop(scale)) as database:
        shop.run(database, "manage.py", "migrate")
        shop.run(database, "manage.py", "copy_models_to_assets")
        shop.checkpoint()
        program = "from bench.watching import scrape; scrape()"
        scraped = shop.run(database, "-c", program).said
        savings = [_saving(database, pieces) for pieces in (None, LARGE)]
    first, *further = scraped["took"]
    return {
        "scale": scale,
        "first": first,
        "further": statistics.median(further),
        "sources": scraped["sources"],
        "savings": savings,
    }


def _saving(database: str, pieces: int | None) -> dict[str, Any]:
    """Median seconds of saving a layout of so many pieces, or of those it has."""
    with shop.connect(database, options="-c search_path=public") as connection:
        keys = [
            key
            for (key,) in connection.execute(
                "SELECT id FROM user_tables ORDER BY md5(id::text) LIMIT %s", [SAVED]
            )
        ]
        if pieces:
            _lay_out(connection, keys, pieces)
        took: dict[bool, list[float]] = {True: [], False: []}
        for turn, key in enumerate(keys * 2):
            counting = turn // BLOCK % 2 == 0
            if turn % BLOCK == 0:
                _switch(connection, counting=counting)
            took[counting].append(_save(connection, key))
        _switch(connection, counting=True)
    return {
        "pieces": pieces or "its own",
        "without": statistics.median(took[False]),
        "with": statistics.median(took[True]),
    }


def _lay_out(connection: psycopg.Connection[Any], keys: list[Any], pieces: int) -> None:
    connection.execute(
        "UPDATE user_tables SET layout_data = jsonb_build_object('models', (SELECT"
        " jsonb_agg(jsonb_build_object('id', n, 'asset_id', a.id, 'rotation', 90,"
        " 'position', jsonb_build_object('x', n, 'y', n, 'z', 0)))"
        " FROM generate_series(1, %s) n JOIN (SELECT id, row_number() OVER () AS number"
        " FROM (SELECT id FROM assets LIMIT 50) x) a ON a.number = 1 + n %% 50))"
        " WHERE id = ANY (%s)",
        [pieces, keys],
    )


def _switch(connection: psycopg.Connection[Any], *, counting: bool) -> None:
    word = "ENABLE" if counting else "DISABLE"
    for event in ("insert", "update", "delete"):
        statement = f"ALTER TABLE terrain.tables {word} TRIGGER terrain_usage_{event}"
        connection.execute(statement)  # type: ignore[arg-type]


def _save(connection: psycopg.Connection[Any], key: Any) -> float:
    """Put one piece more on a table; seconds."""
    began = time.perf_counter()
    connection.execute(
        "UPDATE user_tables SET layout_data = jsonb_set(layout_data, '{models}',"
        " coalesce(layout_data -> 'models', '[]') || jsonb_build_array("
        " jsonb_build_object('asset_id', (SELECT id FROM assets LIMIT 1)))) WHERE id = %s",
        [key],
    )
    return time.perf_counter() - began


def show(results: dict[str, Any]) -> None:
    scale = results["scale"]
    report.table(
        f"Scraping at scale {scale:g}",
        ["", "milliseconds"],
        [
            ["the first scrape", results["first"] * 1000],
            ["further ones", results["further"] * 1000],
            *(
                [f"  {name}", seconds * 1000]
                for name, seconds in sorted(results["sources"].items())
            ),
        ],
    )
    report.table(
        f"Saving a layout at scale {scale:g}, in milliseconds",
        ["pieces", "without counting", "with", "times"],
        [
            [
                str(each["pieces"]),
                each["without"] * 1000,
                each["with"] * 1000,
                each["with"] / each["without"],
            ]
            for each in results["savings"]
        ],
    )


def main() -> None:
    parser = report.arguments(__doc__.partition("\n")[0])  # type: ignore[union-attr]
    report.each_scale("watching", parser, lambda scale, _: measure(scale), show)


if __name__ == "__main__":
    main()
