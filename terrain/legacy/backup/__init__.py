"""Backups: dumped, proven by restoring them, and given back.

``manifest`` says what one is and whether it is whole, ``dumping`` makes one, ``proof``
proves it, ``restore`` gives it back.  Here is what other parts of the move ask: which there
are, and which of them counts.
"""

from __future__ import annotations

from terrain.legacy.backup.manifest import (
    Backup,
    Damaged,
    find,
    latest_proven,
    load,
    why_unreadable,
)

__all__ = ["Backup", "Damaged", "find", "latest_proven", "load", "why_unreadable"]
