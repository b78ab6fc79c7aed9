"""What all pages of the admin have in common: odd values, large tables, refusals."""

from terrain.pages.base import ReadOnlyAdmin, RecordAdmin
from terrain.pages.fields import RecordInline
from terrain.pages.shown import changelist_link, record_link

__all__ = [
    "ReadOnlyAdmin",
    "RecordAdmin",
    "RecordInline",
    "changelist_link",
    "record_link",
]
