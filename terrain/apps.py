from django.apps import AppConfig


class TerrainConfig(AppConfig):
    name = "terrain"
    verbose_name = "People"

    def ready(self) -> None:
        from terrain import checks  # noqa: F401  (registers them)
