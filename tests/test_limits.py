"""The limits on visitors' tables and on tables' assets, which the database itself holds."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, connection, transaction

from catalogue.models import Asset, Table, TableAsset
from sessions_app.models import AnonymousSession
from terrain.exceptions import LimitExceeded
from terrain.models import User

pytestmark = pytest.mark.django_db


def save_tables(session: AnonymousSession, number: int) -> list[Table]:
    return [
        Table.objects.create(name=f"Table {n}", session=session) for n in range(number)
    ]


def make_assets(number: int) -> list[Asset]:
    artist = User.objects.create_user("artist@example.com", role=User.Role.ARTIST)
    return Asset.objects.bulk_create(
        Asset(artist=artist, name=f"Asset {n}", file_ref="a.stl") for n in range(number)
    )


def test_a_visitor_may_keep_three_active_tables() -> None:
    session = AnonymousSession.objects.create()
    save_tables(session, 3)
    with pytest.raises(LimitExceeded) as refused, transaction.atomic():
        save_tables(session, 1)
    assert str(refused.value) == (
        "A visitor without an account may keep 3 active tables,"
        f" and session {session.pk} has them."
    )
    assert refused.value.hint == (
        "Sign in, delete or archive a table, or raise the session's table limit."
    )
    assert isinstance(refused.value, IntegrityError)
    assert session.tables.count() == 3


def test_archived_tables_do_not_count_until_they_are_active_again() -> None:
    session = AnonymousSession.objects.create()
    first, *_ = save_tables(session, 3)
    first.status = Table.Status.ARCHIVED
    first.save()
    save_tables(session, 1)
    first.status = Table.Status.ACTIVE
    with pytest.raises(LimitExceeded), transaction.atomic():
        first.save()


def test_a_raised_limit_is_the_one_that_counts() -> None:
    session = AnonymousSession.objects.create(table_limit=5)
    save_tables(session, 5)
    with pytest.raises(LimitExceeded, match="may keep 5 active tables"):
        save_tables(session, 1)


def test_tables_cannot_be_given_to_a_session_beyond_its_limit() -> None:
    full, other = AnonymousSession.objects.create(), AnonymousSession.objects.create()
    save_tables(full, 3)
    (moved,) = save_tables(other, 1)
    moved.session = full
    with pytest.raises(LimitExceeded):
        moved.save()


def test_one_statement_cannot_exceed_the_limit_either() -> None:
    session = AnonymousSession.objects.create()
    with pytest.raises(LimitExceeded):
        Table.objects.bulk_create(Table(name=str(n), session=session) for n in range(4))


def test_a_session_over_a_lowered_limit_keeps_what_it_has() -> None:
    session = AnonymousSession.objects.create()
    first, *_ = save_tables(session, 3)
    AnonymousSession.objects.update(table_limit=1)
    first.name = "Renamed"
    first.save()
    assert session.tables.count() == 3


def test_signing_in_claims_the_tables_of_the_session() -> None:
    session = AnonymousSession.objects.create()
    save_tables(session, 3)
    user = User.objects.create_user("player@example.com")
    assert session.claim(user) == 3
    assert {(t.user_id, t.session_id, t.plan) for t in Table.objects.all()} == {
        (user.pk, None, Table.Plan.USER_FREE)
    }
    assert {t.contact_email for t in Table.objects.all()} == {"player@example.com"}
    save_tables(session, 3)


def test_a_table_may_hold_so_many_different_assets() -> None:
    table = Table.objects.create(name="Small", max_assets=2)
    first, second, third = make_assets(3)
    TableAsset.objects.create(table=table, asset=first, quantity=500)
    TableAsset.objects.create(table=table, asset=second)
    with pytest.raises(LimitExceeded) as refused, transaction.atomic():
        TableAsset.objects.create(table=table, asset=third)
    assert str(refused.value) == (
        f"Table {table.pk} may hold 2 different assets, and this would make 3."
    )
    assert refused.value.hint == (
        "Take an asset off the table, or raise its max assets."
    )


def test_a_thousand_assets_are_the_default_and_one_more_is_too_many() -> None:
    table = Table.objects.create(name="Large")
    assets = make_assets(1001)
    TableAsset.objects.bulk_create(
        TableAsset(table=table, asset=asset) for asset in assets[:1000]
    )
    with pytest.raises(LimitExceeded):
        TableAsset.objects.create(table=table, asset=assets[1000])


def test_library_rows_cannot_be_moved_to_a_full_table() -> None:
    full = Table.objects.create(name="Full", max_assets=1)
    other = Table.objects.create(name="Other")
    first, second = make_assets(2)
    TableAsset.objects.create(table=full, asset=first)
    moved = TableAsset.objects.create(table=other, asset=second)
    moved.table = full
    with pytest.raises(LimitExceeded):
        moved.save()


def test_what_is_carried_over_passes() -> None:
    """A migrated table over the limit keeps what it has."""
    session = AnonymousSession.objects.create(table_limit=0)
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('terrain.sync', 'on', true)")
    save_tables(session, 4)
    table = Table.objects.create(name="Full", max_assets=0)
    TableAsset.objects.create(table=table, asset=make_assets(1)[0])
