"""The folder of a backup while it is written, and afterwards."""

from __future__ import annotations

import datetime
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from terrain.legacy.backup.manifest import PARTIAL, sync
from terrain.legacy.backup.telling import Teller

#: What the folder of a run is called that has not finished: ours to remove, if it is dead.
_LEFTOVER = re.compile(r".+-\d{8}T\d{6}Z(-\d+)?" + re.escape(PARTIAL))


def name(database: str, moment: datetime.datetime) -> str:
    plain = re.sub(r"[^\w.-]", "_", database)
    return f"{plain[:100]}-{moment:%Y%m%dT%H%M%SZ}"


@dataclass(frozen=True)
class Partial:
    """The folder of a run at work; ``lock`` is held on it while anybody writes there."""

    path: Path
    lock: int

    def finish(self) -> Path:
        """Give the folder the name under which it counts as a backup."""
        sync(self.path)
        whole = self.path.with_name(self.path.name.removesuffix(PARTIAL))
        self.path.rename(whole)
        sync(whole.parent)
        return whole


@contextmanager
def partial(folder: Path, name: str, teller: Teller) -> Iterator[Partial]:
    """A folder to write into, gone afterwards if it was not finished."""
    folder = folder.resolve()
    folder.mkdir(
        mode=0o700, parents=True, exist_ok=True
    )  # it holds everything there is
    alone = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(alone, fcntl.LOCK_EX)  # nobody takes a new folder for a dead one
        remove_leftovers(folder, teller)
        path = _unused(folder, name)
        path.mkdir(mode=0o700)
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    finally:
        os.close(alone)
    try:
        yield Partial(path, lock)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _unused(folder: Path, name: str) -> Path:
    number = 1
    while True:
        whole = folder / (name if number == 1 else f"{name}-{number}")
        path = whole.with_name(whole.name + PARTIAL)
        if not whole.exists() and not path.exists():
            return path
        number += 1


def is_leftover(path: Path) -> bool:
    """Whether a folder is called like one that a run has not finished."""
    return _LEFTOVER.fullmatch(path.name) is not None and not path.is_symlink()


def remove_leftovers(folder: Path, teller: Teller) -> None:
    """Remove what killed runs have left; a run at work holds the lock of its folder."""
    for path in sorted(folder.iterdir()):
        if not is_leftover(path):
            continue
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
            teller.say(f"Removed {path}, which an interrupted run had left.")
        except BlockingIOError:
            teller.say(f"Left {path} alone: another run is writing it.")
        finally:
            os.close(lock)


def remove(path: Path) -> None:
    """Remove a whole backup; killed meanwhile, it is one that was never finished."""
    dead = path.with_name(path.name + PARTIAL)
    path.rename(dead)
    sync(path.parent)
    shutil.rmtree(dead)
