"""Arguments that several commands have."""

from __future__ import annotations

import argparse
import os

from django.core.management.base import CommandParser


def number(text: str) -> int:
    """A whole number from 1 to 64."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 64")
    return int(text)


def add_jobs(parser: CommandParser) -> None:
    """--jobs: a processor each, but the server has others to serve."""
    parser.add_argument(
        "--jobs",
        type=number,
        default=max(1, min(4, os.cpu_count() or 1)),
        metavar="N",
        help="tables dumped or restored at a time (default: %(default)s)",
    )
