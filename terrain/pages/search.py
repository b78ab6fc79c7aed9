"""What a search box understands by one term."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import models
from django.db.models.lookups import Exact

from terrain.addresses import NormalAddress


def as_uuid(term: str) -> uuid.UUID | None:
    """The term as an id, in any spelling PostgreSQL has for one."""
    try:
        return uuid.UUID(term)
    except ValueError:
        return None


def same_address(column: str, term: str) -> Any:
    """A condition: the column holds this address, by the index on :class:`NormalAddress`."""
    return Exact(NormalAddress(column), NormalAddress(models.Value(term)))
