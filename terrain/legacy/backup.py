"""Dumps, with what is needed to trust them: a manifest, checksums and a proof."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Backup:
    """A backup as its manifest describes it."""

    path: Path
    manifest: dict[str, Any]

    @property
    def taken_at(self) -> datetime.datetime:
        return datetime.datetime.fromisoformat(self.manifest["taken_at"])

    @property
    def is_proven(self) -> bool:
        return bool(self.manifest.get("proof"))


def find(folder: Path, database: str) -> list[Backup]:
    """The backups of a database in a folder, newest first."""
    found = []
    for path in folder.glob(f"*/{MANIFEST}"):
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if manifest["database"] == database:
                found.append(Backup(path.parent, manifest))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not a manifest of ours: restore_database says so when asked for it
    return sorted(found, key=lambda each: each.taken_at, reverse=True)


def latest_proven(folder: Path, database: str) -> Backup | None:
    """The newest backup of a database that has been restored and compared."""
    return next((each for each in find(folder, database) if each.is_proven), None)
