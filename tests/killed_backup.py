"""Runs manage.py and kills itself at the k-th thing it does to a server, a file or a program.

    python -m tests.killed_backup K COMMAND …

SIGKILL, so nothing gets to tidy up.  With K 0 nothing is killed, and the number of things is
printed in the end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

things = 0


def did(last: int) -> None:
    global things
    things += 1
    if things == last:
        os.kill(os.getpid(), signal.SIGKILL)


def counted(owner: Any, name: str, last: int) -> None:
    """Count each call, before it is carried out and afterwards."""
    function = getattr(owner, name)

    def counting(*args: Any, **options: Any) -> Any:
        did(last)
        result = function(*args, **options)
        did(last)
        return result

    setattr(owner, name, counting)


def main(last: int, *command: str) -> int:
    os.environ["DJANGO_SETTINGS_MODULE"] = "terrain.settings"
    import django

    django.setup()
    import psycopg

    from terrain import cli

    counted(psycopg.Connection, "execute", last)
    counted(subprocess, "Popen", last)
    counted(os, "fsync", last)
    for name in ("rename", "mkdir"):
        counted(Path, name, last)
    code = cli.run(["manage.py", *command])
    print(things)
    return code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:]))
