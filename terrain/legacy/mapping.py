"""The declaration: each legacy table, column by column, up to the new schema and back.

Everything else is derived from it: the copies, the triggers, the ``rebuilt`` views, the
round-trip proof, the lineage.  ``manage.py lens`` prints it for a reader.

Law 1 holds by construction wherever a typed column cannot say everything the JSON said:
a value is typed only for as much as can be rendered back to the same text, and otherwise
*rides along* in the JSON that is left.  Going down, what rides is believed for as long as
it still means what the typed column says; when the new application has changed the typed
column, that wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from terrain.addresses import WHITE_SPACE
from terrain.legacy.schema import Column, Lens, Owner, Part, Repeat, Rule

UUID = "uuid"
TEXT = "text"
TEXTS = "text[]"
JSONB = "jsonb"
BOOLEAN = "boolean"
INTEGER = "integer"
TIMESTAMP = "timestamp without time zone"

#: Largest value of a PostgreSQL integer.
MAX_INTEGER = 2_147_483_647
#: Largest price that is believed, in pounds: what ``order_items.unit_price`` can hold.
MAX_PRICE = "9999999999.99"


def varchar(length: int) -> str:
    return f"character varying({length})"


def numeric(precision: int, scale: int) -> str:
    return f"numeric({precision},{scale})"


# --- how a single column travels -----------------------------------------------------------


def kept(name: str, type: str, *, nullable: bool = False) -> Column:
    """The column is the same on both sides."""
    return renamed(name, name, type, nullable=nullable, how="as it was")


def renamed(
    name: str, new: str, type: str, *, nullable: bool = False, how: str = ""
) -> Column:
    """The column has another name in the new table."""
    return Column(
        name,
        type,
        {new: f"l.{name}"},
        f"n.{new}",
        how=how or "renamed",
        nullable=nullable,
    )


def utc(name: str) -> Column:
    """A timestamp without time zone that holds UTC becomes one with."""
    return Column(
        name,
        TIMESTAMP,
        {name: f"(l.{name} AT TIME ZONE 'UTC')"},
        f"(n.{name} AT TIME ZONE 'UTC')",
        how="the same instant, with its time zone (UTC)",
    )


# --- values inside JSON --------------------------------------------------------------------


def whole_number(value: str) -> str:
    """``value`` (jsonb) as an integer; NULL unless it is a whole number that fits one."""
    number = f"({value})::numeric"
    return (
        f"CASE WHEN jsonb_typeof({value}) = 'number' THEN"
        f" CASE WHEN abs({number}) <= {MAX_INTEGER} AND mod({number}, 1) = 0"
        f" THEN {number}::integer END END"
    )


def plain_text(value: str) -> str:
    """``value`` (jsonb) as text: a string's content, anything else as it is written."""
    return f"({value} #>> '{{}}')"


def string_only(value: str) -> str:
    """``value`` (jsonb) if it is a string."""
    return f"CASE WHEN jsonb_typeof({value}) = 'string' THEN {value} #>> '{{}}' END"


def sane_amount(value: str) -> str:
    """``value`` (jsonb) as pounds and pence, or NULL.

    A number or plain decimal text, not negative, with at most two decimals, and no
    larger than :data:`MAX_PRICE`.
    """
    number = f"({value})::numeric"
    text = f"({value} #>> '{{}}')"
    return (
        f"CASE jsonb_typeof({value})"
        f" WHEN 'number' THEN CASE WHEN {number} BETWEEN 0 AND {MAX_PRICE}"
        f" AND scale(trim_scale({number})) <= 2 THEN {number}::numeric(12,2) END"
        f" WHEN 'string' THEN CASE WHEN {text} ~ '^[0-9]{{1,10}}([.][0-9]{{1,2}})?$'"
        f" THEN {text}::numeric(12,2) END END"
    )


