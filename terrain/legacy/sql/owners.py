"""The account behind an address: customers, owner links, merges."""

from __future__ import annotations

from terrain.legacy import mapping
from terrain.legacy.schema import Lens
from terrain.legacy.sql.text import query


def other_address(was: str, is_: str) -> str:
    """Whether two texts are different addresses.  What is none is like any other that is none."""
    before, after = (
        f"CASE WHEN {mapping.is_address(text)} THEN {mapping.normal_address(text)} END"
        for text in (was, is_)
    )
    # Mostly they are the same text, and need not be looked into.
    return f"({was} IS DISTINCT FROM {is_} AND ({before}) IS DISTINCT FROM ({after}))"


def waits(lens: Lens) -> str:
    """Whether ``n`` is to have an owner and has none yet: something for ``settle``."""
    owner = lens.owner
    assert owner is not None
    no_session = f" OR n.{owner.or_session} IS NULL" if owner.or_session else ""
    is_address = mapping.is_address(f"n.{owner.stored}")
    return f"n.{owner.column} IS NULL AND ({is_address}{no_session})"


def account(address: str) -> str:
    """A join that finds, as ``a.id``, the account behind an address."""
    return query(
        "account",
        address=address,
        normal=mapping.normal_address(address),
        normal_user=mapping.normal_address("u.email"),
        is_address=mapping.is_address(address),
    )


def customers(lens: Lens, source: str, *, new_side: bool = False) -> str:
    """The statement that makes customers of the addresses in ``source``.

    ``source`` is a table, with a condition if need be, whose rows are ``l``; with
    ``new_side`` it is the new table, where columns have other names.
    """
    owner = lens.owner
    assert owner is not None
    column = owner.stored if new_side else owner.address
    name = (
        {"l.user_name": "l.customer_name"}.get(owner.name, owner.name)
        if new_side
        else owner.name
    )
    created = "l.created_at" if new_side else "(l.created_at AT TIME ZONE 'UTC')"
    return query(
        "customers",
        normal=mapping.normal_address(f"l.{column}"),
        is_address=mapping.is_address(f"l.{column}"),
        name=f"{name}::text",
        created_at=created,
        source=source,
        normal_x=mapping.normal_address("x.email"),
    )


def link(lens: Lens) -> str:
    """Owner links for the rows of the new table in ``keys`` that wait for one."""
    owner = lens.owner
    assert owner is not None
    return query(
        "link",
        new=lens.new,
        own=lens.own.replace("n.", "w."),
        column=owner.column,
        stored=owner.stored,
        no_session=f", {owner.or_session} = NULL" if owner.or_session else "",
        account=account(f"w.{owner.stored}"),
    )


def link_sessions(lens: Lens, table_limit: int) -> str:
    """Sessions of their own for the rows in ``keys`` that have neither account nor address."""
    owner = lens.owner
    assert owner is not None and owner.or_session is not None
    return query(
        "link_sessions",
        new=lens.new,
        own=lens.own,
        column=owner.column,
        session=owner.or_session,
        is_address=mapping.is_address(f"n.{owner.stored}"),
        table_limit=str(table_limit),
    )


def queue_waiting(lens: Lens) -> str:
    return query(
        "queue_waiting",
        legacy=lens.legacy,
        new=lens.new,
        own=lens.own,
        waits=waits(lens),
    )


def merge_lock() -> str:
    """Locks an artist who still has the address of a customer.  Parameters: both ids."""
    return query("merge_lock", normal_t=mapping.normal_address("t.email"))


def merges() -> str:
    return query(
        "merges",
        normal_t=mapping.normal_address("t.email"),
        normal_k=mapping.normal_address("k.email"),
    )
