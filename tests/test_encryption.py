"""backup_database --encrypt-to: only the recipient reads it, and nothing is ever in clear."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from terrain.legacy import backup
from terrain.legacy.backup import encryption, manifest, programs
from tests import backups
from tests.backups import only
from tests.conftest import Database, Result
from tests.waiting import until

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]
Administrator = psycopg.Connection[Any]

#: Stands in many rows, so that a file in clear is one that has it, compressed or not.
MARK = "plain text that nobody may read"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.BACKUP_DIR = tmp_path / "backups"
    return tmp_path / "backups"


@pytest.fixture(params=["age", "gpg"])
def recipient(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, list[str]]]:
    """Somebody to encrypt to, and the arguments with which they restore."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    if request.param == "age":
        identity = tmp_path / "identity"
        subprocess.run(["age-keygen", "-o", identity], check=True, capture_output=True)
        public = identity.read_text().partition("# public key: ")[2].split()[0]
        yield public, ["--identity", str(identity)]
        return
    # A socket's path may not be long, and pytest's folders have long names.
    home = Path(f"/tmp/terrain-gpg-{os.getpid()}")
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    subprocess.run(
        ["gpg", "--batch", "--passphrase", "", "--quick-gen-key", "shop@example.com"],
        check=True,
        capture_output=True,
    )
    yield "shop@example.com", []
    subprocess.run(["gpgconf", "--kill", "all"], check=True)
    shutil.rmtree(home, ignore_errors=True)  # its agent may be tidying up


@pytest.fixture
def marked(shop: Database) -> Database:
    shop.execute("UPDATE public.orders SET notes = %s", MARK)
    return shop


def in_clear(folder: Path) -> list[Path]:
    """Files in which anything of a dump can be read: its own signs, or compressed ones."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "manifest.json":
            data = path.read_bytes()
            if b"PGDMP" in data or b"\x1f\x8b\x08" in data[:4] or MARK.encode() in data:
                found.append(path)
    return found


# --- there and back ------------------------------------------------------------------------


def test_there_and_back(
    marked: Database,
    administrator: Administrator,
    manage: Manage,
    folder: Path,
    recipient: tuple[str, list[str]],
) -> None:
    whom, key = recipient
    result = manage("backup_database", "--encrypt-to", whom)
    assert (result.code, result.err) == (0, "")
    made = backup.load(only(folder))
    assert made.encryption is not None
    program = made.encryption["program"]
    assert made.encryption == {"program": program, "recipient": whom}
    assert {path.name for path in made.path.iterdir()} == {
        "manifest.json",
        f"dump.{program}",
    }
    assert made.dump.stat().st_mode & 0o777 == 0o600
    assert in_clear(folder) == []
    assert made.is_proven
    assert (
        " It was decrypted with a key of this run's, now forgotten; that"
        f" {whom} can decrypt it, only they can try."
    ) in result.out
    assert f"with pg_dump {made.manifest['tools_version']}, as one stream that" in (
        result.out
    )
    name = f"{marked.name}_too"
    try:
        restored = manage("restore_database", made.path, "--into", name, *key)
        assert (restored.code, restored.err) == (0, "")
        assert backups.contents(marked.cluster, name) == backups.contents(
            marked.cluster, marked.name
        )
    finally:
        administrator.execute(f"DROP DATABASE IF EXISTS {name}")


def test_key_of_the_run_is_nowhere(
    shop: Database,
    manage: Manage,
    folder: Path,
    recipient: tuple[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither in the manifest, nor an argument, nor in the environment, nor said."""
    secrets: list[str] = []
    ran: list[str] = []
    to, popen = encryption.to, subprocess.Popen

    def remembered(recipient: str) -> encryption.Cipher:
        cipher = to(recipient)
        secrets.append((cipher.key.secret or "").strip().splitlines()[-1])
        return cipher

    class Recorded(popen):  # type: ignore[type-arg, misc, valid-type]
        def __init__(self, command: Any, **options: Any) -> None:
            ran.append(f"{command} {options.get('env')}")
            super().__init__(command, **options)

    monkeypatch.setattr(encryption, "to", remembered)
    monkeypatch.setattr(subprocess, "Popen", Recorded)
    result = manage("backup_database", "--encrypt-to", recipient[0])
    (secret,) = secrets
    assert len(secret) > 50
    written = (only(folder) / "manifest.json").read_text()
    assert secret not in written + result.out + result.err + "".join(ran)


