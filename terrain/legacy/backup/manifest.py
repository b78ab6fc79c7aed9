"""Backups as folders: what is in one, whether it is whole, and which there are.

A backup is ``<database>-<UTC time>/`` with ``dump/`` (``pg_dump``'s directory format; or,
encrypted, one file ``dump.age`` or ``dump.gpg``) and ``manifest.json``, which says what the
dump is of, the size and SHA-256 of each of its files, and rows and fingerprint of every
table.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from terrain.legacy.backup import fingerprints
from terrain.legacy.backup.encryption import Key

MANIFEST, DUMP = "manifest.json", "dump"

#: How a manifest is written.  Whatever was ever written stays readable: tests/kept has one
#: of each version.  2 came with ``fingerprints`` (how they are computed), ``sequences``,
#: ``declaration``, ``roles``, ``seconds`` and ``encryption``.
MANIFEST_VERSION = 2

#: Files whose checksums are computed at a time; hashing does not hold Python's lock.
_READERS = 4

#: What a folder is called until it is whole.
PARTIAL = ".partial"


class Damaged(Exception):
    """It is not, or no longer, what was written; the sentence names the file.

    The next step is looked for when somebody reads it: which other backups there are.
    """

    def __init__(self, sentence: str, instead_of: Path | None = None) -> None:
        super().__init__(sentence)
        self.instead_of = instead_of

    def __str__(self) -> str:
        sentence = super().__str__()
        return (
            sentence
            if self.instead_of is None
            else f"{sentence} {_others(self.instead_of)}"
        )


@dataclass(frozen=True)
class Backup:
    """A backup as its manifest describes it."""

    path: Path
    manifest: dict[str, Any]
    key: Key = field(default=Key(), repr=False, compare=False)

    @property
    def database(self) -> str:
        return str(self.manifest["database"])

    @property
    def system(self) -> str | None:
        """The identifier of the server it was taken on, where that could be asked."""
        found: str | None = self.manifest.get("system")
        return found

    @property
    def taken_at(self) -> datetime.datetime:
        return datetime.datetime.fromisoformat(self.manifest["taken_at"])

    @property
    def is_proven(self) -> bool:
        return bool(self.manifest.get("proof"))

    @property
    def encryption(self) -> dict[str, Any] | None:
        """The ``program`` and whom it is for (``recipient``), if it is encrypted."""
        found: dict[str, Any] | None = self.manifest.get("encryption")
        return found

    @property
    def dump(self) -> Path:
        """What ``pg_dump`` wrote: a folder, or an encrypted file."""
        if self.encryption is None:
            return self.path / DUMP
        return self.path / f"{DUMP}.{self.encryption['program']}"

    @property
    def tools_major(self) -> int:
        """The version of ``pg_dump`` it was made with; an older ``pg_restore`` cannot read it."""
        return int(self.manifest["tools_version"].split(".")[0])

    @property
    def server_major(self) -> int:
        """The version of the server it was taken on."""
        return int(self.manifest["server_version"].split(".")[0])

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return int(self.manifest["size"])

    @property
    def rows(self) -> int:
        return fingerprints.rows(self.manifest["tables"])


# --- the manifest --------------------------------------------------------------------------


def digest(content: dict[str, Any]) -> str:
    """SHA-256 of everything in a manifest but this digest."""
    rest = {key: value for key, value in content.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def rendered(content: dict[str, Any]) -> bytes:
    """A manifest as it is written: one way, so that any other byte is an edit."""
    whole = {**content, "digest": digest(content)}
    return (json.dumps(whole, indent=2, sort_keys=True) + "\n").encode()


def write_manifest(folder: Path, content: dict[str, Any]) -> Backup:
    """Write or replace a manifest; a reader sees the old one or the new one, whole."""
    aside = folder / (MANIFEST + PARTIAL)
    with open(aside, "wb") as file:
        file.write(rendered(content))
        file.flush()
        os.fsync(file.fileno())
    aside.rename(folder / MANIFEST)
    sync(folder)
    return Backup(folder, content)


def sync(folder: Path) -> None:
    """Make what was renamed in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load(folder: Path) -> Backup:
    """The backup in a folder, its manifest checked.  Raises :class:`Damaged`."""
    file = folder / MANIFEST
    if folder.name.endswith(PARTIAL):
        raise Damaged(
            f"{folder} was never finished: the backup was interrupted.", folder
        )
    try:
        if file.is_symlink():
            raise Damaged(f"{file} is no ordinary file.", folder)
        data = file.read_bytes()
    except OSError as error:
        raise Damaged(
            f"{folder} is no backup: {file} cannot be read ({error.strerror})."
            " Give the folder that backup_database named."
        ) from error
    try:
        content = json.loads(data)
        version = content["manifest_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(
            f"{file} is damaged: it is not what backup_database wrote.", folder
        ) from error
    if isinstance(version, int) and version > MANIFEST_VERSION:
        raise Damaged(
            f"{file} has version {version}, and this project reads up to version"
            f" {MANIFEST_VERSION}. Use the version of the project that wrote it."
        )
    if rendered(content) != data:
        raise Damaged(
            f"{file} has been changed: its digest is not that of its content.", folder
        )
    del content["digest"]
    return Backup(folder, content)


