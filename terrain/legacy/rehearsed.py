"""What came of rehearsals, and what a real run would take.

The results are files beside the backups, and not in the database: before ``migrate`` there
is nothing of ours there to write to, and a rehearsal is not to change that.  Cleanup, after
which there is nothing more to rehearse, removes them.
"""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from terrain.legacy.backup import manifest

Document = dict[str, Any]

FOLDER = "rehearsals"
VERSION = 1

#: The command that is no part of a real run.
BACK = "rollback_migration"

#: Beside a busy shop the copies take at most so many times as long (docs/benchmarks.md).
BESIDE = 2.0


def forecast(document: Document) -> Document:
    """What a real run would take: seconds alone and beside a busy shop, and bytes.

    As rehearsed, times what the database has grown by since the backup.  ``None`` where
    the rehearsal did not come that far.
    """
    if document["stopped"]:
        return {"growth": None, "seconds": None, "seconds_beside": None, "bytes": None}
    rehearsed = sum(each["rows"] for each in document["moved"])
    growth = document["rows_now"] / rehearsed if rehearsed else 1.0
    growth = max(1.0, growth)
    steps = {each["command"]: each["seconds"] for each in document["steps"]}
    steps.pop(BACK, None)
    alone = sum(steps.values()) * growth + document["backup_seconds"]
    copies = sum(document["times"].values()) * growth
    return {
        "growth": round(growth, 3),
        "seconds": round(alone, 1),
        "seconds_beside": round(alone + copies * (BESIDE - 1), 1),
        "bytes": round((document["size_after"] - document["size_before"]) * growth),
    }


def write(backups: Path, document: Document) -> None:
    """Keep what came of a rehearsal; a reader sees a whole file or none."""
    plain = re.sub(r"[^\w.-]", "_", document["database"])[:100]
    moment = datetime.datetime.fromisoformat(document["at"])
    folder = backups / FOLDER
    file = folder / f"{plain}-{moment:%Y%m%dT%H%M%SZ}.json"
    aside = file.with_suffix(".partial")
    with open(aside, "wb") as out:
        out.write(manifest.rendered(document))
        out.flush()
        os.fsync(out.fileno())
    aside.rename(file)


def latest(backups: Path, database: str, system: str | None) -> Document | None:
    """The last rehearsal of a database; damaged files count as none."""
    found = list(_all(backups, database, system))
    return max((each for _, each in found), key=lambda each: each["at"], default=None)


def forget(backups: Path, database: str, system: str | None) -> None:
    """Remove what was rehearsed: after cleanup it is of no use."""
    for file, _ in list(_all(backups, database, system)):
        with suppress(OSError):
            file.unlink()


def _all(
    backups: Path, database: str, system: str | None
) -> Iterator[tuple[Path, Document]]:
    try:
        files = sorted((backups / FOLDER).glob("*.json"))
    except OSError:
        return
    for file in files:
        try:
            data = file.read_bytes()
            document = json.loads(data)
            if manifest.rendered(document) != data:
                continue
            if (document["database"], document["system"]) == (database, system):
                yield file, document
        except (OSError, ValueError, KeyError, TypeError):
            continue
