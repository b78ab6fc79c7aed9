"""The real web server, on a socket of the test's own, with clients that keep asking."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from terrain.embedded import OWNER
from tests.conftest import Database
from tests.waiting import until

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "token-of-the-tests"
#: Seconds that starting, and anything else waited for, may take on a busy machine.
PATIENCE = 90.0


def environment(database: Database, **more: str) -> dict[str, str]:
    """What a server is told, about a database of the tests."""
    kept = {
        name: os.environ[name]
        for name in ("PATH", "HOME", "LANG")
        if name in os.environ
    }
    host = str(database.cluster.socket_dir).replace("/", "%2F")
    return {
        **kept,
        "DATABASE_URL": f"postgresql://{OWNER}@{host}/{database.name}",
        "SECRET_KEY": "only for the tests, and long enough not to be warned of " * 2,
        "DEBUG": "false",
        "METRICS_TOKEN": TOKEN,
        **more,
    }


@dataclass
class Server:
    """gunicorn on a listening socket that the test holds, as systemd would."""

    listener: socket.socket
    environment: dict[str, str]
    log: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Start it by socket activation: the socket is descriptor 3, and named so."""
        number = self.listener.fileno()
        program = (
            f"import os, sys; os.dup2({number}, 3); os.set_inheritable(3, True);"
            " os.environ['LISTEN_PID'] = str(os.getpid());"
            " from gunicorn.app.wsgiapp import run; run()"
        )
        log = self.log.open("ab")
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                program,
                "--config",
                str(ROOT / "deploy" / "gunicorn.conf.py"),
                *options,
            ],
            cwd=ROOT,
            env={**self.environment, "LISTEN_FDS": "1"},
            pass_fds=[number],
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        log.close()
        self.processes.append(process)
        return process

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        """One request over a connection of its own."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=PATIENCE
        )
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def is_up(self) -> bool:
        try:
            return self.get("/health/live")[0] == 200
        except OSError:
            return False

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def serving(database: Database, log: Path, **more: str) -> Iterator[Server]:
    """The application on loopback, at a port of its own."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        server = Server(listener, environment(database, **more), log)
        try:
            server.start()
            until(server.is_up, f"the web server answers; {log} says why", PATIENCE)
            yield server
        finally:
            server.stop()


class Load:
    """Clients that ask one after another, until told to stop; every answer is counted."""

    def __init__(self, server: Server, paths: list[str], clients: int = 4) -> None:
        self.server = server
        self.answers: Counter[int] = Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask, args=(paths,), daemon=True)
            for _ in range(clients)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    @property
    def asked(self) -> int:
        with self._lock:
            return self.answers.total() + len(self.failures)

    def some_more(self, number: int = 40) -> None:
        """Wait until so many further requests have been answered or have failed."""
        goal = self.asked + number
        until(lambda: self.asked >= goal, f"{number} further requests", PATIENCE)

    def _ask(self, paths: list[str]) -> None:
        turn = 0
        while not self._stop.is_set():
            path = paths[turn % len(paths)]
            turn += 1
            try:
                status, _ = self.server.get(path)
            except (OSError, http.client.HTTPException) as error:
                with self._lock:
                    self.failures.append(f"{path}: {error!r}")
            else:
                with self._lock:
                    self.answers[status] += 1
