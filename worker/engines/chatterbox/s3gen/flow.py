"""Speech tokens to a mel spectrogram: upstream's flow matching, from noise along the estimator's directions."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.cooperative import Pieces
from worker.engines.chatterbox.layers.linear import linear
from worker.engines.chatterbox.s3gen.encoder import Encoder
from worker.engines.chatterbox.s3gen.estimator import Estimator
from worker.precision import Precision

MEAN_FLOW_STEPS = 2
"""Of Turbo and Nano, which were distilled to take so few."""
STEPS = 10
BANDS = 80
FRAMES_PER_TOKEN = 2


class Flow:
    """The flow of one S3Gen, for one utterance at a time: its products have hundreds of rows by themselves.

    Frames of the voice's prompt stand before the utterance's own; each hears all others, so that of what is computed
    for the prompt nothing can be kept for the next utterance.
    """

    def __init__(self, s3gen: Any, precision: Precision) -> None:
        flow = s3gen.flow
        self._mean_flow: bool = s3gen.meanflow
        self._tokens = flow.input_embedding.weight
        self._speaker = flow.spk_embed_affine_layer
        self._encoder = Encoder(flow.encoder, precision)
        self._project = linear(flow.encoder_proj.weight, flow.encoder_proj.bias, precision)
        self._estimator = Estimator(flow.decoder.estimator, precision)
        self._guidance: float = flow.decoder.inference_cfg_rate

    def pieces(self, tokens: Tensor, voice: dict[str, Tensor], generator: torch.Generator) -> Pieces:
        """The spectrogram of `tokens` (tokens,) in a voice: float32 (frames, bands), piece by piece.

        Draws the noise that upstream draws from `generator`.
        """
        noise = None
        if self._mean_flow:
            noise = torch.randn(1, BANDS, FRAMES_PER_TOKEN * len(tokens), generator=generator)
        tokens = torch.cat([voice["prompt_token"][0].long(), tokens])
        wanted = self._project((yield from self._encoder.pieces(F.embedding(tokens, self._tokens)))).float()
        begun = torch.randn(1, BANDS, len(wanted), generator=generator)
        if noise is not None:
            begun[:, :, -noise.shape[2] :] = noise
        known = voice["prompt_feat"].shape[1]
        prompt = torch.zeros_like(wanted)
        prompt[:known] = voice["prompt_feat"][0]
        speaker = self._speaker(F.normalize(voice["embedding"], dim=1)).expand(len(wanted), -1)
        given = torch.cat([wanted, speaker, prompt], -1)
        solve = self._straight if self._mean_flow else self._guided
        states = yield from solve(begun[0].t(), given)
        return states[known:].contiguous()

    def _straight(self, states: Tensor, given: Tensor) -> Pieces:
        times = torch.linspace(0, 1, MEAN_FLOW_STEPS + 1).tolist()
        for time, until in pairwise(times):
            direction = yield from self._estimator.pieces(torch.cat([states, given], -1)[None], time, until)
            states = states + (until - time) * direction[0]
        return states

    def _guided(self, states: Tensor, given: Tensor) -> Pieces:
        """Away from where the flow would go if it were given nothing."""
        times = (1 - torch.cos(torch.linspace(0, 1, STEPS + 1) * 0.5 * math.pi)).tolist()
        both = torch.stack([given, torch.zeros_like(given)])
        for time, until in pairwise(times):
            pair = torch.cat([states.expand(2, -1, -1), both], -1)
            towards, anyway = yield from self._estimator.pieces(pair, time, None)
            states = states + (until - time) * ((1 + self._guidance) * towards - self._guidance * anyway)
        return states
