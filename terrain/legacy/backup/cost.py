"""What a backup will cost: bytes and seconds, by the last one or by rules of thumb."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from terrain.legacy.backup.manifest import Backup
from terrain.legacy.backup.server import Server

#: Without an earlier backup: bytes of a dump for each byte of the database (text that does
#: not repeat takes more, indexes take none), and bytes a second that one of ``pg_dump``'s
#: processes compresses, or one of ``pg_restore``'s loads and indexes.
RATIO, DUMPED, RESTORED = 0.3, 60e6, 40e6
#: Bytes a restored database takes for each of the original, with the log of its making.
COPY = 1.2
#: An earlier backup's bytes for each byte then, and a little more: tables grow unevenly.
MARGIN = 1.1


class DoesNotFit(Exception):
    """It would fill a disk; the sentence says which, and what to do."""


@dataclass(frozen=True)
class Disk:
    """What a part of the work needs on a disk, and what is free: None if nobody can tell."""

    needed: int
    free: int | None
    device: int | None = None


@dataclass(frozen=True)
class Cost:
    """Bytes and seconds of the dump, and of the proof."""

    dump: Disk
    seconds: float
    proof: Disk | None
    proof_seconds: float
    folder: Path
    is_guess: bool

    def sentence(self) -> str:
        """What it costs, for somebody who may still say no."""
        how = "about" if self.is_guess else "by the last backup"
        text = (
            f"Expected, {how}: {_mb(self.dump.needed)} of the {_mb(self.dump.free)} free in"
            f" {self.folder}, in {_time(self.seconds)}"
        )
        if self.proof is None:
            return f"{text}."
        where = f"of the {_mb(self.proof.free)} free where the server keeps its data"
        if self.proof.free is None:
            where = (
                "on the server's disk (how much is free there cannot be told from here)"
            )
        return (
            f"{text}; its proof, {_mb(self.proof.needed)} {where}, for"
            f" {_time(self.proof_seconds)}."
        )

    def check(self) -> None:
        """Raise :class:`DoesNotFit` if it would not fit."""
        needed, free = self.dump.needed, self.dump.free
        if free is not None and needed > free:
            raise DoesNotFit(
                f"The backup is expected to have {_mb(needed)}, and {self.folder} has"
                f" {_mb(free)} free. Make room there, name another folder with --output, or"
                " add --ignore-space if the estimate is wrong."
            )
        if self.proof is None or self.proof.free is None:
            return
        needed = self.proof.needed
        if self.proof.device == self.dump.device:
            needed += self.dump.needed
        if needed > self.proof.free:
            raise DoesNotFit(
                f"To prove the backup a copy of the database is made, for which {_mb(needed)}"
                f" are needed where the server keeps its data, and {_mb(self.proof.free)} are"
                " free. Make room there, prove it on another server with --prove-on, or add"
                " --ignore-space if the estimate is wrong."
            )


def of(
    server: Server,
    folder: Path,
    jobs: int,
    earlier: Sequence[Backup],
    proof_on: Server | None,
) -> Cost:
    """The cost of a backup of the server's database; ``earlier`` ones newest first."""
    with server.connect() as connection:
        # The sizes of single tables would have to wait for whoever alters one.
        row = connection.execute(
            "SELECT pg_database_size(current_database())"
        ).fetchone()
    assert row is not None
    (size,) = row
    last = next((each for each in earlier if each.manifest.get("seconds")), None)
    dumped, seconds = int(size * RATIO), size / DUMPED / jobs
    proof_seconds = size / RESTORED / jobs
    if last is not None:
        growth = size / max(last.manifest["database_size"], 1)
        dumped = int(last.size * growth * MARGIN)
        seconds = last.manifest["seconds"] * growth
        proof_seconds = (last.manifest["proof"] or {"seconds": proof_seconds / growth})[
            "seconds"
        ] * growth
    return Cost(
        Disk(dumped, *_free(folder)),
        seconds,
        Disk(int(size * COPY), *_free_for_data(proof_on)) if proof_on else None,
        proof_seconds,
        folder,
        last is None,
    )


def _free(folder: Path) -> tuple[int | None, int | None]:
    """Bytes free for us where a folder is or will be, and which disk that is."""
    there = folder.resolve()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        found = os.statvfs(there)
        return found.f_bavail * found.f_frsize, os.stat(there).st_dev
    except OSError:
        return None, None


def _free_for_data(server: Server) -> tuple[int | None, int | None]:
    """The same for a server's data: told to superusers, and seen from the same machine only."""
    if server.cluster is not None:
        return _free(server.cluster.folder)
    try:
        with server.connect() as connection:
            row = connection.execute(
                "SELECT current_setting('data_directory') WHERE inet_server_addr() IS NULL"
            ).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return None, None
    # Over a socket; but it may still be in a container of its own.
    if row is None or not os.path.lexists(row[0]):
        return None, None
    return _free(Path(row[0]))


def _mb(number: int | None) -> str:
    return "unknown number of bytes" if number is None else f"{number / 1e6:,.1f} MB"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:,.0f} minutes"