def test_wrong_key(
    shop: Database,
    administrator: Administrator,
    manage: Manage,
    folder: Path,
    tmp_path: Path,
    recipient: tuple[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whom, _ = recipient
    assert manage("backup_database", "-v0", "--encrypt-to", whom).code == 0
    there = backups.databases(administrator, shop.name)
    if whom.startswith("age"):
        missing = manage("restore_database", only(folder), "--replace")
        assert (missing.code, missing.err) == (
            1,
            f"{only(folder)} is encrypted to {whom}. Name the file that has the key:"
            " --identity FILE\n",
        )
        nowhere = manage("restore_database", only(folder), "--identity", "/nowhere")
        assert nowhere.err == (
            "There is no file /nowhere; --identity names the key's file.\n"
        )
        other = tmp_path / "other"
        subprocess.run(["age-keygen", "-o", other], check=True, capture_output=True)
        said, key = "no identity matched any of the recipients", ["--identity", other]
    else:
        empty = tmp_path / "empty"
        empty.mkdir(mode=0o700)
        monkeypatch.setenv("GNUPGHOME", str(empty))
        said, key = "decryption failed: No secret key", []
    result = manage("restore_database", only(folder), "--replace", *key)
    assert result.code == 2
    assert result.err == (
        f"{'age' if key else 'gpg'} failed: {said}. Nothing was changed; run the command"
        " again when that is put right.\n"
    )
    assert backups.databases(administrator, shop.name) == there


# --- failing closed ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "whom, sentence",
    [
        ("", " names nobody. Give a recipient of age (age1…), or whom a key of gpg"),
        ("-o/tmp/x", " names nobody. Give a recipient of age (age1…), or whom a key"),
        pytest.param(
            "age1nonsense",
            "age cannot encrypt to age1nonsense: ",
            marks=pytest.mark.skipif(
                shutil.which("age") is None, reason="age is not installed"
            ),
        ),
        ("nobody@example.com", "gpg cannot encrypt to nobody@example.com: "),
    ],
)
def test_bad_recipient(
    shop: Database, manage: Manage, folder: Path, whom: str, sentence: str
) -> None:
    result = manage("backup_database", f"--encrypt-to={whom}")
    assert result.code == 2
    assert sentence in result.err
    assert not folder.exists()


def test_program_that_is_not_here(
    shop: Database, manage: Manage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **options: None)
    for whom, program, package in (
        ("age1x", "age", "age"),
        ("a@b.c", "gpg", "gnupg"),
    ):
        result = manage("backup_database", "--encrypt-to", whom)
        assert (result.code, result.err) == (
            2,
            f"The program {program} is not here. Type: apt-get install {package}\n",
        )
    assert not folder.exists()


def test_cipher_that_fails_half_way(
    marked: Database,
    manage: Manage,
    folder: Path,
    recipient: tuple[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Out of space, as far as a limit on the size of a file shows it."""
    command = encryption.Cipher.command

    def limited(cipher: encryption.Cipher, handed: int) -> list[str]:
        script = 'trap "" XFSZ; ulimit -f 4; exec "$@"'
        return ["sh", "-c", script, cipher.program, *command(cipher, handed)]

    monkeypatch.setattr(encryption.Cipher, "command", limited)
    result = manage("backup_database", "--encrypt-to", recipient[0])
    assert result.code == 2
    assert "File too large" in result.err or "file too large" in result.err
    assert "Nothing is left of this backup" in result.err
    assert list(folder.iterdir()) == []


def test_dump_that_fails_half_way(
    marked: Database,
    manage: Manage,
    folder: Path,
    recipient: tuple[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cipher ends well, with half a dump: it must not count."""
    from terrain.legacy.backup import dumping

    monkeypatch.setattr(dumping, "LOCK_WAIT", 200)
    other = marked.connect()
    other.execute("BEGIN; LOCK TABLE public.orders")
    result = manage("backup_database", "--encrypt-to", recipient[0])
    assert (result.code, result.err) == (
        2,
        "pg_dump failed: somebody held a lock on a table for more than 0.2 s. Nothing is"
        " left of this backup; run the command again when that is put right.\n",
    )
    assert list(folder.iterdir()) == []


def test_killed_leaves_nothing_in_clear(
    marked: Database, folder: Path, recipient: tuple[str, list[str]]
) -> None:
    """At any moment of the dump: whatever is on disk is encrypted."""
    other = marked.connect()
    other.execute("BEGIN; LOCK TABLE public.stripe_transfers")
    process = backups.command(
        marked,
        "backup_database",
        "--encrypt-to",
        recipient[0],
        backups=folder,
        GNUPGHOME=os.environ.get("GNUPGHOME", ""),
    )
    seen: list[Path] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            try:
                seen.extend(in_clear(folder))
            except FileNotFoundError:
                pass  # renamed meanwhile

    looking = threading.Thread(target=look)
    looking.start()
    try:
        until(
            lambda: marked.value(
                "SELECT count(*) >= 2 FROM pg_locks WHERE NOT granted AND relation IS NOT NULL"
            )
        )
        process.kill()
        process.communicate()
        other.execute("ROLLBACK")
    finally:
        done.set()
        looking.join()
    assert seen == [] and in_clear(folder) == []
    assert backup.find(folder, marked.name) == []


def test_tampered(
    shop: Database, manage: Manage, folder: Path, recipient: tuple[str, list[str]]
) -> None:
    """Even by somebody who makes the manifest fit: the ciphers notice."""
    whom, key = recipient
    assert manage("backup_database", "-v0", "--encrypt-to", whom).code == 0
    made = backup.load(only(folder))
    data = bytearray(made.dump.read_bytes())
    data[len(data) // 2] ^= 1
    made.dump.write_bytes(data)
    damaged = manage("restore_database", made.path, "--replace", *key)
    assert damaged.code == 1
    assert f"{made.dump} is damaged: its checksum is not the manifest's." in damaged.err
    files = manifest.described(made.path)
    manifest.write_manifest(made.path, {**made.manifest, "files": files})
    forged = manage("restore_database", made.path, "--replace", *key)
    assert forged.code == 2
    assert "failed: " in forged.err and "Nothing was changed" in forged.err


# --- which of two is to blame --------------------------------------------------------------


@pytest.mark.parametrize(
    "first, second, blamed",
    [
        ("exit 0", "cat >/dev/null", None),
        ("echo first: error: full >&2; exit 1", "cat >/dev/null", "sh failed: full"),
        (
            "echo first: error: full >&2; exit 1",
            "cat >/dev/null; echo second: error: end of file >&2; exit 1",
            "sh failed: full",
        ),
        ("exec yes", "echo second: error: no >&2; exit 1", "sh failed: no"),
        (
            "trap '' PIPE; yes 2>/dev/null; echo 'Broken pipe' >&2; exit 1",
            "echo second: error: no >&2; exit 1",
            "sh failed: no",
        ),
        ("exec yes", "exit 0", None),
    ],
)
def test_which_is_to_blame(first: str, second: str, blamed: str | None) -> None:
    reading, writing = os.pipe()
    environment = {"PATH": os.defpath}
    with os.fdopen(reading, "rb") as reads, os.fdopen(writing, "wb") as writes:
        ends = (reads, subprocess.DEVNULL)
        with programs.running(["sh", "-c", second], environment, (), ends) as two:
            ends_ = (subprocess.DEVNULL, writes)
            with programs.running(["sh", "-c", first], environment, (), ends_) as one:
                reads.close(), writes.close()
                pipe = programs.Pipe(one, two)
                pipe.wait(lambda: None)
                if blamed is None:
                    pipe.check()
                    return
                with pytest.raises(programs.Failed) as error:
                    pipe.check()
    assert str(error.value) == blamed
