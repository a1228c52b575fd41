"""The conditionals of voices: computed once for each clip and model, and again where a cached file is damaged."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.support.harness import ROOT, environment, wait_until
from tests.support.recordings import record, silence, speech
from tests.support.shared_folder import with_kernels
from tests.support.stock import BUILT_IN, StockEngine, cloned, synthesize
from tests.support.tiny_models import TinyCheckpoint
from voices.registry import Voice
from worker.engines.base import VoiceSource, VoiceUnusableError
from worker.engines.chatterbox.upstream import conditionals
from worker.engines.chatterbox.upstream.conditionals import (
    ConditionalsCache,
    model_fingerprint,
    shorten_prompt,
    to_upstream,
)
from worker.engines.chatterbox.upstream.loading import VARIANTS
from worker.engines.chatterbox.upstream.reference_clip import MAX_SECONDS, read_clip

LogCapture = pytest.LogCaptureFixture


@pytest.fixture(scope="module")
def engine(tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> StockEngine:
    torch.set_num_threads(1)
    return StockEngine("turbo", tiny_checkpoint("turbo"), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def ada(tmp_path_factory: pytest.TempPathFactory) -> VoiceSource:
    return cloned(tmp_path_factory.mktemp("voices"))


@pytest.fixture(scope="module")
def cached_file(engine: StockEngine, ada: VoiceSource) -> bytes:
    """Content of the file that is cached for the voice."""
    engine.prepare(ada)
    (file,) = files(engine.loaded.conditionals_cache._folder)
    return file.read_bytes()


@pytest.fixture
def cache(engine: StockEngine, tiny_checkpoint: TinyCheckpoint, tmp_path: Path) -> Iterator[Path]:
    """An empty cache, and the engine as after its start."""
    before = engine.loaded.conditionals_cache
    engine.loaded.conditionals_cache = another(engine, tiny_checkpoint("turbo"), tmp_path / "cache")
    yield tmp_path / "cache"
    engine.loaded.conditionals_cache = before


def another(engine: StockEngine, checkpoint: Path, cache: Path) -> ConditionalsCache:
    """The cache object of another worker with the same model."""
    conds, engine.loaded.upstream.conds = engine.loaded.upstream.conds, None
    conditionals_cache = ConditionalsCache(engine.loaded.upstream, engine.loaded.variant, checkpoint, cache)
    engine.loaded.upstream.conds = conds
    return conditionals_cache


@pytest.fixture
def computed(engine: StockEngine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list with one entry for each time that upstream computes conditionals."""
    calls: list[str] = []
    compute = engine.loaded.upstream.prepare_conditionals

    def counted(file: str) -> None:
        calls.append(file)
        compute(file)

    monkeypatch.setattr(engine.loaded.upstream, "prepare_conditionals", counted)
    return calls


def files(folder: Path) -> list[Path]:
    """Every file below a folder, except the kernels that an engine compiles and the weights that it packs."""
    return [path for path in folder.rglob("*") if path.is_file() and not {"kernels", "weights"} & set(path.parts)]


# Once for each clip and model


def test_computed_once_and_cached(
    engine: StockEngine,
    ada: VoiceSource,
    cached_file: bytes,
    cache: Path,
    computed: list[str],
    tiny_checkpoint: TinyCheckpoint,
) -> None:
    engine.prepare(ada)
    first = synthesize(engine, source=ada)
    assert len(computed) == 1
    assert not Path(computed[0]).exists(), "upstream's copy of the clip is left behind"
    (file,) = files(cache)
    assert file.suffix == ".safetensors"
    assert file.read_bytes() == cached_file
    assert file.stat().st_mode & 0o077 == 0
    engine.loaded.conditionals_cache = another(engine, tiny_checkpoint("turbo"), cache)
    engine.prepare(ada)
    assert len(computed) == 1
    assert np.array_equal(synthesize(engine, source=ada), first)
    assert files(cache) == [file]


