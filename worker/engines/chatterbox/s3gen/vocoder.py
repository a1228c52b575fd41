"""A mel spectrogram to a wave: upstream's HiFT-GAN with folded weight norm, on tensors of (time, channels)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.cooperative import CooperativeSteps
from worker.engines.chatterbox.kernels.activations import Snake
from worker.engines.chatterbox.layers.convolution import convolution, transposed_convolution
from worker.engines.chatterbox.layers.onednn import Layer
from worker.engines.chatterbox.s3gen.excitation import Excitation
from worker.precision import Precision

REACH_FRAMES = 16
"""Frames to either side of one that its samples depend on, at most."""


class Vocoder:
    """Upstream's `HiFTGenerator`, for one utterance at a time."""

    def __init__(self, vocoder: Any, precision: Precision) -> None:
        self._upstream = vocoder
        self.samples_per_frame = int(vocoder.f0_upsamp.scale_factor)
        # Pitch predictor and last convolution stay in fp32: they are a few percent of the work, and their errors are
        # audible as pitch and phase.
        self._pitch_layers = [_convolution(layer, Precision.FP32) for layer in vocoder.f0_predictor.condnet[::2]]
        self._first_conv = _convolution(vocoder.conv_pre, precision)
        self._last_conv = _convolution(vocoder.conv_post, Precision.FP32)
        width = vocoder.num_kernels
        self._stages = [
            _UpsampleStage(
                vocoder.ups[stage],
                vocoder.source_downs[stage],
                vocoder.source_resblocks[stage],
                vocoder.resblocks[stage * width : (stage + 1) * width],
                precision,
                slope=vocoder.lrelu_slope,
                reflect=stage == vocoder.num_upsamples - 1,
            )
            for stage in range(vocoder.num_upsamples)
        ]

    def steps(self, mel: Tensor, generator: torch.Generator) -> CooperativeSteps:
        """The wave of `mel`: float32 (frames, bands) → float32 (samples,), in cooperative steps.

        Draws from `generator` the noise that upstream draws.
        """
        with _global_generator(generator):
            pitch = self._upstream.f0_upsamp(self.frequencies(mel)[None, None])
            excitation = self._upstream.m_source(pitch.transpose(1, 2))[0][0, :, 0]
        wave = yield from self.piece_steps(mel, excitation)
        return wave

    def begin_excitation(self, seed: int) -> Excitation:
        """The excitation signal of an utterance that is made in pieces."""
        return Excitation(self._upstream.m_source, self.samples_per_frame, seed)

    def piece_steps(self, mel: Tensor, excitation: Tensor) -> CooperativeSteps:
        """The wave of `mel` for an excitation signal: float32 (frames, bands), (samples,) → (samples,).

        Where REACH_FRAMES precede a sample, and follow it, it is the same as for the whole spectrogram.
        """
        source = self._source(excitation)
        yield
        states = self._first_conv(mel[None])
        for stage in self._stages:
            states = yield from stage.steps(states, source)
        states = self._last_conv(F.leaky_relu(states)).float()[0]
        half = self._upstream.istft_params["n_fft"] // 2 + 1
        magnitude, phase = torch.exp(states[:, :half]), torch.sin(states[:, half:])
        wave = self._upstream._istft(magnitude.t()[None], phase.t()[None])
        limit = self._upstream.audio_limit
        return torch.clamp(wave, -limit, limit)[0]

    def frequencies(self, mel: Tensor) -> Tensor:
        """The pitch of each frame in Hz: float32 (frames, bands) → (frames,)."""
        states = mel[None]
        for layer in self._pitch_layers:
            states = F.elu(layer(states))
        return torch.abs(self._upstream.f0_predictor.classifier(states))[0, :, 0]

    def _source(self, excitation: Tensor) -> Tensor:
        """The spectrum of an excitation signal: (samples,) → (1, time, channels)."""
        real, imaginary = self._upstream._stft(excitation[None])
        return torch.cat([real, imaginary], 1).transpose(1, 2).contiguous()


class _UpsampleStage:
    """Upsamples in time, adds the source, and averages the outputs of several residual blocks."""

    def __init__(
        self, up: Any, down: Any, source: Any, residuals: Any, precision: Precision, *, slope: float, reflect: bool
    ) -> None:
        self._slope, self._reflect = slope, reflect
        self._up = transposed_convolution(up.weight, up.bias, precision, stride=up.stride[0], padding=up.padding[0])
        self._source_down = _convolution(down, precision)
        self._source_block = _ResidualBlock(source, precision)
        self._residual_blocks = [_ResidualBlock(block, precision) for block in residuals]

    def steps(self, states: Tensor, source: Tensor) -> CooperativeSteps:
        """The upsampled states, one residual block per step."""
        states = self._up(F.leaky_relu(states, self._slope))
        if self._reflect:
            # Reflection padding by one step at the front.
            states = torch.cat([states[:, 1:2], states], 1)
        states = states + self._source_block(self._source_down(source))
        total = torch.zeros_like(states)
        for block in self._residual_blocks:
            yield
            total += block(states)
        return total.div_(len(self._residual_blocks))


class _ResidualBlock:
    """Pairs of convolutions, each after a snake activation, added to their input."""

    def __init__(self, block: Any, precision: Precision) -> None:
        self._pairs = [
            (Snake(first_snake), _convolution(first, precision), Snake(second_snake), _convolution(second, precision))
            for first_snake, first, second_snake, second in zip(
                block.activations1, block.convs1, block.activations2, block.convs2, strict=True
            )
        ]

    def __call__(self, states: Tensor) -> Tensor:
        for first_snake, first, second_snake, second in self._pairs:
            states = states + second(second_snake(first(first_snake(states))))
        return states


@contextmanager
def _global_generator(generator: torch.Generator) -> Iterator[None]:
    """A block in which torch's global generator, from which upstream's modules draw, continues `generator`."""
    torch.set_rng_state(generator.get_state())
    try:
        yield
    finally:
        generator.set_state(torch.get_rng_state())


def _convolution(layer: Any, precision: Precision) -> Layer:
    """The convolution of an upstream module; reading `layer.weight` folds the weight norm once."""
    padding, stride, dilation = layer.padding[0], layer.stride[0], layer.dilation[0]
    return convolution(
        layer.weight, layer.bias, precision, before=padding, after=padding, stride=stride, dilation=dilation
    )
