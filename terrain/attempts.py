"""Whose sign-in it was that failed, for counting failures (django-axes)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest

from terrain.addresses import normal


def name(request: HttpRequest, credentials: Mapping[str, Any] | None) -> str:
    """The name as it is looked up, however it was spelled."""
    given = (credentials or request.POST).get("username") or ""
    return normal(str(given))