def is_uuid(text: str) -> str:
    """Whether PostgreSQL would read the text as a uuid: what the old application's casts do.

    The usual form is told without a regular expression that counts: that costs more than
    the rest of an order line together.
    """
    bare = f"replace({text}, '-', '')"
    digits = "[0-9A-Fa-f]{4}(-?[0-9A-Fa-f]{4}){7}"
    return (
        f"CASE WHEN {text} LIKE '________-____-____-____-____________'"
        f" THEN length({bare}) = 32 AND {bare} !~ '[^0-9A-Fa-f]'"
        rf" ELSE {text} ~ '^({digits}|[{{]{digits}[}}])$' END"
    )


def is_address(text: str) -> str:
    """Whether the text is an e-mail address: see :mod:`terrain.addresses`."""
    return (
        # Nearly all: told by one look, where the full rule takes four.
        f"CASE WHEN {text} ~ '^[!-?A-~]+@[!-?A-~]+$' THEN length({text}) <= 255"
        f" ELSE btrim({text}, '{WHITE_SPACE}') ~ '^[^@{WHITE_SPACE}]+@[^@{WHITE_SPACE}]+$'"
        f" AND length({normal_address(text)}) <= 255 END"
    )


def normal_address(text: str) -> str:
    """The address as a customer's is stored.  Must stay the expression of the index."""
    return f"lower(btrim({text}, '{WHITE_SPACE}'))"


@dataclass(frozen=True)
class Key:
    """A key of a JSON object that has a column.

    ``parse`` reads its value (jsonb) into the column, ``render`` writes the column back;
    ``same`` tells whether that gives the very same text.
    """

    name: str
    column: str
    parse: Callable[[str], str]
    same: Callable[[str], str]
    render: Callable[[str], str] = "to_jsonb({0})".format


def is_string(value: str) -> str:
    return f"jsonb_typeof({value}) = 'string'"


def is_plain_integer(value: str) -> str:
    """Whether a whole number is written as PostgreSQL writes an integer: not 2.0."""
    number = f"({value})::numeric"
    return (
        f"CASE WHEN jsonb_typeof({value}) = 'number' THEN"
        f" abs({number}) <= {MAX_INTEGER} AND scale({number}) = 0 END"
    )


def typed(source: str, keys: tuple[Key, ...]) -> dict[str, str]:
    """The columns of ``keys``, read from the JSON object ``source``."""
    return {key.column: key.parse(f"{source} -> '{key.name}'") for key in keys}


def left_over(source: str, keys: tuple[Key, ...]) -> str:
    """``source`` without the keys whose columns render back to the very same text."""
    given_back = ", ".join(
        f"CASE WHEN {key.same(f'{source} -> {chr(39)}{key.name}{chr(39)}')} THEN '{key.name}' END"
        for key in keys
    )
    return f"({source} - ARRAY[{given_back}]::text[])"


def put_back(rest: str, row: str, keys: tuple[Key, ...]) -> str:
    """The inverse of :func:`typed` and :func:`left_over`.

    What rides in ``rest`` stays if it still means what the column of ``row`` says.  A
    column emptied since takes what rides with it.
    """
    gone, set_ = [], []
    for key in keys:
        riding = key.parse(f"{rest} -> '{key.name}'")
        column = f"{row}.{key.column}"
        gone.append(
            f"CASE WHEN {column} IS NULL AND ({riding}) IS NOT NULL THEN '{key.name}' END"
        )
        set_.append(
            f" || CASE WHEN {column} <> ({riding}) OR ({column} IS NOT NULL AND ({riding}) IS NULL)"
            f" THEN jsonb_build_object('{key.name}', {key.render(column)}) ELSE '{{}}' END"
        )
    return f"(({rest} - ARRAY[{', '.join(gone)}]::text[]){''.join(set_)})"


# --- rules that several tables share -------------------------------------------------------


def impossible_dates(*names: str) -> Rule:
    """No calendar has it: Python's ends where this does."""
    return Rule(
        "date_impossible",
        " OR ".join(
            f"l.{name} NOT BETWEEN '0001-01-01' AND '9999-12-31 23:59:59.999999'"
            for name in names
        ),
        "has a date that is infinite, before the year 1 or after 9999",
        f"Correct {' or '.join(names)} in either application; until then it is kept as it is.",
    )


