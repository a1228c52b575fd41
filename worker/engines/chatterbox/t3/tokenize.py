"""Text tokens of an utterance, by the same steps as upstream's `generate` methods take before they decode."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.upstream.loading import ModelVariant


def text_tokens(model: Any, variant: ModelVariant, text: str, language: str | None) -> Tensor:
    """The tokens of `text`, int64 (tokens,), by the tokenizer of an upstream model."""
    text = variant.module.punc_norm(text)
    if variant.turbo:
        input_ids: Tensor = model.tokenizer(text, return_tensors="pt", truncation=True).input_ids[0]
        return input_ids
    if variant.multilingual:
        tokens = model.tokenizer.text_to_tokens(text, language_id=language and language.lower())
    else:
        tokens = model.tokenizer.text_to_tokens(text)
    hp = model.t3.hp
    return F.pad(F.pad(tokens[0], (1, 0), value=hp.start_text_token), (0, 1), value=hp.stop_text_token)