def test_as_upstream_computes_them(engine: StockEngine, ada: VoiceSource, cached_file: bytes) -> None:
    assert ada.reference is not None
    tensors = engine.loaded.conditionals_cache.of_clip(ada.reference)
    with torch.inference_mode():
        engine.loaded.upstream.prepare_conditionals(str(ada.reference))
    upstream, own = engine.loaded.upstream.conds, to_upstream(tensors, engine.loaded.variant)
    for part in ("t3", "gen"):
        one, other = (getattr(conds, part) for conds in (upstream, own))
        one, other = (values if isinstance(values, dict) else vars(values) for values in (one, other))
        assert one.keys() == other.keys()
        for name, value in one.items():
            if torch.is_tensor(value):
                torch.testing.assert_close(other[name], value, msg=name)
            else:
                assert other[name] is None


def test_a_changed_clip_has_conditionals_of_its_own(
    engine: StockEngine, cache: Path, computed: list[str], tmp_path: Path
) -> None:
    source = cloned(tmp_path)
    assert source.reference is not None
    engine.prepare(source)
    first = synthesize(engine, source=source)
    record(source.reference, speech(7.0, peak=0.1), rate=30_000)
    engine.prepare(source)
    assert len(computed) == len(files(cache)) == 2
    assert not np.array_equal(synthesize(engine, source=source), first)


def test_one_clip_of_two_voices_is_computed_once(
    engine: StockEngine, ada: VoiceSource, cache: Path, computed: list[str]
) -> None:
    engine.prepare(ada)
    engine.prepare(replace(ada, voice=Voice(name="bob", reference="clip.wav", synthetic=True)))
    assert len(computed) == len(files(cache)) == 1


def test_a_changed_checkpoint_has_another_fingerprint(tiny_checkpoint: TinyCheckpoint, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for file in tiny_checkpoint("turbo").iterdir():
        os.link(file, folder / file.name)
    variant = VARIANTS["turbo"]
    names = [model_fingerprint(variant, folder)]
    for name in ("ve.safetensors", "s3gen_meanflow.safetensors"):
        content = folder / name
        content.unlink()
        content.write_bytes(b"some weights")
        names.append(model_fingerprint(variant, folder))
        os.utime(content, ns=(1, 1))
        names.append(model_fingerprint(variant, folder))
    assert len(set(names)) == len(names)
    (folder / "t3_turbo_v1.safetensors").unlink()
    assert model_fingerprint(variant, folder) == names[-1], "conditionals do not depend on T3"
    os.link(folder / "s3gen_meanflow.safetensors", folder / "s3gen.safetensors")
    assert model_fingerprint(VARIANTS["chatterbox"], folder) != names[-1]


def test_the_hubs_cache_names_files_by_their_content(tmp_path: Path) -> None:
    names = []
    for place, fingerprint in (("here", 1), ("there", 2)):
        folder = tmp_path / place
        folder.mkdir()
        for name in ("ve.safetensors", "s3gen_meanflow.safetensors"):
            blob = folder / f"{name}-c0ffee"
            blob.write_bytes(b"some weights")
            os.utime(blob, ns=(fingerprint, fingerprint))
            (folder / name).symlink_to(blob)
        names.append(model_fingerprint(VARIANTS["turbo"], folder))
    assert names[0] == names[1]


def test_two_processes_at_once_compute_it_once(
    engine: StockEngine,
    tiny_checkpoint: TinyCheckpoint,
    ada: VoiceSource,
    cached_file: bytes,
    cache: Path,
    computed: list[str],
    tmp_path: Path,
) -> None:
    """This one, and one that has the lock for as long as it imports what it computes with."""
    command = [sys.executable, "tests/support/prepare_voice.py"]
    command += ["turbo", str(tiny_checkpoint("turbo")), str(with_kernels(cache)), str(ada.reference)]
    settings = environment() | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=settings, **pipes) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "loaded\n"
        other.stdin.write("\n")
        other.stdin.flush()
        wait_until(lambda: bool(files(cache)))
        engine.prepare(ada)
        assert int(other.communicate()[0]) + len(computed) == 1
    (file,) = files(cache)
    assert load_file(file).keys() == load_bytes(tmp_path, cached_file).keys()


