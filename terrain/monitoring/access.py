"""Who may see how the site is doing: programs with a token, or from networks of ours.

Not whoever is signed in, superuser or not: these pages must answer when there are no
accounts to look up, and a browser is not what they are for.
"""

from __future__ import annotations

import ipaddress
import secrets

from django.conf import settings
from django.http import HttpRequest

from terrain import clients

CLOSED = (
    "This is closed. Set METRICS_TOKEN and send it as “Authorization: Bearer …”, or name"
    " the networks that may ask in METRICS_NETWORKS.\n"
)


def is_allowed(request: HttpRequest) -> bool:
    """Whether the request carries the token, or comes from an allowed network."""
    return _has_token(request) or _is_from_network(request)


def _has_token(request: HttpRequest) -> bool:
    token: str = settings.METRICS_TOKEN
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    same = secrets.compare_digest(given.strip().encode(), token.encode())
    return bool(token) and scheme.lower() == "bearer" and same


def _is_from_network(request: HttpRequest) -> bool:
    client = clients.parsed(request)
    if client is None:
        return False
    networks = map(ipaddress.ip_network, settings.METRICS_NETWORKS)
    return any(client in network for network in networks)
