"""The admin as a person meets it: pages, lists, refusals, permissions."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.contrib.messages import get_messages
from django.db import connection
from django.test import Client
from django.urls import reverse

from catalogue.models import Asset, AssetSet, AssetSetItem, Model, Table
from orders.models import Order, OrderItem, Payment
from sessions_app.models import AnonymousSession
from terrain.models import User
from terrain.pages.paging import LIMIT, BoundedPaginator, Estimate
from tests import browser, factories
from tests.conftest import Database

#: Queries of a list: session and account, count, rows, transaction-free everything else.
MOST_QUERIES = 15

NOBODY = uuid.UUID(int=1)

OURS = ("terrain", "catalogue", "orders", "sessions_app", "legacy")
MODELS = [
    pytest.param(model, id=model._meta.label_lower)
    for model in admin.site._registry
    if model._meta.app_label in OURS
]
#: Factories by the model they make, so that a model without one is noticed.
FACTORIES = {
    made._meta.model: made
    for made in vars(factories).values()
    if isinstance(made, type)
    and issubclass(made, factories.DjangoModelFactory)
    and made is not factories.DjangoModelFactory
}


def url(model: Any, page: str, *args: Any) -> str:
    names = model._meta
    return reverse(f"admin:{names.app_label}_{names.model_name}_{page}", args=args)


def signed_in(*permissions: str, superuser: bool = False) -> Client:
    """Somebody of the shop's staff; ``permissions`` are ``app.codename``."""
    user = factories.UserFactory(admin=True, is_superuser=superuser)
    for name in permissions:
        app, codename = name.split(".")
        user.user_permissions.add(
            Permission.objects.get(content_type__app_label=app, codename=codename)
        )
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def root(migrated: Database) -> Client:
    """A superuser, in the migrated shop."""
    return signed_in(superuser=True)


def said(response: Any) -> list[str]:
    """The messages a page shows, or the one it was redirected to will show."""
    return [str(each) for each in get_messages(response.wsgi_request)]


def errors(response: Any) -> list[str]:
    assert response.status_code == 200
    found = response.context["errors"]
    return [
        str(told)
        for each in found
        for told in ([each] if isinstance(each, str) else each)
    ]


def posted(client: Client, record: Any, **changes: Any) -> Any:
    """Change a record on its page, leaving everything else as it is shown."""
    where = url(type(record), "change", record.pk)
    data = browser.form(client.get(where).content, f"{record._meta.model_name}_form")
    for name, value in changes.items():
        data.pop(name, None)
        if value is not None:
            data[name] = value
    return client.post(where, data)


# --- every page ----------------------------------------------------------------------------


def test_every_model_of_the_new_schema_is_registered() -> None:
    from django.apps import apps

    there = {
        model for label in OURS for model in apps.get_app_config(label).get_models()
    }
    assert there <= set(admin.site._registry)
    assert there == set(FACTORIES)


@pytest.mark.parametrize("model", MODELS)
def test_a_superuser_sees_every_page(
    root: Client, model: Any, django_assert_max_num_queries: Any
) -> None:
    record = FACTORIES[model]()
    FACTORIES[model].create_batch(3)
    with django_assert_max_num_queries(MOST_QUERIES):
        assert root.get(url(model, "changelist")).status_code == 200
    can_add = admin.site._registry[model].has_add_permission(
        root.get(url(model, "changelist")).wsgi_request
    )
    expected = 200 if can_add else 403
    assert root.get(url(model, "add")).status_code == expected
    page = root.get(url(model, "change", record.pk))
    assert page.status_code == 200
    assert root.get(url(model, "history", record.pk)).status_code == 200
    deleting = root.get(url(model, "delete", record.pk))
    assert deleting.status_code in (200, 403)


@pytest.mark.parametrize("model", MODELS)
def test_staff_without_permissions_see_no_page(migrated: Database, model: Any) -> None:
    client = signed_in()
    record = FACTORIES[model]()
    for page, args in (
        ("changelist", ()),
        ("add", ()),
        ("change", (record.pk,)),
        ("delete", (record.pk,)),
    ):
        assert client.get(url(model, page, *args)).status_code == 403
    assert client.get(reverse("admin:index")).status_code == 200


