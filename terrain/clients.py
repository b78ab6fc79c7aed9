"""Who a request comes from, where there are proxies in between."""

from __future__ import annotations

import ipaddress

from django.conf import settings
from django.http import HttpRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def address(request: HttpRequest) -> str:
    """The client's IP address, or an empty string where that is not known.

    Each proxy appends to ``X-Forwarded-For`` whom it was asked by.  So the last entries,
    one for each proxy of ours (``PROXY_COUNT``), are true, and whatever stands before them
    is what the client says of itself.  Without a proxy the header is not looked at.
    """
    if not settings.PROXY_COUNT:
        return str(request.META.get("REMOTE_ADDR", ""))
    hops = [
        hop.strip() for hop in request.headers.get("X-Forwarded-For", "").split(",")
    ]
    return hops[-settings.PROXY_COUNT] if len(hops) >= settings.PROXY_COUNT else ""


def address_or_none(request: HttpRequest) -> str | None:
    """The same for django-axes, whose column takes an address or nothing."""
    found = parsed(request)
    return None if found is None else str(found)


def parsed(request: HttpRequest) -> Address | None:
    """The same as an address that can be compared; None if it is none."""
    try:
        found = ipaddress.ip_address(address(request))
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)
    return mapped or found
