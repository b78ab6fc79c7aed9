"""PostgreSQL's own programs: which are here, and which of them suit a server."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from terrain import embedded
from terrain.legacy.backup.server import Server

#: Where packages put the programs of one major version each.
PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")


class Missing(Exception):
    """There is no program of a version that would do."""


@dataclass(frozen=True)
class Tools:
    """``pg_dump`` and ``pg_restore`` of one version."""

    folder: Path
    version: str

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    def program(self, name: str) -> str:
        return str(self.folder / name)

    @cache
    def compression(self) -> str:
        """What it compresses with best: zstd, unless it was built without."""
        # Told in the words of 15 and older, 'zstd' is a bad number; of others, a bad build.
        # Either is found out before anything is connected to.
        asked = subprocess.run(
            [
                *(self.program("pg_dump"), "--format=custom", "--compress=zstd"),
                *("--file=/dev/null", "--host=/nonexistent", "--no-password"),
            ],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            check=False,
        )
        refused = re.search(r"does not support|invalid|unrecognized", asked.stderr)
        return "gzip" if refused else "zstd"


def find(
    server: Server, major: int, at_least: int | None = None, *, zstd: bool = False
) -> Tools:
    """The oldest programs that suit a server of this major version.

    A dump needs programs no older than the server, a restore also none older than those
    that dumped (``at_least``), and what they compressed with ``zstd`` those that were built
    without cannot read.  Newer than need be is not wanted: their output may use what the
    server does not know.  Raises :class:`Missing`.
    """
    least = max(major, at_least or major)
    suited = [
        each
        for each in _installed(server)
        if each.major >= least and (not zstd or each.compression() == "zstd")
    ]
    if not suited:
        built = ", built with zstd," if zstd else ""
        raise Missing(
            f"The server is PostgreSQL {major}, and pg_dump and pg_restore of version"
            f" {least} or newer{built} are not here. Type: apt-get install"
            f" postgresql-client-{least} (if it is not found, from apt.postgresql.org)."
        )
    return min(suited, key=lambda each: each.major)


def _installed(server: Server) -> Iterator[Tools]:
    """Those that are here, those to be preferred first."""
    folders: list[Path] = []
    if server.cluster is not None:
        folders.append(embedded.binaries(server.cluster.version))
    for place in PLACES:
        folders += sorted(Path("/").glob(place.lstrip("/")))
    found = shutil.which("pg_dump")
    if found:
        folders.append(Path(found).parent)
    if not server.demands_ssl:  # the wheel's are built without
        for version in embedded.FOLDERS:
            with suppress(embedded.EmbeddedError):
                folders.append(embedded.binaries(version))
    for folder in folders:
        version_ = _version(folder)
        if version_ is not None:
            yield Tools(folder, version_)


@cache
def _version(folder: Path) -> str | None:
    """The version of both programs in a folder, or None if they are not both there."""
    versions = set()
    for name in ("pg_dump", "pg_restore"):
        try:
            said = subprocess.run(
                [folder / name, "--version"],
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
            ).stdout
        except OSError:
            return None
        found = re.search(r"\(PostgreSQL\) (\d+[\w.]*)", said)
        versions.add(
            re.sub(r"(devel|alpha|beta|rc).*", ".0", found[1]) if found else None
        )
    return versions.pop() if len(versions) == 1 else None
