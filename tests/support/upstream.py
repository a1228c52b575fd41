"""Upstream's own decode loops, for tests that compare with them: what was drawn, and from what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.support.stock import StockEngine
from worker.engines.chatterbox.upstream import patches
from worker.engines.chatterbox.upstream.conditionals import fresh


@dataclass(frozen=True)
class Decoded:
    """What upstream decoded."""

    tokens: list[int]
    """Without the one that ended them."""
    logits: Tensor
    """float32 (steps, rows, vocabulary): what each was drawn from, and what ended them."""


def conditionals(engine: StockEngine, exaggeration: float | None = None) -> Any:
    """What T3 is given of the built-in voice: upstream's own object."""
    made = fresh(engine._prepared["default"], engine._member).t3
    if exaggeration is not None:
        made.emotion_adv = exaggeration * torch.ones(1, 1, 1)
    return made


def decode(
    engine: StockEngine, text: Tensor, *, seed: int, budget: int, exaggeration: float | None = None, **parameters: Any
) -> Decoded:
    """Text tokens, (tokens,), through `T3.inference` or `T3.inference_turbo`."""
    t3 = engine._model.t3
    logits: list[Tensor] = []
    hook = t3.speech_head.register_forward_hook(lambda _module, _inputs, output: logits.append(output[:, -1].clone()))
    given: dict[str, Any] = {"t3_cond": conditionals(engine, exaggeration), **parameters}
    try:
        with torch.inference_mode(), patches.muted(), engine._as_before():
            torch.manual_seed(seed)
            if t3.is_gpt:
                drawn = t3.inference_turbo(text_tokens=text[None], max_gen_len=budget, **given)[0].tolist()
            else:
                both = torch.stack([text, text])
                drawn = t3.inference(text_tokens=both, max_new_tokens=budget, **given)[0].tolist()
    finally:
        hook.remove()
    stop = t3.hp.stop_speech_token
    return Decoded(drawn[:-1] if drawn[-1:] == [stop] else drawn, torch.stack(logits))


def text_of(engine: StockEngine, length: int, *, seed: int) -> Tensor:
    """Some text tokens, int64 (length,), begun and ended as the engine's model wants it."""
    hp = engine._model.t3.hp
    text = torch.randint(1, 200, (length,), generator=torch.Generator().manual_seed(seed))
    if not engine._model.t3.is_gpt:
        text[0], text[-1] = hp.start_text_token, hp.stop_text_token
    return text
