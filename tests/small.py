"""A shop with so few rows that migrating it takes a second."""

from __future__ import annotations

from tests.legacy import artist, example, model, order, table, transfer

#: A few of everything, odd ones and held ones among them.
SMALL_SHOP = (
    *(artist(f"#artist{n}") for n in range(7)),
    artist("#shouts", "ARTIST1@artists.example"),
    *(model(f"#model{n}", f"#artist{n % 3}", f"{n}.33") for n in range(7)),
    model("#nan", "#artist1", "NaN"),
    *(table(f"#table{n}", f"sits{n % 3}@at.example", {"width": n}) for n in range(5)),
    table("#anonymous", None),
    table("#typed", "no address"),
    table("#heldtable", "artist1@artists.example", [1]),
    *(example(f"#example{n}", f"#artist{n}") for n in range(4)),
    example("#heldexample", "#artist1", layout_data=5),
    example("#table1", "#artist2"),
    *(
        order(
            f"#order{n}",
            ({"asset_id": f"#model{n}", "quantity": n + 1}, {"quantity": 2}),
            10,
            email=f"Buys{n % 4}@shop.example",
        )
        for n in range(7)
    ),
    order("#heldorder", ({"quantity": 0},), email="artist2@artists.example"),
    order("#empty", (), 0, stripe_payment_id="pi_1"),
    order("#odd", {}, stripe_payment_id="pi_1", created_at="infinity"),
    *(transfer(f"#transfer{n}", f"#order{n}", f"#artist{n % 3}") for n in range(5)),
    transfer("#zero", "#order1", "#artist1", "0"),
)
