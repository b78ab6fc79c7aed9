"""What a visitor has laid out becomes the account's when they sign in."""

from __future__ import annotations

import pytest
from django.test import Client

from catalogue.models import Table
from sessions_app.models import AnonymousSession
from sessions_app.visits import COOKIE
from terrain.models import User

pytestmark = pytest.mark.django_db


@pytest.fixture
def user() -> User:
    """Somebody whom the only sign-in page there is lets in."""
    return User.objects.create_user(
        "player@example.com", "correct horse", role=User.Role.ADMIN
    )


def sign_in(client: Client, user: User) -> None:
    answer = client.post(
        "/admin/login/", {"username": user.email, "password": "correct horse"}
    )
    assert answer.status_code == 302


@pytest.fixture
def table() -> Table:
    session = AnonymousSession.objects.create()
    return Table.objects.create(name="Mine", session=session)


def test_signing_in_claims_the_tables_of_the_cookies_session(
    client: Client, user: User, table: Table
) -> None:
    assert table.session is not None
    client.cookies[COOKIE] = table.session.session_token
    sign_in(client, user)
    table.refresh_from_db()
    assert (table.user, table.session) == (user, None)


@pytest.mark.parametrize("token", [None, "", "somebody else's", "\x00"])
def test_without_its_token_a_session_keeps_its_tables(
    client: Client, user: User, table: Table, token: str | None
) -> None:
    if token is not None:
        client.cookies[COOKIE] = token
    sign_in(client, user)
    table.refresh_from_db()
    assert table.user is None
