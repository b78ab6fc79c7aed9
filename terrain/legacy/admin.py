"""The ledger of the move, to be read, and the quarantine, to be worked through."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db import connections, models
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils import timezone

from terrain.legacy import heldrows, settling
from terrain.legacy.models import Batch, Quarantine, QuarantinedRow, Released, Run
from terrain.pages import ReadOnlyAdmin, changelist_link, record_link, shown
from terrain.pages.search import as_uuid
from terrain.pages.shown import changelist_url, related


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    """What was run."""

    is_found = False
    list_display = (
        "step",
        "state",
        "started_at",
        "finished_at",
        "rows",
        "total",
        "at_work",
    )
    list_filter = ("state", "step")
    words = ("step__icontains",)
    search_help_text = "Part of a step's name."
    ordering = ("-id",)
    sortable_by = ()
    fields = (
        "step",
        "state",
        "started_at",
        "finished_at",
        "rows",
        "total",
        "at_work",
        "in_batches",
        "detail",
    )

    @admin.display(description="time at work")
    def at_work(self, run: Run) -> str:
        return f"{run.seconds:,.1f} s"

    @admin.display(description="batches")
    def in_batches(self, run: Run) -> str:
        return changelist_link(run.batches.all(), {"run__id__exact": run.pk})


@admin.register(Batch)
class BatchAdmin(ReadOnlyAdmin):
    """A range of keys that was copied in one transaction."""

    is_found = False
    list_display = ("id", related("run"), "shard", "upto", "rows", "took", "at")
    list_select_related = ("run",)
    ordering = ("-id",)
    sortable_by = ()
    fields = ("run", "shard", "after", "upto", "rows", "took", "at")

    def get_search_fields(self, request: HttpRequest) -> Any:
        return ()

    @admin.display(description="took")
    def took(self, batch: Batch) -> str:
        return f"{batch.seconds * 1000:,.0f} ms"


class _RowsAdmin(ReadOnlyAdmin):
    """Rows that are or were in quarantine."""

    # With the legacy row they are about, as "find anything" shows it.
    is_found = False
    words = ("reason__icontains",)
    search_help_text = "A whole id of a legacy row, or part of a reason."
    list_filter: ClassVar[Any] = ("kind", "legacy_table", "reason")
    list_needs = ("legacy_id", "detail")
    sortable_by = ()
    # A row of artists has a password hash in it.
    hidden = ("row", "parked")
    facts: tuple[str, ...] = (
        "sentence",
        "legacy_table",
        "legacy_id",
        "kind",
        "reason",
        "new_row",
        "found_at",
    )

    def key_conditions(self, term: str) -> Iterable[models.Q]:
        key = as_uuid(term)
        if key is not None:
            yield models.Q(legacy_id=key)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        made: list[Any] = [
            (None, {"fields": self.facts}),
            ("The legacy row", {"fields": ("legacy_row",)}),
        ]
        if obj is not None and obj.parked is not None:
            what = "What only the new schema knows of it, which comes back with the row"
            made.append((what, {"fields": (shown.shown(_parked(self.model)),)}))
        return made

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return (*self.facts, "legacy_row")

    @admin.display(description="What is wrong")
    def sentence(self, entry: QuarantinedRow) -> str:
        return entry.detail

    @admin.display(description="Id")
    def short_id(self, entry: QuarantinedRow) -> str:
        return f"{str(entry.legacy_id)[:8]}…"

    @admin.display(description="What is wrong")
    def in_short(self, entry: QuarantinedRow) -> str:
        """The sentence without the table and id, which have columns of their own."""
        start = f"{entry.legacy_table} {entry.legacy_id} "
        return entry.detail.removeprefix(start)

    @admin.display(description="New row")
    def new_row(self, entry: QuarantinedRow) -> str:
        record = heldrows.new_record(entry)
        if record is None:
            return "none: the row is not in the new table"
        return record_link(record, f"{record._meta.verbose_name} {record}")

    @admin.display(description="Row")
    def legacy_row(self, entry: QuarantinedRow) -> str:
        """Each column as it was found, and as it is now where that is something else."""
        return render_to_string("legacy/row.html", {"columns": heldrows.columns(entry)})


def _parked(model: type[models.Model]) -> Any:
    return model._meta.get_field("parked")


@admin.register(Quarantine)
class QuarantineAdmin(_RowsAdmin):
    """Rows that need a person."""

    list_display = (
        "short_id",
        "legacy_table",
        "kind",
        "reason",
        "in_short",
        "decided_by",
    )
    list_filter = (
        "kind",
        "legacy_table",
        "reason",
        ("decided_at", admin.EmptyFieldListFilter),
    )
    list_select_related = ("decided_by",)
    ordering = ("legacy_table", "legacy_id", "reason", "kind")
    actions = ("retry", "accept", "reopen")
    facts = (*_RowsAdmin.facts, "decided_at", "decided_by")
    change_form_template = "legacy/quarantine_form.html"
    # Others write these rows: a retry commits every few hundred of them.
    one_transaction = False

    def has_decide_permission(self, request: HttpRequest) -> bool:
        """Whether somebody may work through the quarantine, and not only look at it."""
        return request.user.has_perm("legacy.change_quarantine")

    def changelist_view(
        self, request: HttpRequest, extra_context: Any = None
    ) -> HttpResponse:
        overview = "" if request.GET else _overview()
        context = {"overview": overview, **(extra_context or {})}
        return super().changelist_view(request, context)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context["decide_url"] = (
            changelist_url(Quarantine) if self.has_decide_permission(request) else None
        )
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.action(
        description="Retry: look at the legacy rows again", permissions=["decide"]
    )
    def retry(self, request: HttpRequest, found: models.QuerySet[Quarantine]) -> None:
        connection = connections[found.db]
        if not settling.is_possible(connection):
            told = (
                "The legacy tables are not beside the new ones (any more), so there is"
                " nothing to look at again."
            )
            return self.message_user(request, told, messages.WARNING)
        entries = list(found.values_list("legacy_table", "legacy_id").distinct())
        chosen = list(found.values_list("pk", flat=True))
        settling.retry_held(connection, entries)
        left = Quarantine.objects.filter(pk__in=chosen)
        still = left.count()
        released = len(chosen) - still
        self.message_user(
            request,
            f"{released} of {len(chosen)} released.",
            messages.SUCCESS if released else messages.WARNING,
        )
        if still:
            first = left[0].detail
            more = f" ({still - 1} more are as they were.)" if still > 1 else ""
            self.message_user(request, f"Not yet: {first}{more}", messages.WARNING)
        return None

    @admin.action(description="Accept as it is", permissions=["decide"])
    def accept(self, request: HttpRequest, found: models.QuerySet[Quarantine]) -> None:
        number = found.filter(decided_at=None).update(
            decided_at=timezone.now(), decided_by=request.user.pk
        )
        self.message_user(request, f"{number} accepted as they are.")

    @admin.action(description="Withdraw the decision", permissions=["decide"])
    def reopen(self, request: HttpRequest, found: models.QuerySet[Quarantine]) -> None:
        number = found.exclude(decided_at=None).update(decided_at=None, decided_by=None)
        self.message_user(request, f"{number} to be decided again.")


def _overview() -> str:
    """How many rows there are of each table and reason, linked to the list of them."""
    rows = (
        Quarantine.objects.order_by("legacy_table", "kind", "reason")
        .values("legacy_table", "kind", "reason")
        .annotate(
            rows=models.Count("pk"), open=models.Count("pk", models.Q(decided_at=None))
        )
    )
    counted = [
        {
            **row,
            "url": changelist_url(
                Quarantine,
                {name: row[name] for name in ("legacy_table", "reason", "kind")},
            ),
        }
        for row in rows
    ]
    return render_to_string("legacy/overview.html", {"rows": counted})


@admin.register(Released)
class ReleasedAdmin(_RowsAdmin):
    """Rows that were in quarantine and have been put right."""

    list_display = (
        "short_id",
        "legacy_table",
        "kind",
        "reason",
        "in_short",
        "released_at",
    )
    ordering = ("-id",)
    facts = (*_RowsAdmin.facts, "released_at")
