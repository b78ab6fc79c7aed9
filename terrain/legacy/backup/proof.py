"""Proves a backup: restores it into a scratch database and compares."""

from __future__ import annotations

import datetime
import time
from dataclasses import replace
from typing import Any

import psycopg
from django.db import OperationalError

from terrain.legacy.backup import elsewhere, manifest, scratch, tools
from terrain.legacy.backup.encryption import CannotDecrypt
from terrain.legacy.backup.loading import Loaded, Unlike, load, one_and_more
from terrain.legacy.backup.manifest import Backup
from terrain.legacy.backup.programs import Failed
from terrain.legacy.backup.server import Server
from terrain.legacy.backup.telling import Teller


class Unproven(Exception):
    """The backup is kept, and not proven; the sentence says why and what to do."""


def prove(
    server: Server,
    made: Backup,
    jobs: int,
    teller: Teller,
    where: str = "a scratch database",
) -> Backup:
    """Restore a backup into a scratch database, compare, and write that into its manifest.

    ``server`` need not be the one it was taken on; ``where`` says which.  Raises
    :class:`Unproven`, when the manifest says why.
    """
    started = time.monotonic()
    teller.say(f"Proving it: restoring into {where} and comparing all there is")
    try:
        elsewhere.make_roles(server, made.manifest.get("roles", []))
        with scratch.database(
            server, made.database, made.manifest["locale"], teller
        ) as database:
            loaded = load(server, made, database.name, jobs, teller)
        if loaded.unlike:
            raise Unlike(one_and_more(loaded.unlike))
    except scratch.MayNot as error:
        why = (
            "the role may not create the scratch database. As a superuser:"
            f" ALTER ROLE {_role(server)} CREATEDB; or prove it on another server:"
            " python manage.py backup_database --prove-on embedded"
        )
        raise _unproven(made, why) from error
    except (tools.Missing, Failed, CannotDecrypt) as error:
        raise _unproven(made, f"it could not be restored: {error}") from error
    except (psycopg.OperationalError, OperationalError) as error:
        why = f"the server was lost: {str(error).strip().splitlines()[0]}"
        raise _unproven(made, why) from error
    except Unlike as error:
        raise _unproven(made, f"what was restored differs: {error}") from error
    return _recorded(made, proof=_proof(loaded, started), unproven=None)


def _proof(loaded: Loaded, started: float) -> dict[str, Any]:
    return {
        "proven_at": datetime.datetime.now(datetime.UTC).isoformat(),
        "seconds": round(time.monotonic() - started, 3),
        "tables": loaded.tables,
        "rows": loaded.rows,
        "objects": loaded.objects,
        "not_given_away": list(loaded.beyond),
    }


def _unproven(made: Backup, why: str) -> Unproven:
    _recorded(made, proof=None, unproven=why)
    return Unproven(f"The backup in {made.path} is kept but not proven: {why}")


def _recorded(made: Backup, **entries: Any) -> Backup:
    content = {**made.manifest, **entries}
    manifest.write_manifest(made.path, content)
    return replace(made, manifest=content)


def _role(server: Server) -> str:
    with server.connect() as connection:
        row = connection.execute("SELECT quote_ident(current_user)").fetchone()
    return str(row[0]) if row else "…"
