from django.contrib import admin
from django.urls import path
from django.views.generic import RedirectView

from catalogue.views import asset_usage
from terrain.monitoring import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("metrics", views.metrics, name="metrics"),
    path("usage", asset_usage, name="usage"),
    path("health/live", views.live, name="live"),
    path("health/ready", views.Ready.as_view(), name="ready"),
    path("", RedirectView.as_view(pattern_name="admin:index")),
]
