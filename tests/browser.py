"""What a browser does with a form: reads the page, and posts what it would post."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

Data = dict[str, list[str]]


@dataclass
class _Page(HTMLParser):
    """The controls of every form of a page, by the form's id."""

    forms: dict[str, Data] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._form: Data = {}
        self._select: str | None = None
        self._options: list[tuple[str, bool]] = []
        self._multiple = False
        self._area: str | None = None
        self._text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._form = self.forms.setdefault(found.get("id", ""), {})
        elif tag == "input":
            self._input(found)
        elif tag == "textarea":
            self._area, self._text = found["name"], ""
        elif tag == "select":
            self._select, self._options = found.get("name"), []
            self._multiple = "multiple" in found
        elif tag == "option" and self._select is not None:
            self._options.append((found.get("value", ""), "selected" in found))

    def _input(self, found: dict[str, str]) -> None:
        kind = found.get("type", "text")
        name, value = found.get("name"), found.get("value", "")
        if not name or kind in ("submit", "button", "image", "reset", "file"):
            return
        if kind in ("checkbox", "radio"):
            if "checked" in found:
                self._put(name, found.get("value", "on"))
            return
        if kind == "number" and not _is_number(value):
            value = ""
        if kind != "hidden":
            value = value.replace("\r", "").replace("\n", "")
        self._put(name, value)

    def handle_data(self, data: str) -> None:
        if self._area is not None:
            self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea" and self._area is not None:
            # The first line end after the tag is not part of the text.
            text = self._text.replace("\r\n", "\n").removeprefix("\n")
            self._put(self._area, text.replace("\n", "\r\n"))
            self._area = None
        elif tag == "select" and self._select is not None:
            chosen = [value for value, selected in self._options if selected]
            if not chosen and not self._multiple and self._options:
                chosen = [self._options[0][0]]
            for value in chosen:
                self._put(self._select, value)
            self._select = None

    def _put(self, name: str, value: str) -> None:
        self._form.setdefault(name, []).append(value)


def _is_number(text: str) -> bool:
    try:
        return float(text) == float(text)
    except ValueError:
        return False


def form(html: bytes, id: str) -> Data:
    """What the form ``id`` of a page posts if nothing in it is touched."""
    page = _Page()
    page.feed(html.decode())
    page.close()
    return page.forms[id]
