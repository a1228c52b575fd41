"""Top-k and top-p from one sort: what upstream's two processors leave, bit by bit, in less than half of their time.

For sixteen rows theirs is a tenth of a decode step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.generation.logits_process import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper


class Likeliest:
    """`TopKLogitsWarper`, unless `top_k` is 0, followed by `TopPLogitsWarper`, unless `top_p` is 1; for one row."""

    def __init__(self, *, top_k: int, top_p: float) -> None:
        self._top_k, self._top_p = top_k, top_p
        self._upstreams: Any = LogitsProcessorList()
        if top_k > 0:
            self._upstreams.append(TopKLogitsWarper(top_k))
        if top_p < 1.0:
            self._upstreams.append(TopPLogitsWarper(top_p))

    def __call__(self, before: Tensor, scores: Tensor) -> Tensor:
        """The float32 (1, vocabulary) scores, minus infinity for what is left out; `before` makes no difference."""
        if not self._upstreams:
            return scores
        # NumPy's sort uses the processor's vectors, PyTorch's does not.
        ascending = torch.from_numpy(np.sort(scores.numpy()[0]))
        count = len(ascending)
        least = ascending[max(0, count - self._top_k) if self._top_k > 0 else 0]
        if self._top_p < 1.0:
            shares = ascending.masked_fill(ascending < least, -torch.inf).softmax(-1).cumsum(-1)
            cut = min(int((shares <= 1 - self._top_p).sum()), count - 1)
            if cut > 0 and ascending[cut - 1] == ascending[cut] >= least:
                # Which of several equal scores are kept is a matter of the order in which they are sorted.
                left: Tensor = self._upstreams(before, scores)
                return left
            least = torch.maximum(least, ascending[cut])
        return scores.masked_fill(scores < least, -torch.inf)
