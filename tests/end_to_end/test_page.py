"""The page at `/`, in a browser, with a whole server: each view does its main job, for whoever comes to it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, Request, expect

from balancer.access.api_keys import ApiKey, Role, digest_of, write_keys
from balancer.api.models.catalogue import Capabilities, EngineParameter
from balancer.api.responses import json_object
from scripts.support.recogniser import audio_seconds, word_error_rate
from tests.end_to_end.conftest import Chorus, Home, start_chorus
from tests.support.browser import Faults, accessibility_faults, open_page, start_chromium
from tests.support.harness import wait_until
from tests.support.recordings import record, speech
from worker.cards import CARDS

SHOP, OPS = "the-key-of-the-shop", "the-key-of-an-operator"
VIEWS = ("speak", "voices", "jobs", "live")
MAX_FIRST_PAINT_BYTES = 200_000
PHONE = 390
LIVE_SECONDS = 2
"""From one request of the live view to the next."""

TEXT = "The ferry leaves the harbour at dawn and returns before the evening tide."
SENTENCES = f"{TEXT} The president spoke to the nation last night. Nobody answered the telephone in the morning."
HOSTILE = (
    "</textarea><img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script> Hello there."
)

FOREIGN_PAGE = """<!DOCTYPE html><title>quiet</title><script>
const [url, key] = location.hash.slice(1).split(",");
fetch(`${url}/tts`, {
  method: "POST",
  headers: {"Content-Type": "application/json", Authorization: `Bearer ${key}`},
  body: JSON.stringify({text: "Hello there.", format: "mp3"}),
}).then(async (answer) => {
  const {size} = await answer.blob();
  document.title = `${answer.status} ${answer.headers.get("X-Cache")} ${size > 1000}`;
}, () => { document.title = "refused"; });
</script>"""


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serve_files(folder: Path) -> Iterator[str]:
    """Another site, as its origin."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The origins of two other sites with the same page: one may use the server, the other may not."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text(FOREIGN_PAGE)
    with serve_files(folder) as allowed, serve_files(folder) as other:
        yield allowed, other


@pytest.fixture(scope="module")
def chorus(home: Home, sites: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chorus]:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    write_keys(
        file,
        [
            ApiKey(name="shop", digest=digest_of(SHOP)),
            ApiKey(name="ops", digest=digest_of(OPS), role=Role.OPERATOR),
        ],
    )
    settings = home.settings() | {"keys_file": file, "cors_origins": sites[0]}
    with start_chorus("--workers", "2", **settings) as server:
        yield server


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("clips") / "ada.wav", speech(12))


@pytest.fixture(scope="module")
def browser(clip: Path) -> Iterator[Browser]:
    with start_chromium(clip) as browser:
        yield browser


@pytest.fixture(scope="module")
def faults() -> Faults:
    """Of all pages of this module."""
    return Faults()


class Visit:
    """Opens views of the server's page."""

    def __init__(self, browser: Browser, chorus: Chorus, faults: Faults) -> None:
        self._browser = browser
        self._url = chorus.url
        self._faults = faults

    def __call__(self, view: str, key: str | None = SHOP, **options: Any) -> AbstractContextManager[Page]:
        return open_page(self._browser, f"{self._url}/#{view}", self._faults, key=key, **options)


@pytest.fixture
def visit(browser: Browser, chorus: Chorus, faults: Faults) -> Iterator[Visit]:
    faults.lines.clear()
    yield Visit(browser, chorus, faults)
    assert faults.lines == []


