"""The encoders of two S3Gen: whether both hear a voice's clip alike, so that either can speak the other's tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

ENCODERS = ("tokenizer.", "speaker_encoder.")
"""Prefixes of the tensors of S3Gen's encoders: its speech tokenizer, and its speaker encoder."""

_WITHOUT_EFFECT = ".num_batches_tracked"
"""A counter of training steps that batch norms have."""


def differing_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor], *, ignored: Collection[str]) -> list[str]:
    """The encoders' tensors that are not equal in both, or are in one of them only, but those `ignored`: their names.

    Equal encoders make the same speech tokens and the same speaker's embedding of a clip.
    """
    names = {
        name
        for name in one.keys() | other.keys()
        if name.startswith(ENCODERS) and not name.endswith(_WITHOUT_EFFECT) and name not in ignored
    }
    return sorted(name for name in names if not _equal(one.get(name), other.get(name)))


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    # A file may have another precision than the other one.
    return one is not None and other is not None and torch.equal(one.float(), other.float())
