"""The vocoder's excitation signal for an utterance that is made in pieces: harmonics of the pitch, plus noise."""

from __future__ import annotations

import math
from copy import copy
from typing import Any

import torch
from torch import Tensor


class Excitation:
    """Upstream's `SourceModuleHnNSF`, piece after piece: the sines of each piece go on where those before it ended.

    `source` is upstream's module. Phases and noise follow from `seed`.
    """

    def __init__(self, source: Any, samples_per_frame: int, seed: int) -> None:
        self._source, self._samples_per_frame = source, samples_per_frame
        self._generator = torch.Generator().manual_seed(seed)
        self._harmonics = torch.arange(1, source.l_sin_gen.harmonic_num + 2, dtype=torch.float64)
        self._offsets = torch.empty(len(self._harmonics)).uniform_(-math.pi, math.pi, generator=self._generator)
        self._offsets[0] = 0.0
        self._cycles = torch.zeros_like(self._harmonics)
        """Cycles of each harmonic so far, without whole ones."""

    def fork(self) -> Excitation:
        """Another excitation that goes on from here, with the same noise."""
        fork = copy(self)
        fork._generator = self._generator.clone_state()
        return fork

    def extend(self, frequencies: Tensor) -> Tensor:
        """The signal of the next frames, whose pitch is `frequencies` in Hz: float32 (frames,) → (samples,)."""
        module = self._source.l_sin_gen
        pitch = frequencies.repeat_interleave(self._samples_per_frame)[:, None]
        cycles = self._cycles + torch.cumsum(pitch * self._harmonics / module.sampling_rate, 0)
        self._cycles = cycles[-1] % 1
        sines = module.sine_amp * torch.sin(2 * math.pi * (cycles % 1).float() + self._offsets)
        voiced = (pitch > module.voiced_threshold).float()
        deviation = voiced * module.noise_std + (1 - voiced) * module.sine_amp / 3
        noise = torch.randn(sines.shape, generator=self._generator)
        signal: Tensor = self._source.l_tanh(self._source.l_linear(sines * voiced + deviation * noise))
        return signal[:, 0]