def odd_amounts(column: str) -> tuple[Rule, ...]:
    remedy = f"Correct {column} in either application, or accept it as it is."
    return (
        Rule(
            "amount_nan",
            f"l.{column} = 'NaN'",
            f"has {column} NaN, not a number",
            remedy,
        ),
        Rule("amount_zero", f"l.{column} = 0", f"has {column} 0", remedy),
        Rule("amount_negative", f"l.{column} < 0", f"has a negative {column}", remedy),
    )


def odd_total() -> tuple[Rule, ...]:
    """The order's total, wherever the JSON has one."""
    value = "l.pricing -> 'total'"
    text = f"({value} #>> '{{}}')"
    number = f"CASE WHEN jsonb_typeof({value}) = 'number' THEN ({value})::numeric END"
    remedy = "Correct pricing.total in either application, or accept it as it is."
    return (
        Rule(
            "amount_nan",
            f"jsonb_typeof({value}) = 'string'"
            f" AND {text} !~ '^[+-]?[0-9]*[.]?[0-9]+([eE][+-]?[0-9]+)?$'",
            "has a total that is no number",
            remedy,
        ),
        Rule("amount_zero", f"{number} = 0", "has a total of 0", remedy),
        Rule("amount_negative", f"{number} < 0", "has a negative total", remedy),
    )


def not_object(column: str) -> Rule:
    return Rule(
        f"{column}_not_object",
        f"jsonb_typeof(l.{column}) <> 'object'",
        f"has a {column} that is no JSON object",
        f"Make {column} an object in the old application, then retry.",
    )


# --- artists -> users ----------------------------------------------------------------------

ARTISTS = Lens(
    legacy="artists",
    new="users",
    own="n.role <> 'customer'",
    columns=(
        kept("id", UUID),
        kept("email", varchar(255)),
        kept("password_hash", varchar(255)),
        renamed("name", "display_name", varchar(255)),
        kept("bio", TEXT, nullable=True),
        kept("profile_image_url", TEXT, nullable=True),
        kept("banner_image_url", TEXT, nullable=True),
        kept("stripe_account_id", varchar(255), nullable=True),
        kept("stripe_onboarding_complete", BOOLEAN),
        kept("invite_code", varchar(50), nullable=True),
        kept("status", varchar(20)),
        kept("role", varchar(20)),
        kept("commission_rate", numeric(4, 3)),
        utc("created_at"),
        utc("updated_at"),
    ),
    unique=("email",),
    flagged=(
        Rule(
            "amount_nan",
            "l.commission_rate = 'NaN'",
            "has commission_rate NaN, not a number",
            "Correct commission_rate in either application.",
        ),
        impossible_dates("created_at", "updated_at"),
    ),
    repeats=(
        Repeat(
            "address_differs_by_case",
            f"CASE WHEN {is_address('l.email')} THEN {normal_address('l.email')} END",
            "has an address that differs from another artist's by case or white space only",
            "Decide which account the address belongs to; until then the oldest gets its orders.",
        ),
        Repeat(
            "stripe_id_repeated",
            "nullif(l.stripe_account_id, '')",
            "has a Stripe account that another artist has too",
            "Check in Stripe whose account it is.",
        ),
    ),
)

# --- assets -> models ----------------------------------------------------------------------

ASSETS = Lens(
    legacy="assets",
    new="models",
    columns=(
        kept("id", UUID),
        kept("artist_id", UUID),
        kept("name", varchar(255)),
        kept("description", TEXT, nullable=True),
        kept("base_price", numeric(10, 2)),
        kept("genre", varchar(100), nullable=True),
        kept("categories", TEXTS),
        kept("tags", TEXTS),
        kept("aabb", JSONB, nullable=True),
        kept("footprint", JSONB, nullable=True),
        kept("file_paths", JSONB),
        kept("print_recommendations", JSONB, nullable=True),
        kept("print_stats", JSONB, nullable=True),
        kept("status", varchar(20)),
        kept("view_count", INTEGER),
        kept("purchase_count", INTEGER),
        utc("created_at"),
        utc("updated_at"),
    ),
    flagged=(*odd_amounts("base_price"), impossible_dates("created_at", "updated_at")),
)

