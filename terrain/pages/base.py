"""The admin classes that the project's own are made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.views.main import ERROR_FLAG
from django.db import DatabaseError, connections, models, router, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html

from terrain import locks, panels
from terrain.pages import refusals, shown
from terrain.pages.fields import Fields, model_field
from terrain.pages.paging import BoundedPaginator
from terrain.pages.search import as_uuid

#: Milliseconds a page waits for a row that another transaction is writing.
LONGEST_WAIT = 2000
#: Reasons given for not deleting something; one would do.
NAMED_IN_THE_WAY = 20


class RecordAdmin(Fields, admin.ModelAdmin):  # type: ignore[type-arg]
    """A list that pages fast, a form that fails on no row, refusals as messages.

    ``keys`` are what the search looks for, each by an index: lookups that take the whole
    term.  ``words`` are lookups for part of a text, for tables that are small enough or
    with ``words_among``, a condition that makes them so.
    """

    change_form_template = "terrain/change_form.html"
    change_list_template = "terrain/change_list.html"
    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 100
    keys: ClassVar[tuple[str, ...]] = ()
    words: ClassVar[tuple[str, ...]] = ()
    words_among: ClassVar[models.Q] = models.Q()
    #: What belongs to a record: the name there is for it there, and the column it is told by.
    belongings: ClassVar[tuple[tuple[str, str], ...]] = ()
    #: Whether "find anything" looks here, and where such records come among others.
    is_found, found_first = True, 50
    #: Fields that no page shows: no filter may ask for them either, bit by bit.
    hidden: ClassVar[tuple[str, ...]] = ()
    #: Whether an action on several rows is done as a whole or not at all.
    one_transaction = True
    #: Fields that columns of the list are made from, beside those named there.
    list_needs: ClassVar[tuple[str, ...]] = ()
    #: Columns of the list that an index orders.
    sortable_by: ClassVar[Any] = ("created_at",)
    ordering: ClassVar[Any] = ("-created_at",)

    class Media:
        css = {"all": ["terrain/pages.css"]}

    # --- the list --------------------------------------------------------------------------

    def get_list_display(self, request: HttpRequest) -> Any:
        made = []
        for name in super().get_list_display(request):
            field = model_field(self.model, name)
            sortable = name in self.sortable_by
            made.append(
                name if field is None else shown.shown(field, sortable=sortable)
            )
        return made

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        """For a list, without the documents that it does not show; else with what is named."""
        rows = super().get_queryset(request)
        match = request.resolver_match
        if match is None or not (match.url_name or "").endswith("_changelist"):
            return (
                rows.select_related(*self.raw_id_fields) if self.raw_id_fields else rows
            )
        return self.without_documents(rows)

    def without_documents(self, rows: models.QuerySet[Any]) -> models.QuerySet[Any]:
        """The rows for a list, and what they refer to, without JSON that it does not show."""
        columns = {*self.list_display, *self.list_needs}
        relations: Any = self.list_select_related or ()
        unseen = [name for name in _documents(self.model) if name not in columns]
        for path in relations:
            related: Any = self.model
            for part in path.split("__"):
                related = related._meta.get_field(part).related_model
                prefix = path[: path.index(part)] + part
                unseen += [f"{prefix}__{name}" for name in _documents(related)]
        return rows.defer(*dict.fromkeys(unseen))

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        name = lookup.partition("__")[0]
        allowed: bool = super().lookup_allowed(lookup, value, request)
        return allowed and name not in self.hidden

    def get_search_fields(self, request: HttpRequest) -> Any:
        return (*self.keys, *self.words, self.model._meta.pk.name)

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet[Any], search_term: str
    ) -> tuple[models.QuerySet[Any], bool]:
        """Rows with the term as a key; if there are none, those with it in a text.

        The two are never joined with OR: no index would serve both.
        """
        term = search_term.strip()
        if not term:
            return queryset, False
        for condition in self.key_conditions(term):
            found = queryset.filter(condition)
            if found.order_by().exists():
                return found, False
        if not self.words:
            return queryset.none(), False
        text = models.Q()
        for lookup in self.words:
            text |= models.Q(**{lookup: term})
        return queryset.filter(self.words_among, text), False

    def key_conditions(self, term: str) -> Iterable[Any]:
        """The conditions under which a row has the term as a key, one for each index."""
        key = as_uuid(term)
        if key is not None:
            yield models.Q(pk=key)
        for lookup in self.keys:
            yield models.Q(**{lookup: term})

    def changelist_view(
        self, request: HttpRequest, extra_context: Any = None
    ) -> HttpResponse:
        """A filter that PostgreSQL cannot even read is dropped, like any impossible one."""
        try:
            if request.method != "POST" or not self.one_transaction:
                return super().changelist_view(request, extra_context)
            with self._writing():
                return super().changelist_view(request, extra_context)
        except DatabaseError as error:
            if not refusals.is_expected(error):
                raise
            if request.method != "POST":
                return HttpResponseRedirect(f"{request.path}?{ERROR_FLAG}=1")
            self.message_user(request, refusals.sentence(error), messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())

    # --- the form --------------------------------------------------------------------------

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        refusal = getattr(request, "refusal", None)
        return type(form.__name__, (form,), {"refusal": refusal}) if refusal else form

    def changeform_view(
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Saves in a transaction; if the database refuses, shows the form with the reason."""
        if request.method != "POST":
            return super().changeform_view(request, *args, **kwargs)
        try:
            with self._writing():
                return super().changeform_view(request, *args, **kwargs)
        except DatabaseError as error:
            if not refusals.is_expected(error):
                raise
            request.refusal = error  # type: ignore[attr-defined]
        return super().changeform_view(request, *args, **kwargs)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction that does not wait for as long as somebody else's takes."""
        using = router.db_for_write(self.model)
        with transaction.atomic(using=using):
            with locks.lock_timeout(connections[using], LONGEST_WAIT):
                yield

    def save_related(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().save_related(request, *args, **kwargs)
        self._check_constraints()

    def _check_constraints(self) -> None:
        """Have deferred constraints speak now, before anybody is told that all went well."""
        connections[router.db_for_write(self.model)].check_constraints()

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        if obj is not None:
            context["panels"] = panels.of(request, obj)
        return super().render_change_form(request, context, add, change, form_url, obj)

    # --- deleting --------------------------------------------------------------------------

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What stands in the way is counted, not listed: there may be thousands."""
        in_the_way = (each for obj in objs for each in self.in_the_way(obj))
        named = list(islice(in_the_way, NAMED_IN_THE_WAY))
        if named:
            return [], {}, set(), named
        return super().get_deleted_objects(objs, request)

    def in_the_way(self, obj: Any) -> Iterable[str]:
        """What refers to a record and would be lost with it, as "12 models of …"."""
        for relation in obj._meta.related_objects:
            if relation.on_delete is not models.PROTECT:
                continue
            rows = relation.related_model._default_manager.filter(
                **{relation.field.name: obj}
            )
            if rows.order_by().exists():
                lookup = f"{relation.field.name}__id__exact"
                link = shown.changelist_link(rows, {lookup: obj.pk})
                yield format_html("{} of {}", link, str(obj))

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: Any = None
    ) -> HttpResponse:
        try:
            with self._writing():
                return super().delete_view(request, object_id, extra_context)
        except DatabaseError as error:
            if not refusals.is_expected(error):
                raise
            self.message_user(request, refusals.sentence(error), messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        super().delete_model(request, obj)
        self._check_constraints()

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        super().delete_queryset(request, queryset)
        self._check_constraints()


def _documents(model: Any) -> list[str]:
    """The fields of a model that may be of any length."""
    return [
        field.name
        for field in model._meta.concrete_fields
        if isinstance(field, models.JSONField | models.TextField)
    ]


class ReadOnlyAdmin(RecordAdmin):
    """For what is written by the program alone."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
