"""Progress: one value, shown on a terminal, in a log, and not at all."""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Iterator
from typing import TextIO

import pytest

from terrain import progress
from terrain.progress import Progress, duration, measured, report, shown
from tests.waiting import until


def test_bytes_are_megabytes_and_their_total_is_an_estimate() -> None:
    dumping = Progress("dumping", 30_000_000, 120_000_000, 3.0, unit="B")
    assert str(dumping) == "dumping: 30.0 of about 120.0 MB, 10.0 MB/s, 9 s left"


def test_rate_and_time_left() -> None:
    half = Progress("copy orders", 5_000, 20_000, 10.0)
    assert (half.rate, half.left) == (500.0, 30.0)
    assert str(half) == "copy orders: 5,000 of 20,000 rows, 500/s, 30 s left"
    assert half.as_json() == {
        "step": "copy orders",
        "done": 5_000,
        "total": 20_000,
        "unit": "rows",
        "seconds": 10.0,
        "rate": 500.0,
        "left": 30.0,
        "note": "",
    }


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (Progress("settle", 70, None, 7.0), "settle: 70 rows, 10/s"),
        (Progress("prove orders", 0, None, 75.2), "prove orders: 1 min 15 s"),
        (Progress("drop", 0, 6, 0.0, unit="tables"), "drop: 0 s"),
        (
            Progress("drop", 2, 6, 8.0, unit="tables"),
            "drop: 2 of 6 tables, 16 s left",
        ),
        (
            Progress("copy", 9, 9, 3.0, "waits for a vacuum"),
            "copy: 9 of 9 rows, 3/s, 0 s left (waits for a vacuum)",
        ),
        (
            Progress("dump", 2_500_000, 10_000_000, 5.0, unit="B"),
            "dump: 2.5 of about 10.0 MB, 0.5 MB/s, 15 s left",
        ),
        (Progress("copy", 12, 9, 3.0), "copy: 12 of 9 rows, 4/s, 0 s left"),
    ],
)
def test_what_is_not_known_is_not_said(given: Progress, line: str) -> None:
    assert str(given) == line


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7499, "2 h 5 min"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_log_gets_a_line_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.01)
    log = io.StringIO()
    with shown(1, log):
        report(Progress("copy orders", 10, 100, 1.0))
        until(log.getvalue)
        report(Progress("copy orders", 50, 100, 5.0))
        until(lambda: "50 of" in log.getvalue())
    lines = log.getvalue().splitlines()
    assert lines[0] == "  … copy orders: 10 of 100 rows, 10/s, 9 s left"
    assert lines[-1] == "  … copy orders: 50 of 100 rows, 10/s, 5 s left"
    assert "\x1b" not in log.getvalue() and "\r" not in log.getvalue()


def test_one_long_statement_is_seen_to_be_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.01)
    log = io.StringIO()
    with shown(1, log):
        report(Progress("prove orders", 0, None, 61.0))
        until(lambda: len(log.getvalue().splitlines()) > 2)
    assert log.getvalue().splitlines()[0] == "  … prove orders: 1 min 1 s"


def test_a_step_that_has_ended_is_not_spoken_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.01)
    log = io.StringIO()
    before = threading.active_count()
    with shown(1, log):
        with measured("settle", 3) as advance:
            advance(1)
            until(log.getvalue)
        until(lambda: threading.active_count() == before)
        said = log.getvalue()
    assert log.getvalue() == said
    assert said.startswith("  … settle: 1 of 3 rows")


def test_within_a_line_that_is_not_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.01)
    log = io.StringIO()
    with shown(1, log, within_line=True):
        report(Progress("copy orders", 10, 100, 1.0))
        until(log.getvalue)
    assert log.getvalue().startswith("\n    … copy orders: 10 of 100 rows, 10/s")


def test_quiet_and_nobody_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    log = io.StringIO()
    threads = threading.active_count()
    with shown(0, log):
        report(Progress("copy orders", 10, 100, 1.0))
        assert threading.active_count() == threads
    report(Progress("copy orders", 10, 100, 1.0))
    assert log.getvalue() == ""


@pytest.fixture
def terminal() -> Iterator[tuple[TextIO, int]]:
    """A terminal to write to, and where what is written can be read."""
    ours, theirs = os.openpty()
    with open(theirs, "w", encoding="utf-8") as stream:
        yield stream, ours
    os.close(ours)


def test_a_terminal_has_a_line_redrawn(terminal: tuple[TextIO, int]) -> None:
    stream, written = terminal
    seen = ""

    def read() -> str:
        nonlocal seen
        seen += os.read(written, 4096).decode()
        return seen

    with shown(1, stream):
        report(Progress("copy orders", 5_000, 20_000, 10.0))
        until(lambda: "5,000 of 20,000 rows, 500/s, 30 s left" in read())
        progress.make_way()
        report(Progress("copy orders", 10_000, 20_000, 20.0))
        until(lambda: "10,000 of 20,000 rows, 500/s, 20 s left" in read())
    until(lambda: read().endswith("\x1b[2K") or "\x1b[?25h" in seen)
    assert re.search(r"copy orders .*━", seen)
    # Erased, and the cursor is to be seen again.
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h") == 2


def test_no_color_is_respected(
    terminal: tuple[TextIO, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream, written = terminal
    seen = ""

    def read() -> str:
        nonlocal seen
        seen += os.read(written, 65536).decode()
        return seen

    with shown(1, stream):
        report(Progress("copy orders", 5_000, 20_000, 10.0))
        until(lambda: "copy orders" in read())
    until(lambda: "\x1b[?25h" in read())
    assert not re.search(r"\x1b\[[\d;]*3\d[\d;]*m", seen)
