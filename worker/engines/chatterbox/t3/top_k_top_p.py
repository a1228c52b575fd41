"""Top-k and top-p filtering with one sort.

The result equals that of transformers' two warpers bit for bit, in less than half of their time. For sixteen sequences
theirs take a tenth of a decode step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.generation.logits_process import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper


class TopKTopPWarper:
    """`TopKLogitsWarper`, unless `top_k` is 0, followed by `TopPLogitsWarper`, unless `top_p` is 1; for one row."""

    def __init__(self, *, top_k: int, top_p: float) -> None:
        self._top_k, self._top_p = top_k, top_p
        self._reference: Any = LogitsProcessorList()
        if top_k > 0:
            self._reference.append(TopKLogitsWarper(top_k))
        if top_p < 1.0:
            self._reference.append(TopPLogitsWarper(top_p))

    def __call__(self, history: Tensor, scores: Tensor) -> Tensor:
        """The float32 (1, vocabulary) scores, with minus infinity for every removed token.

        `history` is ignored; transformers' processors take it, too.
        """
        if not self._reference:
            return scores
        # NumPy's sort is vectorised, PyTorch's is not.
        ascending = torch.from_numpy(np.sort(scores.numpy()[0]))
        count = len(ascending)
        threshold = ascending[max(0, count - self._top_k) if self._top_k > 0 else 0]
        if self._top_p < 1.0:
            cumulative = ascending.masked_fill(ascending < threshold, -torch.inf).softmax(-1).cumsum(-1)
            cut = min(int((cumulative <= 1 - self._top_p).sum()), count - 1)
            if cut > 0 and ascending[cut - 1] == ascending[cut] >= threshold:
                # With equal scores at the cut, the result depends on the order in which transformers sorts them.
                warped: Tensor = self._reference(history, scores)
                return warped
            threshold = torch.maximum(threshold, ascending[cut])
        return scores.masked_fill(scores < threshold, -torch.inf)
