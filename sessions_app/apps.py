from django.apps import AppConfig


class SessionsAppConfig(AppConfig):
    name = "sessions_app"
    verbose_name = "Visitors"

    def ready(self) -> None:
        from django.contrib.auth.signals import user_logged_in

        from sessions_app import metrics
        from sessions_app.visits import claim_tables

        metrics.register()
        user_logged_in.connect(claim_tables)
