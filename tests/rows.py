"""Legacy rows of every table, from tame to hostile, for Hypothesis.

They are written as PostgreSQL text, so that anything the legacy columns can hold can be
said: NaN, infinity, BC, numbers with trailing zeros, JSON of every shape.
"""

from __future__ import annotations

import json
import string
import uuid
from typing import Any

from hypothesis import strategies as st

#: What PostgreSQL's text can hold: anything but NUL and lone surrogates.
TEXT = st.text(
    st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=12
)
SHORT = st.text(string.ascii_letters + string.digits + " .-_'\"\\\t\n", max_size=20)


class Literal(str):
    """JSON text that is put in as it is: 2.0 stays 2.0, 1e400 is possible."""


def dump(value: Any) -> str:
    """JSON, with :class:`Literal` put in as it is."""
    if isinstance(value, Literal):
        return str(value)
    if isinstance(value, dict):
        return "{%s}" % ",".join(f"{json.dumps(k)}:{dump(v)}" for k, v in value.items())
    if isinstance(value, list):
        return "[%s]" % ",".join(map(dump, value))
    return json.dumps(value)


NUMBERS = st.one_of(
    st.integers(-10, 10),
    st.integers(-(2**40), 2**40),
    st.sampled_from(
        [
            Literal(text)
            for text in (
                "2.0",
                "2.50",
                "0",
                "-0",
                "1e3",
                "1E400",
                "1e-7",
                "0.1",
                "1.005",
                "99999999999999999999.99",
                "2147483647",
                "2147483648",
                "-1",
                "12.5",
                "12.500",
            )
        ]
    ),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT, SHORT)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=4)


