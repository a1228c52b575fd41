"""Upstream's own decode loops for tests that compare with them: the drawn tokens and their logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.support.stock import StockEngine
from worker.engines.chatterbox.upstream import patches


@dataclass(frozen=True)
class Decoded:
    """Tokens and logits of one of upstream's decode loops."""

    tokens: list[int]
    """Without the stop token."""
    logits: Tensor
    """float32 (steps, rows, vocabulary), including the stop token's."""


def conditionals(engine: StockEngine, exaggeration: float | None = None) -> Any:
    """Upstream's `T3Cond` for the built-in voice."""
    conditionals = engine.loaded.conditionals("default").t3
    if exaggeration is not None:
        conditionals.emotion_adv = exaggeration * torch.ones(1, 1, 1)
    return conditionals


def decode(
    engine: StockEngine, text: Tensor, *, seed: int, budget: int, exaggeration: float | None = None, **parameters: Any
) -> Decoded:
    """Decode text tokens, (tokens,), with `T3.inference` or `T3.inference_turbo`."""
    t3 = engine.loaded.upstream.t3
    logits: list[Tensor] = []
    hook = t3.speech_head.register_forward_hook(lambda _module, _inputs, output: logits.append(output[:, -1].clone()))
    arguments: dict[str, Any] = {"t3_cond": conditionals(engine, exaggeration), **parameters}
    try:
        with torch.inference_mode(), patches.muted(), patches.restored_attention(t3):
            torch.manual_seed(seed)
            if t3.is_gpt:
                drawn = t3.inference_turbo(text_tokens=text[None], max_gen_len=budget, **arguments)[0].tolist()
            else:
                both = torch.stack([text, text])
                drawn = t3.inference(text_tokens=both, max_new_tokens=budget, **arguments)[0].tolist()
    finally:
        hook.remove()
    stop = t3.hp.stop_speech_token
    return Decoded(drawn[:-1] if drawn[-1:] == [stop] else drawn, torch.stack(logits))


def text_of(engine: StockEngine, length: int, *, seed: int) -> Tensor:
    """Random text tokens, int64 (length,), with the start and stop tokens that the engine's model needs."""
    hp = engine.loaded.upstream.t3.hp
    text = torch.randint(1, 200, (length,), generator=torch.Generator().manual_seed(seed))
    if not engine.loaded.upstream.t3.is_gpt:
        text[0], text[-1] = hp.start_text_token, hp.stop_text_token
    return text
