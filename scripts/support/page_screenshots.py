"""Takes the screenshots of docs/page.md: each view of the page, light and dark, on a desk and on a phone.

A server of its own runs for it, with an operator's key; Live is shown with some traffic.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import httpx
import typer
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from balancer.access.api_keys import ApiKey, Role, digest_of, new_key, write_keys
from balancer.runtime.repository import REPOSITORY
from scripts.support.console import fail, report_progress, run_command
from scripts.support.servers import ServerError, interrupt_on_signals, start_chorus

FOLDER = REPOSITORY / "docs" / "page"
VIEWS = ("speak", "voices", "jobs")
LIVE = "live"
WIDTHS = {"desk": 1200, "phone": 390}
HEIGHT = 860
QUALITY = 82
TRAFFIC_SECONDS = 45
CLIENTS = 4

Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")

SENTENCES = (
    "The ferry leaves the harbour at dawn and returns before the evening tide.",
    "A light rain fell on the terraces, and nobody minded.",
    "In the market hall they sold peaches, wool, and clocks that had stopped.",
    "She counted the steps to the lighthouse: there were two hundred and twelve.",
    "By noon the fog had lifted, and the islands lay in a row.",
    "Nobody answered the telephone, though it rang for a long time.",
    "The letter had come from a town that was on no map.",
)
CHAPTER = " ".join(SENTENCES)


def main(
    folder: Annotated[Path, typer.Option(help="Where the screenshots are written.")] = FOLDER,
    only: Annotated[str | None, typer.Option(help="The one view that is wanted.")] = None,
    traffic_seconds: Annotated[
        int, typer.Option(min=1, help="Seconds of traffic before Live is shown.")
    ] = TRAFFIC_SECONDS,
) -> None:
    """Take the screenshots of the page's views."""
    interrupt_on_signals()
    program = shutil.which("chromium")
    assert program is not None  # noqa: S101 - the script that calls this has looked for it
    key = new_key()
    try:
        with tempfile.TemporaryDirectory(prefix="chorus-page-") as name:
            own = Path(name)
            shutil.copytree(REPOSITORY / "voices" / "default", own / "voices" / "default")
            write_keys(own / "keys.json", [ApiKey(name="ops", digest=digest_of(key), role=Role.OPERATOR)])
            settings = {"voices_dir": own / "voices", "keys_file": own / "keys.json", "cache_mib": 100}
            with (
                start_chorus("page", engine="hibari", workers=2, folder=own, settings=settings, api_key=key) as server,
                sync_playwright() as playwright,
            ):
                arguments = ["--autoplay-policy=no-user-gesture-required", "--mute-audio"]
                browser = playwright.chromium.launch(executable_path=program, args=arguments)
                folder.mkdir(parents=True, exist_ok=True)
                for view in VIEWS:
                    if only in (None, view):
                        _take(browser, f"{server.url}/#{view}", key, folder / view)
                if only in (None, LIVE):
                    with _traffic(server.url, key, traffic_seconds):
                        _take(browser, f"{server.url}/#{LIVE}", key, folder / LIVE)
                browser.close()
    except ServerError as error:
        fail("page_screenshots", error)


def _take(browser: Browser, url: str, key: str, path: Path) -> None:
    """The screenshots of a view; their names begin with `path`."""
    for scheme in SCHEMES:
        for place, width in WIDTHS.items():
            context = browser.new_context(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)
            context.add_init_script(f"sessionStorage.setItem('chorus.key', '{key}')")
            page = context.new_page()
            page.goto(url)
            _fill(page, path.name)
            # The bar at the top follows the view; for a whole page it has to be where it begins.
            page.evaluate("scrollTo(0, 0)")
            file = path.with_name(f"{path.name}-{scheme}-{place}.webp")
            with Image.open(io.BytesIO(page.screenshot(full_page=True))) as image:
                image.save(file, quality=QUALITY, method=6)
            report_progress(f"{file.name}: {file.stat().st_size // 1024} KiB")
            for cancel in page.get_by_role("button", name="Cancel").all():
                cancel.click()  # the next page's jobs would wait for this one
                page.get_by_text("cancelled", exact=True).wait_for()
            context.close()


def _fill(page: Page, view: str) -> None:
    """Do what a visitor of the view does."""
    match view:
        case "speak":
            page.get_by_text("Segments, as they will be spoken").click()
            page.get_by_role("button", name="Speak", exact=True).click()
            page.get_by_text("of audio made in").wait_for()
            page.get_by_role("region", name="Takes").wait_for()
            page.locator(".waveform[aria-valuenow^='3.']").wait_for()
            page.get_by_role("button", name="Pause", exact=True).click()
        case "voices":
            page.get_by_text("Consent and recording").first.click()
            page.locator(".details").wait_for()
        case "jobs":
            _queue(page, CHAPTER, "mp3", 1)
            page.locator(".badge.good").wait_for()
            _queue(page, "\n\n".join([CHAPTER] * 100), "wav", 2)
            listen = page.get_by_role("article").first.get_by_role("button", name="Listen")
            listen.wait_for()
            listen.click()
            page.locator(".round.playing").wait_for()
        case _:
            page.locator(".plot canvas").nth(3).wait_for()
            page.get_by_role("table").get_by_text("speaks").first.wait_for()


def _queue(page: Page, text: str, audio_format: str, jobs: int) -> None:
    """Queue a text, after which there are so many jobs."""
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_label("Format").select_option(audio_format)
    page.get_by_role("button", name="Queue it").click()
    page.get_by_role("article").nth(jobs - 1).wait_for()


@contextmanager
def _traffic(url: str, key: str, seconds: float) -> Iterator[None]:
    """Requests until the end of the block, which begins after some time of them."""
    ended = threading.Event()

    def speak(number: int) -> None:
        with httpx.Client(base_url=url, headers={"X-API-Key": key}, timeout=None, trust_env=False) as client:
            while not ended.wait(0.2):
                number += CLIENTS
                text = " ".join(SENTENCES[place % len(SENTENCES)] for place in (number, 3 * number))
                client.post("/tts", json={"text": text, "seed": number // 6, "stream": number % 3 != 0})

    threads = [threading.Thread(target=speak, args=[number]) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        ended.wait(seconds)
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    run_command(main, "scripts/page_screenshots")
