"""The backups in a folder: listed, and retired."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terrain.legacy.backup import folder as folders
from terrain.legacy.backup.manifest import (
    MANIFEST,
    PARTIAL,
    Backup,
    Damaged,
    check_presence,
    find,
    load,
    why_unreadable,
)


@dataclass(frozen=True)
class Listed:
    """A folder that is a backup, or what it is instead."""

    path: Path
    backup: Backup | None
    trouble: str | None = None

    def as_json(self, now: datetime.datetime) -> dict[str, Any]:
        """What ``list_backups --json`` says of it; sizes in bytes, ages in seconds."""
        found: dict[str, Any] = {"path": str(self.path), "trouble": self.trouble}
        if self.backup is not None:
            manifest = self.backup.manifest
            found |= {
                "database": self.backup.database,
                "system": self.backup.system,
                "taken_at": self.backup.taken_at.isoformat(),
                "age": round((now - self.backup.taken_at).total_seconds()),
                "size": self.backup.size,
                "rows": self.backup.rows,
                "proven": self.backup.is_proven,
                "unproven": manifest.get("unproven"),
                "encrypted_to": (self.backup.encryption or {}).get("recipient"),
            }
        return found


def listed(folder: Path) -> list[Listed]:
    """Every backup in a folder, newest first, then what was one or was to be one.

    Raises :class:`OSError`.  Checksums are not computed.
    """
    if why := why_unreadable(folder):
        raise OSError(why)
    found = list(_each(folder))
    whole = [each for each in found if each.backup is not None]
    whole.sort(key=lambda each: each.backup.taken_at, reverse=True)  # type: ignore[union-attr]
    return whole + [each for each in found if each.backup is None]


def _each(folder: Path) -> Iterator[Listed]:
    for path in sorted(folder.iterdir()) if folder.exists() else []:
        if not (path / MANIFEST).exists() and not folders.is_leftover(path):
            continue  # not ours to judge
        try:
            found = load(path)
            check_presence(found)
        except Damaged as error:
            yield Listed(path, None, error.args[0])
        else:
            yield Listed(path, found)


# --- retiring ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Keep:
    """Which backups stay: the newest so many proven ones, and those of so many days."""

    number: int | None = None
    days: int | None = None


def retired(
    backups: Iterable[Backup], keep: Keep, now: datetime.datetime
) -> list[Backup]:
    """Which of one database's backups may go.  Pure.

    Each rule keeps, so with two of them only what neither wants goes.  The newest proven
    backup always stays, and what is newer than the oldest that stays, proven or not: that
    was not kept for its proof.
    """
    if keep.number is None and keep.days is None:
        return []
    newest = sorted(backups, key=lambda each: each.taken_at, reverse=True)
    proven = [each for each in newest if each.is_proven]
    if not proven:
        return []
    oldest = proven[min(max(keep.number or 1, 1), len(proven)) - 1].taken_at
    if keep.days is not None:
        oldest = min(oldest, now - datetime.timedelta(days=keep.days))
    return [each for each in newest if each.taken_at < oldest]


def retire(folder: Path, database: str, system: str | None, keep: Keep) -> list[Backup]:
    """Remove the backups of a database that are not to be kept; what was removed.

    Those of another server's database of the same name stay, and so does what is damaged:
    somebody should look.  Raises :class:`OSError`.
    """
    mine = [each for each in find(folder, database) if each.system == system]
    gone = retired(mine, keep, datetime.datetime.now(datetime.UTC))
    for each in gone:
        folders.remove(each.path)
    return gone


__all__ = ["Keep", "Listed", "PARTIAL", "listed", "retire", "retired"]
