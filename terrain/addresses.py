"""What counts as an e-mail address here, and when two are the same.

One rule, used by the sign-in, by the index that serves it, and by the SQL that links
orders and tables to accounts: white space around an address and the case of its letters
do not matter; it has one ``@`` and no white space inside; anything else is no address.
"""

from __future__ import annotations

from typing import Any

from django.db import models

#: Unicode's White_Space and the byte-order mark: what ``trim()`` takes off in the old
#: application (ECMA-262, "WhiteSpace" and "LineTerminator"), and what Python strips.
#: Listed, because what ``\s`` means to PostgreSQL depends on the database's locale.
WHITE_SPACE = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680"
    "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\ufeff"
)


def normal(address: str) -> str:
    """The form in which a customer's address is stored: trimmed, in lower case."""
    return address.strip(WHITE_SPACE).lower()


class NormalAddress(models.Func):
    """``normal()`` of a column, as PostgreSQL computes it."""

    template = "lower(btrim(%(expressions)s))"
    output_field = models.CharField()

    def __init__(self, expression: Any, **extra: Any) -> None:
        super().__init__(expression, models.Value(WHITE_SPACE), **extra)
