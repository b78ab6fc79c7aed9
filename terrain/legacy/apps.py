from django.apps import AppConfig


class LegacyConfig(AppConfig):
    """The move from the legacy schema; to be taken out when it is history."""

    name = "terrain.legacy"
    label = "legacy"
    verbose_name = "The move"
