"""manage.py runserver: Django's, but it does not start without a database."""

from __future__ import annotations

import os
from typing import Any

from django.contrib.staticfiles.management.commands import runserver
from django.db import connection
from django.utils.autoreload import DJANGO_AUTORELOAD_ENV


class Command(runserver.Command):
    def run(self, **options: Any) -> None:
        # The process that reloads itself would print a traceback, and wait for files to
        # change; before it is started, the error still ends in a sentence.
        if os.environ.get(DJANGO_AUTORELOAD_ENV) != "true":
            connection.ensure_connection()
            connection.close()
        super().run(**options)
