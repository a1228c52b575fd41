"""S3Gen: upstream's spectrogram and wave from the same tokens and the same noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.precisions import precision_params
from tests.support.stock import BUILT_IN, StockEngine, cloned
from tests.support.stock import start as start_stock
from tests.support.tiny_models import TinyCheckpoint
from worker.cards import FlowModel
from worker.engines.base import VoiceSource
from worker.engines.chatterbox.cooperative import run_to_completion
from worker.engines.chatterbox.s3gen.flow import Flow
from worker.engines.chatterbox.s3gen.synthesizer import Synthesizer
from worker.engines.chatterbox.upstream import patches
from worker.precision import Precision

MEL_TOLERANCE, WAVE_TOLERANCE = 1e-4, 1e-5
"""Largest allowed difference of fp32 from upstream, in log-mel bands (1 is 9 dB) and in samples in [-1, 1]."""
MIN_SIGNAL_TO_NOISE = {Precision.FP32: 80.0, Precision.BF16: 20.0, Precision.INT8: 20.0}
"""Signal over difference from upstream, in dB."""

in_each = pytest.mark.parametrize("precision", precision_params())


@pytest.fixture(scope="module", params=["turbo", "nano", "chatterbox", "multilingual"])
def stock(
    request: pytest.FixtureRequest, tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> StockEngine:
    return start_stock(request.param, tiny_checkpoint(request.param), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def ada(stock: StockEngine, tmp_path_factory: pytest.TempPathFactory) -> VoiceSource:
    source = cloned(tmp_path_factory.mktemp("voices"), turbo=stock.loaded.variant.turbo)
    stock.prepare(source)
    return source


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


GetSynthesizer = Callable[[Precision], Synthesizer]
GetOutput = Callable[[int, bool], tuple[Tensor, Tensor]]


@pytest.fixture(scope="module")
def synthesizers(stock: StockEngine) -> GetSynthesizer:
    """The synthesizer for a precision, built once each."""

    @cache
    def build(precision: Precision) -> Synthesizer:
        with torch.inference_mode():
            return Synthesizer(stock.loaded.upstream.s3gen, precision)

    return build


def voice_of(stock: StockEngine, source: VoiceSource) -> dict[str, Tensor]:
    voice: dict[str, Tensor] = stock.loaded.conditionals(source.voice.name).gen
    return voice


def drawn(seed: int, count: int) -> tuple[Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 6561, (count,), generator=generator), generator


def upstream_output(
    stock: StockEngine, tokens: Tensor, voice: dict[str, Any], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Upstream's spectrogram, (frames, bands), and wave, (samples,), with noise from `generator`."""
    torch.set_rng_state(generator.get_state())
    s3gen = stock.loaded.upstream.s3gen
    with patches.muted():
        mel = s3gen.flow_inference(tokens, ref_dict=dict(voice), finalize=True)
        wave, _ = s3gen.hift_inference(mel, None)
    wave[:, : len(s3gen.trim_fade)] *= s3gen.trim_fade
    return mel[0].t(), wave[0]


@pytest.fixture(scope="module")
def expected(stock: StockEngine, ada: VoiceSource) -> GetOutput:
    """Upstream's output for random tokens in the built-in or the cloned voice, the same for all precisions."""

    @cache
    def compute(count: int, own: bool) -> tuple[Tensor, Tensor]:
        tokens, generator = drawn(count, count)
        with torch.inference_mode():
            return upstream_output(stock, tokens, voice_of(stock, ada if own else BUILT_IN), generator)

    return compute


def copied(generator: torch.Generator) -> torch.Generator:
    copy = torch.Generator()
    copy.set_state(generator.get_state())
    return copy


def decibels(signal: Tensor, noise: Tensor) -> float:
    return float(10 * torch.log10(signal.square().sum() / noise.square().sum()))


@in_each
@pytest.mark.parametrize(("count", "own"), [(1, False), (20, True)], ids=["built-in", "cloned"])
def test_spectrogram_and_wave_equal_upstreams(
    stock: StockEngine,
    synthesizers: GetSynthesizer,
    expected: GetOutput,
    ada: VoiceSource,
    precision: Precision,
    count: int,
    own: bool,
) -> None:
    voice = voice_of(stock, ada if own else BUILT_IN)
    tokens, generator = drawn(count, count)
    mel, wave = expected(count, own)
    synthesizer = synthesizers(precision)
    found = run_to_completion(synthesizer.flow.steps(tokens, voice, copied(generator)))
    samples = torch.from_numpy(run_to_completion(synthesizer.steps(tokens, voice, generator)))
    assert found.shape == mel.shape
    assert samples.shape == wave.shape
    if precision is Precision.FP32:
        assert (found - mel).abs().max() < MEL_TOLERANCE
        assert (samples - wave).abs().max() < WAVE_TOLERANCE
    # In reduced precision only spectrograms are compared: a slightly different pitch soon shifts the phase of the wave.
    assert decibels(mel, found - mel) > MIN_SIGNAL_TO_NOISE[precision]


