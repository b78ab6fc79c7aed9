from django.apps import AppConfig
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate, pre_migrate


class LegacyConfig(AppConfig):
    """The move from the legacy schema; to be taken out when it is history."""

    name = "terrain.legacy"
    label = "legacy"
    verbose_name = "The move"

    def ready(self) -> None:
        from catalogue import assets
        from terrain import find, panels, site, waiting
        from terrain.exceptions import Refused, register_sqlstate
        from terrain.legacy import configuration  # noqa: F401  (registers its checks)
        from terrain.legacy import (
            closing,
            found,
            guard,
            health,
            metrics,
            panel,
            place,
            receivers,
        )
        from terrain.legacy.console import views
        from terrain.monitoring.health import register as register_check
        from terrain.postgresql.base import table_made

        connection_created.connect(place.fill_statements)
        pre_migrate.connect(guard.before_migrate, sender=self)
        post_migrate.connect(guard.after_migrate, sender=self)
        assets.before_copy.connect(receivers.settle_first)
        assets.after_copy.connect(receivers.quarantine_models)
        table_made.connect(receivers.close_what_is_made)
        waiting.done.connect(receivers.remember_how_long)
        metrics.register()
        register_check(health.BackupAge)
        register_sqlstate("TB002", Refused)
        register_sqlstate("TB003", closing.Closed)
        panels.register("legacy-row", "The legacy row", panel.render)
        find.add_source(found.render)
        site.add(views.PAGE)
