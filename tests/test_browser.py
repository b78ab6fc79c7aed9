"""What operators and support people do, done in a real browser."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection, connections
from django.urls import reverse

from catalogue import curating
from catalogue.models import Asset, AssetSet, AssetSetItem, Table
from orders.models import Order
from terrain.legacy.models import Quarantine, Released
from terrain.models import User
from terrain.pace import control
from tests import chromium, factories
from tests.admin_client import url
from tests.conftest import Database

pytestmark = pytest.mark.skipif(bool(chromium.why_not()), reason=chromium.why_not())

PASSWORD = "correct horse battery staple"
#: As the old application stored it.
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    with chromium.browser() as found:
        yield found


@pytest.fixture(autouse=True)
def _unsafe(monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Any) -> None:
    """Playwright has a loop in this thread; Django would not be used beside one."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    monkeypatch.chdir(tmp_path)  # what is shown of a folder is on the screenshots
    settings.BACKUP_DIR = Path("backups")
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    settings.PASSWORD_HASHERS = ["terrain.hashers.LegacyBCryptPasswordHasher"]


@pytest.fixture
def visitor(chrome: Any) -> Iterator[chromium.Visitor]:
    with chromium.served() as where:
        context = chrome.new_context(viewport={"width": 1180, "height": 820})
        found = chromium.Visitor(where, context.new_page())
        yield found
        context.close()
    assert found.complaints == []


@pytest.fixture
def operator(migrated: Database, visitor: chromium.Visitor) -> chromium.Visitor:
    """A superuser who was an artist, at the index."""
    email = old_admin(migrated)
    User.objects.filter(email=email).update(is_superuser=True)
    visitor.sign_in(email, PASSWORD)
    return visitor


def old_admin(shop: Database) -> str:
    """An artist who is an admin, as the old application would have made one."""
    email = "keeper@artists.example"
    shop.execute(
        "INSERT INTO artists (email, password_hash, name, status, role)"
        " VALUES (%s, %s, 'Keeper', 'active', 'admin')",
        email,
        HASH,
    )
    return email


# --- what people do --------------------------------------------------------------------------


def test_an_artist_signs_in_with_the_old_password_and_follows_the_move(
    migrated: Database, visitor: chromium.Visitor
) -> None:
    email = old_admin(migrated)
    User.objects.filter(email=email).update(is_superuser=True)
    call_command("rollback_migration", "--yes", verbosity=0)
    call_command("prepare_database", verbosity=0)
    control.throttle(connection, 2)  # so that there is something to follow
    migrated.close()
    connections.close_all()  # who is connected longer than the path is set is in the way
    with migrating(migrated) as migration:
        accounts = "SELECT to_regclass('terrain.users') IS NOT NULL"
        wait_for(migration, migrated, accounts)
        control.pause(connection, "a test")
        visitor.sign_in(email, PASSWORD, to="/admin/move/")
        page = visitor.page
        page.wait_for_selector(".ordered:has-text('paused by a test')")
        assert page.locator("tr.done:has-text('copy orders')").count() == 0
        page.evaluate("window.loadedOnce = true")
        control.throttle(connection, None)
        control.resume(connection)
        page.wait_for_selector("tr.done:has-text('copy orders')")
        page.wait_for_selector("tr.done:has-text('all rows are copied and in step')")
        assert "all is paused" not in visitor.text("#said")
        assert page.evaluate("window.loadedOnce") is True
        assert migration.wait() == 0


def test_a_customer_is_found_and_old_is_beside_new(operator: chromium.Visitor) -> None:
    order = Order.objects.filter(user__isnull=False, items__isnull=False)[0]
    assert order.user is not None
    page = operator.page
    page.fill("#find-here", f" {order.user.email.upper()} ")
    page.press("#find-here", "Enter")
    page.wait_for_selector(f"h2:has-text('{order.user.email}')")
    operator.picture("find")
    row = page.locator(f"tr:has-text('{order.order_number}')").first
    button = row.get_by_role("button")
    assert button.get_attribute("aria-expanded") == "false"
    button.press("Enter")
    page.wait_for_selector(f"code:has-text('{order.pk}')")
    row.get_by_role("link", name="Open").press("Enter")
    page.wait_for_url(f"**{url(Order, 'change', order.pk)}")
    assert "Lines together" in operator.text()
    operator.picture("order")


def test_a_quarantined_row_is_retried(
    migrated: Database, operator: chromium.Visitor
) -> None:
    key = migrated.value(
        "UPDATE user_tables SET layout_data = '[]' WHERE id = (SELECT id FROM user_tables"
        " WHERE share_token IS NOT NULL LIMIT 1) RETURNING id"
    )
    page = operator.page
    operator.open(f"{reverse('admin:find')}?q={key}")
    assert "Make layout_data an object in the old application" in operator.text()
    page.click("text=Look at it, or retry")
    operator.picture("quarantine")
    page.get_by_role("button", name="Retry").press("Enter")
    page.wait_for_selector(".messagelist")
    assert "Not yet: user_tables" in operator.text(".messagelist")
    with migrated.superuser as owner:  # put right where nobody hears of it
        owner.execute("ALTER TABLE public.user_tables DISABLE TRIGGER USER")
        owner.execute(
            "UPDATE public.user_tables SET layout_data = '{\"models\": []}' WHERE id = %s",
            [key],
        )
    entry = Quarantine.objects.get(legacy_id=key)
    operator.open(url(Quarantine, "change", entry.pk))
    page.get_by_role("button", name="Retry").click()
    page.wait_for_selector(".messagelist")
    assert "1 of 1 released." in operator.text(".messagelist")
    assert Released.objects.filter(legacy_id=key).exists()
    assert Table.objects.filter(pk=key).exists()


