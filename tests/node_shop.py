"""A shop's application in Node, with the packages such applications are made of.

``SHOP_NODE_MODULES`` is the folder ``node_modules`` that ``npm install`` has made of
tests/node/package.json, somewhere outside the project; ``.ci/run`` sets it.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parent / "node"
MODULES = os.environ.get("SHOP_NODE_MODULES", "")
#: Seconds that a script may take.
PATIENCE = 60.0

Row = dict[str, Any]


def why_not() -> str:
    """Why there can be no tests with Node; nothing if there can."""
    if not shutil.which("node"):
        return "Node is not installed: apt-get install nodejs npm"
    if not MODULES:
        return (
            "SHOP_NODE_MODULES does not name a folder node_modules:"
            " npm install with tests/node/package.json, outside the project"
        )
    wanted = json.loads((SCRIPTS / "package.json").read_text())["dependencies"]
    for name, version in wanted.items():
        package = Path(MODULES, name, "package.json")
        if not package.exists():
            return f"{name} is not in SHOP_NODE_MODULES, {MODULES}"
        if (found := json.loads(package.read_text())["version"]) != version:
            return f"SHOP_NODE_MODULES has {name} {found}, not {version}"
    return ""


def _command(script: str, *arguments: str) -> list[str]:
    return ["node", str(SCRIPTS / script), *arguments]


def _environment(where: Row) -> dict[str, str]:
    # None of the caller's PG* variables: pg would obey them.
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "SHOP_NODE_MODULES": MODULES,
        "SHOP": json.dumps(where),
    }


def start(where: Row, number: int) -> Row:
    """Let the application start, serve a little and end; what it says that it found."""
    done = subprocess.run(
        _command("start.mjs", str(number)),
        env=_environment(where),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr + done.stdout
    (line,) = done.stdout.splitlines()
    said: Row = json.loads(line)
    return said


class Pool:
    """A pool of pg's, held open in a process of its own."""

    #: Its connections.
    SIZE = 4

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._asking = threading.Lock()
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _ask(self, command: Row) -> Any:
        assert self._process.stdin is not None
        with self._asking:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=PATIENCE)
        assert line, "the process of the pool has ended"
        return json.loads(line)

    def run(self, sql: str, *params: Any, name: str = "", times: int = 1) -> list[Row]:
        """The statement on so many connections at once; what each was given."""
        command = {"sql": sql, "params": params, "name": name, "times": times}
        answer: list[Row] = self._ask(command)
        assert [each for each in answer if "error" in each] == [], sql
        return answer

    def rows(self, sql: str, *params: Any, name: str = "") -> list[Row]:
        rows: list[Row] = self.run(sql, *params, name=name)[0]["rows"]
        return rows

    def pids(self) -> set[int]:
        """The server's processes behind all its connections, none of which waits for another."""
        found = self.run(
            "SELECT pg_backend_pid() AS pid, pg_sleep(0.2)", times=self.SIZE
        )
        return {each["rows"][0]["pid"] for each in found}

    def connections(self) -> Row:
        """How many it ever made, and what it was told of those that it lost."""
        found: Row = self._ask({"ask": "connections"})
        return found


@contextmanager
def pool(where: Row) -> Iterator[Pool]:
    process = subprocess.Popen(
        _command("pool.mjs"),
        env=_environment(where),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Pool(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait(PATIENCE)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
