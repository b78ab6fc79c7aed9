"""Putting assets together: sets in an order, and the libraries of tables."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence

from django.db import router, transaction

from catalogue.models import Asset, AssetSet, AssetSetItem, Table, TableAsset


def add_to_set(chosen: AssetSet, assets: Iterable[Asset]) -> int:
    """Append what is not in the set yet, in the order given; returns how many that were."""
    using = router.db_for_write(AssetSet)
    with transaction.atomic(using=using):
        items = _locked(chosen, using)
        there = {item.asset_id for item in items}
        last = max((item.position for item in items), default=0)
        new = [each for each in dict.fromkeys(assets) if each.pk not in there]
        AssetSetItem.objects.using(using).bulk_create(
            AssetSetItem(asset_set=chosen, asset=asset, position=last + number)
            for number, asset in enumerate(new, 1)
        )
    return len(new)


def arrange(chosen: AssetSet, order: Sequence[uuid.UUID]) -> int:
    """Number the items of a set from 1, those of ``order`` (ids of items) first.

    The others follow in the order they had: somebody may have added them meanwhile.
    Returns how many have another number than before.
    """
    using = router.db_for_write(AssetSet)
    with transaction.atomic(using=using):
        items = {item.pk: item for item in _locked(chosen, using)}
        first = [items.pop(key) for key in dict.fromkeys(order) if key in items]
        moved = []
        for number, item in enumerate([*first, *items.values()], 1):
            if item.position != number:
                item.position = number
                moved.append(item)
        AssetSetItem.objects.using(using).bulk_update(moved, ["position"], 500)
    return len(moved)


def _locked(chosen: AssetSet, using: str) -> list[AssetSetItem]:
    """The items in their order, while nobody else arranges the set."""
    AssetSet.objects.using(using).select_for_update().get(pk=chosen.pk)
    found = AssetSetItem.objects.using(using).filter(asset_set=chosen)
    return list(found.order_by("position", "pk"))


def add_to_library(table: Table, assets: Iterable[Asset]) -> int:
    """Put assets into a table's library; returns how many were not there.

    Raises :class:`~terrain.exceptions.LimitExceeded` if the table may not hold as many;
    then none has been added.
    """
    using = router.db_for_write(TableAsset)
    with transaction.atomic(using=using):
        rows = TableAsset.objects.using(using)
        before = rows.filter(table=table).count()
        rows.bulk_create(
            (TableAsset(table=table, asset=asset) for asset in dict.fromkeys(assets)),
            ignore_conflicts=True,
        )
        return rows.filter(table=table).count() - before