def test_a_set_is_curated_with_the_keyboard(operator: chromium.Visitor) -> None:
    artist = factories.UserFactory(artist=True)
    some = [factories.AssetFactory(artist=artist, name=f"Wall {n}") for n in (1, 2, 3)]
    chosen = factories.AssetSetFactory(name="Ruins")
    page = operator.page
    operator.open(url(Asset, "changelist") + "?q=Wall")
    for asset in some:
        page.check(f"input[value='{asset.pk}']")
    page.select_option("select[name=action]", "into_set")
    page.click("button[name=index]")
    page.select_option("#id_into", str(chosen.pk))
    page.press("input[value=Add]", "Enter")
    page.wait_for_selector(".messagelist")
    assert operator.text(".messagelist") == "3 added to Ruins."
    operator.open(reverse("admin:catalogue_assetset_arrange", args=[chosen.pk]))
    button = page.get_by_role("button", name="Move Wall 3 up")
    button.press("Enter")
    button.press("Enter")
    assert page.evaluate("document.activeElement.textContent") == "↑"
    assert operator.text("#arranged") == "Wall 3 is now at place 1."
    operator.picture("set")
    page.click("input[value='Save the order']")
    page.wait_for_selector(".messagelist")
    items = AssetSetItem.objects.filter(asset_set=chosen).order_by("position")
    assert [item.asset.name for item in items] == ["Wall 3", "Wall 1", "Wall 2"]


def test_a_limit_is_met_and_the_error_read(operator: chromium.Visitor) -> None:
    session = factories.AnonymousSessionFactory(table_limit=1)
    factories.TableFactory(visitor=True, session=session)
    other = factories.TableFactory(visitor=True)
    page = operator.page
    operator.open(url(Table, "change", other.pk))
    page.fill("#id_session", str(session.pk))
    page.press("input[name=_save]", "Enter")
    page.wait_for_selector(".errorlist.nonfield")
    assert operator.text(".errorlist.nonfield").startswith(
        f"A visitor without an account may keep 1 active tables, and session {session.pk}"
    )
    assert page.input_value("#id_session") == str(session.pk)
    assert page.title().startswith("Error: ")
    operator.picture("limit")


def test_a_verification_is_asked_for_twice_and_followed(
    operator: chromium.Visitor, as_environment: None
) -> None:
    page = operator.page
    page.click("text=The move")
    page.click("text=Verify")
    assert "changes nothing but what waits to be settled" in operator.text()
    page.get_by_role("button", name="Verify").press("Enter")
    page.wait_for_selector("text=The verification has begun.")
    page.wait_for_selector("text=checks passed,")
    operator.picture("move")


# --- for everybody ---------------------------------------------------------------------------


def test_no_page_keeps_anybody_out(
    migrated: Database, operator: chromium.Visitor
) -> None:
    if not chromium.AXE:
        pytest.skip("AXE does not name the file of axe-core: npm pack axe-core")
    asset = factories.AssetFactory(dimensions_mm={"width": 120, "depth": 80})
    layout = {
        "models": [
            {"asset_id": str(asset.pk), "position": {"x": 200, "y": 0, "z": 300}}
        ]
    }
    table = factories.TableFactory(
        width=1200, depth=900, layout=layout, share_code="everybody"
    )
    curating.add_to_library(table, [asset])
    chosen = factories.AssetSetFactory()
    curating.add_to_set(chosen, [asset])
    migrated.execute(
        "UPDATE user_tables SET layout_data = '[]' WHERE id = (SELECT id FROM user_tables"
        " LIMIT 1)"
    )
    entry = Quarantine.objects.all()[0]
    order = Order.objects.filter(items__isnull=False, payments__isnull=False)[0]
    found = {}
    for name, path in {
        "index": reverse("admin:index"),
        "move": reverse("admin:move"),
        "confirm": reverse("admin:move_act", args=["verify"]),
        "found order": f"{reverse('admin:find')}?q={order.order_number}",
        "found address": f"{reverse('admin:find')}?q={order.customer_email}",
        "found nothing": f"{reverse('admin:find')}?q=nothing",
        "held": f"{reverse('admin:find')}?q={entry.legacy_id}",
        "order": url(Order, "change", order.pk),
        "orders": url(Order, "changelist"),
        "table": url(Table, "change", table.pk),
        "quarantine": url(Quarantine, "changelist"),
        "quarantined": url(Quarantine, "change", entry.pk),
        "set": url(AssetSet, "change", chosen.pk),
        "arrange": reverse("admin:catalogue_assetset_arrange", args=[chosen.pk]),
    }.items():
        operator.open(path)
        found[name] = operator.barriers()
        if name in ("table", "index"):
            operator.picture(name)
    barriers = [f"{name}: {each}" for name, some in found.items() for each in some]
    assert not barriers, "\n".join(barriers)


# --- helpers ---------------------------------------------------------------------------------


class migrating:
    """``migrate`` in a process of its own, which does not outlive the block."""

    def __init__(self, shop: Database) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "migrate", "-v", "0"],
            cwd=settings.BASE_DIR,
            env={"PATH": "/usr/bin:/bin", "DATABASE_URL": shop.url, "SECRET_KEY": "x"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> subprocess.Popen[str]:
        return self.process

    def __exit__(self, *error: object) -> None:
        with self.process:  # which waits for it, and closes its pipe
            if error[0] is not None:
                self.process.kill()


def wait_for(process: subprocess.Popen[str], shop: Database, query: str) -> None:
    """Until a question about the database is answered with yes, while a process runs."""
    asked = shop.connect()
    while not asked.execute(query).fetchone()[0]:  # type: ignore[arg-type,index]
        assert process.poll() is None, process.communicate()[0]
        asked.execute("SELECT pg_sleep(0.05)")  # where it costs nothing
