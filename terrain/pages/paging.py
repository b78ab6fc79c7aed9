"""Pages of a large table: never counted to the end, never leafed through to the end."""

from __future__ import annotations

import json
from typing import Any

from django.core.paginator import Paginator
from django.utils.functional import cached_property

#: Rows up to which a list is counted and can be leafed through.  Whoever looks for
#: something further down sorts, filters or searches.
LIMIT = 10_000


class Estimate(int):
    """The planner's idea of a number of rows; it says so where it is shown."""

    def __str__(self) -> str:
        return f"about {int(self):,}"


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts up to :data:`LIMIT`; beyond it asks the planner and has no more pages."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        if not hasattr(rows, "query"):
            return len(rows)
        unordered = rows.order_by()
        number: int = unordered[: LIMIT + 1].count()
        return number if number <= LIMIT else Estimate(max(_planned(unordered), number))

    @cached_property
    def num_pages(self) -> int:
        if not self.count and not self.allow_empty_first_page:
            return 0
        reachable = min(int(self.count), LIMIT)
        return max(1, -(-reachable // self.per_page))


def _planned(rows: Any) -> int:
    """The number of rows PostgreSQL expects a query to give."""
    plan = json.loads(rows.explain(format="json"))
    return int(plan[0]["Plan"]["Plan Rows"])
