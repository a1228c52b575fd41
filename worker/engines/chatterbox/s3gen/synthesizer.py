"""From speech tokens to a wave: the flow, then the vocoder, in cooperative steps.

An utterance may be made in pieces: all but the last while its later tokens are not known yet. The flow of each runs
over all tokens so far, from the same noise, because in each of its layers every frame attends to every other; so its
spectrogram of the frames before the piece differs a little from what was sent. The vocoder's excitation signal goes on
in phase, and it computes enough frames before the piece that the piece is what it would be in one go.
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

PIECE_PROMPT_TOKENS = 100
"""Tokens of the voice's prompt over which the flow of an early piece runs, the last ones: 4 s of up to 10.

The flow's time grows with the prompt, which for a first piece is nearly all of it. The embedding of the voice, which
comes from the whole clip, stays. Upstream takes clips from 5 s on.
"""


@dataclass(frozen=True)
class Piece:
    """A piece of an utterance's audio, and what the audio after it needs to follow."""

    tokens: list[int]
    """The utterance's tokens up to the end of the piece, and after them the lookahead's."""
    wave: Samples
    """The audio without the watermark, after some audio that precedes the piece, and before that of the lookahead."""
    start: int
    """Number of samples that precede the piece: they are what the piece before would be if it were made now."""
    end: int
    """The piece ends after so many samples. Those of the lookahead are only to be faded from into what follows."""
    excitation: Excitation
    """The vocoder's excitation, to be extended from the end of the piece on."""
    excited: Tensor
    """The excitation signal from the beginning of the utterance to the end of the piece: (samples,)."""

    @property
    def audio(self) -> Samples:
        """The piece itself."""
        return self.wave[self.start : self.end]


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

    def piece_steps(
        self, before: Piece | None, tokens: list[int], voice: dict[str, Tensor], seed: int, *, last: bool
    ) -> Generator[None, None, Piece]:
        """The audio after the piece `before`, up to the lookahead's tokens, or the rest if it is the `last` piece.

        `tokens` are those of the utterance so far, those of `before` among them. `seed` decides the noise: from the
        generator of the tokens, it would depend on how many of them are drawn already.
        """
        mel = yield from self._mel_steps(tokens, voice if last else _with_end_of_prompt(voice), seed)
        with self._timer("vocoder"):
            frame = self.vocoder.samples_per_frame
            excitation = self.vocoder.begin_excitation(seed) if before is None else before.excitation.fork()
            excited = torch.empty(0) if before is None else before.excited
            sent, ahead = len(excited) // frame, 0 if last else FRAMES_PER_TOKEN * LOOKAHEAD_TOKENS
            begin, end = max(0, sent - REACH_FRAMES), len(mel) - ahead
            frequencies = self.vocoder.frequencies(mel[begin:])[sent - begin :]
            excited = torch.cat([excited, excitation.extend(frequencies[: end - sent])])
            signal = excited[begin * frame :]
            if ahead:
                signal = torch.cat([signal, excitation.fork().extend(frequencies[end - sent :])])
        wave = yield from self._timer.steps("vocoder", self.vocoder.piece_steps(mel[begin:], signal))
        samples = self._fade_in_samples(wave) if before is None else wave.numpy()
        return Piece(tokens, samples, (sent - begin) * frame, (end - begin) * frame, excitation, excited)

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
    """The voice with the last PIECE_PROMPT_TOKENS of its prompt."""
    tokens = voice["prompt_token"]
    left_out = max(0, tokens.shape[1] - PIECE_PROMPT_TOKENS)
    frames = voice["prompt_feat"][:, FRAMES_PER_TOKEN * left_out :]
    return voice | {"prompt_token": tokens[:, left_out:], "prompt_feat": frames}
