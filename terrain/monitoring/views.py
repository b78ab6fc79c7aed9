"""The answers to Prometheus and to whoever watches whether the site is well."""

from __future__ import annotations

import asyncio
from typing import Any

from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from health_check.exceptions import ServiceWarning
from health_check.views import HealthCheckView
from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    generate_latest,
)

from terrain.monitoring import access, health
from terrain.monitoring.collector import Collector

OK, UNAVAILABLE = 200, 503


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Everything that is measured, in Prometheus' text format."""
    if not access.is_allowed(request):
        return HttpResponse(access.CLOSED, status=403, content_type="text/plain")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(connection))
    return HttpResponse(
        generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4
    )


@never_cache
@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """This process answers.  Whoever restarts it may ask nothing else of it."""
    return JsonResponse({"status": "ok"})


class Ready(HealthCheckView):
    """Whether this process can serve: 200, or 503 while it cannot.

    What is wrong is told to those who may read the metrics; the world learns the status.
    """

    http_method_names = ["get", "head"]

    def get_checks(self) -> Any:
        return (check() for check in health.registered())

    async def get(
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        results = await asyncio.gather(
            *(check.get_result() for check in self.get_checks())
        )
        failed = any(each.error and not _is_warning(each.error) for each in results)
        told: dict[str, Any] = {"status": "unavailable" if failed else "ok"}
        if access.is_allowed(request):
            told["checks"] = {
                repr(each.check): str(each.error or "ok") for each in results
            }
        return JsonResponse(told, status=UNAVAILABLE if failed else OK)


def _is_warning(error: Exception) -> bool:
    return isinstance(error, ServiceWarning)