def with_keys(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object that has each of the keys or not, and whatever else."""
    known = st.fixed_dictionaries({}, optional=keys)
    return st.builds(lambda a, b: {**a, **b}, OBJECTS, known)


UUIDS = st.uuids()
#: Ids as they are found in JSON: of the shop's models, of nobody's, spelled oddly, no ids.
ASSET_IDS = st.one_of(
    UUIDS.map(str),
    UUIDS.map(lambda key: str(key).upper()),
    UUIDS.map(lambda key: "{%s}" % key),
    UUIDS.map(lambda key: key.hex),
    st.sampled_from(["", "nope", "00000000-0000-0000-0000-00000000000", " "]),
    JSON,
)
QUANTITIES = st.one_of(st.integers(1, 9), st.integers(1, 9), NUMBERS, SCALARS)
GOOD_QUANTITIES = st.one_of(
    st.integers(1, 2_147_483_647), st.integers(1, 9).map(lambda n: Literal(f"{n}.0"))
)
PRICES = st.one_of(
    st.decimals(0, 1000, places=2).map(lambda price: Literal(str(price))),
    st.decimals(0, 1000, places=2).map(str),
    st.sampled_from(["-1", "NaN", "1.999", "free", " 1", ".5", "1.", "007.50"]),
    NUMBERS,
    SCALARS,
)
PRINT_OPTIONS = st.one_of(
    with_keys(color=JSON, material=JSON, quality=JSON, notes=JSON),
    with_keys(color=TEXT, material=TEXT, quality=TEXT, notes=TEXT),
    JSON,
)


def line(quantities: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An element of ``orders.items``."""
    known = st.fixed_dictionaries(
        {"quantity": quantities},
        optional={
            "asset_id": ASSET_IDS,
            "printOptions": PRINT_OPTIONS,
            "unit_price": PRICES,
            "price": PRICES,
        },
    )
    return st.builds(lambda a, b: {**a, **b}, OBJECTS, known)


GOOD_ITEMS = st.lists(line(GOOD_QUANTITIES), max_size=4)
ITEMS = st.one_of(
    GOOD_ITEMS, st.lists(st.one_of(line(QUANTITIES), JSON), max_size=3), JSON
)
PRICING = st.one_of(
    with_keys(model_subtotal=PRICES, total=PRICES, shipping=PRICES), JSON
)
TIMESTAMPS = st.one_of(
    st.datetimes().map(lambda moment: moment.isoformat(sep=" ")),
    st.sampled_from(
        [
            "infinity",
            "-infinity",
            "0044-03-15 BC",
            "12026-01-01",
            "0001-01-01",
            "294276-12-31",
        ]
    ),
)
AMOUNTS = st.one_of(
    st.decimals(-100, 99_999_999, places=2).map(str),
    st.sampled_from(["NaN", "0", "-0.01"]),
)
EMAILS = st.one_of(
    st.from_regex(r"[a-zA-Z.]{1,8}@[a-zA-Z]{1,8}\.(com|CO\.UK)", fullmatch=True),
    st.from_regex(r"[ \t\n]?[a-z]{1,3}@[a-z]{1,3}[ \t\n]?", fullmatch=True),
    TEXT,
    st.sampled_from(["", " ", "@", "a@b@c", "a b@c", "İ@x", "\u00a0nb@sp.com\u3000"]),
)
ARRAYS = st.one_of(
    st.lists(st.one_of(st.none(), TEXT), max_size=3),
    st.sampled_from([[["a", "b"], ["c", "d"]], [["x"]]]),
)
MAYBE_TEXT = st.one_of(st.none(), TEXT)
STATUS = st.sampled_from(["draft", "published", "archived"])

Row = dict[str, Any]


def _json(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    return strategy.map(dump)


def _maybe_json(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[str | None]:
    return st.one_of(st.none(), strategy.map(dump))


def artists() -> st.SearchStrategy[Row]:
    return st.fixed_dictionaries(
        {
            "id": UUIDS,
            "email": st.builds(lambda mail, key: f"{mail}{key.hex[:6]}", EMAILS, UUIDS),
            "password_hash": st.one_of(
                SHORT, st.just("$2b$12$" + "x" * 53), st.just("bcrypt$$2b")
            ),
            "name": TEXT,
            "bio": MAYBE_TEXT,
            "profile_image_url": MAYBE_TEXT,
            "banner_image_url": MAYBE_TEXT,
            "stripe_account_id": MAYBE_TEXT,
            "stripe_onboarding_complete": st.booleans(),
            "invite_code": MAYBE_TEXT,
            "status": st.sampled_from(["invited", "active", "suspended"]),
            "role": st.sampled_from(["artist", "admin"]),
            "commission_rate": st.sampled_from(["0.8", "1.000", "NaN", "-1.5", "0"]),
            "created_at": TIMESTAMPS,
            "updated_at": TIMESTAMPS,
        }
    )


def assets(artist: uuid.UUID) -> st.SearchStrategy[Row]:
    return st.fixed_dictionaries(
        {
            "id": UUIDS,
            "artist_id": st.just(artist),
            "name": TEXT,
            "description": MAYBE_TEXT,
            "base_price": AMOUNTS,
            "genre": MAYBE_TEXT,
            "categories": ARRAYS,
            "tags": ARRAYS,
            "aabb": _maybe_json(JSON),
            "footprint": _maybe_json(JSON),
            "file_paths": _json(JSON),
            "print_recommendations": _maybe_json(JSON),
            "print_stats": _maybe_json(JSON),
            "status": STATUS,
            "view_count": st.integers(-(2**31), 2**31 - 1),
            "purchase_count": st.integers(-(2**31), 2**31 - 1),
            "created_at": TIMESTAMPS,
            "updated_at": TIMESTAMPS,
        }
    )


CONFIG = st.one_of(with_keys(width=st.one_of(NUMBERS, JSON), depth=NUMBERS), JSON)


def user_tables() -> st.SearchStrategy[Row]:
    return st.fixed_dictionaries(
        {
            "id": UUIDS,
            "user_email": st.one_of(st.none(), EMAILS),
            "name": TEXT,
            "table_config": _json(CONFIG),
            "layout_data": _json(st.one_of(OBJECTS, OBJECTS, JSON)),
            "share_token": st.one_of(st.none(), UUIDS.map(str)),
            "is_public": st.booleans(),
            "created_at": TIMESTAMPS,
            "updated_at": TIMESTAMPS,
        }
    )


def example_tables(artist: uuid.UUID) -> st.SearchStrategy[Row]:
    return st.fixed_dictionaries(
        {
            "id": UUIDS,
            "artist_id": st.just(artist),
            "name": TEXT,
            "description": MAYBE_TEXT,
            "thumbnail_url": MAYBE_TEXT,
            "table_config": _json(CONFIG),
            "layout_data": _json(st.one_of(OBJECTS, JSON)),
            "is_featured": st.booleans(),
            "view_count": st.integers(-5, 5),
            "created_at": TIMESTAMPS,
        }
    )


def orders() -> st.SearchStrategy[Row]:
    return st.fixed_dictionaries(
        {
            "id": UUIDS,
            "order_number": UUIDS.map(str),
            "user_email": EMAILS,
            "user_name": TEXT,
            "shipping_address": _json(JSON),
            "items": _json(ITEMS),
            "pricing": _json(PRICING),
            "status": st.sampled_from(["paid", "shipped", "", "whatever"]),
            "print_farm_order_id": MAYBE_TEXT,
            "stripe_payment_id": MAYBE_TEXT,
            "paypal_payment_id": MAYBE_TEXT,
            "tracking_number": MAYBE_TEXT,
            "notes": MAYBE_TEXT,
            "created_at": TIMESTAMPS,
            "updated_at": TIMESTAMPS,
        }
    )


def stripe_transfers(order: uuid.UUID, artist: uuid.UUID) -> st.SearchStrategy[Row]:
    return st.fixed_dictionaries(
        {
            "id": UUIDS,
            "order_id": st.just(order),
            "artist_id": st.just(artist),
            "stripe_transfer_id": st.one_of(TEXT, st.just("failed")),
            "amount": AMOUNTS,
            "status": st.sampled_from(["pending", "completed", "failed"]),
            "created_at": TIMESTAMPS,
        }
    )
