"""The vocoder in pieces: with the frames before it that it depends on, a piece is what it is in the whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from chatterbox.models.s3gen.f0_predictor import ConvRNNF0Predictor
from chatterbox.models.s3gen.hifigan import HiFTGenerator

from worker.engines.chatterbox.cooperative import run_to_completion
from worker.engines.chatterbox.s3gen.vocoder import REACH_FRAMES, Vocoder
from worker.precision import Precision

FRAMES, SENT = 40, 20
SAMPLES = 480
"""Samples of a frame."""


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def vocoder() -> Vocoder:
    """Upstream's vocoder with random weights."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(1)
        upstream = HiFTGenerator(
            sampling_rate=24_000,
            upsample_rates=[8, 5, 3],
            upsample_kernel_sizes=[16, 11, 7],
            source_resblock_kernel_sizes=[7, 7, 11],
            source_resblock_dilation_sizes=[[1, 3, 5]] * 3,
            f0_predictor=ConvRNNF0Predictor(),
        )
        return Vocoder(upstream.eval(), Precision.FP32)


def test_a_piece_is_as_in_the_whole_behind_its_reach(vocoder: Vocoder) -> None:
    generator = torch.Generator().manual_seed(2)
    mel = torch.randn(FRAMES, 80, generator=generator)
    excitation = vocoder.begin_excitation(3).extend(torch.full((FRAMES,), 120.0))
    whole = run_to_completion(vocoder.piece_steps(mel, excitation))
    assert whole.shape == (FRAMES * SAMPLES,)
    begin = SENT - REACH_FRAMES
    piece = run_to_completion(vocoder.piece_steps(mel[begin:], excitation[begin * SAMPLES :]))
    assert torch.allclose(piece[REACH_FRAMES * SAMPLES :], whole[SENT * SAMPLES :], atol=1e-6)
    assert (piece[:SAMPLES] - whole[begin * SAMPLES :][:SAMPLES]).abs().max() > 1e-4, "its edge is another"
    first = run_to_completion(vocoder.piece_steps(mel[:SENT], excitation[: SENT * SAMPLES]))
    inside = (SENT - REACH_FRAMES) * SAMPLES
    assert torch.allclose(first[:inside], whole[:inside], atol=1e-6)
    pitch = vocoder.frequencies(mel[begin:])[REACH_FRAMES:]
    assert torch.allclose(pitch, vocoder.frequencies(mel)[SENT:], atol=1e-6)


def test_the_excitation_goes_on_where_it_ended(vocoder: Vocoder) -> None:
    pitch = torch.cat([torch.linspace(80.0, 240.0, SENT), torch.zeros(5), torch.full((15,), 180.0)])
    whole = vocoder.begin_excitation(3).extend(pitch)
    assert whole.shape == (FRAMES * SAMPLES,)
    pieces = vocoder.begin_excitation(3)
    first = pieces.extend(pitch[:SENT])
    ahead = pieces.fork().extend(pitch[SENT:])
    rest = pieces.extend(pitch[SENT:])
    assert torch.equal(ahead, rest), "a fork draws the same noise and leaves the original alone"
    assert torch.allclose(torch.cat([first, rest]), whole, atol=1e-5)
    assert not torch.allclose(vocoder.begin_excitation(4).extend(pitch), whole, atol=1e-3)


def test_the_excitation_is_upstreams_but_for_its_noise(vocoder: Vocoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """With phases and noise of zero, both are the same sines."""
    source = vocoder._upstream.m_source
    pitch = torch.cat([torch.full((10,), 130.0), torch.zeros(5), torch.linspace(90.0, 200.0, 10)])
    for name in ("randn", "randn_like"):
        monkeypatch.setattr(torch, name, lambda shape, **_: torch.zeros(getattr(shape, "shape", shape)))
    monkeypatch.setattr(torch.distributions.Uniform, "sample", lambda _, sample_shape: torch.zeros(sample_shape))
    expected = source(vocoder._upstream.f0_upsamp(pitch[None, None]).transpose(1, 2))[0][0, :, 0]
    excitation = vocoder.begin_excitation(3)
    excitation._offsets = torch.zeros_like(excitation._offsets)
    assert torch.allclose(excitation.extend(pitch), expected, atol=1e-3)
