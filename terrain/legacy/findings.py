"""What a check finds: a value, for terminals and JSON to render."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """How bad it is.  Only the first keeps a command from going on."""

    BLOCKS = "blocks"
    FAILS = "fails"
    WARNS = "warns"
    TELLS = "tells"
    PASSES = "passes"


#: Offending rows kept with a finding, unless all are asked for.
EXAMPLES = 5
#: What whole rows are called in a finding.
WHOLE_ROWS = ("legacy", "rebuilt")
#: Characters of a value that the ledger keeps.
KEPT = 200


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    ``name`` is the check's, as typed in PREFLIGHT_ACCEPT; ``sentence`` says what was
    found, ``remedy`` what to do about it; ``rows`` are offending rows (all of them, or
    examples) and ``count`` says how many there are.
    """

    name: str
    severity: Severity
    sentence: str
    remedy: str = ""
    rows: tuple[dict[str, Any], ...] = ()
    count: int = 0

    @property
    def is_bad(self) -> bool:
        return self.severity in (Severity.BLOCKS, Severity.FAILS)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "severity": str(self.severity)}

    def in_brief(self) -> dict[str, Any]:
        """What is worth keeping: the sentence, and the beginning of a few rows.

        Not the whole rows that were compared: an artist's has a password hash in it.
        """
        rows = [
            {
                name: _beginning(value)
                for name, value in row.items()
                if name not in WHOLE_ROWS
            }
            for row in self.rows[:EXAMPLES]
        ]
        return {**self.as_json(), "rows": rows}


def _beginning(value: Any) -> str | None:
    if value is None:
        return None
    text = str(value)
    return text if len(text) <= KEPT else f"{text[:KEPT]}…"


def passed(name: str, sentence: str) -> Finding:
    return Finding(name, Severity.PASSES, sentence)