@pytest.mark.parametrize("model", MODELS)
def test_who_may_only_look_can_look(migrated: Database, model: Any) -> None:
    names = model._meta
    client = signed_in(f"{names.app_label}.view_{names.model_name}")
    record = FACTORIES[model]()
    assert client.get(url(model, "changelist")).status_code == 200
    page = client.get(url(model, "change", record.pk))
    assert page.status_code == 200
    assert b'name="_save"' not in page.content
    assert client.post(url(model, "change", record.pk), {}).status_code == 403


@pytest.mark.parametrize("model", MODELS)
def test_no_list_is_upset_by_what_is_asked_of_it(
    root: Client, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin.site._registry[model], "list_per_page", 5)
    FACTORIES[model]()
    for query in (
        "q=%00",
        "q=" + "x" * 5000,
        "q=%25%27%22%5C",
        f"q={NOBODY}",
        "q=somebody@example.com",
        "q=%F0%9F%8F%B0",
        "id=notauuid",
        "id__exact=%00",
        "id__in=1,2,x",
        "id__isnull=perhaps",
        "nosuchfield=1",
        "p=0",
        "p=999999999",
        "p=x",
        "o=99.-99.x",
        "e=1",
        "status=%00",
        "created_at__gte=yesterday",
        "_facets=True",
        "all=",
    ):
        page = root.get(url(model, "changelist") + "?" + query, follow=True)
        assert page.status_code == 200, query


@pytest.mark.parametrize("model", MODELS)
def test_a_page_of_nothing_leads_back_to_the_start(root: Client, model: Any) -> None:
    for key in ("notauuid", "%00", "_5F", "9" * 40, str(NOBODY)):
        page = root.get(url(model, "change", "KEY").replace("KEY", key), follow=True)
        assert page.status_code == 200
        assert b"exist" in page.content, key


def test_what_a_filter_of_the_list_asks_for_is_found(root: Client) -> None:
    for order in factories.OrderFactory.create_batch(2, status="printing"):
        assert (
            order.order_number
            in root.get(
                url(Order, "changelist") + "?status__exact=printing"
            ).content.decode()
        )
    page = root.get(url(Order, "changelist") + "?status__exact=cancelled")
    assert order.order_number not in page.content.decode()


# --- searching -----------------------------------------------------------------------------


def found(client: Client, model: Any, term: str) -> list[Any]:
    page = client.get(url(model, "changelist"), {"q": term})
    return list(page.context["cl"].result_list)


def test_an_account_is_found_by_address_whatever_its_case(root: Client) -> None:
    buyer = factories.UserFactory(email="jo@example.com")
    maker = factories.UserFactory(
        artist=True, email=" Mo@Example.com", display_name="Mo's"
    )
    assert found(root, User, "JO@example.COM ") == [buyer]
    assert found(root, User, "mo@example.com") == [maker]
    assert found(root, User, str(buyer.pk)) == [buyer]
    assert found(root, User, buyer.pk.hex) == [buyer]
    assert found(root, User, "mo's") == [maker]
    assert found(root, User, "nobody@example.com") == []


def test_an_order_is_found_by_number_and_address(root: Client) -> None:
    order = factories.OrderFactory(customer_email="Jo@Example.com")
    assert found(root, Order, order.order_number) == [order]
    assert found(root, Order, "jo@example.com") == [order]
    assert found(root, Order, str(order.pk)) == [order]
    assert found(root, Order, "TB") == []


def test_payments_tables_and_models_are_found_by_what_is_known_of_them(
    root: Client,
) -> None:
    payment = factories.PaymentFactory()
    table = factories.TableFactory(share_code="abc123")
    model = factories.ModelFactory(name="The Crooked Gate")
    assert found(root, Payment, payment.stripe_transfer_id) == [payment]
    assert found(root, Table, "abc123") == [table]
    assert found(root, Model, "crooked") == [model]
    assert found(root, OrderItem, "crooked") == []


@pytest.mark.parametrize(
    ("model", "term"),
    [
        (User, "player1@example.com"),
        (Order, "AA-0000001"),
        (Order, "player1@example.com"),
        (Order, str(NOBODY)),
        (Payment, "tr_1"),
        (Table, "code"),
    ],
)
def test_a_search_for_a_key_uses_an_index(root: Client, model: Any, term: str) -> None:
    """With sequential scans made dear: which way is there at all?"""
    view = admin.site._registry[model]
    conditions = list(view.key_conditions(term))
    assert conditions
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
    for condition in conditions:
        plan = model.objects.filter(condition).explain()
        assert "Seq Scan" not in plan, plan


