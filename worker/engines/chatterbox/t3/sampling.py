"""Draws an utterance's speech tokens from logits, with upstream's own processors and one generator per utterance.

Upstream's loops use torch's global generator. From the same logits, the same seed draws the same tokens here and there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from chatterbox.models.s3gen.const import S3GEN_SIL
from chatterbox.models.s3tokenizer import EOS, SOS
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
)

from worker.engines.chatterbox.t3.alignment_guard import AlignmentGuard
from worker.engines.chatterbox.t3.top_k_top_p import TopKTopPWarper

START: int = SOS
"""Start-of-speech token, fed before the first drawn token. Tokens from this number on have no sound."""
STOP: int = EOS
"""End-of-speech token."""


class Sampler(ABC):
    """Draws the tokens of one utterance until the model ends it, at most `max_tokens`."""

    guard: AlignmentGuard | None = None
    """Upstream's guard against run-on, which needs the attention weights of some heads; None without a guard."""

    def __init__(self, *, seed: int, max_tokens: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.tokens: list[int] = []
        self.finished = False
        self.max_tokens = max_tokens
        self._history = torch.full((1, max_tokens + 1), START)

    @property
    def cut_short(self) -> bool:
        """Whether the utterance reached `max_tokens` before the model ended it."""
        return self.finished and len(self.tokens) == self.max_tokens and self.tokens[-1] != STOP

    @property
    def sounds(self) -> list[int]:
        """The drawn tokens that have a sound."""
        return _with_sound(self.tokens)

    def speech_in(self, tokens: Sequence[int]) -> list[int]:
        """The tokens among `tokens`, drawn from the beginning on, that S3Gen turns into audio."""
        return _with_sound(tokens)

    @property
    def s3gen_tokens(self) -> list[int]:
        """The tokens that S3Gen turns into audio, once all are drawn."""
        return self.speech_in(self.tokens)

    def s3gen_tokens_after(self, first: list[int]) -> list[int]:
        """The same, where S3Gen has turned the `first` ones into audio before the others were drawn."""
        tokens = self.s3gen_tokens
        return tokens if tokens[: len(first)] == first else self.sounds

    def speech_after(self, first: list[int], tokens: Sequence[int]) -> list[int]:
        """As `speech_in`, where S3Gen has turned the `first` ones into audio already."""
        speech = self.speech_in(tokens)
        # A start token that was drawn after those would leave them out.
        return speech if speech[: len(first)] == first else _with_sound(tokens)

    def draw(self, logits: Tensor) -> None:
        """Draw the next token, or finish.

        `logits` are float32 (rows, vocabulary), with one row for each of the utterance's rows in the KV cache. Raises
        RuntimeError where they contain NaN.
        """
        scores = self._scores(logits)
        if scores is None:
            self.finished = True
            return
        token = int(torch.multinomial(F.softmax(scores, dim=-1), num_samples=1, generator=self.generator))
        self._append(token)

    @abstractmethod
    def _scores(self, logits: Tensor) -> Tensor | None:
        """Scores to take the softmax of, (1, vocabulary); None where the processors left no token."""

    def _append(self, token: int) -> None:
        self.tokens.append(token)
        self._history[0, len(self.tokens)] = token
        self.finished = self._ends(token) or len(self.tokens) == self.max_tokens

    def _ends(self, token: int) -> bool:
        return token == STOP


class Gpt2Sampler(Sampler):
    """Draws as upstream's `T3.inference_turbo` does: one token before its loop, then `budget` more."""

    def __init__(
        self, *, seed: int, budget: int, temperature: float, top_k: int, top_p: float, repetition_penalty: float
    ) -> None:
        super().__init__(seed=seed, max_tokens=budget + 1)
        self._processors: Any = LogitsProcessorList()
        if temperature != 1.0:
            self._processors.append(TemperatureLogitsWarper(temperature))
        self._processors.append(TopKTopPWarper(top_k=top_k, top_p=top_p))
        if repetition_penalty != 1.0:
            self._processors.append(RepetitionPenaltyLogitsProcessor(repetition_penalty))

    @property
    def s3gen_tokens(self) -> list[int]:
        """The tokens that have a sound, followed by the silence that upstream appends."""
        return self.sounds + [S3GEN_SIL] * 3

    def _scores(self, logits: Tensor) -> Tensor | None:
        # Upstream's repetition penalty sees the start token for the first draw only.
        first = 1 if self.tokens else 0
        scores: Tensor = self._processors(self._history[:, first : len(self.tokens) + 1], logits)
        return None if self.tokens and float(scores.max()) == -torch.inf else scores

    def _ends(self, token: int) -> bool:
        # Upstream ignores a stop as the first token.
        return token == STOP and len(self.tokens) > 1


class LlamaSampler(Sampler):
    """Draws as upstream's `T3.inference` does: from two rows of logits, with and without the text."""

    def __init__(
        self,
        *,
        seed: int,
        budget: int,
        cfg_weight: float,
        temperature: float,
        min_p: float,
        top_p: float,
        repetition_penalty: float,
        guard: AlignmentGuard | None = None,
    ) -> None:
        super().__init__(seed=seed, max_tokens=budget)
        self.guard = guard
        self._cfg_weight = cfg_weight
        self._temperature = temperature
        self._penalty: Any = RepetitionPenaltyLogitsProcessor(float(repetition_penalty))
        self._warpers: Any = LogitsProcessorList()
        # Upstream always appends both warpers. At min_p = 0 and top_p = 1 they change nothing.
        if min_p > 0.0:
            self._warpers.append(MinPLogitsWarper(min_p))
        self._warpers.append(TopKTopPWarper(top_k=0, top_p=top_p))

    def speech_in(self, tokens: Sequence[int]) -> list[int]:
        """The tokens that have a sound; only those after the start token, if the model drew one."""
        return super().speech_in(tokens[tokens.index(START) + 1 :] if START in tokens else tokens)

    def _scores(self, logits: Tensor) -> Tensor:
        history = self._history[:, : len(self.tokens) + 1]
        scores = classifier_free_guidance(logits, self._cfg_weight)[None]
        if self.guard is not None:
            scores = self.guard.adjust(scores, last=int(history[0, -1]))
        scores = self._penalty(history, scores)
        if self._temperature != 1.0:
            scores = scores / self._temperature
        warped: Tensor = self._warpers(history, scores)
        return warped


class ForcedTokens(Sampler):
    """Teacher forcing: takes given tokens instead of drawing, and records the logits of every step."""

    def __init__(self, tokens: Sequence[int]) -> None:
        super().__init__(seed=0, max_tokens=len(tokens))
        self._forced = tokens
        self.logits: list[Tensor] = []
        """float32 (rows, vocabulary) for every step."""

    @property
    def s3gen_tokens(self) -> list[int]:
        """The forced tokens."""
        return list(self._forced)

    def draw(self, logits: Tensor) -> None:
        """Record the logits and take the next forced token."""
        self.logits.append(logits.clone())
        self.tokens.append(self._forced[len(self.tokens)])
        self.finished = len(self.tokens) == self.max_tokens

    def _scores(self, logits: Tensor) -> Tensor:
        return logits


def _with_sound(tokens: Sequence[int]) -> list[int]:
    """Those of the tokens that have a sound."""
    return [token for token in tokens if token < START]


def classifier_free_guidance(logits: Tensor, cfg_weight: float) -> Tensor:
    """Guided logits, cond + weight * (cond - uncond).

    `logits` are (…, 2, vocabulary), with and without the text; the result is (…, vocabulary).
    """
    cond, uncond = logits.unbind(-2)
    return cond + torch.as_tensor(cfg_weight, dtype=logits.dtype) * (cond - uncond)
