"""What ``manage.py check`` finds in the configuration, before it does harm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import Tags, Warning, register


@register(Tags.security)
def environment(app_configs: Any, **_: Any) -> list[Warning]:
    """Settings that suit a look around and not a shop, or the other way round."""
    return list(_environment())


def _environment() -> Iterator[Warning]:
    has_database = bool(settings.DATABASE_URL)
    if settings.DEBUG and has_database:
        yield Warning(
            "DEBUG is on, and DATABASE_URL names a real database: whoever makes a page fail"
            " is shown settings and rows.",
            hint="Unset DEBUG; it is off where DATABASE_URL is set.",
            id="terrain.W001",
        )
    if not settings.DEBUG and not has_database:
        yield Warning(
            "DEBUG is off, and DATABASE_URL is not set: the database is the embedded server,"
            " which is made for development and ends with who uses it.",
            hint="Set DATABASE_URL, of the form"
            " postgresql://user:password@host:5432/terrain_builder.",
            id="terrain.W002",
        )
    if has_database and not settings.SECRET_KEY_GIVEN:
        yield Warning(
            "SECRET_KEY is not set, so that each process makes one of its own: a restart signs"
            " everybody out, and two workers do not know each other's sessions.",
            hint="Set SECRET_KEY. One can be made with: python -c"
            " 'import secrets; print(secrets.token_urlsafe(50))'",
            id="terrain.W003",
        )


@register
def backup_folder(app_configs: Any, **_: Any) -> list[Warning]:
    """Whether a backup could be written where it is to be."""
    why = why_unwritable(settings.BACKUP_DIR)
    if why is None:
        return []
    return [
        Warning(
            f"Backups cannot be written to {settings.BACKUP_DIR}: {why}.",
            hint="Give this user the right to write there, or name another folder in"
            " BACKUP_DIR.",
            id="terrain.W004",
        )
    ]


def why_unwritable(folder: Path) -> str | None:
    """What keeps us from making files in a folder that need not be there yet; None: nothing."""
    there = folder.absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        return f"{there} is no folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{there} may not be written to"
    return None
