"""Curating in the admin: many assets into a set or a library at once, a set put in order."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import DatabaseError, models, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse

from catalogue import curating
from catalogue.models import Asset, AssetSet, AssetSetItem, Table
from terrain.pages import RecordAdmin, refusals
from terrain.pages.search import as_uuid

#: Assets that are added at once, and items that are put in order on one page.
MOST = 1000


class IntoSet(forms.Form):
    """Which set the chosen assets go into."""

    into = forms.ModelChoiceField(
        AssetSet.objects.order_by("name", "pk"),
        label="Set",
        empty_label="Choose a set",
    )

    def add(self, assets: Iterable[Asset]) -> int:
        return curating.add_to_set(self.cleaned_data["into"], assets)


class IntoLibrary(forms.Form):
    """Which table's library the chosen assets go into."""

    into = forms.CharField(
        label="Table",
        max_length=64,
        strip=True,
        help_text="The table's id or share code.",
    )

    def clean_into(self) -> Table:
        term = self.cleaned_data["into"]
        key = as_uuid(term)
        found = Table.objects.filter(share_code=term).first()
        if found is None and key is not None:
            found = Table.objects.filter(pk=key).first()
        if found is None:
            raise ValidationError("There is no table with this id or share code.")
        return found

    def add(self, assets: Iterable[Asset]) -> int:
        return curating.add_to_library(self.cleaned_data["into"], assets)


class Curates(RecordAdmin):
    """Actions on a list of assets that put them somewhere, with a page in between."""

    @admin.action(description="Add to a set …", permissions=["curate"])
    def into_set(self, request: HttpRequest, found: Any) -> HttpResponse:
        return self._into(request, found, "into_set", IntoSet, "Add to a set")

    @admin.action(description="Add to a table's library …", permissions=["library"])
    def into_library(self, request: HttpRequest, found: Any) -> HttpResponse:
        return self._into(
            request, found, "into_library", IntoLibrary, "Add to a table's library"
        )

    def has_curate_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("catalogue.change_assetset"))

    def has_library_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("catalogue.change_table"))

    def _into(
        self,
        request: HttpRequest,
        found: models.QuerySet[Asset],
        action: str,
        form_class: type[IntoSet] | type[IntoLibrary],
        title: str,
    ) -> HttpResponse:
        assets = list(found.order_by("name", "pk")[: MOST + 1])
        form = form_class(request.POST if "into" in request.POST else None)
        if len(assets) > MOST:
            told = f"No more than {MOST:,} at once: choose fewer of them."
            self.message_user(request, told, messages.WARNING)
            return HttpResponseRedirect(request.get_full_path())
        if form.is_valid() and self._added(request, form, assets):
            return HttpResponseRedirect(request.get_full_path())
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "form": form,
            "errors": form.errors,
            "action": action,
            "assets": assets,
            "checkbox": ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(request, "catalogue/into.html", context)

    def _added(
        self, request: HttpRequest, form: IntoSet | IntoLibrary, assets: list[Asset]
    ) -> bool:
        """Whether they could be added; if not, the form says why."""
        into: models.Model = form.cleaned_data["into"]
        try:
            with transaction.atomic():
                number = form.add(assets)
        except DatabaseError as error:
            if not refusals.is_expected(error):
                raise
            form.add_error(None, refusals.as_form_error(error))
            return False
        there = f" {len(assets) - number} were there." if number < len(assets) else ""
        told = f"{number} added to {into}.{there}"
        self.log_change(request, into, told)
        self.message_user(request, told)
        return True


# --- a set in order ------------------------------------------------------------------------


class Arranging(forms.Form):
    """The places of a set's items, and more assets to append to them."""

    more = forms.CharField(
        required=False,
        label="Add assets",
        widget=forms.Textarea(attrs={"rows": 4, "class": "vLargeTextField"}),
        help_text="Ids of assets (or of their models), one on each line; appended in this"
        " order.",
    )

    def __init__(self, items: list[AssetSetItem], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.items = items
        for item in items:
            self.fields[f"place-{item.pk}"] = forms.IntegerField(
                label=f"Place of {item.asset}",
                min_value=0,
                max_value=2_000_000_000,
                initial=item.position,
                widget=forms.NumberInput(attrs={"class": "place"}),
            )

    def rows(self) -> Iterable[tuple[AssetSetItem, forms.BoundField]]:
        return [(item, self[f"place-{item.pk}"]) for item in self.items]

    def clean_more(self) -> list[Asset]:
        lines = [line.strip() for line in self.cleaned_data["more"].splitlines()]
        keys = {line: as_uuid(line) for line in lines if line}
        if len(keys) > MOST:
            raise ValidationError(f"No more than {MOST:,} at once.")
        found = Asset.objects.in_bulk([key for key in keys.values() if key is not None])
        unknown = [line for line, key in keys.items() if key not in found]
        if unknown:
            named = ", ".join(line[:60] for line in unknown[:5])
            raise ValidationError(f"There is no asset with this id: {named}.")
        return [found[key] for key in keys.values() if key is not None]

    def order(self) -> list[uuid.UUID]:
        """The items by the places they were given; of equal ones the first stays so."""
        places = {item.pk: self.cleaned_data[f"place-{item.pk}"] for item in self.items}
        return sorted(places, key=lambda key: places[key])


class Arranges(RecordAdmin):
    """A set with a page on which it is put in order."""

    def get_urls(self) -> Any:
        view = self.admin_site.admin_view(self.arrange)
        name = "catalogue_assetset_arrange"
        return [path("<uuid:key>/arrange/", view, name=name), *super().get_urls()]

    def arrange(self, request: HttpRequest, key: uuid.UUID) -> HttpResponse:
        chosen = self.get_object(request, str(key))
        if chosen is None:
            raise Http404
        if not self.has_change_permission(request, chosen):
            raise PermissionDenied
        items = list(
            chosen.items.select_related("asset").order_by("position", "pk")[:MOST]
        )
        form = Arranging(items, request.POST or None)
        if request.method == "POST" and form.is_valid():
            moved = curating.arrange(chosen, form.order())
            added = curating.add_to_set(chosen, form.cleaned_data["more"])
            told = f"{moved} moved, {added} added."
            if moved or added:
                self.log_change(request, chosen, told)
            self.message_user(request, told)
            where = reverse("admin:catalogue_assetset_arrange", args=[key])
            return HttpResponseRedirect(where)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Order of {chosen}",
            "form": form,
            "errors": form.errors,
            "chosen": chosen,
        }
        return TemplateResponse(request, "catalogue/arrange.html", context)
