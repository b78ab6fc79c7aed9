"""Programs at work: run, waited for, stopped, and what they said."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

#: Seconds between two looks at a program that is at work.
INTERVAL = 1.0
#: Seconds a program has to clean up after itself when it is asked to stop.
GRACE = 10.0

Stream = int | IO[bytes] | None

#: What a program says whose reader has gone: a consequence, never the reason.
_BROKEN = re.compile("broken pipe", re.IGNORECASE)


class Failed(Exception):
    """A program ended with an error; ``said`` is all it wrote."""

    def __init__(self, program: str, said: str) -> None:
        super().__init__(f"{program} failed: {reason(said)}")
        self.said = said


def reason(said: str) -> str:
    """The line of a program's messages that says why it failed."""
    found = re.search(r"(?:error|fatal): +(.+)", said)
    if found:
        return found[1].rstrip(".")
    last = (said.strip().splitlines() or ["it gave no reason"])[-1]
    return re.sub(r"^\w+: ", "", last).rstrip(".")


@dataclass
class Program:
    """A program at work."""

    name: str
    process: subprocess.Popen[bytes]
    messages: IO[bytes]

    @property
    def has_failed(self) -> bool:
        return self.process.poll() not in (None, 0)

    def check(self) -> None:
        """Raise :class:`Failed` if it has ended with an error."""
        if self.has_failed:
            raise Failed(self.name, self.said())

    def wait(self, tell: Callable[[], None]) -> int:
        """Its exit code, when it has ended; ``tell`` is called every few seconds."""
        while True:
            try:
                return self.process.wait(INTERVAL)
            except subprocess.TimeoutExpired:
                tell()

    def output(self) -> str:
        """All it writes to a standard output that is a pipe to us."""
        assert self.process.stdout is not None
        with self.process.stdout as written:
            return written.read().decode("utf-8", "replace")

    def said(self) -> str:
        self.messages.seek(0)
        return self.messages.read().decode("utf-8", "replace")


@dataclass
class Pipe:
    """Two programs at work, of which the second reads what the first writes."""

    first: Program
    second: Program

    def check(self) -> None:
        """Raise :class:`Failed` if one has ended with an error, of both the cause."""
        if self.second.has_failed:
            self.first.process.wait()
            self.check_source()
            self.second.check()
        self.check_source()

    def check_source(self) -> None:
        """Raise :class:`Failed` if the first has, and not for want of its reader."""
        if self._source_has_failed:
            self.first.check()

    @property
    def _source_has_failed(self) -> bool:
        # One whose reader has gone is ended by that, or says so: a consequence.
        if not self.first.has_failed:
            return False
        is_cause = self.first.process.returncode > 0
        return is_cause and not _BROKEN.search(self.first.said())

    def output(self) -> str:
        return self.second.output()

    def said(self) -> str:
        return self.second.said()

    def wait(self, tell: Callable[[], None]) -> int:
        """The second's exit code, when both have ended."""
        self.first.wait(tell)
        return self.second.wait(tell)


@contextmanager
def running(
    command: Sequence[str],
    environment: Mapping[str, str],
    keep: Sequence[int] = (),
    ends: tuple[Stream, Stream] = (subprocess.DEVNULL, subprocess.DEVNULL),
) -> Iterator[Program]:
    """Run a program for as long as the block; it is stopped if the block is left early.

    ``keep`` are open files it inherits, so that a lock on them lasts as long as it does,
    even when we are killed.  ``ends`` are its standard input and output, if any.
    """
    with tempfile.TemporaryFile() as messages:
        process: subprocess.Popen[Any] = subprocess.Popen(
            command,
            stdin=ends[0],
            stdout=ends[1],
            stderr=messages,
            env=environment,
            pass_fds=keep,
        )
        try:
            yield Program(Path(command[0]).name, process, messages)
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[Any]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    deadline = time.monotonic() + GRACE
    while process.poll() is None:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