# --- user_tables, example_tables -> tables -------------------------------------------------

MEASURES = (
    Key("width", "width", whole_number, is_plain_integer),
    Key("depth", "depth", whole_number, is_plain_integer),
)

TABLE_CONFIG = Column(
    "table_config",
    JSONB,
    {
        **typed("l.table_config", MEASURES),
        "config": left_over("l.table_config", MEASURES),
    },
    put_back("n.config", "n", MEASURES),
    how="width and depth (mm) become columns where they are whole numbers; the rest is kept",
)

USER_TABLES = Lens(
    legacy="user_tables",
    new="tables",
    own="n.kind = 'user'",
    constants={"kind": "'user'"},
    columns=(
        kept("id", UUID),
        renamed("user_email", "contact_email", varchar(255), nullable=True),
        kept("name", varchar(255)),
        TABLE_CONFIG,
        renamed("layout_data", "layout", JSONB),
        renamed("share_token", "share_code", varchar(64), nullable=True),
        kept("is_public", BOOLEAN),
        utc("created_at"),
        utc("updated_at"),
    ),
    first={
        "plan": f"CASE WHEN {is_address('l.user_email')} THEN 'user_free' ELSE 'anon_free' END"
    },
    owner=Owner(
        column="user_id",
        address="user_email",
        stored="contact_email",
        or_session="session_id",
    ),
    unique=("share_code",),
    held=(
        not_object("table_config"),
        not_object("layout_data"),
        Rule(
            "id_taken",
            "EXISTS (SELECT FROM @new.tables t WHERE t.id = l.id AND t.kind <> 'user')",
            "has the id of an example table",
            "Give one of the two another id in the old application, then retry.",
            forecast="false",
        ),
    ),
    flagged=(impossible_dates("created_at", "updated_at"),),
)

EXAMPLE_TABLES = Lens(
    legacy="example_tables",
    new="tables",
    own="n.kind = 'example'",
    constants={"kind": "'example'"},
    columns=(
        kept("id", UUID),
        renamed("artist_id", "user_id", UUID),
        kept("name", varchar(255)),
        kept("description", TEXT, nullable=True),
        kept("thumbnail_url", TEXT, nullable=True),
        TABLE_CONFIG,
        renamed("layout_data", "layout", JSONB),
        kept("is_featured", BOOLEAN),
        kept("view_count", INTEGER),
        utc("created_at"),
    ),
    first={
        "is_public": "true",
        "plan": "'user_free'",
        "updated_at": "(l.created_at AT TIME ZONE 'UTC')",
    },
    held=(
        not_object("table_config"),
        not_object("layout_data"),
        Rule(
            "id_taken",
            "EXISTS (SELECT FROM @new.tables t WHERE t.id = l.id AND t.kind <> 'example')",
            "has the id of a user's table",
            "Give one of the two another id in the old application, then retry.",
            forecast=(
                "EXISTS (SELECT FROM {user_tables} u WHERE u.id = l.id"
                " AND jsonb_typeof(u.table_config) = 'object'"
                " AND jsonb_typeof(u.layout_data) = 'object')"
            ),
        ),
    ),
    flagged=(impossible_dates("created_at"),),
)

# --- orders -> orders, order_items ---------------------------------------------------------

LINE_KEYS = (
    Key("asset_id", "asset_ref", plain_text, is_string),
    Key("quantity", "quantity", whole_number, is_plain_integer),
)
PRINT_KEYS = (
    Key("color", "print_color", string_only, is_string),
    Key("material", "print_material", string_only, is_string),
    Key("quality", "print_quality", string_only, is_string),
    Key("notes", "special_instructions", string_only, is_string),
)
ANY_PRINT_COLUMN = "coalesce({})".format(
    ", ".join(f"i.{key.column}" for key in PRINT_KEYS)
)


