"""Runs manage.py on a database and kills itself at the k-th commit.

    python -m tests.killed DATABASE K COMMAND …

SIGKILL, so nothing gets to tidy up.  Each commit counts, and so does each statement
outside a transaction, which is one.  With K 0 nothing is killed, and the number of
commits is printed.  Batches are small, so that there are several.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

commits = 0


def committed(last: int) -> None:
    global commits
    commits += 1
    if commits == last:
        os.kill(os.getpid(), signal.SIGKILL)


def main(database: str, last: int, *command: str) -> int:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django
    from django.conf import settings

    settings.DATABASES["default"]["NAME"] = database
    django.setup()
    count_commits(last)
    from terrain import cli, pace

    pace.FIRST_BATCH, pace.LARGEST_BATCH = 2, 3
    code = cli.run(["manage.py", *command])
    print(commits)
    return code


def count_commits(last: int) -> None:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.backends.utils import CursorWrapper

    commit, execute = BaseDatabaseWrapper._commit, CursorWrapper.execute

    def counting_commit(self: Any) -> None:
        commit(self)
        committed(last)

    def counting_execute(self: Any, query: Any, params: Any = None) -> Any:
        result = execute(self, query, params)
        if self.db.get_autocommit() and not str(query).lstrip().startswith("SELECT"):
            committed(last)
        return result

    BaseDatabaseWrapper._commit = counting_commit  # type: ignore[method-assign]
    CursorWrapper.execute = counting_execute  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
