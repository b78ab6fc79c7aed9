"""The admin in a real browser: Debian's Chromium, driven by Playwright.

``CHROMIUM`` names another executable.  ``SCREENSHOTS`` is a folder that pictures of the main
pages are written to.  ``AXE`` is the file of axe-core (``npm pack axe-core``), which looks
for what keeps people with a disability from using a page.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.test.testcases import LiveServerThread

EXECUTABLE = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
SCREENSHOTS = os.environ.get("SCREENSHOTS", "")
AXE = os.environ.get("AXE", "")

#: No download, and nothing asked of the outside; without a sandbox, as tests run as root.
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: Impacts that a page may not have.
SERIOUS = {"serious", "critical"}


def why_not() -> str:
    """Why there can be no tests in a browser; nothing if there can."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "Playwright is not installed: pip install -r requirements-dev.txt"
    if not EXECUTABLE:
        return "Chromium is not installed: apt-get install chromium"
    return ""


@contextmanager
def served() -> Iterator[str]:
    """The application on a port of its own on loopback, in a thread; gives its URL."""
    thread = LiveServerThread("127.0.0.1", StaticFilesHandler)
    thread.daemon = True
    thread.start()
    thread.is_ready.wait()
    if thread.error is not None:
        raise thread.error
    try:
        yield f"http://127.0.0.1:{thread.port}"
    finally:
        thread.terminate()


@contextmanager
def browser() -> Iterator[Any]:
    """A browser, until the block ends."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=EXECUTABLE, args=list(OPTIONS)
        )
        try:
            yield found
        finally:
            found.close()


@dataclass
class Visitor:
    """Somebody at a browser; ``complaints`` is what its console said."""

    url: str
    page: Any
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(30_000)  # the machine may have other things to do
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._listen)

    def _listen(self, message: Any) -> None:
        # A page that is not ready yet says so with status 503, which is no fault of its.
        if message.type == "error" and "503" not in message.text:
            self.complaints.append(message.text)

    def open(self, path: str) -> None:
        self.page.goto(self.url + path)

    def sign_in(self, email: str, password: str, to: str = "/admin/") -> None:
        self.open(f"/admin/login/?next={to}")
        self.page.fill("#id_username", email)
        self.page.fill("#id_password", password)
        self.page.press("#id_password", "Enter")
        self.page.wait_for_url(self.url + to)

    def text(self, selector: str = "main") -> str:
        return " ".join(self.page.inner_text(selector).split())

    def picture(self, name: str) -> None:
        """A screenshot, if they are wanted."""
        if SCREENSHOTS:
            Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=str(Path(SCREENSHOTS, f"{name}.png")))

    def barriers(self) -> list[str]:
        """What axe-core finds on the page that is serious: rule and element."""
        before = len(self.complaints)
        self.page.evaluate(Path(AXE).read_text())
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        del self.complaints[
            before:
        ]  # axe's own: it tries styles that no page here may have
        return [
            f"{each['id']} ({each['help']}): {node['html'][:200]}"
            for each in found["violations"]
            if each["impact"] in SERIOUS
            for node in each["nodes"]
        ]