@pytest.mark.parametrize(
    "model", [User, Model, Asset, Table, Order, OrderItem, Payment]
)
def test_a_list_is_read_in_the_order_of_an_index(root: Client, model: Any) -> None:
    FACTORIES[model].create_batch(2)
    page = root.get(url(model, "changelist"))
    rows = page.context["cl"].queryset
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off; SET enable_sort = off")
    plan = rows[:100].explain()
    assert "Seq Scan" not in plan
    assert "Sort Key" not in plan or "Presorted Key" in plan, plan


# --- large tables --------------------------------------------------------------------------


def test_a_large_table_is_estimated_and_leafed_through_so_far_only(
    migrated: Database, root: Client
) -> None:
    migrated.execute(
        "INSERT INTO anonymous_sessions (id, session_token, last_seen)"
        " SELECT gen_random_uuid(), n::text, now() - n * interval '1 second'"
        " FROM generate_series(1, 25000) n"
    )
    migrated.execute("ANALYZE anonymous_sessions")
    page = root.get(url(AnonymousSession, "changelist"))
    count = page.context["cl"].result_count
    assert isinstance(count, Estimate)
    assert 20_000 < count < 30_000
    assert f"about {int(count):,} anonymous sessions" in page.content.decode()
    paginator = page.context["cl"].paginator
    assert paginator.num_pages == LIMIT // 100
    last = root.get(url(AnonymousSession, "changelist"), {"p": paginator.num_pages})
    assert len(last.context["cl"].result_list) == 100
    beyond = root.get(
        url(AnonymousSession, "changelist"), {"p": paginator.num_pages + 1}
    )
    assert beyond.status_code == 302
    assert not any("COUNT(*)" in each and "LIMIT" not in each for each in queries(root))


def queries(client: Client) -> list[str]:
    """What PostgreSQL is asked for a large list."""
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as captured:
        client.get(url(AnonymousSession, "changelist"))
    return [each["sql"] for each in captured if "anonymous_sessions" in each["sql"]]


