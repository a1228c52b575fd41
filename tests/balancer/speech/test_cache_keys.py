from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from balancer.audio.formats import AudioFormat
from balancer.requests.speech_request import SpeechRequest
from balancer.speech.cache_keys import CacheKeys
from tests.support.checkpoint_files import files_of, write
from tests.support.fake_hub import checksum
from voices.registry import Voice
from worker.cards import CARDS, FlowModel
from worker.checkpoints.catalogue import CHECKPOINTS, MEANFLOW
from worker.checkpoints.fingerprint import fingerprint

BUILT_IN = Voice(name="default", engine="*")
CLONED = Voice(name="ada", reference="clip.wav", synthetic=True)
REQUEST = SpeechRequest(
    text="Hello.", voice=CLONED, parameters={"temperature": 0.8}, seed=1, format=AudioFormat.WAV, speed=1.0
)


@pytest.fixture
def keys(tmp_path: Path) -> CacheKeys:
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada" / "clip.wav").write_bytes(b"a clip")
    return CacheKeys("turbo, batched, fp32", "weights", tmp_path)


async def pcm(keys: CacheKeys, request: SpeechRequest, caller: str = "") -> str:
    return await keys.pcm(request, caller)


async def test_the_pcm_key_ignores_format_and_speed(keys: CacheKeys) -> None:
    same = replace(REQUEST, format=AudioFormat.MP3, speed=2.0, deadline_ms=5.0, text_field="input")
    assert await pcm(keys, same) == await pcm(keys, REQUEST)


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
async def test_whatever_changes_the_pcm_changes_the_key(keys: CacheKeys, other: SpeechRequest) -> None:
    assert await pcm(keys, other) != await pcm(keys, REQUEST)


async def test_requests_without_a_seed_share_a_key(keys: CacheKeys) -> None:
    one, other = [await pcm(keys, replace(REQUEST, seed=seed, seeded=False)) for seed in (1, 2)]
    assert one == other


async def test_engine_options_change_the_key(keys: CacheKeys, tmp_path: Path) -> None:
    other = CacheKeys("turbo, batched, int8", "weights", tmp_path)
    assert await pcm(other, REQUEST) != await pcm(keys, REQUEST)


async def test_another_clip_changes_the_key(keys: CacheKeys, tmp_path: Path) -> None:
    before = await pcm(keys, REQUEST)
    (tmp_path / "ada" / "clip.wav").write_bytes(b"another clip")
    assert await pcm(keys, REQUEST) != before
    (tmp_path / "ada" / "clip.wav").unlink()
    gone = await pcm(keys, REQUEST)
    assert gone != before
    assert await pcm(keys, REQUEST) != gone, "nobody else may get what is stored for a clip that could not be read"


@pytest.mark.parametrize("odd", ["fifo", "device", "huge"])
async def test_an_odd_clip_is_neither_read_nor_waited_for(keys: CacheKeys, tmp_path: Path, odd: str) -> None:
    clip = tmp_path / "ada" / "clip.wav"
    before = await pcm(keys, REQUEST)
    clip.unlink()
    if odd == "fifo":
        os.mkfifo(clip)
    elif odd == "device":
        clip.symlink_to("/dev/zero")
    else:
        with clip.open("wb") as file:
            file.truncate(2**32)
    async with asyncio.timeout(10):
        assert await pcm(keys, REQUEST) != before


async def test_callers_share_keys_unless_each_has_its_own(keys: CacheKeys, tmp_path: Path) -> None:
    assert await pcm(keys, REQUEST, "alice") == await pcm(keys, REQUEST, "bob")
    apart = CacheKeys("turbo, batched, fp32", "weights", tmp_path, per_caller=True)
    assert await pcm(apart, REQUEST, "alice") == await pcm(apart, REQUEST, "alice")
    assert await pcm(apart, REQUEST, "alice") != await pcm(apart, REQUEST, "bob")


def test_a_file_key_depends_on_speed_format_segments_and_pauses() -> None:
    found = {
        CacheKeys.file("a", speed, kind, lengths, pauses)
        for speed in (1.0, 2.0)
        for kind in (AudioFormat.MP3, AudioFormat.FLAC)
        for lengths in ([10, 20], [20, 10])
        for pauses in ([0, 0.3, 0], [0, 0.3, 1.0])
    }
    assert len(found) == 16


def test_a_fingerprint_depends_on_the_contents_of_files(tmp_path: Path) -> None:
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


def test_a_fingerprint_depends_on_the_flow(tmp_path: Path) -> None:
    folder, card = write(CHECKPOINTS["chatterbox"], tmp_path), CARDS["chatterbox"]
    own = fingerprint(card, model_dir=folder)
    write(MEANFLOW, folder)
    assert fingerprint(card, model_dir=folder) == own
    found = fingerprint(card, flow=FlowModel.MEANFLOW, model_dir=folder)
    with (folder / MEANFLOW.files[0]).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    assert len({own, found, fingerprint(card, flow=FlowModel.MEANFLOW, model_dir=folder)}) == 3


def test_files_in_the_hubs_cache_are_known_by_their_names(tmp_path: Path) -> None:
    """As the hub's library lays them: a snapshot links to blobs, which may link to what repositories share."""
    checkpoint, notes = CHECKPOINTS["nano"], tmp_path / "notes.json"
    snapshot, blobs, shared = (tmp_path / name for name in ("snapshot", "blobs", "shared"))
    for folder in (snapshot, blobs, shared):
        folder.mkdir()
    for name, content in files_of(checkpoint).items():
        (shared / f"{name}-xet").write_bytes(content)
        (blobs / checksum(content)).symlink_to(shared / f"{name}-xet")
        (snapshot / name).symlink_to(blobs / checksum(content))
    in_cache = fingerprint(CARDS["nano"], model_dir=snapshot, notes=notes)
    assert not notes.exists(), "a file was read"
    assert in_cache != fingerprint(CARDS["nano"])
