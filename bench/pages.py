"""The pages of the admin: server time, queries and size, at any scale.

The shop is migrated and has its catalogue; a process of its own asks for each page as a
superuser, without a web server in between (``visited.py``).
"""

from __future__ import annotations

from typing import Any

from bench import report, shop

#: Milliseconds and queries that no page should need more of.
WANTED = (300, 15)
#: What makes the database the pages are of, in this order.
COMMANDS = ("migrate", "copy_models_to_assets", "verify_migration")


def measure(scale: float, rounds: int) -> dict[str, Any]:
    """Median milliseconds, queries and bytes of each page at this scale."""
    with shop.clone(shop.shop(scale)) as database:
        rows = shop.rows(database, *shop.LEGACY)
        for command in COMMANDS:
            shop.run(database, "manage.py", command, "--verbosity", "0")
        with shop.connect(database) as connection:
            connection.execute("VACUUM (ANALYZE)")  # as autovacuum leaves it in a while
        shop.checkpoint()
        run = shop.run(database, "-m", "bench.visited", str(rounds))
    return {"scale": scale, "rows": rows, "pages": run.said["pages"]}


def show(results: dict[str, Any]) -> None:
    report.table(
        f"Pages at scale {results['scale']:g}: {results['rows']:,} legacy rows",
        ["", "first, ms", "median, ms", "queries", "kB", ""],
        [
            [
                each["page"],
                each["first"],
                each["milliseconds"],
                each["queries"],
                each["bytes"] / 1000,
                _judged(each),
            ]
            for each in results["pages"]
        ],
    )


def _judged(page: dict[str, Any]) -> str:
    over = page["milliseconds"] > WANTED[0] or page["queries"] > WANTED[1]
    return "over" if over else ""


def main() -> None:
    parser = report.arguments(__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=5, help="how often (5)")
    report.each_scale(
        "pages", parser, lambda scale, options: measure(scale, options.rounds), show
    )


if __name__ == "__main__":
    main()
