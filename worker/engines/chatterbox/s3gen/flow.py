"""Speech tokens to a mel spectrogram: upstream's flow matching, an integral of the estimator's velocity from noise."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.cooperative import CooperativeSteps
from worker.engines.chatterbox.layers.linear import linear
from worker.engines.chatterbox.s3gen.encoder import Encoder
from worker.engines.chatterbox.s3gen.estimator import Estimator
from worker.precision import Precision

MEAN_FLOW_STEPS = 2
"""Euler steps of a mean flow, Turbo's and Nano's, in upstream: it was distilled for so few."""
FLOW_STEPS = 10
"""Euler steps of the other models' flow in upstream."""
BANDS = 80
FRAMES_PER_TOKEN = 2


class Flow:
    """The flow of one S3Gen, for one utterance at a time: one utterance's matrices have hundreds of rows already.

    Frames of the voice's prompt precede the utterance's own. Every frame attends to all others, so nothing that is
    computed for the prompt can be reused for the next utterance.
    """

    def __init__(self, s3gen: Any, precision: Precision, steps: int | None = None) -> None:
        """`steps` are the Euler steps; None: as many as upstream takes."""
        flow = s3gen.flow
        self._mean_flow: bool = s3gen.meanflow
        self._steps = steps or (MEAN_FLOW_STEPS if self._mean_flow else FLOW_STEPS)
        self._token_embeddings = flow.input_embedding.weight
        self._speaker_projection = flow.spk_embed_affine_layer
        self._encoder = Encoder(flow.encoder, precision)
        self._encoder_projection = linear(flow.encoder_proj.weight, flow.encoder_proj.bias, precision)
        self._estimator = Estimator(flow.decoder.estimator, precision)
        self._cfg_rate: float = flow.decoder.inference_cfg_rate

    def steps(self, tokens: Tensor, voice: dict[str, Tensor], generator: torch.Generator) -> CooperativeSteps:
        """The mel spectrogram of `tokens`, (tokens,), in a voice (upstream's `ref_dict`): float32 (frames, bands).

        Draws from `generator` the noise that upstream draws.
        """
        noise = upstreams_noise(tokens, voice, generator, mean_flow=self._mean_flow)
        mel = yield from self.steps_from(noise, tokens, voice)
        return mel

    def noise(self, tokens: Tensor, voice: dict[str, Tensor], seed: int) -> Tensor:
        """Noise for the prompt and `tokens`, (frames, bands), of which each token's own follows from the seed alone.

        The noise of more tokens begins with the noise of fewer, that of a longer prompt ends with that of a shorter.
        """
        prompt = _noise_of_tokens(voice["prompt_token"].shape[1], seed + 1)
        return torch.cat([*reversed(prompt), *_noise_of_tokens(len(tokens), seed)])

    def steps_from(self, noise: Tensor, tokens: Tensor, voice: dict[str, Tensor]) -> CooperativeSteps:
        """The mel spectrogram of `tokens`, (tokens,), from given noise for the prompt and them: (frames, bands)."""
        tokens = torch.cat([voice["prompt_token"][0].long(), tokens])
        encoded = yield from self._encoder.steps(F.embedding(tokens, self._token_embeddings))
        mu = self._encoder_projection(encoded).float()
        prompt_frames = voice["prompt_feat"].shape[1]
        prompt = torch.zeros_like(mu)
        prompt[:prompt_frames] = voice["prompt_feat"][0]
        speaker = self._speaker_projection(F.normalize(voice["embedding"], dim=1)).expand(len(mu), -1)
        condition = torch.cat([mu, speaker, prompt], -1)
        integrate = self._integrate_mean_flow if self._mean_flow else self._integrate_guided
        states = yield from integrate(noise, condition)
        return states[prompt_frames:].contiguous()

    def _integrate_mean_flow(self, states: Tensor, condition: Tensor) -> CooperativeSteps:
        times = torch.linspace(0, 1, self._steps + 1).tolist()
        for time, until in pairwise(times):
            velocity = yield from self._estimator.steps(torch.cat([states, condition], -1)[None], time, until)
            states = states + (until - time) * velocity[0]
        return states

    def _integrate_guided(self, states: Tensor, condition: Tensor) -> CooperativeSteps:
        """Euler integration with classifier-free guidance: away from the velocity without any condition."""
        times = (1 - torch.cos(torch.linspace(0, 1, self._steps + 1) * 0.5 * math.pi)).tolist()
        conditions = torch.stack([condition, torch.zeros_like(condition)])
        for time, until in pairwise(times):
            pair = torch.cat([states.expand(2, -1, -1), conditions], -1)
            cond, uncond = yield from self._estimator.steps(pair, time, None)
            states = states + (until - time) * ((1 + self._cfg_rate) * cond - self._cfg_rate * uncond)
        return states


def upstreams_noise(tokens: Tensor, voice: dict[str, Tensor], generator: torch.Generator, *, mean_flow: bool) -> Tensor:
    """The noise that upstream's flow draws for the prompt and `tokens`, (frames, bands)."""
    own_noise = None
    if mean_flow:
        own_noise = torch.randn(1, BANDS, FRAMES_PER_TOKEN * len(tokens), generator=generator)
    prompt_tokens: int = voice["prompt_token"].shape[1]
    noise = torch.randn(1, BANDS, FRAMES_PER_TOKEN * (prompt_tokens + len(tokens)), generator=generator)
    if own_noise is not None:
        noise[:, :, -own_noise.shape[2] :] = own_noise
    return noise[0].t()


def _noise_of_tokens(count: int, seed: int) -> list[Tensor]:
    """Noise for `count` tokens, (frames, bands) each."""
    generator = torch.Generator().manual_seed(seed)
    # One draw for each token: a single draw's numbers would depend on how many there are.
    return [torch.randn(FRAMES_PER_TOKEN, BANDS, generator=generator) for _ in range(count)]