def button(page: Page | Locator, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def status(page: Page, text: str | re.Pattern[str]) -> None:
    """Wait until the view says so."""
    expect(page.get_by_role("status").filter(has_text=text).first).to_be_visible()


def say(page: Page, text: str) -> None:
    page.get_by_label("Text").fill(text)
    button(page, "Speak").click()
    status(page, re.compile(r"of audio made in"))


def downloaded(page: Page, click: Locator, folder: Path) -> bytes:
    with page.expect_download() as download:
        click.click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path.read_bytes()


# Speak


def test_a_text_plays_as_it_is_made(visit: Visit) -> None:
    with visit("speak") as page:
        say(page, SENTENCES)
        position = page.get_by_role("slider", name="Position")
        expect(position).not_to_have_attribute("aria-valuenow", "0.0")
        button(page, "Pause").click()
        position.press("Home")
        expect(position).to_have_attribute("aria-valuenow", "0.0")
        position.press("ArrowRight")
        expect(position).to_have_attribute("aria-valuenow", "1.0")
        button(page, "Play").click()
        expect(position).not_to_have_attribute("aria-valuenow", "1.0")


def test_downloads_are_heard(visit: Visit, tmp_path: Path) -> None:
    with visit("speak") as page:
        say(page, TEXT)
        audio = {}
        for kind in ("wav", "mp3"):
            page.get_by_label("Format").select_option(kind)
            audio[kind] = downloaded(page, button(page, "Download"), tmp_path)
    assert audio_seconds(audio["mp3"]) == pytest.approx(audio_seconds(audio["wav"]), abs=0.1)
    assert word_error_rate(TEXT, audio["mp3"]) < 0.3


def test_segments_are_shown_as_they_will_be_spoken(visit: Visit) -> None:
    with visit("speak") as page:
        page.get_by_text("Segments, as they will be spoken").click()
        page.get_by_label("Text").fill("It costs $5. Come on Nov. 3rd, or not at all.")
        segments = page.locator(".segments li")
        expect(segments).to_have_text([re.compile("It costs five dollars"), re.compile("Come on November third")])
        expect(page.locator(".counter")).to_contain_text("45 of 5,000 characters · 2 segments")


def test_requests_are_copied_as_commands_that_work(visit: Visit, tmp_path: Path) -> None:
    text = 'Nobody\'s "telephone" rang $HOME times in the morning.'
    with visit("speak") as page:
        say(page, text)
        copies = {}
        for language in ("curl", "Python", "JavaScript"):
            button(page, language).click()
            status(page, f"as {language}")
            copies[language] = page.evaluate("navigator.clipboard.readText()")
    assert all(SHOP not in copy for copy in copies.values())
    programs = {
        "curl": ["bash", "-c"],
        "Python": [sys.executable, "-c"],
        "JavaScript": ["node", "--input-type=module", "-e"],
    }
    audio = {}
    for language, program in programs.items():
        environment = os.environ | {"CHORUS_API_KEY": SHOP}
        subprocess.run([*program, copies[language]], cwd=tmp_path, env=environment, check=True, capture_output=True)
        audio[language] = (tmp_path / "speech.wav").read_bytes()
        (tmp_path / "speech.wav").unlink()
    assert len(set(audio.values())) == 1
    assert audio["curl"].startswith(b"RIFF")


def test_takes_are_kept_to_compare(visit: Visit) -> None:
    with visit("speak") as page:
        say(page, TEXT)
        page.get_by_label("Seed", exact=True).fill("7")
        say(page, "Nobody answered the telephone.")
        takes = page.get_by_role("region", name="Takes").get_by_role("listitem")
        expect(takes).to_have_count(2)
        expect(takes.first).to_contain_text("seed 7")
        takes.nth(1).get_by_role("button", name="Play").click()
        expect(button(page, "Pause")).to_be_visible()
        takes.nth(1).get_by_role("button", name="Remove").click()
        expect(takes).to_have_count(1)


def test_parameters_have_the_ranges_and_defaults_of_the_engines_card(visit: Visit) -> None:
    card = CARDS["multilingual"]
    found = Capabilities(
        engine=card.name,
        description=card.description,
        sample_rate=card.sample_rate,
        parameters=[EngineParameter.of(parameter) for parameter in card.parameters],
        tags=["[laugh]"],
        clones_voices=True,
        formats=["wav"],
        max_text_characters=100,
        max_job_text_characters=100,
        role=None,
    )
    with visit("live") as page:
        page.route("**/capabilities", lambda route: route.fulfill(json=json_object(found)))
        page.reload()
        page.get_by_role("tab", name="Speak").click()
        slider = page.get_by_role("slider", name="exaggeration")
        assert [slider.get_attribute("min"), slider.get_attribute("max")] == ["0", "2"]
        expect(slider).to_have_value("0.5")
        slider.fill("1.5")
        page.get_by_label("language").select_option("de")
        with page.expect_request("**/tts") as sent:
            button(page, "Speak").click()
        body = json.loads(sent.value.post_data or "")
        assert (body["exaggeration"], body["language"]) == (1.5, "de")
        assert "temperature" not in body, "what has its default is left out"
        page.get_by_role("button", name="exaggeration: default 0.5").click()
        expect(slider).to_have_value("0.5")
        status(page, "Unknown field")


# Voices


def test_without_an_operators_key_voices_are_heard_only(visit: Visit) -> None:
    with visit("voices") as page:
        page.get_by_role("button", name="Listen to default").click()
        expect(page.get_by_role("button", name="Listen to default")).to_have_text("Pause")
        expect(page.get_by_text("Yours is a client’s")).to_be_visible()
        expect(page.get_by_role("form", name="Add a voice")).to_have_count(0)
        expect(page.get_by_role("button", name="Remove")).to_have_count(0)


def test_an_operator_adds_a_voice_from_a_file_and_removes_it(visit: Visit, clip: Path, home: Home) -> None:
    name = "Ada <b>Lovelace</b>"
    with visit("voices", OPS) as page:
        form = page.get_by_role("form", name="Add a voice")
        form.get_by_label("Name").fill(name)
        form.get_by_label("Recording", exact=True).set_input_files(clip)
        add = button(form, "Add the voice")
        add.click()
        status(page, "Cloning a person’s voice needs their consent")
        form.get_by_label("Consent").fill("Ada Lovelace, by e-mail")
        add.click()
        status(page, f"“{name}” is added")
        expect(form).to_contain_text("Ada Lovelace, by e-mail")
        expect(form.get_by_text(re.compile("The recording is good"))).to_be_visible()
        expect(page.get_by_role("heading", name=name)).to_be_visible()
        page.get_by_role("button", name=f"Remove {name}").click()
        button(page, "Remove it").click()
        status(page, "is removed")
        expect(page.get_by_role("heading", name=name)).to_have_count(0)
    assert [folder.name for folder in home.voices.iterdir() if folder.is_dir() and folder.name[0] != "."] == ["default"]


def test_the_microphone_records_and_the_verdict_comes_in_words(visit: Visit) -> None:
    with visit("voices", OPS) as page:
        form = page.get_by_role("form", name="Add a voice")
        button(form, "Record from the microphone").click()
        status(page, "Go on, to 10 s or more")
        meter = form.get_by_role("meter", name="Level")
        wait_until(lambda: bool(meter.evaluate("meter => meter.value > 0")))  # a speaker pauses, too
        button(form, "Stop").click()
        status(page, "Recorded")
        form.get_by_label("Name").fill("Bo")
        form.get_by_label("The voice is not a person’s").check()
        button(form, "Add the voice").click()
        status(page, "it is too short")


# Jobs


def test_a_text_is_queued_followed_heard_and_downloaded(visit: Visit, tmp_path: Path) -> None:
    with visit("jobs") as page:
        page.get_by_label("Text", exact=True).fill(SENTENCES)
        button(page, "Queue it").click()
        job = page.get_by_role("article")
        expect(job).to_contain_text("done")
        expect(job).to_contain_text("3 of 3 segments")
        job.get_by_role("button", name="Listen").click()
        expect(job.get_by_role("button", name="Pause")).to_be_visible()
        audio = downloaded(page, job.get_by_role("button", name="Download"), tmp_path)
        assert audio_seconds(audio) > 8
        page.reload()
        expect(job).to_contain_text("done")
        job.get_by_role("button", name="Remove").click()
        button(page, "Remove it").click()
        expect(job).to_have_count(0)


def test_the_rows_of_a_table_become_jobs(visit: Visit, tmp_path: Path) -> None:
    table = tmp_path / "calls.csv"
    table.write_text("text,voice\nFirst call.,default\nSecond call.,\n<i>Third</i> call.,\n")
    with visit("jobs") as page:
        page.get_by_label("Or drop a file here").set_input_files(table)
        parts = page.get_by_role("group", name="Parts, each of which becomes a job")
        parts.get_by_label("Second call.").uncheck()
        button(parts, "Queue these").click()
        jobs = page.get_by_role("article")
        expect(jobs).to_contain_text(["First call.", "<i>Third</i> call."])
        for job in jobs.all():
            expect(job.locator(".badge")).to_have_text("done")


def test_a_document_of_one_part_is_put_into_the_field(visit: Visit, tmp_path: Path) -> None:
    with visit("jobs") as page:
        page.get_by_label("Or drop a file here").set_input_files(
            {"name": "note.md", "mimeType": "text/markdown", "buffer": f"**{TEXT}**".encode()}
        )
        expect(page.get_by_label("Text", exact=True)).to_have_value(TEXT)


def test_a_job_is_listened_to_while_it_is_made_cancelled_and_queued_again(visit: Visit) -> None:
    with visit("jobs") as page:
        page.get_by_label("Text", exact=True).fill(f"{SENTENCES}\n\n" * 150)
        button(page, "Queue it").click()
        job = page.get_by_role("article").first
        listen = job.get_by_role("button", name="Listen")
        expect(listen).to_be_visible()
        listen.click()
        expect(job.get_by_role("button", name="Pause")).to_be_visible()
        job.get_by_role("button", name="Cancel").click()
        expect(job.locator(".badge")).to_have_text("cancelled")
        job.get_by_role("button", name="Retry").click()
        expect(page.get_by_role("article")).to_have_count(2)
        job.get_by_role("button", name="Cancel").click()
        expect(job.locator(".badge")).to_have_text("cancelled")


# Live


def test_the_host_is_seen_drained_and_put_back(visit: Visit, chorus: Chorus) -> None:
    with visit("live", OPS) as page:
        table = page.get_by_role("table")
        expect(table.get_by_role("row")).to_have_count(3)
        expect(table).to_contain_text("waits for work")
        expect(page.locator(".plot canvas")).to_have_count(4)
        expect(page.locator(".figures")).to_contain_text("0 of 2")
        button(page, "Take out of service").click()
        button(page, "Take it out").click()
        expect(page.get_by_text("The host is drained")).to_be_visible()
        assert draining(chorus)
        button(page, "Put back into service").click()
        expect(page.get_by_text("The host is drained")).to_have_count(0)
        assert not draining(chorus)


def draining(chorus: Chorus) -> bool:
    return bool(httpx.get(f"{chorus.url}/ready").json()["draining"])


def test_one_request_at_a_time_and_none_unseen(visit: Visit) -> None:
    asked: list[str] = []
    with visit("live") as page:
        expect(page.get_by_role("table")).to_contain_text("ready")  # the first answers are there
        began = time.monotonic()
        page.on("request", lambda request: asked.append(request.url))
        with page.expect_request(re.compile("/health|/history")):
            pass
        page.get_by_role("tab", name="Speak").click()
        expect(button(page, "Speak")).to_be_visible()
        begun = len([url for url in asked if re.search("/health|/history", url)])
        assert begun <= 2 + (time.monotonic() - began) / LIVE_SECONDS
        with page.expect_response("**/segments"):
            page.get_by_label("Text").fill("Time passes.")
        assert len([url for url in asked if re.search("/health|/history", url)]) == begun


# The frame


def test_a_key_is_asked_for_and_kept_for_the_tab(visit: Visit) -> None:
    with visit("speak", None) as page:
        dialog = page.get_by_role("dialog", name="API key")
        expect(dialog).to_contain_text("This server asks for a key")
        dialog.get_by_label("Key").fill("wrong")
        button(dialog, "Use this key").click()
        expect(dialog).to_contain_text("does not know this key")
        dialog.get_by_label("Key").fill(SHOP)
        button(dialog, "Use this key").click()
        say(page, TEXT)
        page.reload()
        say(page, TEXT)
        assert page.evaluate("JSON.stringify(localStorage) + document.cookie") == "{}"
        with page.context.new_page() as other:
            other.goto(page.url)
            expect(other.get_by_role("dialog", name="API key")).to_be_visible()


def test_tabs_by_keyboard(visit: Visit) -> None:
    with visit("speak") as page:
        page.get_by_role("tab", name="Speak").focus()
        for key, name in (("ArrowRight", "Voices"), ("End", "Live"), ("ArrowRight", "Speak"), ("ArrowLeft", "Live")):
            page.keyboard.press(key)
            tab = page.get_by_role("tab", name=name)
            expect(tab).to_be_focused()
            expect(tab).to_have_attribute("aria-selected", "true")
            expect(page.get_by_role("tabpanel", name=name)).to_be_visible()


def test_hostile_texts_and_names_are_text(visit: Visit) -> None:
    with visit("speak") as page:
        page.get_by_text("Segments, as they will be spoken").click()
        say(page, HOSTILE)
        expect(page.get_by_role("region", name="Takes")).to_contain_text("<script>document.title")
        page.get_by_role("tab", name="Jobs").click()
        text = page.get_by_role("tabpanel").get_by_label("Text", exact=True)
        text.fill(HOSTILE)
        button(page, "Queue it").click()
        expect(page.get_by_role("article")).to_contain_text("<script>document.title")
        text.fill("<b>")
        button(page, "Queue it").click()
        expect(page.locator(".status.fault").first).to_be_visible()
        assert page.title() == "Jobs – Chorus"
        assert page.locator("img").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing(visit: Visit, view: str, scheme: str) -> None:
    with visit(view, OPS, scheme=scheme, width=PHONE) as page:
        settled(page, view)
        assert accessibility_faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE, "nothing is cut off on a phone"


def settled(page: Page, view: str) -> None:
    """Wait until a view has all that it shows at first."""
    if view == "speak":
        say(page, TEXT)
        page.get_by_text("Segments, as they will be spoken").click()
        expect(page.locator(".segments li").first).to_be_visible()
    elif view == "voices":
        page.get_by_text("Consent and recording").first.click()
        expect(page.get_by_text("not a person’s").first).to_be_visible()
    elif view == "jobs":
        page.get_by_label("Text", exact=True).fill(TEXT)
        button(page, "Queue it").click()
        expect(page.get_by_role("article")).to_contain_text("done")
    else:
        expect(page.locator(".plot canvas")).to_have_count(4)
        expect(page.get_by_role("table")).to_contain_text("ready")


def test_little_is_transferred_for_the_first_paint(visit: Visit) -> None:
    with visit("speak") as page:
        fetched: list[Request] = []

        def note(request: Request) -> None:
            fetched.append(request)

        page.on("requestfinished", note)
        page.reload()
        page.wait_for_load_state("networkidle")
        sizes = {request.url: request.sizes() for request in fetched}
        assert len(sizes) > 10
        total = sum(size["responseBodySize"] + size["responseHeadersSize"] for size in sizes.values())
        assert 10_000 < total < MAX_FIRST_PAINT_BYTES, sizes


def test_other_sites_speak_if_they_are_allowed_to(browser: Browser, chorus: Chorus, sites: tuple[str, str]) -> None:
    titles = []
    for site in sites:
        with open_page(browser, f"{site}/#{chorus.url},{SHOP}", Faults()) as page:
            expect(page).not_to_have_title("quiet")
            titles.append(page.title())
    assert titles == ["200 miss true", "refused"]
