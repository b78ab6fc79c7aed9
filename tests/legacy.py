"""Legacy rows written by hand, as short as a test can say them.

A name such as ``#ann`` stands for an id: always the same, and put back by ``named`` in
what a query returns, so that expectations can be read.
"""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql as pg

from terrain.legacy import sample
from tests.conftest import OLD_ROLE

Row = dict[str, Any]
#: Everything happened then, unless a test says otherwise.
THEN = "2024-01-01 12:00:00"

_names: dict[uuid.UUID, str] = {}
_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def key(name: str) -> uuid.UUID:
    """The id that ``name`` (with its #) stands for."""
    made = uuid.uuid5(uuid.NAMESPACE_OID, name)
    _names[made] = name
    return made


def ids(text: str) -> str:
    """``text`` with the ids in the place of the names."""
    return re.sub(r"#[a-z0-9_]+", lambda match: str(key(match.group())), text)


def named(value: Any) -> Any:
    """A result with the names in the place of the ids."""
    if isinstance(value, uuid.UUID):
        return _names.get(value, value)
    if isinstance(value, str):
        return re.sub(_UUID, lambda found: str(named(uuid.UUID(found.group()))), value)
    if isinstance(value, list | tuple):
        return type(value)(map(named, value))
    return value


def artist(name: str, email: str | None = None, **columns: Any) -> tuple[str, Row]:
    given = {
        "id": name,
        "email": f"{name[1:]}@artists.example" if email is None else email,
        "password_hash": "$2b$12$none",
        "name": name[1:].title(),
        "status": "active",
    }
    return "artists", {**given, "created_at": THEN, "updated_at": THEN, **columns}


def model(name: str, artist: str, price: Any = "3.33", **columns: Any) -> Any:
    given = {"id": name, "artist_id": artist, "name": name[1:].title()}
    given |= {"base_price": price, "file_paths": {"glb": "m.glb"}}
    return "assets", {**given, "created_at": THEN, "updated_at": THEN, **columns}


def table(name: str, email: str | None, config: Any = None, **columns: Any) -> Any:
    given = {"id": name, "user_email": email, "name": name[1:].title()}
    given |= {"table_config": {} if config is None else config, "layout_data": {}}
    return "user_tables", {**given, "created_at": THEN, "updated_at": THEN, **columns}


def example(name: str, artist: str, config: Any = None, **columns: Any) -> Any:
    given = {"id": name, "artist_id": artist, "name": name[1:].title()}
    given |= {"table_config": {} if config is None else config, "layout_data": {}}
    return "example_tables", {**given, "created_at": THEN, **columns}


def order(
    name: str,
    items: Any = (),
    subtotal: Any = None,
    email: str = "buyer@shop.example",
    **columns: Any,
) -> tuple[str, Row]:
    pricing = {"total": "9.99"}
    if subtotal is not None:
        pricing["model_subtotal"] = subtotal
    given = {"id": name, "order_number": name[1:], "user_email": email}
    given |= {"user_name": "Buyer", "shipping_address": {}, "pricing": pricing}
    given["items"] = list(items) if isinstance(items, tuple) else items
    return "orders", {**given, "created_at": THEN, "updated_at": THEN, **columns}


def transfer(
    name: str, order: str, artist: str, amount: Any = "2.66", **columns: Any
) -> tuple[str, Row]:
    given = {"id": name, "order_id": order, "artist_id": artist, "amount": amount}
    given["stripe_transfer_id"] = f"tr_{name[1:]}"
    return "stripe_transfers", {**given, "created_at": THEN, **columns}


class Written(str):
    """JSON exactly as it is written: ``2.0`` stays that."""


_JSON = (
    "items",
    "pricing",
    "shipping_address",
    "table_config",
    "layout_data",
    "file_paths",
)


def insert(connection: psycopg.Connection[Any], *rows: tuple[str, Row]) -> None:
    """Insert rows as the old application would."""
    for into, row in rows:
        values = [_value(column, value) for column, value in row.items()]
        connection.execute(
            pg.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                pg.Identifier(into),
                pg.SQL(", ").join(map(pg.Identifier, row)),
                pg.SQL(", ").join([pg.Placeholder()] * len(row)),
            ),
            values,
        )


def _value(column: str, value: Any) -> Any:
    if column in _JSON and not isinstance(value, Written):
        value = json.dumps(value)
    return ids(value) if isinstance(value, str) else value


def legacy_schema(connection: psycopg.Connection[Any]) -> None:
    """The legacy tables, empty, open to the old application."""
    schema = Path(sample.__file__).parent / "schema.sql"
    connection.execute(schema.read_text())  # type: ignore[arg-type]
    connection.execute(
        f"GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public"
        f" TO {OLD_ROLE}"
    )
