"""From speech tokens to a wave: the flow, then the vocoder, in cooperative steps.

An utterance may be made in two pieces: the first while its later tokens are not known yet, the rest once they are. The
flow of the rest runs over all tokens, from the same noise, because in each of its layers every frame attends to every
other; so its spectrogram of the first piece's frames differs a little from what was sent. The vocoder's excitation
signal goes on in phase, and it computes enough frames before the rest that the rest is what it would be in one go.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worker.engines.base import Samples
from worker.engines.chatterbox.cooperative import CooperativeSteps
from worker.engines.chatterbox.s3gen.excitation import Excitation
from worker.engines.chatterbox.s3gen.flow import FRAMES_PER_TOKEN, Flow
from worker.engines.chatterbox.s3gen.vocoder import REACH_FRAMES, Vocoder
from worker.precision import Precision
from worker.stage_timer import StageTimer

LOOKAHEAD_TOKENS = 3
"""Tokens after one that the flow's encoder looks at: upstream's `pre_lookahead_len`."""

FIRST_PIECE_PROMPT_TOKENS = 100
"""Tokens of the voice's prompt over which the flow of a first piece runs, the last ones: 4 s of up to 10.

The flow's time grows with the prompt, which for a first piece is nearly all of it. The embedding of the voice, which
comes from the whole clip, stays. Upstream takes clips from 5 s on.
"""


@dataclass(frozen=True)
class FirstPiece:
    """The audio of an utterance's first tokens, and what the rest of its audio needs to follow it."""

    tokens: list[int]
    """The tokens of the piece, and after them the lookahead's."""
    wave: Samples
    """The audio of all these tokens, without the watermark."""
    count: int
    """The piece's samples. Those of the lookahead, which follow, are only to be faded from into the rest."""
    seed: int
    """The seed of the noise."""
    excitation: Excitation
    """The vocoder's excitation, to be extended from the end of the piece on."""
    excited: Tensor
    """The excitation signal of the piece: (samples,)."""


@dataclass(frozen=True)
class Rest:
    """The audio after an utterance's first piece."""

    wave: Samples
    """The audio without the watermark, after some audio that precedes it."""
    start: int
    """Number of samples that precede it: they are what the first piece would be if it were made now."""


class Synthesizer:
    """Upstream's `S3Token2Wav.inference`, for one utterance at a time."""

    def __init__(
        self, s3gen: Any, precision: Precision, timer: StageTimer | None = None, flow_steps: int | None = None
    ) -> None:
        """`flow_steps` are the Euler steps of the flow; None: as many as upstream takes."""
        self._timer = timer or StageTimer()
        self.flow = Flow(s3gen, precision, flow_steps)
        self.vocoder = Vocoder(s3gen.mel2wav, precision)
        self._fade_in: Tensor = s3gen.trim_fade

    def steps(
        self, tokens: Tensor, voice: dict[str, Tensor], generator: torch.Generator
    ) -> Generator[None, None, Samples]:
        """The audio of `tokens`, int64 (tokens,), in a voice given as upstream's `ref_dict`; without the watermark.

        `generator` is the one that drew the tokens: like upstream, flow and vocoder draw their noise from it.
        """
        mel = yield from self._timer.steps("flow", self.flow.steps(tokens, voice, generator))
        wave = yield from self._timer.steps("vocoder", self.vocoder.steps(mel, generator))
        return self._fade_in_samples(wave)

    def first_piece_steps(
        self, tokens: list[int], voice: dict[str, Tensor], seed: int
    ) -> Generator[None, None, FirstPiece]:
        """The first piece: the audio of all `tokens` but the last LOOKAHEAD_TOKENS; `seed` decides the noise.

        Noise from the generator of the tokens would depend on how many of them are drawn already.
        """
        mel = yield from self._mel_steps(tokens, _with_end_of_prompt(voice), seed)
        with self._timer("vocoder"):
            frequencies = self.vocoder.frequencies(mel)
            frames = len(mel) - FRAMES_PER_TOKEN * LOOKAHEAD_TOKENS
            excitation = self.vocoder.begin_excitation(seed)
            excited = excitation.extend(frequencies[:frames])
            signal = torch.cat([excited, excitation.fork().extend(frequencies[frames:])])
        wave = yield from self._timer.steps("vocoder", self.vocoder.piece_steps(mel, signal))
        return FirstPiece(tokens, self._fade_in_samples(wave), len(excited), seed, excitation, excited)

    def rest_steps(self, first: FirstPiece, tokens: list[int], voice: dict[str, Tensor]) -> Generator[None, None, Rest]:
        """The audio after the first piece, for all tokens of the utterance, those of `first` among them."""
        mel = yield from self._mel_steps(tokens, voice, first.seed)
        with self._timer("vocoder"):
            sent = first.count // self.vocoder.samples_per_frame
            begin = max(0, sent - REACH_FRAMES)
            frequencies = self.vocoder.frequencies(mel[begin:])[sent - begin :]
            before = first.excited[begin * self.vocoder.samples_per_frame :]
            signal = torch.cat([before, first.excitation.fork().extend(frequencies)])
        wave = yield from self._timer.steps("vocoder", self.vocoder.piece_steps(mel[begin:], signal))
        samples: Samples = wave.numpy()
        return Rest(samples, len(before))

    def _mel_steps(self, tokens: list[int], voice: dict[str, Tensor], seed: int) -> CooperativeSteps:
        tensor = torch.tensor(tokens)
        noise = self.flow.noise(tensor, voice, seed)
        mel = yield from self._timer.steps("flow", self.flow.steps_from(noise, tensor, voice))
        return mel

    def _fade_in_samples(self, wave: Tensor) -> Samples:
        # Like upstream: the first milliseconds may contain remains of the reference clip, so they are faded in.
        wave[: len(self._fade_in)] *= self._fade_in
        samples: Samples = wave.numpy()
        return samples


def _with_end_of_prompt(voice: dict[str, Tensor]) -> dict[str, Tensor]:
    """The voice with the last FIRST_PIECE_PROMPT_TOKENS of its prompt."""
    tokens = voice["prompt_token"]
    left_out = max(0, tokens.shape[1] - FIRST_PIECE_PROMPT_TOKENS)
    frames = voice["prompt_feat"][:, FRAMES_PER_TOKEN * left_out :]
    return voice | {"prompt_token": tokens[:, left_out:], "prompt_feat": frames}
