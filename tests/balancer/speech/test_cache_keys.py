from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from balancer.audio.formats import AudioFormat
from balancer.requests.speech_request import SpeechRequest
from balancer.speech.cache_keys import CacheKeys
from tests.support.checkpoint_files import write
from voices.registry import Voice
from worker.cards import CARDS
from worker.checkpoints.catalogue import CHECKPOINTS
from worker.checkpoints.fingerprint import fingerprint

BUILT_IN = Voice(name="default", engine="*")
CLONED = Voice(name="ada", reference="clip.wav", synthetic=True)
REQUEST = SpeechRequest(
    text="Hello.", voice=CLONED, parameters={"temperature": 0.8}, seed=1, format=AudioFormat.WAV, speed=1.0
)


@pytest.fixture
def sounds(tmp_path: Path) -> CacheKeys:
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada" / "clip.wav").write_bytes(b"a clip")
    return CacheKeys("turbo, batched, fp32", "weights", tmp_path)


def test_equal_requests_are_one_sound_whatever_their_format(sounds: CacheKeys) -> None:
    same = replace(REQUEST, format=AudioFormat.MP3, speed=2.0, deadline_ms=5.0, text_field="input")
    assert sounds.sound(same) == sounds.sound(REQUEST)


@pytest.mark.parametrize(
    "other",
    [
        replace(REQUEST, text="Hello!"),
        replace(REQUEST, voice=BUILT_IN),
        replace(REQUEST, parameters={"temperature": 0.9}),
        replace(REQUEST, parameters={}),
        replace(REQUEST, seed=2),
        replace(REQUEST, seeded=False),
    ],
)
def test_what_changes_the_sound_changes_the_key(sounds: CacheKeys, other: SpeechRequest) -> None:
    assert sounds.sound(other) != sounds.sound(REQUEST)


def test_without_a_seed_any_will_do(sounds: CacheKeys) -> None:
    one, other = (sounds.sound(replace(REQUEST, seed=seed, seeded=False)) for seed in (1, 2))
    assert one == other


def test_audio_of_an_engine_run_in_one_way_is_not_anothers(sounds: CacheKeys, tmp_path: Path) -> None:
    assert CacheKeys("turbo, batched, int8", "weights", tmp_path).sound(REQUEST) != sounds.sound(REQUEST)


def test_another_clip_is_another_voice(sounds: CacheKeys, tmp_path: Path) -> None:
    before = sounds.sound(REQUEST)
    (tmp_path / "ada" / "clip.wav").write_bytes(b"another clip")
    assert sounds.sound(REQUEST) != before
    (tmp_path / "ada" / "clip.wav").unlink()
    assert sounds.sound(REQUEST) != before


def test_a_file_is_a_sound_at_a_speed_in_a_format() -> None:
    keys = {CacheKeys.file("a", speed, kind) for speed in (1.0, 2.0) for kind in (AudioFormat.MP3, AudioFormat.FLAC)}
    assert len(keys) == 4


def test_a_fingerprint_is_that_of_the_files_contents(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        write(CHECKPOINTS["turbo"], folder)
    card, notes = CARDS["turbo"], tmp_path / "notes.json"
    first = fingerprint(card, model_dir=one, notes=notes)
    assert first == fingerprint(card, model_dir=other, notes=notes) == fingerprint(card, model_dir=one, notes=notes)
    assert first != fingerprint(CARDS["hibari"])
    weights = other / "ve.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert fingerprint(card, model_dir=other, notes=notes) != first
    notes.write_text("{")
    assert fingerprint(card, model_dir=one, notes=notes) == first
