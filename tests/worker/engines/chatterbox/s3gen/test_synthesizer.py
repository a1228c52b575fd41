"""The decoder of sound: upstream's spectrogram and wave, given the same tokens and the same noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.precisions import HERE
from tests.support.stock import BUILT_IN, StockEngine, cloned
from tests.support.stock import start as start_stock
from tests.support.tiny_models import TinyCheckpoint
from worker.engines.base import VoiceSource
from worker.engines.chatterbox.cooperative import whole
from worker.engines.chatterbox.s3gen.synthesizer import Sound
from worker.engines.chatterbox.upstream import patches
from worker.engines.chatterbox.upstream.conditionals import fresh
from worker.precision import Precision

MEL_DIFFERS, WAVE_DIFFERS = 1e-4, 1e-5
"""Most that fp32 may differ from upstream: in a log-mel spectrogram, where 1 is 9 dB, and in a wave in [-1, 1]."""
LEAST_DECIBELS = {Precision.FP32: 80.0, Precision.BF16: 20.0, Precision.INT8: 20.0}
"""Of the wave over what it is wrong by."""

in_each = pytest.mark.parametrize("precision", HERE)


@pytest.fixture(scope="module", params=["turbo", "nano", "chatterbox", "multilingual"])
def stock(
    request: pytest.FixtureRequest, tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> StockEngine:
    return start_stock(request.param, tiny_checkpoint(request.param), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def ada(stock: StockEngine, tmp_path_factory: pytest.TempPathFactory) -> VoiceSource:
    source = cloned(tmp_path_factory.mktemp("voices"))
    stock.prepare(source)
    return source


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


Sounds = Callable[[Precision], Sound]


@pytest.fixture(scope="module")
def sounds(stock: StockEngine) -> Sounds:
    """The decoder in each precision, made once."""

    @cache
    def make(precision: Precision) -> Sound:
        with torch.inference_mode():
            return Sound(stock._model.s3gen, precision)

    return make


def voice_of(stock: StockEngine, source: VoiceSource) -> dict[str, Tensor]:
    voice: dict[str, Tensor] = fresh(stock._prepared[source.voice.name], stock._member).gen
    return voice


def drawn(seed: int, count: int) -> tuple[Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 6561, (count,), generator=generator), generator


def upstreams(
    stock: StockEngine, tokens: Tensor, voice: dict[str, Any], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Spectrogram (frames, bands) and wave (samples,), with the noise that the generator draws."""
    torch.set_rng_state(generator.get_state())
    s3gen = stock._model.s3gen
    with patches.muted():
        mel = s3gen.flow_inference(tokens, ref_dict=dict(voice), finalize=True)
        wave, _ = s3gen.hift_inference(mel, None)
    wave[:, : len(s3gen.trim_fade)] *= s3gen.trim_fade
    return mel[0].t(), wave[0]


def copied(generator: torch.Generator) -> torch.Generator:
    copy = torch.Generator()
    copy.set_state(generator.get_state())
    return copy


def decibels(signal: Tensor, noise: Tensor) -> float:
    return float(10 * torch.log10(signal.square().sum() / noise.square().sum()))


@in_each
@pytest.mark.parametrize(("count", "own"), [(1, False), (20, True)], ids=["built-in", "cloned"])
def test_it_sounds_as_upstream_does(
    stock: StockEngine, sounds: Sounds, ada: VoiceSource, precision: Precision, count: int, own: bool
) -> None:
    voice = voice_of(stock, ada if own else BUILT_IN)
    tokens, generator = drawn(count, count)
    mel, wave = upstreams(stock, tokens, voice, generator)
    sound = sounds(precision)
    found = whole(sound.flow.pieces(tokens, voice, copied(generator)))
    heard = torch.from_numpy(whole(sound.pieces(tokens, voice, generator)))
    assert found.shape == mel.shape
    assert heard.shape == wave.shape
    if precision is Precision.FP32:
        assert (found - mel).abs().max() < MEL_DIFFERS
        assert (heard - wave).abs().max() < WAVE_DIFFERS
    # Other spectrograms have other pitches, and their waves soon are in other phases: compared is what one sounds like.
    assert decibels(mel, found - mel) > LEAST_DECIBELS[precision]


@in_each
def test_the_vocoder_makes_upstreams_wave_of_upstreams_spectrogram(
    stock: StockEngine, sounds: Sounds, precision: Precision
) -> None:
    tokens, generator = drawn(3, 25)
    torch.set_rng_state(generator.get_state())
    with patches.muted():
        mel = stock._model.s3gen.flow_inference(tokens, ref_dict=voice_of(stock, BUILT_IN), finalize=True)
        generator.set_state(torch.get_rng_state())
        wave, _ = stock._model.s3gen.hift_inference(mel, None)
    found = whole(sounds(precision).vocoder.pieces(mel[0].t().contiguous(), generator))
    assert found.shape == wave[0].shape
    assert decibels(wave[0], found - wave[0]) > LEAST_DECIBELS[precision]


@in_each
def test_pieces_of_several_utterances_may_come_in_any_order(
    stock: StockEngine, sounds: Sounds, ada: VoiceSource, precision: Precision
) -> None:
    sound = sounds(precision)
    jobs = [(5, 9, BUILT_IN), (6, 14, ada), (7, 3, BUILT_IN)]

    def begun(seed: int, count: int, source: VoiceSource) -> Any:
        tokens, generator = drawn(seed, count)
        return sound.pieces(tokens, voice_of(stock, source), generator)

    alone = [whole(begun(*job)) for job in jobs]
    running = {number: begun(*job) for number, job in enumerate(jobs)}
    together: dict[int, Any] = {}
    while running:
        # Whoever draws from torch's own generator in between is no concern of theirs.
        torch.manual_seed(len(running))
        for number in list(running):
            try:
                next(running[number])
            except StopIteration as end:
                together[number] = end.value
                del running[number]
    for number, expected in enumerate(alone):
        assert np.array_equal(together[number], expected)


def test_pieces_are_small(stock: StockEngine, sounds: Sounds) -> None:
    """There is a turn for others between any two blocks of the estimator and any two parts of the vocoder."""
    tokens, generator = drawn(1, 5)
    pieces = sum(1 for _ in sounds(Precision.FP32).pieces(tokens, voice_of(stock, BUILT_IN), generator))
    s3gen = stock._model.s3gen
    steps = 2 if s3gen.meanflow else 10
    assert pieces >= steps * len(s3gen.flow.decoder.estimator.mid_blocks) + len(s3gen.mel2wav.resblocks)


def test_upstreams_modules_are_left_as_they_were(stock: StockEngine, sounds: Sounds) -> None:
    before = {name: tensor.clone() for name, tensor in stock._model.s3gen.state_dict().items()}
    for precision in HERE:
        tokens, generator = drawn(1, 5)
        whole(sounds(precision).pieces(tokens, voice_of(stock, BUILT_IN), generator))
    after = stock._model.s3gen.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
