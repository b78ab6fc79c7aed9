"""A verification started from a page: a process of its own, which outlives the request.

It takes a minute at full size, and a request may not.  So the page starts what an
operator would type, with the same environment, and says no more than that it has begun;
what comes of it the ledger tells.  Nothing has to be running for that but the web server.
A restart of the web server may end it half-way: it only reads, and can be started again.
"""

from __future__ import annotations

import subprocess
import sys
import threading

from django.conf import settings
from django.db.backends.base.base import BaseDatabaseWrapper

from terrain.legacy import guide, ledger
from terrain.legacy.models import Run


class AlreadyRunning(Exception):
    """Somebody verifies just now."""


def start(connection: BaseDatabaseWrapper) -> subprocess.Popen[bytes]:
    """Begin a verification beside this process.  Raises :class:`AlreadyRunning`."""
    last = ledger.last("verify", connection.alias)
    if last is not None and last.state == Run.State.RUNNING:
        if guide.is_verifying(connection, last):
            raise AlreadyRunning
        ledger.finish(last, state=Run.State.FAILED)  # it was killed
    ledger.begin("verify", using=connection.alias)
    manage = settings.BASE_DIR / "manage.py"
    process = subprocess.Popen(
        [sys.executable, str(manage), "verify_migration", "--verbosity", "0"],
        cwd=settings.BASE_DIR,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # what goes wrong is on standard error: the server's log
        start_new_session=True,
    )
    # A child that has ended stays in the list of processes until it is waited for.
    threading.Thread(target=process.wait, daemon=True).start()
    return process
