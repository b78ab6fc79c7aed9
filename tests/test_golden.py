"""What the mapping should mean: the golden rows of ``golden.py``, and passwords."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import bcrypt
import pytest
from django.contrib.auth import authenticate
from django.core.management import call_command
from django.db import connection

from terrain.embedded import OWNER
from terrain.hashers import LegacyBCryptPasswordHasher
from terrain.legacy import cut_over, search_path
from terrain.models import User
from tests import golden
from tests.conftest import Database, filled, pointed_at
from tests.golden import Case
from tests.legacy import artist, ids, insert, key, legacy_schema, named

pytestmark = pytest.mark.migration

CASES = (
    *golden.ADDRESSES,
    *golden.ACCOUNTS,
    *golden.MODELS,
    *golden.PRICES,
    *golden.ITEMS,
    *golden.HELD_ORDERS,
    *golden.TABLES,
    *golden.FLAGGED,
)


@pytest.fixture(
    scope="module", params=["copied", "written since", "written since the cut-over"]
)
def golden_shop(
    request: pytest.FixtureRequest,
    cluster: Any,
    create_database: Callable[..., str],
    drop_database: Callable[[str], None],
    django_db_blocker: Any,
) -> Iterator[Database]:
    """The golden rows, there before the migration, or written after it, or yet later."""
    database = Database(cluster, create_database())
    legacy_schema(database.connect(OWNER, "public"))
    database.close()
    with django_db_blocker.unblock(), pointed_at(database.name):
        if request.param != "copied":
            call_command("migrate", verbosity=0)
        if request.param == "written since the cut-over":
            cut_over.cut_over(connection)
            search_path.extend(connection)
        old = database.old()
        insert(old, *golden.STOCK)
        for case in CASES:
            insert(old, *case.given)
        database.close()
        if request.param == "copied":
            call_command("migrate", verbosity=0)
        call_command("settle", verbosity=0)
    yield database
    drop_database(database.name)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_golden(golden_shop: Database, case: Case) -> None:
    with golden_shop.new() as asked:
        answer = asked.execute(
            filled(asked, ids(case.ask))  # type: ignore[arg-type]
        ).fetchall()
    assert [tuple(map(named, row)) for row in answer] == [
        tuple(map(named, map(_as_found, row))) for row in case.answer
    ]


def _as_found(value: Any) -> Any:
    """``#name`` alone may be an id or, in JSON, its text."""
    return ids(value) if isinstance(value, str) else value


# --- passwords -----------------------------------------------------------------------------

#: 73 letters, in 74 bytes: bcrypt reads 72 of them, and so breaks the é in two.
LONG = "x" * 71 + "é" + "y"


@pytest.fixture
def bcrypt_as_in_production(settings: Any) -> None:
    settings.PASSWORD_HASHERS = [
        "terrain.hashers.LegacyBCryptPasswordHasher",
        "django.contrib.auth.hashers.PBKDF2PasswordHasher",
    ]


def old_hash(password: str) -> str:
    """As the old application hashes, with fewer rounds."""
    cut = password.encode()[:72]
    return bcrypt.hashpw(cut, bcrypt.gensalt(4)).decode()


def old_accepts(database: Database, name: str, password: str) -> bool:
    stored = database.value(
        "SELECT password_hash FROM artists WHERE id = %s", key(name)
    )
    return bcrypt.checkpw(password.encode()[:72], stored.encode())


@pytest.fixture
def signing_in(migrated: Database, bcrypt_as_in_production: None) -> Database:
    insert(
        migrated.old(),
        artist("#ann", "Ann@sign.example", password_hash=old_hash("secret")),
        artist("#long", "long@sign.example", password_hash=old_hash(LONG)),
    )
    return migrated


def test_an_artists_password_works_in_django(signing_in: Database) -> None:
    stored = signing_in.value(
        "SELECT password_hash FROM artists WHERE id = %s", key("#ann")
    )
    assert authenticate(username="Ann@sign.example", password="secret") is not None
    assert authenticate(username=" ANN@SIGN.EXAMPLE", password="secret") is not None
    assert authenticate(username="Ann@sign.example", password="Secret") is None
    # Signing in writes nothing that the old application reads.
    assert stored == signing_in.value(
        "SELECT password_hash FROM artists WHERE id = %s", key("#ann")
    )


def test_passwords_are_cut_at_72_bytes_as_bcrypt_does(signing_in: Database) -> None:
    assert authenticate(username="long@sign.example", password=LONG) is not None
    other_tail = "x" * 71 + "éz"
    assert authenticate(username="long@sign.example", password=other_tail) is not None
    assert authenticate(username="long@sign.example", password="x" * 71) is None


def test_a_password_set_in_django_works_in_the_old_application(
    signing_in: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LegacyBCryptPasswordHasher, "rounds", 4)
    user = User.objects.get(pk=key("#ann"))
    user.set_password(LONG)
    user.save()
    assert old_accepts(signing_in, "#ann", LONG)
    assert not old_accepts(signing_in, "#ann", "secret")
    assert authenticate(username="ann@sign.example", password=LONG) == user


@pytest.mark.parametrize(
    "status, active", [("active", True), ("invited", False), ("suspended", False)]
)
def test_active_means_status_active(
    signing_in: Database, status: str, active: bool
) -> None:
    signing_in.old().execute(
        "UPDATE artists SET status = %s WHERE id = %s", [status, key("#ann")]
    )
    user = authenticate(username="ann@sign.example", password="secret")
    assert (user is not None) == active


@pytest.mark.parametrize("role, staff", [("admin", True), ("artist", False)])
def test_an_administrator_is_staff_and_nothing_more(
    signing_in: Database, role: str, staff: bool
) -> None:
    signing_in.old().execute(
        "UPDATE artists SET role = %s WHERE id = %s", [role, key("#ann")]
    )
    user = User.objects.get(pk=key("#ann"))
    assert (user.is_staff, user.is_superuser) == (staff, False)


def test_a_customer_has_no_password_until_they_reset_it(
    migrated: Database, bcrypt_as_in_production: None
) -> None:
    customer = User.objects.filter(role="customer").first()
    assert customer is not None
    assert not customer.has_usable_password()
    assert authenticate(username=customer.email, password="") is None
    assert authenticate(username=customer.email, password="!") is None
