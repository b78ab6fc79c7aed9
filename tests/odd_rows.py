"""Legacy rows by hand, one for each thing a page could stumble over."""

from __future__ import annotations

import json
import uuid

from tests.conftest import Database

MARKUP = "<script>alert(1)</script>&amp;\"'"
RTL = "\u202eשלום עולם مرحبا\u202c"
CONTROL = "tab\tnewline\nreturn\r\u0001"
LONG = ("Line of notes, äöü €\r\n" * 5000)[:100_000]
NUMBERS = (
    '{"a": 1.10, "b": 2.0, "c": 1e400, "d": 123456789012345678901234567890,'
    ' "e": 99999999999999999999.99, "f": -0.0, "n": null, "t": true}'
)
LONG_NUMBER = '{"n": %s}' % ("9" * 5000)
DEEP = "[" * 2000 + "]" * 2000
HUGE = json.dumps({"text": ["x" * 100] * 4000})
HASHES = (
    "",
    "$2b$12$short",
    "$2b$",
    "bcrypt$$2b$12$x",
    "pbkdf2_sha256$zzz",
    "md5$a",
    "plain text",
    "x" * 32,
    "!",
    MARKUP,
)
DATES = ("infinity", "-infinity", "0044-03-15 BC", "12026-01-01", "0001-01-01")

ARTIST = uuid.UUID("10000000-0000-0000-0000-000000000000")


def _id(kind: int, number: int) -> uuid.UUID:
    return uuid.UUID(int=(kind << 120) + number + 1)


def insert(shop: Database) -> None:
    """Put them all in, as the old application would."""
    artists(shop)
    assets(shop)
    tables(shop)
    orders(shop)


def artists(shop: Database) -> None:
    statement = (
        "INSERT INTO artists (id, email, password_hash, name, bio, commission_rate,"
        " created_at, updated_at, status) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 'active')"
    )
    shop.execute(
        statement, ARTIST, "odd@x.org", "$2b$12$odd", "Odd", None, "0.8", *_now()
    )
    for number, hash_ in enumerate(HASHES):
        email = f"hash{number}@x.org"
        row = (_id(1, number), email, hash_, "", "", "0.8", *_now())
        shop.execute(statement, *row)
    for number, text in enumerate((MARKUP, RTL, CONTROL, "", " ", "a@b@c")):
        rate = "NaN" if number % 2 else "-1.5"
        key = _id(1, 100 + number)
        shop.execute(statement, key, text, "$2b$", text, LONG, rate, *_now())
    for number, date in enumerate(DATES):
        email = f"date{number}@x.org"
        row = (_id(1, 200 + number), email, "x", "D", None, "0.8", date, date)
        shop.execute(statement, *row)


def _now() -> tuple[str, str]:
    return "2024-05-01 10:00:00.123456", "2024-05-01 10:00:00"


def assets(shop: Database) -> None:
    statement = (
        "INSERT INTO assets (id, artist_id, name, base_price, categories, tags, aabb,"
        " footprint, file_paths, print_stats, view_count, purchase_count, created_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
    )
    odd = (
        (MARKUP, "NaN", "{NULL,a}", "{{a,b},{c,d}}", "null", None, "null", NUMBERS),
        (RTL, "-1", '{"a,b","[x"," y ",""}', "{}", NUMBERS, "[]", "[]", "0"),
        (CONTROL, "0", '{"line\nline"}', "[2:3]={a,b}", DEEP, LONG_NUMBER, "{}", '""'),
        ("", "0.01", "{}", "{NULL}", HUGE, NUMBERS, NUMBERS, NUMBERS),
    )
    for number, (name, price, categories, tags, *documents) in enumerate(odd):
        shop.execute(
            statement,
            _id(2, number),
            ARTIST,
            name,
            price,
            categories,
            tags,
            *documents,
            -5,
            -(2**31),
            DATES[number],
        )


def tables(shop: Database) -> None:
    user = (
        "INSERT INTO user_tables (id, user_email, name, table_config, layout_data,"
        " share_token, created_at, updated_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
    )
    config = '{"width": 2.0, "depth": "wide", "grid_size": 1.10}'
    layout = '{"models": %s, "n": %s}' % (DEEP, "9" * 5000)
    for number, date in enumerate(DATES):
        name = (MARKUP, RTL, CONTROL, "", LONG[:255])[number]
        email = (MARKUP, "", None, "Odd@x.org", " spaced@x.org ")[number]
        row = (config, (layout, NUMBERS, HUGE, "{}", "{}")[number], f"<{number}>")
        shop.execute(user, _id(3, number), email, name, *row, date, date)
    shop.execute(
        "INSERT INTO example_tables (id, artist_id, name, description, table_config,"
        " layout_data, view_count, created_at) VALUES (%s, %s, %s, %s, %s, %s, -1, %s)",
        _id(3, 100),
        ARTIST,
        MARKUP,
        LONG,
        NUMBERS,
        NUMBERS,
        DATES[0],
    )
    # Held, as neither has a layout.
    for number, document in enumerate(("[]", "1.10")):
        row = ("held@x.org", "Held", "{}", document, None, *_now())
        shop.execute(user, _id(3, 200 + number), *row)


def orders(shop: Database) -> None:
    statement = (
        "INSERT INTO orders (id, order_number, user_email, user_name, shipping_address,"
        " items, pricing, status, notes, created_at, updated_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
    )
    line = '{"asset_id": %s, "quantity": 2.0, "unit_price": 1.10, "printOptions": %s}'
    known = line % (f'"{_id(2, 0)}"', '{"color": "<b>", "notes": "a\\nb", "x": 1.10}')
    unknown = line % ('{"odd": 1e400}', "[1.10, null]")
    odd: tuple[tuple[str, ...], ...] = (
        (f"[{known}, {unknown}]", '{"total": "NaN", "model_subtotal": 2.20}', "paid"),
        (f"[{unknown}]", NUMBERS, "whatever"),
        ("[]", "null", ""),
        ("[%s]" % ", ".join([known] * 120), '"text"', MARKUP[:20]),
        ("{}", '{"total": -1}', "paid"),  # held
        ('[{"quantity": "two"}]', "[]", "paid"),  # held
    )
    for number, (items, pricing, status) in enumerate(odd):
        text = (MARKUP, RTL, CONTROL, "", " ", "six")[number]
        date = DATES[number % len(DATES)]
        address = (NUMBERS, "null", "[]", "1.10", HUGE, DEEP)[number]
        row = (f"{number}{text}"[:50], text, text, address, items, pricing, status)
        shop.execute(statement, _id(4, number), *row, LONG, date, date)
    for number, amount in enumerate(("NaN", "0", "-1.00", "0.10")):
        shop.execute(
            "INSERT INTO stripe_transfers (id, order_id, artist_id, stripe_transfer_id,"
            " amount, created_at) VALUES (%s, %s, %s, %s, %s, %s)",
            _id(5, number),
            _id(4, number),
            ARTIST,
            (MARKUP, "", "failed", RTL)[number],
            amount,
            DATES[number],
        )
