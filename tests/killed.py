"""Runs manage.py on a database and kills itself, or the server, at the k-th commit.

    python -m tests.killed DATABASE K COMMAND …

SIGKILL, so nothing gets to tidy up.  Each commit counts, and so does each statement
outside a transaction, which is one.  With K 0 nothing is killed, and the number of
commits is printed.  Batches are small, so that there are several.

If SERVER names the folder of a cluster, the database is there, and it is that server which
is stopped, as by ``pg_ctl stop -m immediate``: MOMENT says whether ``before`` or ``after``
the commit, or ``during`` what comes next.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from terrain.embedded import Cluster
from tests.waiting import until

commits = 0
#: The server to stop, and when.
server = Cluster(Path(os.environ["SERVER"])) if os.environ.get("SERVER") else None
moment = os.environ.get("MOMENT", "after")


def committing(last: int) -> None:
    if server is not None and moment == "before" and commits + 1 == last:
        stop(server)


def committed(last: int) -> None:
    global commits
    commits += 1
    if commits != last:
        return
    if server is None:
        os.kill(os.getpid(), signal.SIGKILL)
    elif moment == "after":
        stop(server)
    elif moment == "during":
        threading.Timer(random.uniform(0, 0.03), stop, [server]).start()


def stop(cluster: Cluster) -> None:
    """What ``pg_ctl stop -m immediate`` does, and wait until nothing is left of it."""
    pid = int((cluster.folder / "data" / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGQUIT)
    until(cluster._gone, "the end of the server")


def main(database: str, last: int, *command: str) -> int:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django
    from django.conf import settings

    default = settings.DATABASES["default"]
    default["NAME"] = database
    if server is not None:
        # Without the option: a connection is not to start the server again.
        default |= {"HOST": str(server.socket_dir), "OPTIONS": {}}
    django.setup()
    count_commits(last)
    from terrain import cli, pace

    pace.FIRST_BATCH, pace.LARGEST_BATCH = 2, 3
    pace.BREATH, pace.LONG_BREATH, pace.LONGEST_BREATH = 0.001, 0.002, 0.002
    code = cli.run(["manage.py", *command])
    print(commits)
    return code


def count_commits(last: int) -> None:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.backends.utils import CursorWrapper

    commit, execute = BaseDatabaseWrapper._commit, CursorWrapper.execute

    def counting_commit(self: Any) -> None:
        committing(last)
        commit(self)
        committed(last)

    def counting_execute(self: Any, query: Any, params: Any = None) -> Any:
        alone = self.db.get_autocommit() and not str(query).lstrip().startswith(
            "SELECT"
        )
        if alone:
            committing(last)
        result = execute(self, query, params)
        if alone:
            committed(last)
        return result

    BaseDatabaseWrapper._commit = counting_commit  # type: ignore[method-assign]
    CursorWrapper.execute = counting_execute  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
