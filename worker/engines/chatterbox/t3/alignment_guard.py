"""Upstream's guard against run-on, which looks at where in the text the model is, on attention of our own.

`AlignmentStreamAnalyzer` decides; it forces or forbids the end of an utterance. Upstream has it listen in on three
attention layers of a model that then speaks for one utterance alone.
"""

from __future__ import annotations

from typing import Any

import torch
from chatterbox.models.t3.inference.alignment_stream_analyzer import LLAMA_ALIGNED_HEADS, AlignmentStreamAnalyzer
from torch import Tensor

HEADS: tuple[tuple[int, int], ...] = tuple(LLAMA_ALIGNED_HEADS)
"""The attention heads that follow the text, as layer and head."""

LEAST_TEXT = 6
"""Tokens of a text, begin and end among them, that can be guarded: upstream's fails on shorter ones at their end."""


class Guard:
    """The guard of one utterance, whose text is the `text` positions from `start` on; `stop` is what ends it."""

    def __init__(self, *, start: int, text: int, stop: int) -> None:
        self.text = slice(start, start + text)
        # It is shown the columns of the text alone, so for it they begin at 0.
        self._analyzer: Any = _Analyzer(None, None, text_tokens_slice=(0, text), eos_idx=stop)
        self._seen: list[dict[int, Tensor]] = [{} for _ in HEADS]

    def see(self, head: int, position: int, weights: Tensor) -> None:
        """What the positions from `position` on, which is behind the text, hear of all before them: (count, positions).

        `head` is a number in HEADS.
        """
        self._seen[head][position] = weights[:, self.text]

    def judge(self, logits: Tensor, *, last: int) -> Tensor:
        """The (1, vocabulary) logits of what was seen, or others in their place. `last` is the token before."""
        analyzer = self._analyzer
        for head, seen in enumerate(self._seen):
            rows = [seen[position] for position in sorted(seen)]
            if analyzer.curr_frame_pos == 0:
                # At first it expects the text's own rows, too, and passes over them.
                rows.insert(0, torch.zeros(analyzer.alignment.shape[1], analyzer.alignment.shape[1]))
            analyzer.last_aligned_attns[head] = torch.cat(rows)
            seen.clear()
        judged: Tensor = analyzer.step(logits, next_token=last)
        return judged


class _Analyzer(AlignmentStreamAnalyzer):  # type: ignore[misc]
    def _add_attention_spy(self, *_: Any) -> None:
        """Changes nothing about the model: it is told what to look at."""
