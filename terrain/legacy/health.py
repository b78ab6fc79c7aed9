"""Whether there is a backup to go back to that is not too old."""

from __future__ import annotations

import dataclasses
import datetime

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from health_check.base import HealthCheck
from health_check.exceptions import ServiceUnavailable, ServiceWarning

from terrain.legacy import backup, catalog


@dataclasses.dataclass(repr=False)
class BackupAge(HealthCheck):
    """Whether the newest proven backup is younger than BACKUP_MAX_AGE_HOURS; 0: not asked."""

    alias: str = DEFAULT_DB_ALIAS

    def __repr__(self) -> str:
        return "backup"

    def run(self) -> None:
        hours = settings.BACKUP_MAX_AGE_HOURS
        if not hours:
            return
        connection = connections[self.alias]
        try:
            with connection.temporary_connection():
                system = catalog.system(connection)
        except DatabaseError as error:
            raise ServiceUnavailable("The database does not answer.") from error
        database = connection.settings_dict["NAME"]
        newest = backup.latest_proven(settings.BACKUP_DIR, database, system)
        if newest is None:
            raise ServiceWarning(
                "There is no proven backup. Run: python manage.py backup_database"
            )
        age = datetime.datetime.now(datetime.UTC) - newest.taken_at
        if age > datetime.timedelta(hours=hours):
            raise ServiceWarning(
                f"The newest proven backup is {age.total_seconds() / 3600:.0f} hours old,"
                f" and may be {hours}. Run: python manage.py backup_database"
            )
