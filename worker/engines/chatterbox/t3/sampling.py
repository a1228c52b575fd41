"""Draws one utterance's speech tokens from logits, with upstream's own processors and a generator of its own.

The same seed draws the same tokens from the same logits as upstream's loops do, which take torch's one generator.
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

from worker.engines.chatterbox.t3.alignment_guard import Guard
from worker.engines.chatterbox.t3.top_k_top_p import Likeliest

START: int = SOS
"""Stands before the first token. From there on tokens have no sound."""
STOP: int = EOS
"""Ends the utterance."""


class Sampler(ABC):
    """The tokens of one utterance, `most` of them unless the model ends it before."""

    guard: Guard | None = None
    """Upstream's guard against run-on, to be shown where the model looks; None where there is none."""

    def __init__(self, *, seed: int, most: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.tokens: list[int] = []
        self.finished = False
        self.most = most
        self._before = torch.full((1, most + 1), START)

    @property
    def cut_short(self) -> bool:
        """Whether the model had not ended it by itself."""
        return self.finished and len(self.tokens) == self.most and self.tokens[-1] != STOP

    @property
    @abstractmethod
    def spoken(self) -> list[int]:
        """The tokens that the sound is made of."""

    def draw(self, logits: Tensor) -> None:
        """Draw the next token, or finish. `logits` are float32 (rows, vocabulary), a row for each of the utterance's.

        Raises RuntimeError where they hold no numbers.
        """
        scores = self._scores(logits)
        if scores is None:
            self.finished = True
            return
        token = int(torch.multinomial(F.softmax(scores, dim=-1), num_samples=1, generator=self.generator))
        self._take(token)

    @abstractmethod
    def _scores(self, logits: Tensor) -> Tensor | None:
        """(1, vocabulary) that the softmax is taken of; None where no token is left."""

    def _take(self, token: int) -> None:
        self.tokens.append(token)
        self._before[0, len(self.tokens)] = token
        self.finished = self._ends(token) or len(self.tokens) == self.most

    def _ends(self, token: int) -> bool:
        return token == STOP


class Gpt2Sampler(Sampler):
    """As `T3.inference_turbo` draws: a token before its loop, then `budget` more."""

    def __init__(
        self, *, seed: int, budget: int, temperature: float, top_k: int, top_p: float, repetition_penalty: float
    ) -> None:
        super().__init__(seed=seed, most=budget + 1)
        self._processors: Any = LogitsProcessorList()
        if temperature != 1.0:
            self._processors.append(TemperatureLogitsWarper(temperature))
        self._processors.append(Likeliest(top_k=top_k, top_p=top_p))
        if repetition_penalty != 1.0:
            self._processors.append(RepetitionPenaltyLogitsProcessor(repetition_penalty))

    @property
    def spoken(self) -> list[int]:
        """The tokens that have a sound, and the silence that upstream adds."""
        return [token for token in self.tokens if token < START] + [S3GEN_SIL] * 3

    def _scores(self, logits: Tensor) -> Tensor | None:
        # The start counts as a token that was there before only until there are others.
        first = 1 if self.tokens else 0
        scores: Tensor = self._processors(self._before[:, first : len(self.tokens) + 1], logits)
        return None if self.tokens and float(scores.max()) == -torch.inf else scores

    def _ends(self, token: int) -> bool:
        # Upstream looks for the end from the second token on.
        return token == STOP and len(self.tokens) > 1


class LlamaSampler(Sampler):
    """As `T3.inference` draws: from two rows, what the model says with and without the text."""

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
        guard: Guard | None = None,
    ) -> None:
        super().__init__(seed=seed, most=budget)
        self.guard = guard
        self._cfg_weight = cfg_weight
        self._temperature = temperature
        self._penalty: Any = RepetitionPenaltyLogitsProcessor(float(repetition_penalty))
        self._warpers: Any = LogitsProcessorList()
        # Upstream's are there at the ends of their ranges, too, where they leave everything as it is.
        if min_p > 0.0:
            self._warpers.append(MinPLogitsWarper(min_p))
        self._warpers.append(Likeliest(top_k=0, top_p=top_p))

    @property
    def spoken(self) -> list[int]:
        """The tokens that have a sound, after the start should the model have said one."""
        start = self.tokens.index(START) + 1 if START in self.tokens else 0
        return [token for token in self.tokens[start:] if token < START]

    def _scores(self, logits: Tensor) -> Tensor:
        before = self._before[:, : len(self.tokens) + 1]
        scores = guided(logits, self._cfg_weight)[None]
        if self.guard is not None:
            scores = self.guard.judge(scores, last=int(before[0, -1]))
        scores = self._penalty(before, scores)
        if self._temperature != 1.0:
            scores = scores / self._temperature
        warped: Tensor = self._warpers(before, scores)
        return warped


class Dictated(Sampler):
    """Draws nothing: the tokens are told, and the logits that led to each of them are kept."""

    def __init__(self, tokens: Sequence[int]) -> None:
        super().__init__(seed=0, most=len(tokens))
        self._told = tokens
        self.seen: list[Tensor] = []
        """float32 (rows, vocabulary) of every step."""

    @property
    def spoken(self) -> list[int]:
        """What was told."""
        return list(self._told)

    def draw(self, logits: Tensor) -> None:
        """Keep the logits and take the next token that was told."""
        self.seen.append(logits.clone())
        self.tokens.append(self._told[len(self.tokens)])
        self.finished = len(self.tokens) == self.most

    def _scores(self, logits: Tensor) -> Tensor:
        return logits


def guided(logits: Tensor, cfg_weight: float) -> Tensor:
    """What guidance makes of logits with and without the text: (…, 2, vocabulary) to (…, vocabulary)."""
    with_text, without = logits.unbind(-2)
    return with_text + torch.as_tensor(cfg_weight, dtype=logits.dtype) * (with_text - without)
