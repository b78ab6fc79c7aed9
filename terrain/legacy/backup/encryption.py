"""Backups that only somebody else can read: ``age`` and ``gpg``, as the system has them.

What they are given, they are given through pipes, so nothing unencrypted is ever in a file.
A backup is encrypted to its recipient and, beside, to a key that is made for the one run and
that only its memory holds.  With that the run can prove what is on disk, and afterwards
nobody but the recipient can read it.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from terrain.legacy.backup.programs import reason

#: What recipients of age look like; anything else is for gpg to find in its keyring.
_AGE = re.compile(r"age1|ssh-(ed25519|rsa) ")


class CannotEncrypt(Exception):
    """Not to this recipient, or not here; nothing was written."""


class CannotDecrypt(Exception):
    """For want of the key."""


@dataclass(frozen=True)
class Key:
    """What opens an encrypted backup: of age a file, or the secret of the run that wrote it.

    With neither, gpg asks its agent.
    """

    identity: Path | None = None
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Cipher:
    """A program, whom it encrypts to, and the key of this run: ``public`` and ``key``."""

    program: str
    recipient: str
    key: Key
    public: str = ""

    @property
    def described(self) -> dict[str, Any]:
        """What a manifest says of it."""
        return {"program": self.program, "recipient": self.recipient}

    def command(self, handed: int) -> list[str]:
        """Encrypts standard input; ``handed`` is an open file with the run's secret."""
        if self.program == "age":
            return ["age", "--encrypt", "-r", self.recipient, "-r", self.public]
        return [
            *_gpg(handed),
            *("--symmetric", "--encrypt", "--recipient", self.recipient),
            *("--output", "-"),
        ]


def to(recipient: str) -> Cipher:
    """The cipher for a recipient, tried.  Raises :class:`CannotEncrypt`."""
    program = "age" if _AGE.match(recipient) else "gpg"
    if not recipient or recipient.startswith("-"):
        raise CannotEncrypt(
            f"--encrypt-to {recipient} names nobody. Give a recipient of age (age1…), or"
            " whom a key of gpg belongs to."
        )
    _require(program, CannotEncrypt)
    if program == "age":
        made = subprocess.run(
            ["age-keygen"], capture_output=True, text=True, env=environment()
        ).stdout
        public = made.partition("# public key: ")[2].partition("\n")[0]
        cipher = Cipher(program, recipient, Key(secret=made), public)
    else:
        cipher = Cipher(program, recipient, Key(secret=secrets.token_hex(32)))
    _try(cipher)
    return cipher


def _try(cipher: Cipher) -> None:
    """Encrypt nothing, rather than find out after an hour's dump."""
    with handed(cipher.key.secret) as secret:
        done = subprocess.run(
            cipher.command(secret),
            input=b"",
            capture_output=True,
            env=environment(),
            pass_fds=[secret],
        )
    if done.returncode != 0:
        why = reason(done.stderr.decode("utf-8", "replace"))
        raise CannotEncrypt(
            f"{cipher.program} cannot encrypt to {cipher.recipient}: {why}. Nothing was"
            " dumped."
        )


@contextmanager
def decrypting(
    program: str, archive: Path, key: Key
) -> Iterator[tuple[Sequence[str], Mapping[str, str], Sequence[int]]]:
    """A command that writes an archive in clear, its environment, and what it inherits.

    Raises :class:`CannotDecrypt`.
    """
    _require(program, CannotDecrypt)
    if program == "age":
        with handed(key.secret) as secret:
            identity = key.identity or f"/dev/fd/{secret}"
            yield [
                "age",
                "--decrypt",
                "-i",
                str(identity),
                str(archive),
            ], environment(), [secret]
    elif key.secret is None:
        yield ["gpg", "--quiet", "--decrypt", str(archive)], environment(), []
    else:
        # An empty keyring: with a key of the recipient's, gpg would ask for its password.
        with handed(key.secret) as secret, tempfile.TemporaryDirectory() as home:
            yield [*_gpg(secret), "--decrypt", str(archive)], {
                **environment(),
                "GNUPGHOME": home,
            }, [secret]


def _gpg(secret: int) -> list[str]:
    # The secret is random, so nothing is gained by making guesses slow.  What is given is
    # compressed already.
    return [
        *("gpg", "--batch", "--no-tty", "--quiet", "--compress-algo", "none"),
        *("--pinentry-mode", "loopback", "--passphrase-fd", str(secret)),
        *("--s2k-count", "1024", "--no-symkey-cache"),
    ]


@contextmanager
def handed(secret: str | None) -> Iterator[int]:
    """An open file from which a program can read a secret, once; it is in memory only."""
    reading, writing = os.pipe()
    try:
        os.write(writing, f"{secret or ''}\n".encode())
        os.close(writing)
        yield reading
    finally:
        os.close(reading)


def _require(program: str, error: type[Exception]) -> None:
    package = {"age": "age", "gpg": "gnupg"}[program]
    if shutil.which(program) is None:
        raise error(
            f"The program {program} is not here. Type: apt-get install {package}"
        )


def environment() -> dict[str, str]:
    """What these programs need: home and agent, and none of the project's secrets."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PG")
        and name not in ("DATABASE_URL", "SECRET_KEY", "PROVE_ON")
    } | {"LC_ALL": "C"}
