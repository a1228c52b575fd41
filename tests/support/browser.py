"""The system's chromium, driven by playwright, and what a page in it did wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.support.harness import ROOT, TIMEOUT

AXE = ROOT / "tests" / "support" / "vendor" / "axe.min.js"
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")


@dataclass
class Faults:
    """Exceptions of the page's scripts, and what its Content-Security-Policy or the browser refused."""

    lines: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.lines.append(f"{page.url}: {error}"))
        page.on("console", self._note)

    def _note(self, message: ConsoleMessage) -> None:
        # Of refusals by the server, which tests provoke, the browser tells itself.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.lines.append(message.text)


@contextmanager
def start_chromium(microphone: Path) -> Iterator[Browser]:
    """A browser that plays without a gesture, and whose microphone hears a WAV file again and again."""
    program = shutil.which("chromium")
    assert program is not None, "install the package chromium"
    arguments = [
        "--autoplay-policy=no-user-gesture-required",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
        "--mute-audio",
    ]
    expect.set_options(timeout=TIMEOUT * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(
    browser: Browser, url: str, faults: Faults, *, key: str | None = None, width: int = 1200, scheme: str = "light"
) -> Iterator[Page]:
    """A page in a profile of its own; `key` is the API key of its tab."""
    context: BrowserContext = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light"
    )
    context.set_default_timeout(TIMEOUT * 1000)
    context.grant_permissions(["clipboard-read", "clipboard-write", "microphone"])
    if key is not None:
        context.add_init_script(f"sessionStorage.setItem('chorus.key', '{key}')")
    page = context.new_page()
    faults.watch(page)
    page.goto(url)
    try:
        yield page
    finally:
        context.close()


@cache
def _axe() -> str:
    return AXE.read_text()


def accessibility_faults(page: Page) -> list[str]:
    """What axe-core finds wrong with a page, each with the element."""
    page.evaluate(_axe())
    # Without resultTypes, it describes all elements that pass, too.
    options = "{runOnly: rules, resultTypes: ['violations']}"
    found: list[dict[str, Any]] = page.evaluate(f"async rules => (await axe.run({options})).violations", list(RULES))
    return [f"{fault['id']}: {node['html'][:200]}" for fault in found for node in fault["nodes"]]
