"""SQL expressions that Django has no name for."""

from __future__ import annotations

from django.db import models


class JsonIsObject(models.Func):
    """Whether a JSON column holds an object (``{…}``)."""

    template = "jsonb_typeof(%(expressions)s) = 'object'"
    output_field = models.BooleanField()
    conditional = True
    arity = 1
