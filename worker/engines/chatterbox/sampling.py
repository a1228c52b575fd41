"""Draws one utterance's speech tokens from logits, with upstream's own processors and a generator of its own."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)


class Gpt2Sampler:
    """As `T3.inference_turbo` draws: the same seed draws the same tokens from the same logits.

    `start` stands before the first token, `stop` ends the utterance, which otherwise goes on for `budget` tokens after
    the first.
    """

    def __init__(
        self,
        *,
        seed: int,
        start: int,
        stop: int,
        budget: int,
        temperature: float,
        top_k: int,
        top_p: float,
        repetition_penalty: float,
    ) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.tokens: list[int] = []
        self.finished = False
        self._start = start
        self._stop = stop
        self._budget = budget
        self._processors: Any = LogitsProcessorList()
        if temperature != 1.0:
            self._processors.append(TemperatureLogitsWarper(temperature))
        if top_k > 0:
            self._processors.append(TopKLogitsWarper(top_k))
        if top_p < 1.0:
            self._processors.append(TopPLogitsWarper(top_p))
        if repetition_penalty != 1.0:
            self._processors.append(RepetitionPenaltyLogitsProcessor(repetition_penalty))

    @property
    def most(self) -> int:
        """Tokens that it may come to."""
        return self._budget + 1

    @property
    def cut_short(self) -> bool:
        """Whether the budget ended it."""
        return len(self.tokens) > self._budget and self.tokens[-1] != self._stop

    @property
    def spoken(self) -> list[int]:
        """The tokens without the one that ended them."""
        ended = len(self.tokens) > 1 and self.tokens[-1] == self._stop
        return self.tokens[:-1] if ended else self.tokens

    def draw(self, logits: Tensor) -> None:
        """Draw the next token from float32 (vocabulary,) logits, or finish."""
        before = torch.tensor([self.tokens or [self._start]])
        processed = self._processors(before, logits[None])
        first = not self.tokens
        if not first and torch.all(processed == -float("inf")):
            self.finished = True
            return
        token = int(torch.multinomial(F.softmax(processed, dim=-1), num_samples=1, generator=self.generator))
        self.tokens.append(token)
        # Upstream looks for the end from the second token on.
        self.finished = (token == self._stop and not first) or len(self.tokens) > self._budget