def own_price(item: str) -> str:
    """What the line itself says it costs, or NULL."""
    return (
        f"coalesce({sane_amount(f'{item} -> {chr(39)}unit_price{chr(39)}')},"
        f" {sane_amount(f'{item} -> {chr(39)}price{chr(39)}')})"
    )


def _line_left_over() -> str:
    """An element without what the columns of ``order_items`` say about it."""
    price = sane_amount("e.item -> 'unit_price'")
    options = "e.item -> 'printOptions'"
    rest = left_over(f"({options})", PRINT_KEYS)
    return (
        f"{left_over('e.item', LINE_KEYS)}"
        # Beside a price the unit price rides too: which of the two it was would be lost.
        f" - ARRAY[CASE WHEN (e.item -> 'unit_price')::text = trim_scale({price})::text"
        " AND NOT e.item ? 'price' THEN 'unit_price' END,"
        f" CASE WHEN jsonb_typeof({options}) = 'object' THEN 'printOptions' END]::text[]"
        f" || CASE WHEN jsonb_typeof({options}) = 'object' THEN"
        f" CASE WHEN {rest} <> '{{}}' OR {options} = '{{}}'"
        f" THEN jsonb_build_object('printOptions', {rest}) ELSE '{{}}' END ELSE '{{}}' END"
    )


def _line_put_back() -> str:
    """The element again, from the columns and what rides in ``extra``."""
    riding = own_price("i.extra")
    price = "CASE WHEN i.price_source = 'own' THEN i.unit_price END"
    options = (
        "CASE WHEN jsonb_typeof(i.extra -> 'printOptions') = 'object'"
        " THEN i.extra -> 'printOptions' ELSE '{}' END"
    )
    return (
        f"{put_back('i.extra', 'i', LINE_KEYS)}"
        f" - CASE WHEN ({price}) IS NULL AND {riding} IS NOT NULL"
        " THEN '{unit_price,price}'::text[] ELSE '{}' END"
        f" || CASE WHEN ({price}) IS NOT NULL AND ({price}) IS DISTINCT FROM {riding}"
        f" THEN jsonb_build_object('unit_price', trim_scale({price})) ELSE '{{}}' END"
        f" || CASE WHEN {ANY_PRINT_COLUMN} IS NOT NULL"
        " OR jsonb_typeof(i.extra -> 'printOptions') = 'object'"
        f" THEN jsonb_build_object('printOptions', {put_back(f'({options})', 'i', PRINT_KEYS)})"
        " ELSE '{}' END"
    )


LINES = Part(
    column="items",
    table="order_items",
    parent="order_id",
    up={
        **typed("e.item", LINE_KEYS),
        **typed("(e.item -> 'printOptions')", PRINT_KEYS),
        "extra": _line_left_over(),
    },
    down=_line_put_back(),
    derived=(
        "model_id",
        "artist_id",
        "model_name",
        "unit_price",
        "total_price",
        "price_source",
    ),
    identity=("asset_ref", "quantity"),
    fine=(
        "jsonb_array_length(l.items) = jsonb_array_length(jsonb_path_query_array(l.items,"
        f" 'strict $[*].quantity ? (@ >= 1 && @ <= {MAX_INTEGER} && @ == @.floor())',"
        " '{}', true))"
    ),
    how="a row per element; what has no column rides in extra",
)

_QUANTITY = "e.item -> 'quantity'"
_AS_NUMBER = (
    f"CASE WHEN jsonb_typeof({_QUANTITY}) = 'number' THEN ({_QUANTITY})::numeric END"
)

_QUANTITY_REMEDY = (
    "Give every item a whole quantity of at least 1 in the old application, then retry."
)

