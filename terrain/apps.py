from django.apps import AppConfig
from django.contrib.admin import apps as admin


class TerrainConfig(AppConfig):
    name = "terrain"
    verbose_name = "People"

    def ready(self) -> None:
        from terrain import checks, signing_in, site  # noqa: F401  (registers checks)
        from terrain.find import page

        site.add(page.PAGE)
        signing_in.connect()


class SiteConfig(admin.AdminConfig):
    """Django's admin, on the project's own site."""

    default = False
    default_site = "terrain.site.ShopSite"
