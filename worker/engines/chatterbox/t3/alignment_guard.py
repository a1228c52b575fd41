"""Upstream's guard against run-on, fed with attention weights of the batched decoder.

`AlignmentStreamAnalyzer` estimates from three attention heads where in the text the model is, and forces or forbids the
end of the utterance. Upstream hooks it into the attention layers of a model that decodes one utterance at a time. Here
each utterance has its own analyzer, and the decoder passes it the weights of those heads.
"""

from __future__ import annotations

from typing import Any

import torch
from chatterbox.models.t3.inference.alignment_stream_analyzer import LLAMA_ALIGNED_HEADS, AlignmentStreamAnalyzer
from torch import Tensor

HEADS: tuple[tuple[int, int], ...] = tuple(LLAMA_ALIGNED_HEADS)
"""The attention heads that follow the text, as (layer, head)."""

MIN_TEXT_TOKENS = 6
"""Length of the shortest text that can be guarded, start and stop tokens included. Upstream's guard fails at the end of
shorter texts."""


class AlignmentGuard:
    """The guard of one utterance, whose text takes `text` positions from `start` on; `stop` is the end token."""

    def __init__(self, *, start: int, text: int, stop: int) -> None:
        self.text = slice(start, start + text)
        # The analyzer gets the columns of the text only, so they begin at 0.
        self._analyzer: Any = _Analyzer(None, None, text_tokens_slice=(0, text), eos_idx=stop)
        self._weights: list[dict[int, Tensor]] = [{} for _ in HEADS]

    def observe(self, head: int, position: int, weights: Tensor) -> None:
        """Record attention weights, (count, key positions), of `count` queries from `position` on.

        `head` is an index into HEADS. `position` lies behind the text.
        """
        self._weights[head][position] = weights[:, self.text]

    def adjust(self, logits: Tensor, *, last: int) -> Tensor:
        """The (1, vocabulary) logits, with the end forced, forbidden or left as it is; `last` is the token before.

        Uses the weights observed since the last call.
        """
        analyzer = self._analyzer
        for head, weights in enumerate(self._weights):
            rows = [weights[position] for position in sorted(weights)]
            if analyzer.curr_frame_pos == 0:
                # In its first step the analyzer expects rows for the text's own positions, and skips them.
                rows.insert(0, torch.zeros(analyzer.alignment.shape[1], analyzer.alignment.shape[1]))
            analyzer.last_aligned_attns[head] = torch.cat(rows)
            weights.clear()
        adjusted: Tensor = analyzer.step(logits, next_token=last)
        return adjusted


class _Analyzer(AlignmentStreamAnalyzer):  # type: ignore[misc]
    def _add_attention_spy(self, *_: Any) -> None:
        """Hooks into no model: `AlignmentGuard` sets `last_aligned_attns` itself."""