ORDERS = Lens(
    legacy="orders",
    new="orders",
    columns=(
        kept("id", UUID),
        kept("order_number", varchar(50)),
        renamed("user_email", "customer_email", varchar(255)),
        renamed("user_name", "customer_name", varchar(255)),
        kept("shipping_address", JSONB),
        Column("items", JSONB, {}, "", how=LINES.how),
        kept("pricing", JSONB),
        kept("status", varchar(20)),
        kept("print_farm_order_id", varchar(255), nullable=True),
        kept("stripe_payment_id", varchar(255), nullable=True),
        kept("paypal_payment_id", varchar(255), nullable=True),
        kept("tracking_number", varchar(255), nullable=True),
        kept("notes", TEXT, nullable=True),
        utc("created_at"),
        utc("updated_at"),
    ),
    part=LINES,
    owner=Owner(
        column="user_id",
        address="user_email",
        stored="customer_email",
        name="l.user_name",
    ),
    unique=("order_number",),
    held=(
        Rule(
            "items_not_array",
            "jsonb_typeof(l.items) <> 'array'",
            "has items that are no JSON array",
            "Make items an array in the old application, then retry.",
        ),
        Rule(
            "quantity_missing",
            f"coalesce(jsonb_typeof({_QUANTITY}), 'null') = 'null'",
            "has an item without a quantity",
            _QUANTITY_REMEDY,
            of_element=True,
        ),
        Rule(
            "quantity_not_a_number",
            f"jsonb_typeof({_QUANTITY}) NOT IN ('null', 'number')",
            "has an item whose quantity is no number",
            _QUANTITY_REMEDY,
            of_element=True,
        ),
        Rule(
            "quantity_below_one",
            f"{_AS_NUMBER} < 1",
            "has an item with a quantity below one",
            _QUANTITY_REMEDY,
            of_element=True,
        ),
        Rule(
            "quantity_too_large",
            f"{_AS_NUMBER} > {MAX_INTEGER}",
            f"has an item with a quantity above {MAX_INTEGER:,}",
            _QUANTITY_REMEDY,
            of_element=True,
        ),
        Rule(
            "quantity_not_whole",
            f"{_AS_NUMBER} <> trunc({_AS_NUMBER})",
            "has an item whose quantity is not a whole number",
            _QUANTITY_REMEDY,
            of_element=True,
        ),
    ),
    flagged=(*odd_total(), impossible_dates("created_at", "updated_at")),
    repeats=(
        Repeat(
            "stripe_id_repeated",
            "nullif(l.stripe_payment_id, '')",
            "has a Stripe payment that another order has too",
            "Check in Stripe which order was paid.",
        ),
    ),
)

# --- stripe_transfers -> payments ----------------------------------------------------------

STRIPE_TRANSFERS = Lens(
    legacy="stripe_transfers",
    new="payments",
    columns=(
        kept("id", UUID),
        kept("order_id", UUID),
        kept("artist_id", UUID),
        kept("stripe_transfer_id", varchar(255)),
        kept("amount", numeric(10, 2)),
        kept("status", varchar(20)),
        utc("created_at"),
    ),
    flagged=(*odd_amounts("amount"), impossible_dates("created_at")),
    repeats=(
        Repeat(
            "stripe_id_repeated",
            "CASE WHEN l.stripe_transfer_id NOT IN ('', 'failed') THEN l.stripe_transfer_id END",
            "has a Stripe transfer that another row has too",
            "Check in Stripe whether the artist was paid once or twice.",
        ),
    ),
)

#: In the order in which rows are copied: what is referred to comes first.
LENSES: tuple[Lens, ...] = (
    ARTISTS,
    ASSETS,
    USER_TABLES,
    EXAMPLE_TABLES,
    ORDERS,
    STRIPE_TRANSFERS,
)
BY_LEGACY: Mapping[str, Lens] = {lens.legacy: lens for lens in LENSES}
BY_NEW: Mapping[str, tuple[Lens, ...]] = {
    new: tuple(lens for lens in LENSES if lens.new == new)
    for new in dict.fromkeys(lens.new for lens in LENSES)
}
