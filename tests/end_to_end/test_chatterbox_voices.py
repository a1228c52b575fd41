"""Voices that come and go while Chatterbox Turbo runs, as `chorus voices` adds and removes them."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.end_to_end.conftest import CHORUS, Chorus, Home, post_tts, run_concurrently, synthesize
from tests.support.harness import ROOT, environment, wait_until
from tests.support.recordings import record, speech

NAME = "ada"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two recordings, of different kinds."""
    folder = tmp_path_factory.mktemp("clips")
    return [record(folder / "one.wav", speech(6)), record(folder / "another.flac", speech(7, peak=0.6))]


def voices(home: Home, *arguments: object) -> None:
    """Run `chorus voices` on the server's folder."""
    command = [str(CHORUS), "voices", *map(str, arguments)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=environment(voices_dir=home.voices))


def refusal(chorus: Chorus, voice: str) -> dict[str, Any]:
    answer = post_tts(chorus, "Hi.", voice=voice)
    assert answer.status_code == 400
    error: dict[str, Any] = answer.json()["error"]
    return error


def test_a_voice_serves_from_when_it_is_added_until_it_is_removed(turbo: Chorus, home: Home, clips: list[Path]) -> None:
    before, kept = turbo.states(), home.conditionals()
    assert NAME in refusal(turbo, NAME)["message"]

    voices(home, "add", NAME, clips[0], "--consent", "Ada, by e-mail")
    one, other = run_concurrently(*[partial(synthesize, turbo, voice=NAME)] * 2)
    assert one == other
    assert one != synthesize(turbo), "it sounds like the default voice"
    assert len(home.conditionals() - kept) == 1, "they are kept once, for both workers"

    voices(home, "add", NAME, clips[1], "--consent", "Ada, by e-mail", "--replace")
    changed = synthesize(turbo, voice=NAME)
    assert changed != one
    assert synthesize(turbo, voice=NAME) == changed

    voices(home, "remove", NAME, "--yes")
    wait_until(lambda: refusal(turbo, NAME)["code"] == "voice_not_found")
    assert refusal(turbo, NAME)["message"] == f"there is no voice {NAME!r}; there are: default"

    after = turbo.states()
    assert [state.pid for state in after] == [state.pid for state in before], "no worker was restarted for it"
    assert all(now.done > then.done for now, then in zip(after, before, strict=True))


def test_a_person_without_consent_is_left_out_and_the_refusal_says_why(
    turbo: Chorus, home: Home, clips: list[Path]
) -> None:
    own = home.cache / "stranger"
    own.mkdir(parents=True)
    (own / "voice.toml").write_text('name = "stranger"\nreference = "one.wav"\n')
    (own / "one.wav").write_bytes(clips[0].read_bytes())
    own.rename(home.voices / "stranger")  # whole: the server may look at any moment

    wait_until(lambda: "cannot be used" in refusal(turbo, "stranger")["message"])
    error = refusal(turbo, "stranger")
    assert error["code"] == "voice_not_found"
    assert "needs the speaker's consent on record" in error["message"]
    listed = httpx.get(f"{turbo.url}/v1/audio/voices").json()
    assert "stranger" not in str(listed)
    assert post_tts(turbo, "Hi.").status_code == 200


def test_a_clip_that_is_too_short_for_the_engine_is_said_to_be(turbo: Chorus, home: Home, clips: list[Path]) -> None:
    own = home.cache / "brief"
    own.mkdir(parents=True)
    record(own / "brief.wav", speech(4))
    (own / "voice.toml").write_text('name = "brief"\nreference = "brief.wav"\nsynthetic = true\n')
    own.rename(home.voices / "brief")
    wait_until(lambda: "there is no voice" not in refusal(turbo, "brief")["message"])
    message = "voice 'brief' cannot be used: the reference clip is 4.0 s long; this engine needs more than 5 s"
    assert refusal(turbo, "brief")["message"] == message


def test_the_list_says_which_voices_each_engine_speaks(turbo: Chorus, home: Home, clips: list[Path]) -> None:
    voices(home, "add", "made-up", clips[0], "--synthetic")
    url = f"{turbo.url}/v1/audio/voices"

    def named() -> list[str]:
        return [voice["name"] for voice in httpx.get(url).json()["data"]]

    wait_until(lambda: "made-up" in named())
    listed = httpx.get(url).json()
    assert listed["engine"] == "turbo"
    assert {"default", "made-up"} <= set(listed["engines"]["turbo"])
    assert listed["engines"]["turbo"] == listed["engines"]["multilingual"] == named()
    assert listed["engines"]["hibari"] == ["default"]
    cloned = {voice["name"]: (voice["cloned"], voice["synthetic"]) for voice in listed["data"]}
    assert cloned["made-up"] == (True, True)
    assert cloned["default"] == (False, True)
