"""What ``pg_dump`` writes and ``pg_restore`` reads: a folder, or one encrypted stream.

A folder is written and read by several processes at once.  A stream is not: it is
``pg_dump``'s custom format, which needs no file but the encrypted one.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from terrain.legacy.backup import encryption
from terrain.legacy.backup.encryption import Cipher
from terrain.legacy.backup.manifest import DUMP, Backup
from terrain.legacy.backup.programs import Pipe, Program, running
from terrain.legacy.backup.server import Server


@contextmanager
def writing(
    command: Sequence[str],
    server: Server,
    folder: Path,
    jobs: int,
    cipher: Cipher | None,
    lock: int,
) -> Iterator[Program | Pipe]:
    """Run ``pg_dump`` into a backup's folder, for as long as the block."""
    environment = server.environment()
    if cipher is None:
        target = [f"--file={folder / DUMP}", f"--jobs={jobs}"]
        with running(
            [*command, "--format=directory", *target], environment, [lock]
        ) as program:
            yield program
        return
    with ExitStack() as stack:
        out = stack.enter_context(_new(folder / f"{DUMP}.{cipher.program}"))
        secret = stack.enter_context(encryption.handed(cipher.key.secret))
        # The cipher first: should it not come up, there is nobody to read from pg_dump.
        reading, into = os.pipe()
        with os.fdopen(reading, "rb") as reading_, os.fdopen(into, "wb") as into_:
            second = stack.enter_context(
                running(
                    cipher.command(secret),
                    encryption.environment(),
                    [lock, secret],
                    (reading_, out),
                )
            )
            first = stack.enter_context(
                running(
                    [*command, "--format=custom"],
                    environment,
                    [lock],
                    (subprocess.DEVNULL, into_),
                )
            )
        yield Pipe(first, second)
        os.fsync(out)


@contextmanager
def _new(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def reading(
    command: Sequence[str],
    server: Server,
    kept: Backup,
    jobs: int = 1,
    out: int = subprocess.DEVNULL,
) -> Iterator[Program | Pipe]:
    """Run ``pg_restore`` on a backup, for as long as the block.

    Raises :class:`encryption.CannotDecrypt`.
    """
    environment = server.environment()
    if kept.encryption is None:
        parallel = [f"--jobs={jobs}"] if jobs > 1 else []
        whole = [*command, "--format=directory", *parallel, str(kept.dump)]
        with running(whole, environment, (), (subprocess.DEVNULL, out)) as program:
            yield program
        return
    with ExitStack() as stack:
        decrypt, its_environment, inherited = stack.enter_context(
            encryption.decrypting(kept.encryption["program"], kept.dump, kept.key)
        )
        from_, into = os.pipe()
        with os.fdopen(from_, "rb") as from__, os.fdopen(into, "wb") as into_:
            second = stack.enter_context(
                running([*command, "--format=custom"], environment, (), (from__, out))
            )
            first = stack.enter_context(
                running(
                    decrypt, its_environment, inherited, (subprocess.DEVNULL, into_)
                )
            )
        yield Pipe(first, second)
