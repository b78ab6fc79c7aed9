"""What the database refuses, and what would be lost: told on the page it was asked from."""

from __future__ import annotations

import pytest
from django.test import Client

from catalogue.models import Model
from orders.models import Order, OrderItem
from terrain.models import User
from tests import factories
from tests.admin_client import errors, posted, said, signed_in, url
from tests.conftest import Database


@pytest.fixture
def root(migrated: Database) -> Client:
    """A superuser, in the migrated shop."""
    return signed_in(superuser=True)


def test_a_limit_is_an_error_of_the_form(root: Client) -> None:
    session = factories.AnonymousSessionFactory(table_limit=1)
    factories.TableFactory(visitor=True, session=session)
    other = factories.TableFactory(visitor=True)
    page = posted(root, other, session=str(session.pk))
    assert errors(page) == [
        "A visitor without an account may keep 1 active tables,"
        f" and session {session.pk} has them. Sign in, delete or archive a table, or raise"
        " the session's table limit."
    ]
    assert page.context["adminform"].form["session"].value() == str(session.pk)
    other.refresh_from_db()
    assert other.session_id != session.pk
    assert said(page) == []


def test_what_the_legacy_table_cannot_hold_is_an_error_of_the_form(
    root: Client,
) -> None:
    table = factories.TableFactory(example=True)
    buyer = factories.UserFactory()
    page = posted(root, table, user=str(buyer.pk), name="Another name")
    (told,) = errors(page)
    assert "cannot be kept in step with public.example_tables" in told
    assert told.endswith("or wait until cleanup_legacy.")
    assert page.context["adminform"].form["name"].value() == "Another name"
    table.refresh_from_db()
    assert table.name != "Another name"


def test_a_row_the_old_application_is_writing_is_to_be_saved_again(
    migrated: Database, root: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("terrain.pages.base.LONGEST_WAIT", 50)
    model = factories.ModelFactory()
    old = migrated.connect()
    old.execute("BEGIN")
    old.execute("UPDATE public.assets SET genre = 'x' WHERE id = %s", [model.pk])
    page = posted(root, model, name="Mine")
    assert errors(page) == [
        "Another application is changing this row just now, so nothing was saved."
        " Save it again."
    ]
    old.execute("ROLLBACK")
    assert posted(root, model, name="Mine").status_code == 302
    assert (
        migrated.value("SELECT name FROM public.assets WHERE id = %s", model.pk)
        == "Mine"
    )


def test_text_that_postgresql_cannot_store_is_an_error_of_the_form(
    root: Client,
) -> None:
    table = factories.TableFactory()
    (told,) = errors(posted(root, table, config='{"a": "\\u0000"}'))
    assert told.startswith("A text holds a character that PostgreSQL cannot store.")
    (told,) = errors(posted(root, table, config="[1]"))
    assert "tables_config_check" in told
    (told,) = errors(posted(root, table, config='{"a": NaN}'))
    assert told == "Enter a valid JSON."
    (told,) = errors(posted(root, table, name="x\x00"))
    assert told == "Null characters are not allowed."


def test_a_deferred_constraint_speaks_before_the_page_says_all_is_well(
    migrated: Database, root: Client
) -> None:
    model = factories.ModelFactory()
    migrated.execute(
        "CREATE FUNCTION public.never() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE foreign_key_violation USING MESSAGE = 'too late'; END $$"
    )
    migrated.execute(
        "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON terrain.models"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.never()"
    )
    page = posted(root, model, name="Mine")
    assert [told.partition(" PostgreSQL")[2] for told in errors(page)] == [
        " says: Too late."
    ]
    assert said(page) == []


def test_a_fault_of_the_program_is_not_taken_for_a_refusal(
    migrated: Database, root: Client
) -> None:
    model = factories.ModelFactory()
    migrated.execute("ALTER TABLE terrain.models RENAME COLUMN genre TO sort")
    with pytest.raises(Exception, match="genre"):
        root.get(url(Model, "change", model.pk))


# --- deleting and demoting ---


def test_an_artist_who_owns_anything_is_not_deleted(root: Client) -> None:
    model = factories.ModelFactory()
    page = root.get(url(User, "delete", model.artist.pk))
    assert page.status_code == 200
    assert page.context["protected"]
    assert ">1 model</a> of " in page.content.decode()
    answer = root.post(url(User, "delete", model.artist.pk), {"post": "yes"})
    assert answer.status_code == 200
    assert User.objects.filter(pk=model.artist.pk).exists()


def test_deleting_several_stops_at_the_one_that_owns_something(root: Client) -> None:
    model = factories.ModelFactory()
    alone = factories.UserFactory(artist=True)
    data = {
        "action": "delete_selected",
        "_selected_action": [str(model.artist.pk), str(alone.pk)],
    }
    assert b"1 model</a>" in root.post(url(User, "changelist"), data).content
    root.post(url(User, "changelist"), {**data, "post": "yes"})
    assert User.objects.filter(pk=alone.pk).exists()


def test_what_the_legacy_side_keeps_is_told_when_deleting(
    migrated: Database, root: Client
) -> None:
    """Rows of the shop's own that only its database knows of."""
    alone = factories.UserFactory(artist=True)
    migrated.execute(
        "CREATE TABLE public.notes (artist uuid REFERENCES public.artists)"
    )
    migrated.execute("INSERT INTO public.notes VALUES (%s)", alone.pk)
    answer = root.post(url(User, "delete", alone.pk), {"post": "yes"})
    assert answer.status_code == 302
    (told,) = said(answer)
    assert "still has rows in public.notes" in told or "still has rows in notes" in told
    assert User.objects.filter(pk=alone.pk).exists()
    chosen = {
        "action": "delete_selected",
        "_selected_action": str(alone.pk),
        "post": "yes",
    }
    answer = root.post(url(User, "changelist"), chosen)
    assert answer.status_code == 302
    assert len(said(answer)) == 2 and said(answer)[1] == told
    assert User.objects.filter(pk=alone.pk).exists()


def test_an_artist_who_owns_nothing_is_deleted_on_both_sides(
    migrated: Database, root: Client
) -> None:
    alone = factories.UserFactory(artist=True)
    there = "SELECT count(*) FROM public.artists WHERE id = %s"
    assert migrated.value(there, alone.pk) == 1
    root.post(url(User, "delete", alone.pk), {"post": "yes"})
    assert migrated.value(there, alone.pk) == 0
    assert not User.objects.filter(pk=alone.pk).exists()


def test_an_artist_who_owns_anything_stays_an_artist(root: Client) -> None:
    maker = factories.ModelFactory().artist
    factories.PaymentFactory(artist=maker)
    assert errors(posted(root, maker, role="customer")) == [
        f"{maker} has models and payments, so the account stays an artist's. Suspend it"
        " instead, or give those to another artist first."
    ]
    alone = factories.UserFactory(artist=True)
    assert posted(root, alone, role="customer").status_code == 302


def test_an_order_goes_with_its_lines(migrated: Database, root: Client) -> None:
    item = factories.OrderItemFactory()
    root.post(url(Order, "delete", item.order.pk), {"post": "yes"})
    assert not Order.objects.filter(pk=item.order.pk).exists()
    assert not OrderItem.objects.filter(pk=item.pk).exists()
    legacy = "SELECT count(*) FROM public.orders WHERE id = %s"
    assert migrated.value(legacy, item.order.pk) == 0
