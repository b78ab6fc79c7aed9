"""Judging a shop: how long preflight, verification and the rest of the guide take to look.

Each command runs in a process of its own, one after another on one shop.  How often they
read each legacy row is PostgreSQL's own count, of table and index scans together.
"""

from __future__ import annotations

from typing import Any

from bench import report, shop

#: The guide's commands that look at every row or should not have to, in their order.
COMMANDS = (
    "preflight",
    "migrate",
    "copy_models_to_assets",
    "verify_migration",
    "settle",
    "migration_status",
)


def measure(scale: float) -> dict[str, Any]:
    """Seconds, memory and reads of each command at this scale."""
    with shop.clone(shop.shop(scale)) as database:
        size = shop.size(database, "public", shop.LEGACY)
        rows = {table: shop.rows(database, table) for table in shop.LEGACY}
        found = shop.ask(
            database,
            "SELECT oid, relname FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'",
        )
        commands = []
        for command in COMMANDS:
            shop.checkpoint()
            before = _reads(database, dict(found))
            run = shop.run(database, "manage.py", command)
            after = _reads(database, dict(found))
            commands.append(
                {
                    "command": command,
                    "seconds": run.seconds,
                    "megabytes": run.megabytes,
                    "reads_a_row": {
                        table: round((after[table] - before[table]) / rows[table], 1)
                        for table in shop.LEGACY
                    },
                }
            )
    with shop.empty() as database:
        run = shop.run(database, "manage.py", "migrate")
        commands.append(
            {
                "command": "migrate, empty",
                "seconds": run.seconds,
                "megabytes": run.megabytes,
                "reads_a_row": {},
            }
        )
    return {
        "scale": scale,
        "rows": sum(rows.values()),
        "bytes": size,
        "commands": commands,
    }


def _reads(database: str, tables: dict[int, str]) -> dict[str, int]:
    """Rows read so far, by table."""
    oids = ", ".join(map(str, tables))
    found = shop.ask(
        database,
        "SELECT relid, seq_tup_read + coalesce(idx_tup_fetch, 0)"
        f"  FROM pg_stat_all_tables WHERE relid IN ({oids})",
    )
    return {tables[oid]: int(reads) for oid, reads in found}


def show(results: dict[str, Any]) -> None:
    report.table(
        f"Judging at scale {results['scale']:g}: {results['rows']:,} legacy rows,"
        f" {results['bytes'] / 1e6:,.0f} MB",
        ["", "seconds", "MB of Python", "reads a row", "at most"],
        [
            [
                each["command"],
                each["seconds"],
                each["megabytes"],
                *_average(each["reads_a_row"]),
            ]
            for each in results["commands"]
        ],
    )


def _average(reads: dict[str, float]) -> tuple[float | None, str | None]:
    """Of the tables alike, and the most of one of them."""
    if not reads:
        return None, None
    table = max(reads, key=lambda name: reads[name])
    return sum(reads.values()) / len(reads), f"{reads[table]:.1f} ({table})"


def main() -> None:
    parser = report.arguments(__doc__.partition("\n")[0])  # type: ignore[union-attr]
    report.each_scale("judging", parser, lambda scale, _: measure(scale), show)


if __name__ == "__main__":
    main()
