"""The benchmarks run, on a shop of a few rows; nothing here looks at how long they take."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import (
    backups,
    chart,
    copying,
    judging,
    live,
    pages,
    remembered,
    shop,
    writes,
)
from bench.told import Told
from terrain.embedded import Cluster

SCALE = 0.0001


@pytest.fixture(autouse=True)
def on_the_test_server(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> None:
    monkeypatch.setattr(shop, "CLUSTER", cluster)


def test_backups(capsys: pytest.CaptureFixture[str]) -> None:
    results = backups.measure(SCALE, 2)
    backups.show(results)
    assert results["taken_times_bare"] > 0 and results["proven_times_bare"] > 0
    assert [len(each) for each in results["each"].values()] == [2] * 6
    assert "Backing up at scale 0.0001, median of 2" in capsys.readouterr().out


def test_all_ways_of_copying_make_the_same_rows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ways = list(copying.WAYS)
    results = copying.measure(SCALE, 1, ways)
    copying.show(results, ways)
    assert [each["subject"] for each in results["subjects"]] == [
        "assets",
        "tables",
        "orders",
    ]
    for each in results["subjects"]:
        assert each["rows"] > 0
        assert each["plain"]["times_plain"] == 1
        assert each["project"]["seconds"] > 0
    out = capsys.readouterr().out
    assert "Copying at scale 0.0001, median of 1" in out


def test_ways_that_make_other_rows_are_no_reference() -> None:
    same = copying.Copied(checksums={"orders": "1"})
    other = copying.Copied(checksums={"orders": "2"})
    with pytest.raises(shop.Failed, match="do not make the same rows of orders"):
        copying._check_alike({"project": [same], "plain": [other]})


def test_every_command_is_judged() -> None:
    results: dict[str, Any] = judging.measure(SCALE)
    commands = {each["command"]: each for each in results["commands"]}
    assert list(commands) == [*judging.COMMANDS, "migrate, empty"]
    assert commands["preflight"]["reads_a_row"]["orders"] >= 1
    assert commands["preflight"]["megabytes"] > 0


#: The namespace of a chart's elements.
SVG = "{http://www.w3.org/2000/svg}"


def test_both_applications_at_work_beside_the_move(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing fails and nothing is lost, there and back twice, and there again."""
    monkeypatch.setattr(live, "UNTOUCHED", 2.0)
    plan = live.Plan(SCALE, rate=100, rounds=2, quiet=1)
    turns, results = live.measure(plan)
    assert [turn.way for turn in turns] == ["project", "untouched", "plain"]
    assert (results["refused"]["project"], results["wrong"]["project"]) == ([], [])
    assert (results["new"]["refused"], results["again"]) == ([], [])
    assert results["new"]["acts"] > 10
    for turn in turns:
        assert len(turn.told.started) > 50 and turn.told.added["orders"] > 0
    live.show(results)
    out = capsys.readouterr().out
    assert "project, scale 0.0001, 100 acts/s wanted; milliseconds" in out
    assert re.search(r"failed statements +0 +0\n", out)
    assert re.search(r"there and back +2 +2\n", out)
    assert re.search(r"^ +2 +\d+ +[\d,]+ ", out, re.MULTILINE)
    drawn = ElementTree.fromstring(chart.draw(chart.panels(turns), live.WANTED))
    said = [text.text for text in drawn.iter(f"{SVG}text")]
    lines = [path.get("d") or "" for path in drawn.iter(f"{SVG}path")]
    assert lines and all(line.startswith("M") for line in lines)
    assert re.search(r"cut over and undone +4 +4\n", out)
    assert {"cut over", "undo", "undone"} <= {phase.name for phase in turns[0].phases}
    panels = {"project, there and back", "project, 2 times", "untouched", "plain"}
    assert {*panels, "before"} <= set(said)


def test_statements_beside_an_untouched_shop(
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = writes.measure(SCALE, turns=2, sets=1)
    for some in results["costs"].values():
        assert [each["statement"] for each in some] == [
            kind.name for kind in writes.KINDS
        ]
        assert all(each["times"] > 0 for each in some)
    writes.show(results)
    assert "Scale 0.0001, without; milliseconds, medians" in capsys.readouterr().out


def test_what_was_lost_or_doubled_is_found() -> None:
    template = shop.shop(SCALE)
    key, other = (
        str(key)
        for (key,) in shop.ask(template, "SELECT id FROM assets ORDER BY id LIMIT 2")
    )
    views = [
        views
        for (views,) in shop.ask(
            template, "SELECT view_count FROM assets ORDER BY id LIMIT 2"
        )
    ]
    told = Told()
    told.added["orders"] += 1
    told.wrote("assets", key, name="Another")
    told.rows["assets", other] = None
    told.wrote("artists", "00000000-0000-4000-8000-000000000001", name="Gone")
    told.raised["assets", "view_count", key] += 2
    orders, name = shop.ask(
        template,
        f"SELECT (SELECT count(*) FROM orders), name FROM assets WHERE id = '{key}'",
    )[0]
    told.rows["artists", "00000000-0000-4000-8000-000000000002"] = None
    told.raised["assets", "view_count", other] += 1
    before = remembered.Before(template)
    with shop.connect(template) as seen:
        found = [*remembered.faults(seen, "public", before, told)]
    assert found == [
        "public.artists 00000000-0000-4000-8000-000000000001 is missing.",
        f"public.assets {key}: name is {name!r}, not 'Another'.",
        f"public.assets {other} was deleted and is there.",
        f"public.orders has {orders} rows, not {orders + 1}.",
        f"public.assets {key}: view_count is {views[0]}, not {views[0]} + 2.",
        f"public.assets {other}: view_count is {views[1]}, not {views[1]} + 1.",
    ]


def test_pages(capsys: pytest.CaptureFixture[str]) -> None:
    results = pages.measure(0.001, 1)
    pages.show(results)
    by_name = {each["page"]: each for each in results["pages"]}
    assert {"the move", "find: customer", "page: order", "list: orders"} <= set(by_name)
    assert all(each["bytes"] > 1000 for each in by_name.values())
    assert "Pages at scale 0.001" in capsys.readouterr().out
