"""What visitors see while there are no tables, and while there is no database."""

from __future__ import annotations

from collections.abc import Callable
from html import unescape

import pytest
from django.db import connection
from django.test import Client

from terrain import unready
from tests import factories
from tests.conftest import Database, Result, connecting


def _refused(client: Client, path: str = "/admin/") -> str:
    response = client.get(path)
    assert response.status_code == 503
    assert response["Retry-After"] == "30"
    return unescape(response.content.decode())


@pytest.mark.migration
def test_tables_that_are_parked(
    migrated: Database, manage: Callable[..., Result]
) -> None:
    """Somebody who was signed in is told, and is in again after the next migration."""
    client = Client()
    client.force_login(factories.UserFactory(admin=True, is_superuser=True))
    assert client.get("/admin/").status_code == 200
    assert manage("rollback_migration", "--yes", "-v", "0").code == 0
    assert unready.NO_TABLES in _refused(client)
    assert unready.NO_TABLES in _refused(client, "/admin/orders/order/")
    assert manage("migrate", "-v", "0").code == 0
    assert client.get("/admin/").status_code == 200


@pytest.mark.migration
def test_nothing_migrated_yet(shop: Database) -> None:
    client = Client()
    response = client.post("/admin/login/", {"username": "a@b", "password": "x"})
    assert response.status_code == 503
    assert unready.NO_TABLES in unescape(response.content.decode())


def test_a_server_that_does_not_answer(migrated: Database) -> None:
    client = Client()
    client.force_login(factories.UserFactory(admin=True))
    with connecting(PORT="1"):
        assert unready.NO_DATABASE in _refused(client)
    connection.close()
    assert client.get("/admin/").status_code == 200


def test_other_errors_are_faults(migrated: Database) -> None:
    """A statement that is wrong is not to look like a database that is not there."""
    respond = unready.UnreadyMiddleware(lambda request: None)
    for statement in ("SELECT 1 / 0", "SELECT nowhere", "SELECT 'x'::int"):
        with pytest.raises(Exception) as raised, connection.cursor() as cursor:
            cursor.execute(statement)
        assert respond.process_exception(None, raised.value) is None