def _others(folder: Path) -> str:
    found = [each.path.name for each in whole(folder.parent) if each.path != folder]
    if not found:
        return f"There is no other backup in {folder.parent}."
    return f"Use another one of {folder.parent}: {', '.join(sorted(found)[-3:])}."


# --- its files -----------------------------------------------------------------------------


def files(folder: Path) -> Iterator[Path]:
    """Everything in a backup's folder that is no folder, the manifest apart."""
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in sorted([*names, *links]):
            path = Path(parent, name)
            if path != folder / MANIFEST:
                yield path


def checksum(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def described(folder: Path) -> dict[str, dict[str, Any]]:
    """Name -> size and SHA-256, for every file of a backup."""
    paths = list(files(folder))
    with ThreadPoolExecutor(_READERS) as readers:
        return {
            path.relative_to(folder).as_posix(): {
                "size": path.stat().st_size,
                "sha256": sum_,
            }
            for path, sum_ in zip(paths, readers.map(checksum, paths), strict=True)
        }


def check_presence(backup: Backup) -> None:
    """See that the files are the manifest's, by name and size.  Raises :class:`Damaged`."""
    expected: dict[str, dict[str, Any]] = backup.manifest["files"]
    there = {path.relative_to(backup.path).as_posix() for path in files(backup.path)}
    for name in sorted(there - set(expected)):
        raise Damaged(
            f"{backup.path / name} is not part of the backup. If you put it there, move it"
            " away and run the command again.",
            backup.path,
        )
    for name, file in sorted(expected.items()):
        path = backup.path / name
        if name not in there:
            raise Damaged(f"{path} is missing.", backup.path)
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise Damaged(f"{path} is no ordinary file.", backup.path)
        if found.st_size != file["size"]:
            raise Damaged(
                f"{path} has {found.st_size:,} bytes and should have {file['size']:,}.",
                backup.path,
            )


def check(backup: Backup, tell: Callable[[int], None] = lambda done: None) -> None:
    """See that every byte is as it was written.  Raises :class:`Damaged`.

    ``tell`` is called with the number of bytes that have been read.
    """
    check_presence(backup)
    done = 0
    for name, file in sorted(backup.manifest["files"].items()):
        path = backup.path / name
        try:
            is_same = checksum(path) == file["sha256"]
        except OSError as error:
            raise Damaged(
                f"{path} cannot be read ({error.strerror}).", backup.path
            ) from error
        if not is_same:
            raise Damaged(
                f"{path} is damaged: its checksum is not the manifest's.", backup.path
            )
        done += file["size"]
        tell(done)


# --- which there are -----------------------------------------------------------------------


def whole(folder: Path) -> Iterator[Backup]:
    """Every backup in a folder, by whomever, but for damaged ones."""
    if why_unreadable(folder) is not None:
        return
    for path in folder.glob(f"*/{MANIFEST}"):
        try:
            found = load(path.parent)
            check_presence(found)
        except (Damaged, OSError):
            continue  # restore_database says what is wrong with it, when asked for it
        yield found


def find(folder: Path, database: str) -> list[Backup]:
    """The backups of a database in a folder, newest first; damaged ones are left out.

    Checksums are not computed: that would read everything, each time somebody asks.
    """
    found = [each for each in whole(folder) if each.database == database]
    return sorted(found, key=lambda each: each.taken_at, reverse=True)


def latest_proven(folder: Path, database: str, system: str | None) -> Backup | None:
    """The newest backup of a database that has been restored and compared.

    The name alone does not say which database: the one of a demo, or of a rehearsal on
    another server, is called the same.  ``system`` is :func:`fingerprints.system`.
    """
    return next(
        (
            each
            for each in find(folder, database)
            if each.is_proven and each.system == system
        ),
        None,
    )


def why_unreadable(folder: Path) -> str | None:
    """What keeps us from looking for backups in a folder; None if nothing does."""
    try:
        with os.scandir(folder):
            return None
    except FileNotFoundError:
        return None
    except OSError as error:
        return error.strerror or str(error)
