"""What is logged: one JSON object a line where programs read it, with the request's id.

Commands keep to plain sentences; the web server asks for JSON (``deploy/gunicorn.conf.py``).
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from pythonjsonlogger.json import JsonFormatter

from terrain import clients

HEADER = "X-Request-ID"
#: What is taken for an id that a proxy has given: nothing that could forge a line.
_GIVEN = re.compile(r"[A-Za-z0-9._-]{8,64}")

_current: ContextVar[str] = ContextVar("request_id", default="")

access = logging.getLogger("terrain.access")


class AddRequestId(logging.Filter):
    """Puts the id of the request being answered into every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "request_id"):
            record.request_id = _current.get()
        return True


class Json(JsonFormatter):
    """Time, level, logger, message, request id, and whatever else a record carries."""

    def __init__(self) -> None:
        super().__init__(
            "%(levelname)s %(name)s %(message)s %(request_id)s",
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp="time",
            json_ensure_ascii=False,
        )

    def add_fields(
        self,
        log_data: dict[str, Any],
        record: logging.LogRecord,
        message_dict: dict[str, Any],
    ) -> None:
        super().add_fields(log_data, record, message_dict)
        log_data.pop("request", None)  # Django's own records carry the whole object
        if not log_data.get("request_id"):
            log_data.pop("request_id", None)


def config(form: str, level: str) -> dict[str, Any]:
    """Logging as Django and gunicorn are told it; ``form`` is ``json`` or ``text``."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request_id": {"()": "terrain.logs.AddRequestId"}},
        "formatters": {
            "json": {"()": "terrain.logs.Json"},
            "text": {"format": "%(levelname)s %(name)s: %(message)s"},
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "filters": ["request_id"],
                "formatter": form,
            }
        },
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            "terrain": {"level": level},
            # One line for each request, where there is one at all.
            "terrain.access": {"level": "INFO" if form == "json" else "WARNING"},
            "django.server": {"level": "INFO", "propagate": True, "handlers": []},
        },
    }


class RequestLog:
    """Gives each request an id, answers with it, and logs one line when it is answered."""

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        token = _current.set(_id(request))
        started = time.monotonic()
        try:
            response = self.get_response(request)
            response.headers[HEADER] = _current.get()
            _log(request, response, time.monotonic() - started)
        finally:
            _current.reset(token)
        return response


def _id(request: HttpRequest) -> str:
    """The id that our proxy has given, else one of our own."""
    given = request.headers.get(HEADER, "")
    if settings.PROXY_COUNT and _GIVEN.fullmatch(given):
        return given
    return uuid.uuid4().hex


def _log(request: HttpRequest, response: HttpResponseBase, seconds: float) -> None:
    """Without the query, which may hold what somebody has searched for."""
    access.info(
        "%s %s %s",
        request.method,
        request.path,
        response.status_code,
        extra={
            "method": request.method,
            "path": request.path,
            "status": response.status_code,
            "milliseconds": round(seconds * 1000, 1),
            "client": clients.address(request),
        },
    )