def test_a_small_table_is_counted(migrated: Database) -> None:
    rows = BoundedPaginator(User.objects.order_by("pk"), 7)
    assert rows.count == User.objects.count()
    assert not isinstance(rows.count, Estimate)
    assert rows.num_pages == -(-rows.count // 7)
    assert BoundedPaginator(User.objects.none(), 7).num_pages == 1
    assert BoundedPaginator([1, 2, 3], 2).num_pages == 2


# --- what the database refuses -------------------------------------------------------------


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
    assert "cannot be kept in step with legacy.example_tables" in told
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
    old.execute("UPDATE legacy.assets SET genre = 'x' WHERE id = %s", [model.pk])
    page = posted(root, model, name="Mine")
    assert errors(page) == [
        "Another application is changing this row just now, so nothing was saved."
        " Save it again."
    ]
    old.execute("ROLLBACK")
    assert posted(root, model, name="Mine").status_code == 302
    assert (
        migrated.value("SELECT name FROM legacy.assets WHERE id = %s", model.pk)
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
        "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON public.models"
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
    migrated.execute("ALTER TABLE public.models RENAME COLUMN genre TO sort")
    with pytest.raises(Exception, match="genre"):
        root.get(url(Model, "change", model.pk))


# --- deleting and demoting -----------------------------------------------------------------


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
        "CREATE TABLE legacy.notes (artist uuid REFERENCES legacy.artists)"
    )
    migrated.execute("INSERT INTO legacy.notes VALUES (%s)", alone.pk)
    answer = root.post(url(User, "delete", alone.pk), {"post": "yes"})
    assert answer.status_code == 302
    (told,) = said(answer)
    assert "still has rows in legacy.notes" in told or "still has rows in notes" in told
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
    there = "SELECT count(*) FROM legacy.artists WHERE id = %s"
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
    legacy = "SELECT count(*) FROM legacy.orders WHERE id = %s"
    assert migrated.value(legacy, item.order.pk) == 0


# --- accounts ------------------------------------------------------------------------------


def test_a_new_artist_can_sign_in_with_both_applications(
    migrated: Database, root: Client, settings: Any
) -> None:
    settings.PASSWORD_HASHERS = settings.PASSWORD_HASHERS[1:]
    secret = "correct horse battery"
    answer = root.post(
        url(User, "add"),
        {
            "email": "new@example.com",
            "role": "artist",
            "usable_password": "true",
            "password1": secret,
            "password2": secret,
        },
    )
    assert answer.status_code == 302
    user = User.objects.get(email="new@example.com")
    assert user.check_password(secret)
    stored = "SELECT password_hash FROM legacy.artists WHERE id = %s"
    assert migrated.value(stored, user.pk).startswith("$2b$")


def test_an_account_can_be_made_without_a_password(root: Client) -> None:
    data = {"email": "No@Example.com", "role": "customer", "usable_password": "false"}
    assert root.post(url(User, "add"), data).status_code == 302
    user = User.objects.get(email="no@example.com")
    assert not user.has_usable_password()
    page = root.get(url(User, "change", user.pk)).content.decode()
    assert "Not with a password: none is set." in page


def test_an_address_is_taken_once(root: Client) -> None:
    factories.UserFactory(artist=True, email="taken@example.com")
    data = {"email": "taken@example.com", "role": "artist", "usable_password": "false"}
    assert errors(root.post(url(User, "add"), data)) == [
        "Another artist has this address."
    ]
    other = factories.UserFactory(artist=True)
    assert errors(posted(root, other, email="taken@example.com")) == [
        "Another artist has this address."
    ]
    buyer = factories.UserFactory(email="taken@example.com")
    assert errors(posted(root, buyer, role="artist")) == [
        "Another artist has this address."
    ]


def test_a_password_is_set_on_its_own_page_and_never_shown(root: Client) -> None:
    user = factories.UserFactory(artist=True)
    where = reverse("admin:auth_user_password_change", args=[user.pk])
    page = root.get(url(User, "change", user.pk)).content.decode()
    assert where in page
    assert user.password not in page and user.password.split("$")[-1] not in page
    secret = "another long password"
    data = {"password1": secret, "password2": secret, "usable_password": "true"}
    data["set-password"] = "Change password"
    assert root.post(where, data).status_code == 302
    user.refresh_from_db()
    assert user.check_password(secret)


def test_staff_give_nobody_powers_and_touch_nobody_above_them(
    migrated: Database,
) -> None:
    client = signed_in("terrain.view_user", "terrain.change_user")
    someone = factories.UserFactory()
    page = client.get(url(User, "change", someone.pk)).content
    names = browser.form(page, "user_form")
    assert "email" in names
    assert not {"role", "is_superuser", "groups", "user_permissions"} & set(names)
    posted(client, someone, role="admin", is_superuser="on")
    someone.refresh_from_db()
    assert someone.role == "customer" and not someone.is_superuser
    above = factories.UserFactory(superuser=True)
    assert client.post(url(User, "change", above.pk), {}).status_code == 403
    password = reverse("admin:auth_user_password_change", args=[above.pk])
    assert client.get(password).status_code == 403


# --- sets and tables -----------------------------------------------------------------------


def test_a_set_is_put_together_on_its_page(root: Client) -> None:
    chosen = factories.AssetSetFactory()
    assets = factories.AssetFactory.create_batch(2)
    answer = posted(
        root,
        chosen,
        **{
            "items-TOTAL_FORMS": "2",
            "items-0-asset_set": str(chosen.pk),
            "items-0-position": "1",
            "items-0-asset": str(assets[1].pk),
            "items-1-asset_set": str(chosen.pk),
            "items-1-position": "2",
            "items-1-asset": str(assets[0].pk),
        },
    )
    assert answer.status_code == 302
    order = AssetSetItem.objects.filter(asset_set=chosen).order_by("position")
    assert [item.asset for item in order] == [assets[1], assets[0]]
    page = root.get(url(AssetSet, "change", chosen.pk)).content.decode()
    assert "2 assets</a>" in page
    again = posted(root, chosen, **{"items-0-DELETE": "on"})
    assert again.status_code == 302
    assert order.all().count() == 1


def test_a_library_of_any_size_can_be_saved(root: Client) -> None:
    table = factories.TableFactory()
    artist = factories.UserFactory(artist=True)
    assets = Asset.objects.bulk_create(
        Asset(artist=artist, name=f"A {n}", file_ref="a.stl") for n in range(300)
    )
    table.table_assets.bulk_create(
        type(table.table_assets.model())(table=table, asset=asset) for asset in assets
    )
    assert posted(root, table, name="Big").status_code == 302
    assert table.table_assets.count() == 300
    page = root.get(url(Table, "change", table.pk)).content.decode()
    assert "300 assets</a>" in page
