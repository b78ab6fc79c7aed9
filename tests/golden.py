"""Golden rows: what the mapping should mean, by hand, rule by rule of the design.

Every value expected here was worked out from the rule's words and written down; none
comes from an expression of the declaration, which, were it wrong, would agree with
itself.  ``test_golden.py`` asks each question of a shop that was copied, and of one that
the old application filled after the migration.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tests.legacy import Written, artist, example, model, order, table, transfer

Legacy = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """Legacy rows, a question to the new schema, and its answer."""

    name: str
    given: tuple[Legacy, ...]
    ask: str
    answer: list[tuple[Any, ...]]

    def __str__(self) -> str:
        return self.name


def pounds(text: str) -> Decimal:
    return Decimal(text)


#: What most orders are about.
STOCK = (
    artist("#maker"),
    model("#tower", "#maker", "3.33"),
    model("#bridge", "#maker", "10.00"),
    model("#free", "#maker", "0"),
    model("#free2", "#maker", "0"),
    model("#nan", "#maker", "NaN"),
    model("#owing", "#maker", "-1.00"),
)

# --- addresses -----------------------------------------------------------------------------

OWNERS = (
    "SELECT o.id, u.email, u.role FROM orders o LEFT JOIN users u ON u.id = o.user_id"
    " WHERE o.id IN ({}) ORDER BY o.order_number"
)


def owners(*names: str) -> str:
    return OWNERS.format(", ".join(f"'{name}'" for name in names))


ADDRESSES = (
    Case(
        "a customer is trimmed and in lower case, and one for all spellings",
        (
            order("#spelt1", email=" Ann.Buyer@Shop.Example\t"),
            order("#spelt2", email="ann.buyer@shop.example"),
            table("#spelt3", "\u00a0ANN.BUYER@SHOP.EXAMPLE\n"),
        ),
        "SELECT u.email, u.role, u.password_hash, o.customer_email, t.contact_email"
        "  FROM users u JOIN orders o ON o.user_id = u.id JOIN tables t ON t.user_id = u.id"
        " WHERE lower(u.email) LIKE '%ann.buyer%' ORDER BY o.order_number",
        [
            (
                "ann.buyer@shop.example",
                "customer",
                "!",
                " Ann.Buyer@Shop.Example\t",
                "\u00a0ANN.BUYER@SHOP.EXAMPLE\n",
            ),
            (
                "ann.buyer@shop.example",
                "customer",
                "!",
                "ann.buyer@shop.example",
                "\u00a0ANN.BUYER@SHOP.EXAMPLE\n",
            ),
        ],
    ),
    Case(
        "a customer is called what the first order says, and is as old as it",
        (
            order("#called1", email="cal@l.example", user_name="Later"),
            order(
                "#called2",
                email="cal@l.example",
                user_name="Earlier",
                created_at="2023-05-01 00:00",
            ),
            table("#called3", "cal@l.example", created_at="2023-06-01 00:00"),
        ),
        "SELECT display_name, created_at AT TIME ZONE 'UTC' = '2023-05-01', count(*) OVER ()"
        "  FROM users WHERE email = 'cal@l.example'",
        [("Earlier", True, 1)],
    ),
    Case(
        "the artist spelled exactly so comes first, then the oldest",
        (
            artist("#twin_new", "twin@x.example", created_at="2024-02-01 00:00"),
            artist("#twin_old", "Twin@X.example", created_at="2024-01-01 00:00"),
            order("#twin1", email="twin@x.example"),
            order("#twin2", email="Twin@X.example "),
            order("#twin3", email="TWIN@X.EXAMPLE"),
        ),
        owners("#twin1", "#twin2", "#twin3"),
        [
            ("#twin1", "twin@x.example", "artist"),
            ("#twin2", "Twin@X.example", "artist"),
            ("#twin3", "Twin@X.example", "artist"),
        ],
    ),
    Case(
        "artists whose addresses differ by case only are flagged, both",
        (),
        "SELECT legacy_id, kind FROM legacy_quarantine WHERE legacy_table = 'artists'"
        "   AND reason = 'address_differs_by_case'"
        " ORDER BY legacy_id = '#twin_new'",
        [("#twin_old", "flagged"), ("#twin_new", "flagged")],
    ),
    Case(
        "an artist who buys is no customer",
        (
            artist("#buyer", "Buys@Artists.example"),
            order("#bought", email="buys@artists.example"),
        ),
        "SELECT u.id, u.role, (SELECT count(*) FROM users c WHERE lower(c.email) ="
        " 'buys@artists.example') FROM orders o JOIN users u ON u.id = o.user_id"
        " WHERE o.id = '#bought'",
        [("#buyer", "artist", 1)],
    ),
    Case(
        "what is no address is kept as typed, and belongs to nobody",
        (
            order("#noaddr1", email="a@b@c.example"),
            order("#noaddr2", email="a b@c.example"),
            order("#noaddr3", email=""),
            order("#noaddr4", email=" nobody "),
            order("#noaddr5", email="@c.example"),
        ),
        "SELECT o.customer_email, o.user_id, (SELECT count(*) FROM users u"
        "   WHERE u.email = lower(o.customer_email)) FROM orders o"
        " WHERE o.order_number LIKE 'noaddr%' ORDER BY o.order_number",
        [
            ("a@b@c.example", None, 0),
            ("a b@c.example", None, 0),
            ("", None, 0),
            (" nobody ", None, 0),
            ("@c.example", None, 0),
        ],
    ),
    Case(
        "an artist's address need not be one, and is kept as typed",
        (artist("#odd", " Not An Address "),),
        "SELECT email, role FROM users WHERE id = '#odd'",
        [(" Not An Address ", "artist")],
    ),
    Case(
        "an order whose items are held still has its customer",
        (order("#heldbuy", {"not": "an array"}, email="held@buy.example"),),
        owners("#heldbuy"),
        [("#heldbuy", "held@buy.example", "customer")],
    ),
    Case(
        "a held table makes no customer",
        (table("#heldtable", "held@table.example", [1]),),
        "SELECT count(*) FROM users WHERE email = 'held@table.example'",
        [(0,)],
    ),
)

# --- accounts ------------------------------------------------------------------------------

ACCOUNTS = (
    Case(
        "an artist's columns, with name become display_name",
        (
            artist(
                "#full",
                bio="Likes hills",
                profile_image_url="p.png",
                banner_image_url="b.png",
                stripe_account_id="acct_1",
                stripe_onboarding_complete=True,
                invite_code="INV",
                status="suspended",
                commission_rate="0.725",
                created_at="2023-03-04 05:06:07.891011",
            ),
        ),
        "SELECT email, password_hash, display_name, bio, profile_image_url, banner_image_url,"
        " stripe_account_id, stripe_onboarding_complete, invite_code, status, role,"
        " commission_rate, (created_at AT TIME ZONE 'UTC')::text, is_superuser, last_login"
        " FROM users WHERE id = '#full'",
        [
            (
                "full@artists.example",
                "$2b$12$none",
                "Full",
                "Likes hills",
                "p.png",
                "b.png",
                "acct_1",
                True,
                "INV",
                "suspended",
                "artist",
                pounds("0.725"),
                "2023-03-04 05:06:07.891011",
                False,
                None,
            )
        ],
    ),
    Case(
        "an administrator is never a superuser by itself",
        (artist("#boss", role="admin"),),
        "SELECT role, is_superuser FROM users WHERE id = '#boss'",
        [("admin", False)],
    ),
)

# --- prices --------------------------------------------------------------------------------

LINES = (
    "SELECT i.unit_price, i.total_price, i.price_source FROM order_items i"
    " WHERE i.order_id = '{}' ORDER BY i.position"
)


def line(asset: str | None, quantity: Any = 1, **more: Any) -> dict[str, Any]:
    return {"asset_id": asset, "quantity": quantity, **more}


def priced(
    name: str,
    what: str,
    items: Any,
    subtotal: Any,
    *answer: tuple[str | None, str | None, str],
) -> Case:
    """Unit price, total and source of each line."""
    return Case(
        what,
        (order(name, items, subtotal),),
        LINES.format(name),
        [
            (unit and pounds(unit), total and pounds(total), source)
            for unit, total, source in answer
        ],
    )


def flags(what: str, *names_and_reasons: tuple[str, tuple[str, ...]]) -> Case:
    """The flags of orders given before, and no others."""
    asked = "', '".join(name for name, _ in names_and_reasons)
    return Case(
        what,
        (),
        "SELECT o.id, array(SELECT q.reason::text FROM legacy_quarantine q"
        "   WHERE q.legacy_table = 'orders' AND q.kind = 'flagged' AND q.legacy_id = o.id"
        "   ORDER BY 1) FROM orders o"
        f" WHERE o.id IN ('{asked}') ORDER BY o.order_number",
        [(name, list(reasons)) for name, reasons in sorted(names_and_reasons)],
    )


PRICES = (
    priced(
        "#own1",
        "a line's own unit_price counts, and its text price",
        (
            line("#tower", 2, unit_price=2.5),
            line("#tower", 1, price="4.20"),
            line("#tower", 3, unit_price=1, price=9),
            line(None, 1, unit_price="007.5"),
            line("#tower", 1, unit_price=0),
            line("#tower", 1, unit_price="free", price=0.3),
        ),
        Written("20.00"),
        ("2.50", "5.00", "own"),
        ("4.20", "4.20", "own"),
        ("1.00", "3.00", "own"),
        ("7.50", "7.50", "own"),
        ("0.00", "0.00", "own"),
        ("0.30", "0.30", "own"),
    ),
    *(
        priced(
            f"#insane{number}",
            f"a price of {price!r} is no price",
            (line("#tower", 1, unit_price=price),),
            "3.33",
            ("3.33", "3.33", "catalogue"),
        )
        for number, price in enumerate(
            [-1, "-1", "NaN", 1.999, " 1", ".5", "1.", "1e2", None, True, [1], 1e11]
        )
    ),
    priced(
        "#cat1",
        "catalogue prices count when everything then adds up",
        (line("#tower", 2), line("#bridge")),
        16.66,
        ("3.33", "6.66", "catalogue"),
        ("10.00", "10.00", "catalogue"),
    ),
    priced(
        "#cat2",
        "catalogue prices count when with own ones everything adds up",
        (line("#bridge", 1, unit_price=5), line("#tower")),
        8.33,
        ("5.00", "5.00", "own"),
        ("3.33", "3.33", "catalogue"),
    ),
    priced(
        "#app1",
        "a subtotal is apportioned by catalogue value",
        (line("#tower"), line("#bridge")),
        10,
        ("2.50", "2.50", "apportioned"),
        ("7.50", "7.50", "apportioned"),
    ),
    priced(
        "#app2",
        "apportioned to the penny",
        (line("#tower"), line("#tower"), line("#tower")),
        10,
        ("3.33", "3.33", "apportioned"),
        ("3.34", "3.34", "apportioned"),
        ("3.33", "3.33", "apportioned"),
    ),
    priced(
        "#app3",
        "the rest of a subtotal is apportioned over the lines without own price",
        (line("#tower"), line("#bridge", 1, price=4), line("#bridge")),
        14,
        ("2.50", "2.50", "apportioned"),
        ("4.00", "4.00", "own"),
        ("7.50", "7.50", "apportioned"),
    ),
    priced(
        "#app4",
        "by quantity where a model is unknown; total_price is what counts",
        (line("#tower", 1), line("gone", 3)),
        10,
        ("2.50", "2.50", "apportioned"),
        ("2.50", "7.50", "apportioned"),
    ),
    priced(
        "#app5",
        "the unit price of a share is rounded",
        (line("gone", 3),),
        10,
        ("3.33", "10.00", "apportioned"),
    ),
    priced(
        "#app6",
        "by quantity where all models are free",
        (line("#free", 2), line("#free2", 3)),
        5,
        ("1.00", "2.00", "apportioned"),
        ("1.00", "3.00", "apportioned"),
    ),
    priced(
        "#app7",
        "a model priced NaN or below zero is of unknown value",
        (line("#nan", 1), line("#owing", 1), line("#bridge", 2)),
        4,
        ("1.00", "1.00", "apportioned"),
        ("1.00", "1.00", "apportioned"),
        ("1.00", "2.00", "apportioned"),
    ),
    priced(
        "#app8",
        "a subtotal of nothing is apportioned too",
        (line("#tower"), line("#bridge")),
        0,
        ("0.00", "0.00", "apportioned"),
        ("0.00", "0.00", "apportioned"),
    ),
    flags(
        "what adds up is not flagged",
        *((f"#app{number}", ()) for number in range(1, 9)),
        ("#cat1", ()),
        ("#cat2", ()),
        ("#own1", ()),
    ),
    priced(
        "#none1",
        "without a subtotal catalogue prices stand, and nothing is made up",
        (line("#tower", 2), line("gone", 1), line("#nan"), line("#bridge", 1, price=1)),
        None,
        ("3.33", "6.66", "catalogue"),
        (None, None, "unknown"),
        (None, None, "unknown"),
        ("1.00", "1.00", "own"),
    ),
    *(
        priced(
            f"#none{number}",
            f"a subtotal of {subtotal!r} is none",
            (line("#tower", 2),),
            subtotal,
            ("3.33", "6.66", "catalogue"),
        )
        for number, subtotal in enumerate(["NaN", -6.66, 6.666, "6,66", [], ""], 2)
    ),
    priced(
        "#off1",
        "own prices alone that disagree stand",
        (line("#tower", 1, price=5),),
        6,
        ("5.00", "5.00", "own"),
    ),
    priced(
        "#off2",
        "own prices above the subtotal stand, and so do catalogue ones",
        (line("#bridge", 1, price=7), line("#tower")),
        6,
        ("7.00", "7.00", "own"),
        ("3.33", "3.33", "catalogue"),
    ),
    Case(
        "an order without items",
        (order("#off3", (), 5), order("#app9", (), 0), order("#none8", ())),
        "SELECT count(*) FROM order_items"
        " WHERE order_id IN ('#off3', '#app9', '#none8')",
        [(0,)],
    ),
    flags(
        "what does not add up, or cannot be checked, is flagged",
        *((f"#none{number}", ("subtotal_missing",)) for number in range(1, 9)),
        *((f"#off{number}", ("prices_disagree",)) for number in range(1, 4)),
        ("#app9", ()),
    ),
)

# --- lines ---------------------------------------------------------------------------------

LINE = (
    "SELECT i.position, i.asset_ref, i.model_id, i.artist_id, i.model_name, i.quantity,"
    " i.print_color, i.print_material, i.print_quality, i.special_instructions,"
    " i.extra::text FROM order_items i WHERE i.order_id = '{}' ORDER BY i.position"
)
NOBODY = (None, None, None)
TOWER = ("#tower", "#maker", "Tower")
UNPRINTED = (None, None, None, None)

ITEMS = (
    Case(
        "what a line says has columns, and the rest rides along",
        (
            order(
                "#lines1",
                (
                    line(
                        "#tower",
                        2,
                        printOptions={
                            "color": "Gray",
                            "material": "pla",
                            "quality": "fine",
                            "notes": "no glue",
                        },
                    ),
                    line("#tower", 1, printOptions={"color": 7, "scale": 2}, gift=True),
                    line("#tower", 1, printOptions=[], name=None),
                    line("#tower", 1, printOptions={}),
                ),
            ),
        ),
        LINE.format("#lines1"),
        [
            (1, "#tower", *TOWER, 2, "Gray", "pla", "fine", "no glue", "{}"),
            (
                2,
                "#tower",
                *TOWER,
                1,
                *UNPRINTED,
                '{"gift": true, "printOptions": {"color": 7, "scale": 2}}',
            ),
            (
                3,
                "#tower",
                *TOWER,
                1,
                *UNPRINTED,
                '{"name": null, "printOptions": []}',
            ),
            (4, "#tower", *TOWER, 1, *UNPRINTED, '{"printOptions": {}}'),
        ],
    ),
    Case(
        "an unknown or unreadable id is a line without a model; 2.0 is two",
        (
            order(
                "#lines2",
                Written(
                    '[{"asset_id": "nope", "quantity": 2.0}, {"quantity": 1},'
                    ' {"asset_id": 5, "quantity": 1}, {"asset_id": null, "quantity": 3e0},'
                    ' {"asset_id": "00000000-0000-4000-8000-000000000000", "quantity": 1}]'
                ),
            ),
        ),
        LINE.format("#lines2"),
        [
            (1, "nope", *NOBODY, 2, *UNPRINTED, '{"quantity": 2.0}'),
            (2, None, *NOBODY, 1, *UNPRINTED, "{}"),
            (3, "5", *NOBODY, 1, *UNPRINTED, '{"asset_id": 5}'),
            (4, None, *NOBODY, 3, *UNPRINTED, '{"asset_id": null}'),
            (
                5,
                "00000000-0000-4000-8000-000000000000",
                *NOBODY,
                1,
                *UNPRINTED,
                "{}",
            ),
        ],
    ),
)


def held_order(name: str, items: Any, reason: str) -> Case:
    return Case(
        f"items such as {name[1:]} are held, all together, the order is migrated",
        (order(name, items),),
        "SELECT o.id, q.kind, q.reason, q.row -> 'items' = l.items,"
        " (SELECT count(*) FROM order_items i WHERE i.order_id = o.id)"
        " FROM orders o JOIN @legacy.orders l USING (id)"
        " JOIN legacy_quarantine q ON q.legacy_id = o.id AND q.kind = 'held'"
        f" WHERE o.id = '{name}'",
        [(name, "held", reason, True, 0)],
    )


GOOD = line("#tower")
HELD_ORDERS = (
    held_order("#object", {"a": 1}, "items_not_array"),
    held_order("#null", None, "items_not_array"),
    held_order("#missing", (GOOD, {"asset_id": "x"}), "quantity_missing"),
    held_order("#nullq", (GOOD, line("x", None)), "quantity_missing"),
    held_order("#nullelement", (GOOD, None), "quantity_missing"),
    held_order("#textelement", (GOOD, "tower"), "quantity_missing"),
    held_order("#arrayelement", ([GOOD],), "quantity_missing"),
    held_order("#text", (line("x", "2"), GOOD), "quantity_not_a_number"),
    held_order("#true", (line("x", True), GOOD), "quantity_not_a_number"),
    held_order("#zero", (GOOD, line("x", 0)), "quantity_below_one"),
    held_order("#minus", (GOOD, line("x", -2)), "quantity_below_one"),
    held_order("#half", (GOOD, line("x", 1.5)), "quantity_not_whole"),
    held_order("#less", (GOOD, line("x", 0.5)), "quantity_below_one"),
    held_order("#huge", (GOOD, line("x", 2147483648)), "quantity_too_large"),
    Case(
        "the largest quantity is none too large",
        (order("#largest", (line("x", 2147483647),)),),
        "SELECT quantity FROM order_items WHERE order_id = '#largest'",
        [(2147483647,)],
    ),
)

# --- tables --------------------------------------------------------------------------------


def measured(name: str, config: Any, width: Any, depth: Any, rest: str) -> Case:
    return Case(
        f"measures of {name[1:]}",
        (table(name, None, config),),
        f"SELECT width, depth, config::text FROM tables WHERE id = '{name}'",
        [(width, depth, rest)],
    )


TABLES = (
    measured(
        "#plain_size",
        {"width": 1200, "depth": 900, "grid_size": 25},
        1200,
        900,
        '{"grid_size": 25}',
    ),
    measured("#no_size", {}, None, None, "{}"),
    measured(
        "#point_zero",
        Written('{"width": 1200.0, "depth": 9e2}'),
        1200,
        900,
        '{"width": 1200.0}',
    ),
    measured(
        "#text_size",
        {"width": "1200", "depth": None},
        None,
        None,
        '{"depth": null, "width": "1200"}',
    ),
    measured(
        "#broken_size",
        {"width": 12.5, "depth": 2147483648},
        None,
        None,
        '{"depth": 2147483648, "width": 12.5}',
    ),
    Case(
        "a table with an address is its user's, one without has a session of its own",
        (
            table(
                "#with",
                "Sits@At.example",
                share_token="abc",
                is_public=True,
                layout_data={"models": []},
            ),
            table("#without", None),
            table("#empty", "", share_token=""),
            table("#none", "no address"),
        ),
        "SELECT t.id, t.kind, t.plan, u.email, s.table_limit, t.contact_email, t.share_code,"
        " t.is_public, t.status, t.max_assets, t.layout::text"
        " FROM tables t LEFT JOIN users u ON u.id = t.user_id"
        " LEFT JOIN anonymous_sessions s ON s.id = t.session_id"
        " WHERE t.id IN ('#with', '#without', '#empty', '#none') ORDER BY t.name",
        [
            ("#empty", "user", "anon_free", None, 3, "", "")
            + (False, "active", 1000, "{}"),
            ("#none", "user", "anon_free", None, 3, "no address", None)
            + (False, "active", 1000, "{}"),
            ("#with", "user", "user_free", "sits@at.example", None)
            + ("Sits@At.example", "abc", True, "active", 1000, '{"models": []}'),
            ("#without", "user", "anon_free", None, 3, None, None)
            + (False, "active", 1000, "{}"),
        ],
    ),
    Case(
        "each has a session to itself",
        (),
        "SELECT count(DISTINCT session_id), count(DISTINCT s.session_token),"
        " min(length(s.session_token)) FROM tables t"
        " JOIN anonymous_sessions s ON s.id = t.session_id"
        " WHERE t.id IN ('#without', '#empty', '#none')",
        [(3, 3, 64)],
    ),
    Case(
        "an example table is its artist's, and public",
        (
            example(
                "#shown",
                "#maker",
                {"width": 600},
                description="Look",
                thumbnail_url="t.png",
                is_featured=True,
                view_count=7,
            ),
        ),
        "SELECT kind, user_id, session_id, name, description, width, depth, config::text,"
        " thumbnail_url, is_featured, is_public, view_count, plan, contact_email, share_code,"
        " updated_at = created_at FROM tables WHERE id = '#shown'",
        [
            ("example", "#maker", None, "Shown", "Look", 600, None, "{}")
            + ("t.png", True, True, 7, "user_free", None, None, True)
        ],
    ),
    Case(
        "when both kinds have an id, the second is held",
        (table("#both", "x@both.example"), example("#both", "#maker")),
        "SELECT t.kind, q.legacy_table, q.kind, q.reason FROM tables t"
        " JOIN legacy_quarantine q ON q.legacy_id = t.id WHERE t.id = '#both'",
        [("user", "example_tables", "held", "id_taken")],
    ),
    *(
        Case(
            f"a table such as {name[1:]} is held",
            (row,),
            "SELECT q.legacy_table, q.reason, (SELECT count(*) FROM tables t"
            f" WHERE t.id = q.legacy_id) FROM legacy_quarantine q WHERE legacy_id = '{name}'",
            [(row[0], reason, 0)],
        )
        for name, row, reason in (
            ("#config1", table("#config1", None, []), "table_config_not_object"),
            (
                "#layout1",
                table("#layout1", None, layout_data="x"),
                "layout_data_not_object",
            ),
            (
                "#config2",
                example("#config2", "#maker", 5),
                "table_config_not_object",
            ),
            (
                "#layout2",
                example("#layout2", "#maker", layout_data=None),
                "layout_data_not_object",
            ),
        )
    ),
)

# --- flagged -------------------------------------------------------------------------------


def flagged(row: Legacy, new: str, *reasons: str) -> Case:
    name = row[1]["id"]
    return Case(
        f"{name[1:]} is migrated and flagged {' and '.join(reasons) or 'for nothing'}",
        (row,),
        "SELECT array(SELECT q.reason::text FROM legacy_quarantine q"
        f" WHERE q.legacy_id = n.id AND q.legacy_table = '{row[0]}' AND q.kind = 'flagged'"
        f" AND q.reason <> 'subtotal_missing' ORDER BY 1) FROM {new} n WHERE n.id = '{name}'",
        [(list(reasons),)],
    )


def total(value: Any) -> dict[str, Any]:
    return {"total": value, "model_subtotal": 0}


FLAGGED = (
    flagged(order("#paid", email="paid@f.example"), "orders"),
    flagged(transfer("#t_good", "#paid", "#maker", "0.01"), "payments"),
    flagged(transfer("#t_nan", "#paid", "#maker", "NaN"), "payments", "amount_nan"),
    flagged(transfer("#t_zero", "#paid", "#maker", "0"), "payments", "amount_zero"),
    flagged(
        transfer("#t_minus", "#paid", "#maker", "-1"), "payments", "amount_negative"
    ),
    flagged(model("#m_nan", "#maker", "NaN"), "models", "amount_nan"),
    flagged(model("#m_zero", "#maker", "0.00"), "models", "amount_zero"),
    flagged(model("#m_minus", "#maker", "-0.01"), "models", "amount_negative"),
    flagged(artist("#rate", commission_rate="NaN"), "users", "amount_nan"),
    flagged(order("#o_none", pricing={}), "orders"),
    flagged(order("#o_good", pricing=total("12.50")), "orders"),
    flagged(order("#o_nan", pricing=total("NaN")), "orders", "amount_nan"),
    flagged(order("#o_inf", pricing=total("Infinity")), "orders", "amount_nan"),
    flagged(order("#o_zero", pricing=total(0)), "orders", "amount_zero"),
    flagged(order("#o_minus", pricing=total(-3.5)), "orders", "amount_negative"),
    flagged(artist("#d_inf", created_at="infinity"), "users", "date_impossible"),
    flagged(
        model("#d_bc", "#maker", updated_at="0044-03-15 BC"),
        "models",
        "date_impossible",
    ),
    flagged(
        table("#d_far", None, created_at="12026-01-01"), "tables", "date_impossible"
    ),
    flagged(
        example("#d_minus", "#maker", created_at="-infinity"),
        "tables",
        "date_impossible",
    ),
    flagged(
        order("#d_order", pricing=total(1), created_at="infinity"),
        "orders",
        "date_impossible",
    ),
    flagged(
        transfer("#d_pay", "#paid", "#maker", created_at="infinity"),
        "payments",
        "date_impossible",
    ),
    flagged(table("#d_last", None, created_at="9999-12-31 23:59:59.999999"), "tables"),
    flagged(table("#d_first", None, created_at="0001-01-01 00:00:00"), "tables"),
    Case(
        "an impossible date is stored as it is",
        (),
        "SELECT (created_at AT TIME ZONE 'UTC')::text FROM tables"
        " WHERE id IN ('#d_far', '#d_minus') ORDER BY 1",
        [("-infinity",), ("12026-01-01 00:00:00",)],
    ),
    Case(
        "a Stripe id that repeats is flagged wherever it is; none and 'failed' are no ids",
        (
            artist("#acct1", stripe_account_id="acct_same"),
            artist("#acct2", stripe_account_id="acct_same"),
            artist("#acct3", stripe_account_id=""),
            artist("#acct4", stripe_account_id=""),
            order("#pi1", stripe_payment_id="pi_same"),
            order("#pi2", stripe_payment_id="pi_same"),
            transfer("#tr1", "#paid", "#maker", stripe_transfer_id="tr_same"),
            transfer("#tr2", "#paid", "#maker", stripe_transfer_id="tr_same"),
            transfer("#tr3", "#paid", "#maker", stripe_transfer_id="failed"),
            transfer("#tr4", "#paid", "#maker", stripe_transfer_id="failed"),
        ),
        "SELECT legacy_table, count(*), count(DISTINCT legacy_id) FROM legacy_quarantine"
        " WHERE reason = 'stripe_id_repeated' AND kind = 'flagged' GROUP BY 1 ORDER BY 1",
        [("artists", 2, 2), ("orders", 2, 2), ("stripe_transfers", 2, 2)],
    ),
    Case(
        "a transfer becomes a payment in pounds",
        (),
        "SELECT order_id, artist_id, stripe_transfer_id, amount, currency, status"
        " FROM payments WHERE id = '#t_good'",
        [("#paid", "#maker", "tr_t_good", pounds("0.01"), "GBP", "pending")],
    ),
)

MODELS = (
    Case(
        "a model is the legacy asset as it was",
        (
            model(
                "#whole",
                "#maker",
                "12.00",
                description="Big",
                genre="fantasy",
                categories=["b", "a", "b"],
                tags=["t", ""],
                aabb=None,
                file_paths=Written('{"glb": "x.glb", "size": 1.10}'),
                status="archived",
                view_count=-1,
                purchase_count=5,
            ),
        ),
        "SELECT artist_id, name, description, base_price, genre, categories, tags, aabb,"
        " file_paths::text, status, view_count, purchase_count FROM models"
        " WHERE id = '#whole'",
        [
            ("#maker", "Whole", "Big", pounds("12.00"), "fantasy", ["b", "a", "b"])
            + (["t", ""], None, '{"glb": "x.glb", "size": 1.10}', "archived", -1, 5)
        ],
    ),
)