def load_bytes(folder: Path, content: bytes) -> dict[str, torch.Tensor]:
    (folder / "content").write_bytes(content)
    tensors: dict[str, torch.Tensor] = load_file(folder / "content")
    return tensors


# Damaged files and folders


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def empty(_: bytes) -> bytes:
    return b""


def garbage(_: bytes) -> bytes:
    return b"<!DOCTYPE html> no such page"


@pytest.mark.parametrize("damage", [cut, empty, garbage])
def test_a_damaged_file_is_computed_again(
    engine: StockEngine,
    ada: VoiceSource,
    cached_file: bytes,
    cache: Path,
    computed: list[str],
    damage: Callable[[bytes], bytes],
    caplog: LogCapture,
) -> None:
    engine.prepare(ada)
    (file,) = files(cache)
    file.write_bytes(damage(cached_file))
    engine.prepare(ada)
    assert len(computed) == 2
    assert file.read_bytes() == cached_file
    assert f"{file} is damaged and will be computed again" in caplog.text


@pytest.mark.parametrize("place", ["cache", "conditionals"])
def test_a_cache_that_cannot_be_written(
    engine: StockEngine, ada: VoiceSource, cached_file: bytes, cache: Path, place: str, caplog: LogCapture
) -> None:
    before = synthesize(engine, source=ada) if "ada" in engine.loaded.prepared else None
    taken = cache if place == "cache" else cache / "conditionals"
    taken.parent.mkdir(exist_ok=True)
    taken.write_text("a file in place of a folder")
    engine.prepare(ada)
    samples = synthesize(engine, source=ada)
    assert len(samples) > 0
    assert before is None or np.array_equal(samples, before)
    assert [entry.levelno for entry in caplog.records if "cannot be cached in" in entry.message] == [logging.WARNING]


# Clips


@pytest.mark.parametrize("seconds", [0.5, 4.9, 5.0])
def test_a_clip_that_is_too_short_for_turbo(engine: StockEngine, cache: Path, tmp_path: Path, seconds: float) -> None:
    with pytest.raises(VoiceUnusableError, match=rf"is {seconds:.1f} s long; this engine needs more than 5 s"):
        engine.prepare(cloned(tmp_path, seconds=seconds))
    assert files(cache) == []


@pytest.mark.parametrize("content", [b"", b"no sound at all", b"RIFF\x00\x00\x00\x00WAVE"])
def test_a_file_that_is_not_audio(engine: StockEngine, cache: Path, tmp_path: Path, content: bytes) -> None:
    clip = tmp_path / "clip.wav"
    clip.write_bytes(content)
    with pytest.raises(VoiceUnusableError, match="the reference clip cannot be used: ") as refused:
        engine.prepare(VoiceSource(Voice(name="ada", reference="clip.wav", synthetic=True), clip))
    assert str(tmp_path) not in str(refused.value), "clients read it"
    assert files(cache) == []


