"""Who sees what at the addresses that are no admin pages."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission
from django.test import Client

from catalogue.models import Asset, AssetUsage, UsageSource
from catalogue.views import NOT_YOURS, SIGN_IN
from terrain.models import User

pytestmark = pytest.mark.django_db

TODAY = datetime.datetime.now(datetime.UTC).date()


@pytest.fixture
def clients() -> dict[str, Client]:
    """Who -> a client that is signed in as such; two artists with an asset each."""
    people: dict[str, User | None] = {
        "superuser": User.objects.create_superuser("super@shop.example"),
        "staff": User.objects.create_user("staff@shop.example", role=User.Role.ADMIN),
        "reader": User.objects.create_user("reader@shop.example", role=User.Role.ADMIN),
        "artist": User.objects.create_user("ann@shop.example", role=User.Role.ARTIST),
        "other": User.objects.create_user("bob@shop.example", role=User.Role.ARTIST),
        "suspended": User.objects.create_user(
            "eve@shop.example", role=User.Role.ARTIST, status=User.Status.SUSPENDED
        ),
        "customer": User.objects.create_user("c@shop.example"),
        "anonymous": None,
    }
    reader = people["reader"]
    assert reader is not None
    reader.user_permissions.add(Permission.objects.get(codename="view_assetusage"))
    for name in ("artist", "other"):
        asset = Asset.objects.create(artist=people[name], name=name, file_ref="a.stl")
        AssetUsage.objects.create(
            asset=asset, day=TODAY, source=UsageSource.LAYOUT, adds=1, uses=2
        )
    made = {}
    for name, user in people.items():
        made[name] = Client(REMOTE_ADDR="203.0.113.1")
        if user is not None:
            made[name].force_login(user, "django.contrib.auth.backends.ModelBackend")
    return made


def names(found: Any) -> set[str]:
    """The names of the assets whose usage an answer tells."""
    keys = [row["asset"] for row in found["usage"]]
    return set(Asset.objects.filter(pk__in=keys).values_list("name", flat=True))


@pytest.mark.parametrize(
    ("who", "status", "seen"),
    [
        ("superuser", 200, {"artist", "other"}),
        ("reader", 200, {"artist", "other"}),
        ("staff", 200, set()),
        ("artist", 200, {"artist"}),
        ("other", 200, {"other"}),
        ("suspended", 401, SIGN_IN),
        ("customer", 403, NOT_YOURS),
        ("anonymous", 401, SIGN_IN),
    ],
)
def test_usage(clients: dict[str, Client], who: str, status: int, seen: Any) -> None:
    response = clients[who].get("/usage")
    found = json.loads(response.content)
    assert response.status_code == status
    assert (names(found) if status == 200 else found["error"]) == seen


def test_asking_for_anothers_asset_tells_an_artist_nothing(
    clients: dict[str, Client],
) -> None:
    asset = Asset.objects.get(name="other")
    found = clients["artist"].get("/usage", {"asset": str(asset.pk)}).json()
    assert found["usage"] == []
    found = clients["superuser"].get("/usage", {"asset": str(asset.pk)}).json()
    assert found == {
        "since": (TODAY - datetime.timedelta(days=29)).isoformat(),
        "until": TODAY.isoformat(),
        "complete": True,
        "usage": [
            {
                "asset": str(asset.pk),
                "day": TODAY.isoformat(),
                "source": "layout",
                "adds": 1,
                "removals": 0,
                "uses": 2,
            }
        ],
    }


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"since": "yesterday"}, "since is a day, written like 2026-01-31."),
        ({"until": "2026-02-30"}, "until is a day, written like 2026-01-31."),
        ({"asset": "'; --"}, "asset is the id of an asset: 32 hexadecimal digits."),
        ({"asset": "\x00"}, "asset is the id of an asset: 32 hexadecimal digits."),
    ],
)
def test_what_cannot_be_read_is_a_sentence(
    clients: dict[str, Client], query: dict[str, str], sentence: str
) -> None:
    response = clients["superuser"].get("/usage", query)
    assert (response.status_code, response.json()) == (400, {"error": sentence})


def test_the_first_day_there_is(clients: dict[str, Client]) -> None:
    response = clients["superuser"].get("/usage", {"until": "0001-01-01"})
    assert response.json()["usage"] == []


@pytest.mark.parametrize(
    "who", ["superuser", "staff", "artist", "customer", "anonymous"]
)
def test_metrics_are_for_programs_whoever_is_signed_in(
    clients: dict[str, Client], who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "METRICS_NETWORKS", ["127.0.0.0/8"])
    monkeypatch.setattr(settings, "METRICS_TOKEN", "a token")
    response = clients[who].get("/metrics")
    assert response.status_code == 403
    assert b"terrain_orders" not in response.content


@pytest.mark.parametrize(
    "who", ["superuser", "staff", "artist", "customer", "anonymous"]
)
def test_health_says_the_same_to_everybody(
    clients: dict[str, Client], who: str
) -> None:
    assert clients[who].get("/health/live").json() == {"status": "ok"}
    assert set(clients[who].get("/health/ready").json()) == {"status"}