def test_a_flow_of_fewer_steps_equals_upstreams(stock: StockEngine) -> None:
    """By default there are as many as in upstream, bit by bit."""
    s3gen, voice, card = stock.loaded.upstream.s3gen, voice_of(stock, BUILT_IN), stock.card.flows[FlowModel.UPSTREAM]
    tokens, generator = drawn(3, 6)

    def flow_of(steps: int | None) -> Tensor:
        return run_to_completion(Flow(s3gen, Precision.FP32, steps).steps(tokens, voice, copied(generator)))

    fewer, default = flow_of(card.minimum), flow_of(None)
    assert torch.equal(flow_of(card.default), default)
    assert (fewer - default).abs().max() > 100 * MEL_TOLERANCE
    torch.set_rng_state(generator.get_state())
    with patches.muted():
        mel = s3gen.flow_inference(tokens, ref_dict=dict(voice), finalize=True, n_cfm_timesteps=card.minimum)
    assert (fewer - mel[0].t()).abs().max() < MEL_TOLERANCE


@in_each
def test_the_vocoder_turns_upstreams_spectrogram_into_upstreams_wave(
    stock: StockEngine, synthesizers: GetSynthesizer, precision: Precision
) -> None:
    tokens, generator = drawn(3, 25)
    torch.set_rng_state(generator.get_state())
    with patches.muted():
        mel = stock.loaded.upstream.s3gen.flow_inference(tokens, ref_dict=voice_of(stock, BUILT_IN), finalize=True)
        generator.set_state(torch.get_rng_state())
        wave, _ = stock.loaded.upstream.s3gen.hift_inference(mel, None)
    found = run_to_completion(synthesizers(precision).vocoder.steps(mel[0].t().contiguous(), generator))
    assert found.shape == wave[0].shape
    assert decibels(wave[0], found - wave[0]) > MIN_SIGNAL_TO_NOISE[precision]


@in_each
def test_steps_of_several_utterances_may_alternate(
    stock: StockEngine, synthesizers: GetSynthesizer, ada: VoiceSource, precision: Precision
) -> None:
    synthesizer = synthesizers(precision)
    jobs = [(5, 9, BUILT_IN), (6, 14, ada), (7, 3, BUILT_IN)]

    def begun(seed: int, count: int, source: VoiceSource) -> Any:
        tokens, generator = drawn(seed, count)
        return synthesizer.steps(tokens, voice_of(stock, source), generator)

    alone = [run_to_completion(begun(*job)) for job in jobs]
    running = {number: begun(*job) for number, job in enumerate(jobs)}
    together: dict[int, Any] = {}
    while running:
        # Draws from torch's global generator in between must make no difference.
        torch.manual_seed(len(running))
        for number in list(running):
            try:
                next(running[number])
            except StopIteration as end:
                together[number] = end.value
                del running[number]
    for number, expected in enumerate(alone):
        assert np.array_equal(together[number], expected)


def test_steps_are_small(stock: StockEngine, synthesizers: GetSynthesizer) -> None:
    """There is a step for each block of the estimator and each residual block of the vocoder."""
    tokens, generator = drawn(1, 5)
    count = sum(1 for _ in synthesizers(Precision.FP32).steps(tokens, voice_of(stock, BUILT_IN), generator))
    s3gen = stock.loaded.upstream.s3gen
    euler_steps = 2 if s3gen.meanflow else 10
    assert count >= euler_steps * len(s3gen.flow.decoder.estimator.mid_blocks) + len(s3gen.mel2wav.resblocks)


@in_each
def test_upstreams_weights_are_not_modified(
    stock: StockEngine, synthesizers: GetSynthesizer, precision: Precision
) -> None:
    before = {name: tensor.clone() for name, tensor in stock.loaded.upstream.s3gen.state_dict().items()}
    tokens, generator = drawn(1, 5)
    run_to_completion(synthesizers(precision).steps(tokens, voice_of(stock, BUILT_IN), generator))
    after = stock.loaded.upstream.s3gen.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
