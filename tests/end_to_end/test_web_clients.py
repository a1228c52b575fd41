"""The clients of web apps, as their authors write them in JavaScript."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from scripts.support.recogniser import word_error_rate
from tests.end_to_end.conftest import Chorus
from tests.support.harness import ROOT

TEXT = "The ferry leaves the harbour at dawn and returns before the evening tide."


def node(client: str, *arguments: str) -> Any:
    command = ["node", str(ROOT / "tests/support/clients" / client), *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)


def test_speech_as_json(one_worker_chorus: Chorus, tmp_path: Path) -> None:
    answer = node("tts_json.mjs", one_worker_chorus.url, TEXT, str(tmp_path / "audio.wav"))
    assert (answer["mimeType"], answer["character"], answer["cached"]) == ("audio/wav", "default", False)
    assert word_error_rate(TEXT, (tmp_path / "audio.wav").read_bytes()) < 0.3


def test_queue_status_audio(one_worker_chorus: Chorus, tmp_path: Path) -> None:
    status = node("queue.mjs", one_worker_chorus.url, TEXT, str(tmp_path / "audio.wav"))
    assert (status["state"], status["userId"], status["progress"]) == ("done", "user-1", 1)
    assert word_error_rate(TEXT, (tmp_path / "audio.wav").read_bytes()) < 0.3


SENTENCES = f"{TEXT} The president spoke to the nation last night. Nobody answered the telephone in the morning."


def test_speech_is_read_while_it_is_made(one_worker_chorus: Chorus, tmp_path: Path) -> None:
    answer = node("stream.mjs", one_worker_chorus.url, SENTENCES, str(tmp_path / "audio.mp3"))
    assert answer["length"] is None
    assert answer["pieces"] > 1
    assert word_error_rate(SENTENCES, (tmp_path / "audio.mp3").read_bytes()) < 0.3


def test_a_job_is_listened_to_while_its_events_tell_how_far_it_is(one_worker_chorus: Chorus, tmp_path: Path) -> None:
    answer = node("listen.mjs", one_worker_chorus.url, SENTENCES, str(tmp_path / "audio.mp3"))
    assert answer["last"]["state"] == "done"
    assert answer["last"]["secondsPlayable"] == answer["last"]["duration"]
    assert answer["streamable"] >= 1
    assert answer["rising"]
    assert word_error_rate(SENTENCES, (tmp_path / "audio.mp3").read_bytes()) < 0.3
