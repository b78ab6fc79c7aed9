"""Whether this process can serve: what is asked of ``/health/ready``.

A check that raises ``ServiceWarning`` is told and fails nothing: an old backup is for
somebody to mend, and no reason to take the shop down.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor
from health_check.base import HealthCheck
from health_check.checks import Database as _Database
from health_check.exceptions import ServiceUnavailable

__all__ = ["Database", "Migrations", "register", "registered"]


@dataclasses.dataclass(repr=False)
class Database(_Database):
    """Whether the database answers."""

    def __repr__(self) -> str:
        return "database"


@dataclasses.dataclass(repr=False)
class Migrations(HealthCheck):
    """Whether the tables are those that this version of the project wants."""

    alias: str = DEFAULT_DB_ALIAS

    def __repr__(self) -> str:
        return "migrations"

    def run(self) -> None:
        connection = connections[self.alias]
        try:
            with connection.temporary_connection():
                executor = MigrationExecutor(connection)
                plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
        except DatabaseError as error:
            raise ServiceUnavailable("The database does not answer.") from error
        if plan:
            first = plan[0][0]
            raise ServiceUnavailable(
                f"Migrations to apply: {len(plan)}, the first is"
                f" {first.app_label}.{first.name}. Run: python manage.py migrate"
            )


_checks: list[type[HealthCheck]] = [Database, Migrations]


def register(check: type[HealthCheck]) -> None:
    """Have ``check`` asked too, when somebody wants to know whether the site is ready."""
    if check not in _checks:
        _checks.append(check)


def registered() -> list[Any]:
    return list(_checks)
