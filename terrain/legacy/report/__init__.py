"""The report of a verification: data with a digest, a page made from it, and a comparison.

``content`` gathers what is to be said, ``page`` says it in HTML, ``diagram`` draws it,
``saved`` reads a report again and compares it with the database as it is now.
"""

from terrain.legacy.report.content import document
from terrain.legacy.report.page import Unwritable, check_writable, rendered, write
from terrain.legacy.report.saved import Altered, Difference, differences, load

__all__ = [
    "Altered",
    "Difference",
    "Unwritable",
    "check_writable",
    "differences",
    "document",
    "load",
    "rendered",
    "write",
]
