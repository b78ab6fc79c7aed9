"""Offering the cut-over at the end of another command, where a person is there to be asked."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management import call_command

from terrain.commands import Refusal
from terrain.legacy import cut_over


def offer_cut_over(connection: Any, stdout: Any, verbosity: int) -> None:
    """Ask on a terminal whether to cut over, and do it; a no is no failure of the command.

    It does not ask while another session is connected or has just written.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return
    if any(cut_over.activity(connection)):
        return
    try:
        call_command("cut_over", verbosity=verbosity)
    except Refusal as refusal:
        stdout.write(str(refusal))
