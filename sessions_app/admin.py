"""Visitors without an account, in the admin."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest

from catalogue.models import Table
from sessions_app.models import AnonymousSession
from terrain.pages import RecordAdmin, changelist_link


@admin.register(AnonymousSession)
class AnonymousSessionAdmin(RecordAdmin):
    """A visitor.  The token is not shown: who has it, has the visitor's tables."""

    belongings = (("tables", "session"),)

    list_display = ("__str__", "table_limit", "created_at", "last_seen")
    search_help_text = "A whole id."
    hidden = ("session_token",)
    ordering = ("-last_seen",)
    sortable_by = ("last_seen",)
    readonly_fields = ("holds", "created_at")
    fields = ("table_limit", "holds", "last_seen", "created_at")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """A visitor comes with a cookie."""
        return False

    @admin.display(description="Tables")
    def holds(self, session: AnonymousSession) -> str:
        return changelist_link(
            Table.objects.filter(session=session), {"session__id__exact": session.pk}
        )
