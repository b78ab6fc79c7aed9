"""Thumbnails of what is in files, where the shop's files can be had.

A path in a row is somebody's text.  Only what lies beneath ``FILES_URL`` is fetched by the
browser: no other host learns who looks at what, and none needs to be allowed by the
Content-Security-Policy.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

from django.conf import settings
from django.utils.html import format_html

from terrain.pages.shown import EMPTY


def url_of(path: Any) -> str | None:
    """Where the browser gets a file; None for what does not lie beneath ``FILES_URL``."""
    base: str = settings.FILES_URL
    if not base or not isinstance(path, str) or not path.strip():
        return None
    path = path.strip()
    if path.startswith(base):
        path = path[len(base) :]
    elif urlsplit(path).scheme or path.startswith("//") or "\\" in path:
        return None
    parts = path.lstrip("/").split("/")
    if ".." in parts or len(path) > 1000:
        return None
    return base + quote("/".join(parts), safe="/%")


def thumbnail(path: Any, of: str) -> str:
    """A small picture; a dash where there is no file to be had."""
    url = url_of(path)
    if url is None:
        return EMPTY
    return format_html(
        '<img class="thumbnail" src="{}" alt="{}" width="96" height="72" loading="lazy"'
        ' decoding="async" referrerpolicy="no-referrer">',
        url,
        f"Picture of {of[:100]}",
    )
