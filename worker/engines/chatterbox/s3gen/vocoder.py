"""A mel spectrogram to a wave: upstream's HiFT-GAN, weight norm folded away, time in rows and channels side by side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.cooperative import Pieces
from worker.engines.chatterbox.kernels.snake import Snake
from worker.engines.chatterbox.layers.convolution import convolution, transposed_convolution
from worker.engines.chatterbox.layers.onednn import Layer
from worker.precision import Precision


class Vocoder:
    """Upstream's `HiFTGenerator`, for one utterance at a time."""

    def __init__(self, vocoder: Any, precision: Precision) -> None:
        self._upstream = vocoder
        # A few percent of the work, and what they make is heard as pitch and phase.
        self._pitch = [_convolution(layer, Precision.FP32) for layer in vocoder.f0_predictor.condnet[::2]]
        self._before, self._after = (
            _convolution(vocoder.conv_pre, precision),
            _convolution(vocoder.conv_post, Precision.FP32),
        )
        width = vocoder.num_kernels
        self._stages = [
            _Stage(
                vocoder.ups[stage],
                vocoder.source_downs[stage],
                vocoder.source_resblocks[stage],
                vocoder.resblocks[stage * width : (stage + 1) * width],
                precision,
                slope=vocoder.lrelu_slope,
                mirrored=stage == vocoder.num_upsamples - 1,
            )
            for stage in range(vocoder.num_upsamples)
        ]

    def pieces(self, mel: Tensor, generator: torch.Generator) -> Pieces:
        """The wave of `mel`, float32 (frames, bands), as float32 (samples,), piece by piece.

        Draws the noise that upstream draws from `generator`.
        """
        with _drawing_from(generator):
            source = self._source(self._frequencies(mel))
        yield
        states = self._before(mel[None])
        for stage in self._stages:
            states = yield from stage.pieces(states, source)
        states = self._after(F.leaky_relu(states)).float()[0]
        half = self._upstream.istft_params["n_fft"] // 2 + 1
        magnitude, phase = torch.exp(states[:, :half]), torch.sin(states[:, half:])
        wave = self._upstream._istft(magnitude.t()[None], phase.t()[None])
        limit = self._upstream.audio_limit
        return torch.clamp(wave, -limit, limit)[0]

    def _frequencies(self, mel: Tensor) -> Tensor:
        """The pitch of each frame in Hz, (1, 1, frames)."""
        states = mel[None]
        for layer in self._pitch:
            states = F.elu(layer(states))
        return torch.abs(self._upstream.f0_predictor.classifier(states)).transpose(1, 2)

    def _source(self, frequencies: Tensor) -> Tensor:
        """The spectrum of a buzz of that pitch, (1, time, channels)."""
        sines, _, _ = self._upstream.m_source(self._upstream.f0_upsamp(frequencies).transpose(1, 2))
        real, imaginary = self._upstream._stft(sines[:, :, 0])
        return torch.cat([real, imaginary], 1).transpose(1, 2).contiguous()


class _Stage:
    """Time lengthened, the buzz added, then a few ways of looking at it, averaged."""

    def __init__(
        self, up: Any, down: Any, source: Any, residuals: Any, precision: Precision, *, slope: float, mirrored: bool
    ) -> None:
        self._slope, self._mirrored = slope, mirrored
        self._up = transposed_convolution(up.weight, up.bias, precision, stride=up.stride[0], padding=up.padding[0])
        self._down = _convolution(down, precision)
        self._source = _Residual(source, precision)
        self._residuals = [_Residual(one, precision) for one in residuals]

    def pieces(self, states: Tensor, source: Tensor) -> Pieces:
        """The longer states, piece by piece."""
        states = self._up(F.leaky_relu(states, self._slope))
        if self._mirrored:
            # One step more at the front.
            states = torch.cat([states[:, 1:2], states], 1)
        states = states + self._source(self._down(source))
        total = torch.zeros_like(states)
        for residual in self._residuals:
            yield
            total += residual(states)
        return total.div_(len(self._residuals))


class _Residual:
    """Pairs of convolutions, each after a snake, added to what they were given."""

    def __init__(self, block: Any, precision: Precision) -> None:
        self._pairs = [
            (Snake(first), _convolution(one, precision), Snake(second), _convolution(two, precision))
            for first, one, second, two in zip(
                block.activations1, block.convs1, block.activations2, block.convs2, strict=True
            )
        ]

    def __call__(self, states: Tensor) -> Tensor:
        for first, one, second, two in self._pairs:
            states = states + two(second(one(first(states))))
        return states


@contextmanager
def _drawing_from(generator: torch.Generator) -> Iterator[None]:
    """A block in which upstream's modules, which draw from torch's one generator, draw from this one."""
    torch.set_rng_state(generator.get_state())
    try:
        yield
    finally:
        generator.set_state(torch.get_rng_state())


def _convolution(layer: Any, precision: Precision) -> Layer:
    """With the weight that weight norm makes of its two parts, worked out once."""
    padding, stride, dilation = layer.padding[0], layer.stride[0], layer.dilation[0]
    return convolution(
        layer.weight, layer.bias, precision, before=padding, after=padding, stride=stride, dilation=dilation
    )
