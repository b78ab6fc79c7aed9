from django.apps import AppConfig
from django.db.models.signals import post_migrate, pre_migrate


class LegacyConfig(AppConfig):
    """The move from the legacy schema; to be taken out when it is history."""

    name = "terrain.legacy"
    label = "legacy"
    verbose_name = "The move"

    def ready(self) -> None:
        from catalogue import assets
        from terrain import panels
        from terrain.exceptions import Refused, register_sqlstate
        from terrain.legacy import guard, panel, receivers

        pre_migrate.connect(guard.before_migrate, sender=self)
        post_migrate.connect(guard.after_migrate, sender=self)
        assets.before_copy.connect(receivers.settle_first)
        assets.after_copy.connect(receivers.quarantine_models)
        register_sqlstate("TB002", Refused)
        panels.register("legacy-row", "The legacy row", panel.render)