def test_a_missing_clip(engine: StockEngine, cache: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    with pytest.raises(VoiceUnusableError, match=r"^the reference clip clip\.wav cannot be read: No such file"):
        engine.prepare(VoiceSource(Voice(name="ada", reference="clip.wav", synthetic=True), clip))


def test_a_silent_clip_speaks_or_is_refused(engine: StockEngine, cache: Path, tmp_path: Path) -> None:
    clip = record(tmp_path / "clip.wav", silence(6.0))
    source = VoiceSource(Voice(name="ada", reference="clip.wav", synthetic=True), clip)
    try:
        engine.prepare(source)
    except VoiceUnusableError:
        return
    assert np.isfinite(synthesize(engine, source=source)).all()


@pytest.mark.parametrize(
    ("file", "options", "rate"),
    [
        ("clip.wav", (), 24_000),
        ("clip.wav", ("-ac", "2", "-ar", "44100"), 44_100),
        ("clip.mp3", (), 24_000),
        ("clip.flac", ("-ar", "16000"), 16_000),
        ("clip.ogg", ("-ar", "48000"), 48_000),
        ("clip.m4a", ("-ar", "44100"), 44_100),
    ],
)
def test_clips_of_every_format_give_the_same_voice(
    engine: StockEngine, cached_file: bytes, cache: Path, tmp_path: Path, file: str, options: tuple[str, ...], rate: int
) -> None:
    clip = record(tmp_path / file, speech(6.0), options=options)
    samples, clip_rate = read_clip(clip)
    assert clip_rate == rate
    assert samples.dtype == np.float32
    assert abs(len(samples) / rate - 6.0) < 0.15
    assert 0.2 < np.abs(samples).max() < 0.45
    engine.prepare(VoiceSource(Voice(name="ada", reference=file, synthetic=True), clip))
    (cached,) = files(cache)
    one, other = load_file(cached)["t3.speaker_emb"], load_bytes(tmp_path, cached_file)["t3.speaker_emb"]
    assert torch.cosine_similarity(one, other).item() > 0.9


def test_of_a_long_clip_only_the_beginning_is_read(tmp_path: Path) -> None:
    samples, rate = read_clip(record(tmp_path / "clip.flac", speech(MAX_SECONDS + 20)))
    assert MAX_SECONDS <= len(samples) / rate < MAX_SECONDS + 1


# The built-in voice


def test_the_built_in_voice_is_the_checkpoints(
    engine: StockEngine, tiny_checkpoint: TinyCheckpoint, computed: list[str]
) -> None:
    engine.prepare(BUILT_IN)
    upstream = engine.loaded.variant.module.Conditionals.load(tiny_checkpoint("turbo") / "conds.pt")
    own = engine.loaded.conditionals("default")
    assert torch.equal(own.t3.speaker_emb, upstream.t3.speaker_emb)
    assert torch.equal(own.gen["prompt_feat"], upstream.gen["prompt_feat"])
    assert computed == []


def test_a_checkpoint_without_a_voice_has_a_fallback_clip(
    engine: StockEngine, tiny_checkpoint: TinyCheckpoint, cache: Path, computed: list[str]
) -> None:
    engine.prepare(BUILT_IN)
    first = synthesize(engine)
    assert len(computed) == len(files(cache)) == 1
    engine.prepare(BUILT_IN)
    engine.loaded.conditionals_cache = another(engine, tiny_checkpoint("turbo"), cache)
    engine.prepare(BUILT_IN)
    assert len(computed) == 1
    assert np.array_equal(synthesize(engine), first)


def test_the_fallback_clip_is_long_enough_for_every_engine() -> None:
    samples, rate = conditionals._fallback_clip()
    assert len(samples) / rate > conditionals.TURBO_MIN_SECONDS + 1
    assert np.array_equal(conditionals._fallback_clip()[0], samples)


# One upstream object for each utterance


def test_upstreams_changes_do_not_reach_the_next_utterance(engine: StockEngine) -> None:
    engine.prepare(BUILT_IN)
    tensors = engine.loaded.prepared["default"]
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    one = to_upstream(tensors, engine.loaded.variant)
    for tensor in (*vars(one.t3).values(), *one.gen.values()):
        if torch.is_tensor(tensor):
            tensor.fill_(0)
    one.gen.clear()
    two = to_upstream(tensors, engine.loaded.variant)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in before.items())
    assert torch.equal(two.t3.speaker_emb, before["t3.speaker_emb"])
    assert two.gen["prompt_token"].count_nonzero() > 0


@pytest.mark.parametrize("seconds", [2, 4, 10])
def test_a_prompt_keeps_its_last_seconds(engine: StockEngine, ada: VoiceSource, seconds: int) -> None:
    engine.prepare(ada)
    voice = engine.loaded.conditionals(ada.voice.name).gen
    count = voice["prompt_token"].shape[1]
    assert 100 < count < 250
    found, shortened = shorten_prompt(voice, seconds), min(25 * seconds, count)
    assert torch.equal(found["prompt_token"], voice["prompt_token"][:, count - shortened :])
    assert found["prompt_token_len"].tolist() == [shortened]
    assert torch.equal(found["prompt_feat"], voice["prompt_feat"][:, 2 * (count - shortened) :])
    assert torch.equal(found["embedding"], voice["embedding"])
    assert found.keys() == voice.keys()
