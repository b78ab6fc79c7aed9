"""Triggers and foreign keys that a shop may have of its own, on either side, drawn at random."""

from __future__ import annotations

import random

from tests.interleaving import MODELS


def _trigger(
    name: str, table: str, when: str, body: str, *, deferred: bool = False
) -> str:
    kind, how = (
        ("CONSTRAINT TRIGGER", "DEFERRABLE INITIALLY DEFERRED")
        if deferred
        else ("TRIGGER", "")
    )
    result = "RETURN NEW;" if when.startswith("BEFORE") else "RETURN NULL;"
    return (
        f"CREATE FUNCTION public.{name}_f() RETURNS trigger LANGUAGE plpgsql"
        f" AS $$ BEGIN {body} {result} END $$;"
        f" CREATE {kind} {name} {when} ON {table} {how}"
        f" FOR EACH ROW EXECUTE FUNCTION public.{name}_f()"
    )


def _before(name: str, table: str, when: str, body: str) -> str:
    return _trigger(name, table, f"BEFORE {when}", body)


def _after(
    name: str, table: str, when: str, body: str, *, deferred: bool = False
) -> str:
    return _trigger(name, table, f"AFTER {when}", body, deferred=deferred)


def _references(table: str, column: str, to: str, name: str) -> str:
    return (
        f"ALTER TABLE @legacy.{table} DROP CONSTRAINT IF EXISTS {name},"
        f" ADD CONSTRAINT {name} FOREIGN KEY ({column}) REFERENCES @legacy.{to}"
        " ON UPDATE CASCADE ON DELETE CASCADE NOT VALID"
    )


_IS_LIST = "jsonb_typeof(NEW.items) = 'array' AND jsonb_array_length(NEW.items) ="

#: Named so that some fire before ours (``a_``) and some after (``zzz_``).
OWN: tuple[str, ...] = (
    # Legacy tables: the row itself, before it is written.
    _before(
        "b_notes",
        "@legacy.orders",
        "INSERT OR UPDATE",
        "NEW.notes := 'is ' || coalesce(NEW.status, '');",
    ),
    _before(
        "b_views",
        "@legacy.assets",
        "UPDATE",
        "NEW.view_count := OLD.view_count + 1;",
    ),
    _before(
        "b_upper",
        "@legacy.user_tables",
        "INSERT OR UPDATE",
        "NEW.name := upper(NEW.name);",
    ),
    _before(
        "b_extra",
        "@legacy.orders",
        "UPDATE",
        f"IF {_IS_LIST} 1 THEN"
        """ NEW.items := NEW.items || '[{"asset_id": "extra", "quantity": 1}]'; END IF;""",
    ),
    # The row once more, or others, after it.
    *(
        _after(
            name,
            "@legacy.orders",
            "INSERT OR UPDATE",
            "UPDATE @legacy.orders SET tracking_number = 't'"
            " WHERE id = NEW.id AND tracking_number IS NULL;",
        )
        for name in ("a_track", "zzz_track")
    ),
    _after(
        "a_gift",
        "@legacy.orders",
        "INSERT OR UPDATE OF items",
        f"IF {_IS_LIST} 2 THEN UPDATE @legacy.orders SET items = items ||"
        f""" '[{{"asset_id": "{MODELS[0]}", "quantity": 3}}]' WHERE id = NEW.id; END IF;""",
    ),
    _after(
        "a_popular",
        "@legacy.artists",
        "UPDATE",
        "UPDATE @legacy.assets SET purchase_count = purchase_count + 1 WHERE artist_id = NEW.id;",
    ),
    _after(
        "zzz_bio",
        "@legacy.assets",
        "UPDATE",
        "UPDATE @legacy.artists SET bio = NEW.name"
        " WHERE id = NEW.artist_id AND bio IS DISTINCT FROM NEW.name;",
    ),
    _after(
        "a_left",
        "@legacy.orders",
        "DELETE",
        "UPDATE @legacy.orders SET notes = 'without ' || OLD.order_number WHERE id <> OLD.id"
        " AND notes IS DISTINCT FROM 'without ' || OLD.order_number;",
    ),
    # New tables.
    _before(
        "b_farm",
        "@new.orders",
        "INSERT OR UPDATE",
        "NEW.print_farm_order_id := 'farm';",
    ),
    _before(
        "b_short",
        "@new.models",
        "INSERT OR UPDATE",
        "NEW.name := left(upper(NEW.name), 20);",
    ),
    _before("b_trim", "@new.tables", "UPDATE", "NEW.name := trim(NEW.name);"),
    _before("b_hand", "@new.users", "UPDATE", "NEW.bio := 'b';"),
    _before(
        "b_color",
        "@new.order_items",
        "INSERT OR UPDATE",
        "NEW.print_color := 'red';",
    ),
    _before(
        "b_most",
        "@new.order_items",
        "INSERT",
        "IF NEW.quantity > 2 THEN NEW.quantity := 2; END IF;",
    ),
    _after(
        "a_pla",
        "@new.order_items",
        "INSERT OR UPDATE",
        "UPDATE @new.order_items SET print_material = 'pla'"
        " WHERE id = NEW.id AND print_material IS NULL;",
    ),
    _after(
        "zzz_has",
        "@new.order_items",
        "INSERT",
        "UPDATE @new.orders SET notes = 'has ' || NEW.position WHERE id = NEW.order_id;",
    ),
    _after(
        "a_genre",
        "@new.models",
        "UPDATE",
        "UPDATE @new.models SET genre = 'g' WHERE id <> NEW.id AND genre IS DISTINCT FROM 'g';",
    ),
    _after(
        "zzz_mark",
        "@new.tables",
        "INSERT OR UPDATE",
        "UPDATE @new.tables SET name = 'n' || name WHERE id = NEW.id AND name NOT LIKE 'n%';",
    ),
    _after(
        "a_more",
        "@new.order_items",
        "DELETE",
        "UPDATE @new.order_items SET quantity = quantity + 1"
        " WHERE order_id = OLD.order_id AND quantity < 3;",
    ),
    _after(
        "a_open",
        "@new.tables",
        "INSERT OR UPDATE",
        "UPDATE @new.tables SET is_public = true WHERE id <> NEW.id AND NOT is_public;",
    ),
    # At the commit.
    _after(
        "at_end",
        "@legacy.orders",
        "INSERT OR UPDATE",
        "UPDATE @legacy.orders SET paypal_payment_id = 'd'"
        " WHERE id = NEW.id AND paypal_payment_id IS NULL;",
        deferred=True,
    ),
    _after(
        "at_end_too",
        "@new.orders",
        "INSERT OR UPDATE",
        "UPDATE @new.orders SET stripe_payment_id = 'e'"
        " WHERE id = NEW.id AND stripe_payment_id IS NULL;",
        deferred=True,
    ),
    # What the shop's foreign keys do.
    _references(
        "stripe_transfers",
        "order_id",
        "orders (id)",
        "stripe_transfers_order_id_fkey",
    ),
    _references("assets", "artist_id", "artists (id)", "assets_artist_id_fkey"),
    _references(
        "example_tables", "artist_id", "artists (id)", "example_tables_artist_id_fkey"
    ),
    _references("artists", "stripe_account_id", "artists (email)", "artists_own_fkey"),
)


def drawn(seed: int) -> list[str]:
    """One to four of them."""
    random_ = random.Random(seed)
    return random_.sample(OWN, random_.randint(1, 4))
