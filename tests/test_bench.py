"""The benchmarks run, on a shop of a few rows; nothing here looks at how long they take."""

from __future__ import annotations

from typing import Any

import pytest

from bench import copying, judging, shop
from terrain.embedded import Cluster

SCALE = 0.0001


@pytest.fixture(autouse=True)
def on_the_test_server(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> None:
    monkeypatch.setattr(shop, "CLUSTER", cluster)


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
