"""The page of the move: how far it is, what keeps it up to date, and its buttons."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from terrain import locks
from terrain.legacy import closing, cut_over, guide, ledger
from terrain.legacy.console import actions, board, diagram, flows, verifying
from terrain.legacy.models import Batch, Quarantine, Run
from terrain.legacy.remembering import remembered
from terrain.legacy.templatetags import humane
from terrain.models import User
from terrain.pace import control
from tests import odd_rows
from tests.admin_client import said, signed_in
from tests.conftest import Database

BACKEND = "django.contrib.auth.backends.ModelBackend"
PAGE, NOW = reverse("admin:move"), reverse("admin:move_now")
#: Session, account and what the page asks.
MOST_QUERIES = 15


def button(name: str) -> str:
    return reverse("admin:move_act", args=[name])


@pytest.fixture(autouse=True)
def _backups(settings: Any, tmp_path: Any) -> None:
    settings.BACKUP_DIR = tmp_path


@pytest.fixture
def root(migrated: Database) -> Client:
    return signed_in(superuser=True)


@pytest.fixture
def somebody_at_work(migrated: Database) -> Iterator[psycopg.Connection[Any]]:
    """Another session, which has the lock of a run."""
    with migrated.connect() as other:
        other.execute("SELECT pg_advisory_lock(%s)", [locks.RUN_LOCK])
        yield other


def text(page: Any) -> str:
    assert page.status_code == 200
    return " ".join(re.sub(r"<[^>]+>", " ", page.content.decode()).split())


# --- what it shows -------------------------------------------------------------------------


def test_every_step_of_the_guide_is_on_the_page(root: Client) -> None:
    page = root.get(PAGE).content.decode()
    for step in guide.steps(connection, settings.BACKUP_DIR):
        assert f'<th scope="row">{step.name}</th>' in page
        assert f'<span class="state {step.state}">{step.state}</span>' in page
    assert "There is no backup of this database in" in page


def test_the_diagram_has_each_table_with_its_rows(
    migrated: Database, root: Client
) -> None:
    page = root.get(PAGE).content.decode()
    for table in ("user_tables", "order_items", "payments", "table_assets"):
        assert f'class="name">{table}</text>' in page
    rows = migrated.value("SELECT count(*) FROM public.stripe_transfers")
    assert f'class="count">{rows:,}</text>' in page
    assert (
        f'<th scope="row">stripe_transfers</th><td class="number">{rows:,}</td>' in page
    )


def test_a_running_copy_is_shown_with_its_rate(
    migrated: Database, root: Client, somebody_at_work: Any
) -> None:
    Run.objects.filter(step="copy orders").delete()
    run = Run.objects.create(step="copy orders", total=1000)
    Batch.objects.create(run=run, rows=250, seconds=0.5)
    found = board.read(connection, settings.BACKUP_DIR)
    (step,) = [each for each in found.steps if each.name == "copy orders"]
    assert (step.state, step.rows, step.rate, step.seconds) == (
        "running",
        250,
        500,
        0.5,
    )
    (flow,) = [each for each in found.flows.each if each.legacy == "orders"]
    assert (flow.state, flow.share) == ("running", 0.25)
    answer = root.get(NOW).json()
    assert answer["every"] == 1500
    assert answer["said"].endswith("steps are done; copy orders is running.")
    assert 'max="1000" value="250"' in answer["parts"]["steps"]
    assert 'stroke-dasharray="25 200"' in answer["parts"]["flow"]


def test_what_was_interrupted_is_said_to_be_paused(
    migrated: Database, root: Client
) -> None:
    Run.objects.filter(step="copy orders").update(state=Run.State.RUNNING)
    assert "copy orders is paused" in root.get(NOW).json()["said"]


def test_the_quarantine_is_counted_by_reason(migrated: Database, root: Client) -> None:
    odd_rows.insert(migrated)
    page = root.get(PAGE).content.decode()
    for entry in Quarantine.objects.all():
        assert f"legacy_table={entry.legacy_table}&amp;kind={entry.kind}" in page
        assert f">{entry.reason}</a>" in page
    assert "<script>alert(1)" not in page


def test_a_proven_backup_is_shown_as_such(migrated: Database, root: Client) -> None:
    call_command("backup_database", verbosity=0)
    page = text(root.get(PAGE))
    assert "✓ restored and compared" in page and "There is no backup" not in page


def test_looking_asks_little_and_takes_no_lock(
    migrated: Database, root: Client, django_assert_max_num_queries: Any
) -> None:
    call_command("prepare_database", verbosity=0)
    root.get(PAGE)
    for where in (PAGE, NOW):
        with django_assert_max_num_queries(MOST_QUERIES) as captured:
            root.get(where)
        assert not any("advisory_lock" in each["sql"] for each in captured)


def test_remembered_answers_are_those_of_asking_each_time(migrated: Database) -> None:
    odd_rows.insert(migrated)
    asked = guide.steps(connection, settings.BACKUP_DIR)
    with remembered():
        assert guide.steps(connection, settings.BACKUP_DIR) == asked


def test_large_tables_are_not_counted(
    migrated: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "COUNTED", 10)
    migrated.execute("ANALYZE public.orders")
    found = board.read(connection, settings.BACKUP_DIR).flows
    (orders,) = [each for each in found.each if each.legacy == "orders"]
    rows = migrated.value("SELECT count(*) FROM public.orders")
    assert str(orders.legacy_rows) == f"about {rows:,}"


def test_a_database_made_new_has_no_old_tables(db: None) -> None:
    client = signed_in(superuser=True)
    assert "the database was made new" in text(client.get(PAGE))


def test_after_cleanup_the_page_says_what_was(migrated: Database, root: Client) -> None:
    call_command("backup_database", verbosity=0)
    cut_over.cut_over(connection)
    call_command("cleanup_legacy", "--yes", verbosity=0)
    page = text(root.get(PAGE))
    assert "the legacy tables are gone" in page


def test_the_drawing_of_nothing_is_empty() -> None:
    assert diagram.drawn(flows.Flows()).boxes == ()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, ""), (0.04, "0.0 s"), (12.3, "12 s"), (185, "3:05 min"), (3725, "1:02 h")],
)
def test_spans_of_time_are_readable(seconds: float | None, shown: str) -> None:
    assert humane.span(seconds) == shown


# --- the last verification -----------------------------------------------------------------


def test_the_last_verification_is_kept_and_shown(
    migrated: Database, root: Client
) -> None:
    assert "Nothing has been verified yet." in text(root.get(PAGE))
    call_command("verify_migration", verbosity=0)
    page = text(root.get(PAGE))
    assert re.search(r"✓ All \d+ checks passed", page)
    assert "✓ holds: Every artist's password is the one it was." in page.replace(
        "&#x27;", "'"
    )


def test_what_failed_is_shown_with_its_rows_and_no_hash(
    migrated: Database, root: Client
) -> None:
    with migrated.superuser as owner:
        owner.execute("ALTER TABLE terrain.users DISABLE TRIGGER USER")
        owner.execute(
            "UPDATE terrain.users SET display_name = '<script>alert(1)</script>'"
            " WHERE id = (SELECT id FROM public.artists LIMIT 1)"
        )
    with pytest.raises(SystemExit):
        call_command("verify_migration", verbosity=0)
    run = ledger.last("verify")
    assert run is not None
    (failed,) = [
        each for each in run.detail["findings"] if each["name"] == "in_step_artists"
    ]
    assert failed["rows"] and set(failed["rows"][0]) == {"id"}
    page = root.get(PAGE).content.decode()
    assert "artists and rebuilt.artists differ." in page
    assert f'{reverse("admin:find")}?q={failed["rows"][0]["id"]}' in page
    assert "<script>alert(1)" not in page and "$2b$" not in page


# --- buttons -------------------------------------------------------------------------------


def test_a_button_asks_before_it_does_anything(root: Client) -> None:
    for action in actions.ACTIONS:
        page = root.get(button(action.name))
        assert action.about in page.content.decode().replace("&#x27;", "'")
        assert b"csrfmiddlewaretoken" in page.content
    assert not Run.objects.filter(step="verify").exists()
    assert not LogEntry.objects.exists()
    assert root.get(button("nosuch")).status_code == 404


def test_a_button_needs_a_token(migrated: Database, root: Client) -> None:
    careful = Client(enforce_csrf_checks=True)
    careful.cookies = root.cookies
    assert careful.post(button("retry")).status_code == 403


def test_verify_runs_beside_the_request_and_leaves_its_result(
    migrated: Database, root: Client, as_environment: None
) -> None:
    answer = root.post(button("verify"))
    assert said(answer) == [
        "The verification has begun. Its result will be shown here."
    ]
    assert "verify is running" in root.get(NOW).json()["said"]
    again = root.post(button("verify"))
    assert said(again)[-1] == (
        "A verification is running already; wait for its result."
    )
    run = ledger.last("verify")
    assert run is not None
    while run.state == Run.State.RUNNING:
        run.refresh_from_db()
    assert (run.state, run.detail["passed"]) == ("done", True)
    (entry,) = LogEntry.objects.all()
    assert entry.get_admin_url() == f"/admin/legacy/run/{run.pk}/change/"
    assert str(entry.object_repr) == "The move: verify"


def test_a_verification_that_was_killed_is_begun_anew(
    migrated: Database, as_environment: None
) -> None:
    long_ago = timezone.now() - datetime.timedelta(hours=1)
    dead = Run.objects.create(step="verify", started_at=long_ago)
    assert not guide.is_verifying(connection, dead)
    verifying.start(connection).wait()
    dead.refresh_from_db()
    run = ledger.last("verify")
    assert dead.state == "failed" and run is not None
    assert (run.pk != dead.pk, run.state) == (True, "done")


def test_two_verifications_at_once_are_one_too_many(
    migrated: Database, capsys: Any
) -> None:
    from terrain.commands import CannotRun

    with migrated.connect() as other:
        other.execute("SELECT pg_advisory_lock(%s)", [locks.VERIFY_LOCK])
        with pytest.raises(CannotRun, match="^Another command is at work"):
            call_command("verify_migration", verbosity=0)
    call_command("verify_migration", verbosity=0)


def test_retry_releases_what_has_been_put_right(
    migrated: Database, root: Client
) -> None:
    key = migrated.value(
        "UPDATE user_tables SET layout_data = '[]' WHERE id = (SELECT id FROM user_tables"
        " LIMIT 1) RETURNING id"
    )
    with migrated.superuser as owner:  # repaired behind the triggers' back
        owner.execute("ALTER TABLE public.user_tables DISABLE TRIGGER USER")
        owner.execute(
            "UPDATE public.user_tables SET layout_data = '{}' WHERE id = %s", [key]
        )
    answer = root.post(button("retry"))
    assert said(answer) == ["1 entries released, 0 left in quarantine."]
    assert not Quarantine.objects.filter(legacy_id=key).exists()
    (entry,) = LogEntry.objects.all()
    assert entry.change_message == "1 entries released, 0 left in quarantine."


def test_there_is_nothing_to_retry_after_cleanup(
    migrated: Database, root: Client
) -> None:
    cut_over.cut_over(connection)
    migrated.execute("DROP SCHEMA legacy CASCADE")
    assert said(root.post(button("retry"))) == [
        "The legacy tables are not beside the new ones (any more), so there is nothing"
        " to look at again."
    ]
    assert not LogEntry.objects.exists()


def test_pausing_and_resuming_hold_for_whatever_runs(
    migrated: Database, root: Client
) -> None:
    assert said(root.post(button("resume"))) == ["The move is not paused."]
    paused = root.post(button("pause"))
    assert said(paused)[-1] == (
        "Whatever runs waits from its next batch on, until it is resumed."
    )
    orders = control.read(connection)
    assert orders.is_paused and "@" in orders.paused_by
    answer = root.get(NOW).json()
    assert "all is paused" in answer["said"]
    assert f"The move is {orders.pause}" in answer["parts"]["act"]
    assert button("resume") in answer["parts"]["act"]
    assert button("pause") not in answer["parts"]["act"]
    again = root.post(button("pause"))
    assert said(again)[-1] == f"The move is {orders.pause}."
    assert said(root.post(button("resume")))[-1] == "Whatever was paused goes on."
    assert not control.read(connection).is_paused
    assert LogEntry.objects.count() == 2


# --- who may -------------------------------------------------------------------------------


def test_who_may_only_look_has_no_buttons(migrated: Database) -> None:
    client = signed_in("legacy.view_run")
    page = client.get(PAGE)
    assert page.status_code == 200 and b"/move/verify/" not in page.content
    for action in actions.ACTIONS:
        assert client.get(button(action.name)).status_code == 403
        assert client.post(button(action.name)).status_code == 403
    assert not LogEntry.objects.exists() and not Run.objects.filter(step="verify")


@pytest.mark.parametrize("action", actions.ACTIONS, ids=lambda action: action.name)
def test_each_button_has_a_permission_of_its_own(
    migrated: Database, action: actions.Action
) -> None:
    client = signed_in("legacy.view_run", action.permission)
    page = client.get(PAGE).content.decode()
    for other in actions.ACTIONS:
        allowed = other.permission == action.permission
        assert (button(other.name) in page) is (allowed and other.applies(False))
        assert client.get(button(other.name)).status_code == (200 if allowed else 403)


def test_without_a_right_to_look_there_is_no_page(migrated: Database) -> None:
    client = signed_in("orders.view_order", "legacy.verify_migration")
    assert b"/admin/move/" not in client.get(reverse("admin:index")).content
    for where in (PAGE, NOW, button("verify")):
        assert client.get(where).status_code == 403


def test_while_there_is_no_right_to_give_the_shops_admins_may_look(
    migrated: Database,
) -> None:
    admin, artist = signed_in(), Client()
    artist.force_login(User.objects.filter(role="artist")[0], BACKEND)
    assert admin.get(PAGE).status_code == 403
    Permission.objects.filter(
        codename="view_run"
    ).delete()  # as before migrate has ended
    page = admin.get(PAGE)
    assert page.status_code == 200 and b"/move/verify/" not in page.content
    assert admin.post(button("verify")).status_code == 403
    assert artist.get(PAGE).status_code == 302


def test_signing_in_does_not_need_the_note_of_it(
    migrated: Database, caplog: Any
) -> None:
    user = User.objects.create_superuser("root@shop.example", "a long password")
    closing.close(connection, "users")
    client = Client()
    data = {"username": user.email, "password": "a long password"}
    answer = client.post(reverse("admin:login"), data)
    assert answer.status_code == 302
    assert client.get(PAGE).status_code == 200
    user.refresh_from_db()
    assert user.last_login is None
