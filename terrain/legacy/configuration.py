"""What ``manage.py check`` finds missing that only the move needs: PostgreSQL's programs."""

from __future__ import annotations

from typing import Any

from django.core.checks import Tags, Warning, register
from django.db import connections

from terrain.legacy.backup import tools
from terrain.legacy.backup.server import Server

#: The oldest that are of any use.
OLDEST = 14


@register
def programs(app_configs: Any, **_: Any) -> list[Warning]:
    """Whether there are any; connects to nothing."""
    parameters = connections.databases["default"]
    if parameters["OPTIONS"].get("embedded") is not None:
        return []  # its own come with it
    known = {key: str(value) for key, value in parameters["OPTIONS"].items()}
    try:
        tools.find(Server(parameters["NAME"], known), OLDEST)
    except tools.Missing:
        return [
            Warning(
                "Backups cannot be made: pg_dump and pg_restore are not here.",
                hint="Type: apt-get install postgresql-client, of the server's version or"
                " newer.",
                id="legacy.W001",
            )
        ]
    return []


@register(Tags.database)
def programs_of_version(
    app_configs: Any, databases: Any = None, **_: Any
) -> list[Warning]:
    """Whether they suit the server; asked with ``check --database default``."""
    if "default" not in (databases or ()):
        return []
    connection: Any = connections["default"]
    connection.ensure_connection()
    try:
        tools.find(Server.of(connection), connection.pg_version // 10000)
    except tools.Missing as error:
        wrong, hint = str(error).split(" Type: ", 1)
        return [
            Warning(
                f"Backups cannot be made. {wrong}",
                hint=f"Type: {hint}",
                id="legacy.W002",
            )
        ]
    return []
