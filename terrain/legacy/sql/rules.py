"""What holds a row, and what flags it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from terrain.legacy.schema import Lens, Rule
from terrain.legacy.sql.text import joined_by_or, joined_whens, literal, texts
from terrain.sqlfiles import render


def held(
    lens: Lens, *, forecast: Mapping[str, str] | None = None, alone: bool = False
) -> str:
    """The code of the first rule that holds ``l``, or NULL.

    With ``forecast``, a map of table name -> qualified name, as it will be: nothing of
    the new schema is referred to.  With ``alone``, by what the row itself says: without
    the rules that look at other rows, which make a query of an expression.
    """
    if not lens.held:
        return "NULL::text"
    of_row = [
        rule
        for rule in lens.held
        if not rule.of_element and not (alone and rule.forecast)
    ]
    whens = joined_whens((_when(rule, forecast), literal(rule.code)) for rule in of_row)
    return f"(CASE{whens} ELSE {_first_of_elements(lens)} END)"


def may_be_held(lens: Lens) -> str:
    """Whether the part of ``l`` has to be looked at closely: false for nearly all.

    In an IF of its own, it keeps the server from planning :func:`held` for every row.
    """
    assert lens.part is not None
    odd = joined_by_or(_when(rule, None) for rule in lens.held if not rule.of_element)
    return f"(CASE WHEN {odd} THEN true ELSE ({lens.part.fine}) IS NOT TRUE END)"


def _first_of_elements(lens: Lens) -> str:
    """The code of the first rule that any element meets: one look at each."""
    rules = [rule for rule in lens.held if rule.of_element]
    if lens.part is None or not rules:
        return "NULL"
    ranks = joined_whens((rule.when, str(rank)) for rank, rule in enumerate(rules, 1))
    return (
        f"CASE WHEN NOT ({lens.part.fine}) THEN"
        f" ({texts(rule.code for rule in rules)})[(SELECT min(CASE{ranks} END)"
        f" FROM jsonb_array_elements(l.{lens.part.column}) AS e (item))] END"
    )


def _when(rule: Rule, forecast: Mapping[str, str] | None) -> str:
    if forecast is None or rule.forecast is None:
        return rule.when
    return render(rule.forecast, **forecast)


def detail(lens: Lens, rules: Iterable[Rule], code: str) -> str:
    """The sentence about ``l`` for the rule whose code the expression ``code`` gives."""
    whens = joined_whens(
        (f"{code} = {literal(rule.code)}", literal(f" {rule.sentence}. {rule.remedy}"))
        for rule in rules
    )
    return f"({literal(lens.legacy + ' ')} || l.id || CASE{whens} END)"


def price_rules() -> tuple[Rule, ...]:
    """Flags that come from the lines of an order together, not from its row alone."""
    remedy = "Compare the lines with what the customer paid, and correct either, or accept it."
    return (
        Rule(
            "subtotal_missing",
            "",
            "has no model_subtotal, or none that is an amount, to check its lines against",
            remedy,
        ),
        Rule(
            "prices_disagree",
            "",
            "has lines that do not add up to its model_subtotal",
            remedy,
        ),
    )


def flag_rows(lens: Lens) -> list[tuple[str, str]]:
    """(code or NULL, sentence) as expressions over ``l``, a pair for each flag a row may have."""
    rows = [
        (
            f"CASE WHEN {rule.when} THEN {literal(rule.code)} END",
            detail(lens, [rule], literal(rule.code)),
        )
        for rule in lens.flagged
    ]
    return rows


def any_flag(lens: Lens) -> str:
    """Whether ``l`` may have a flag at all, which is quicker to tell than which."""
    return joined_by_or(rule.when for rule in lens.flagged)


def known_flags(lens: Lens) -> list[str]:
    codes = [rule.code for rule in lens.flagged]
    return [*codes, *(rule.code for rule in price_rules())] if lens.part else codes
