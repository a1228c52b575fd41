"""The alignment guard gets the weights that upstream's own gets, and forces or forbids the end at the same steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from chatterbox.models.t3.inference.alignment_stream_analyzer import AlignmentStreamAnalyzer
from torch import Tensor, nn

from tests.support.stock import StockEngine, start
from tests.support.tiny_models import TinyCheckpoint
from tests.support.upstream import conditionals, decode, text_of
from worker.engines.chatterbox.t3.alignment_guard import HEADS, MIN_TEXT_TOKENS, AlignmentGuard
from worker.engines.chatterbox.t3.decoder import Decoder
from worker.engines.chatterbox.t3.sampling import STOP, LlamaSampler

FORCED, FORBIDDEN, UNCHANGED = "forced", "forbidden", "unchanged"
BUDGET = 40
USUAL: dict[str, Any] = {
    "temperature": 0.8, "min_p": 0.05, "top_p": 1.0, "repetition_penalty": 2.0, "cfg_weight": 0.5,
}  # fmt: skip


@dataclass(frozen=True)
class Judgement:
    """A guard's verdict on one step, and its state after it."""

    verdict: str
    position: int
    complete: bool
    started: bool
    alignment: Tensor


@contextmanager
def judgements() -> Iterator[list[Judgement]]:
    """A list that records the judgements of every guard, upstream's or this project's, within the block."""
    recorded: list[Judgement] = []
    original = AlignmentStreamAnalyzer.step

    def step(self: Any, logits: Tensor, next_token: int | None = None) -> Tensor:
        before = logits.clone()
        after: Tensor = original(self, logits, next_token)
        verdict = FORCED if after[0, STOP] == 2**15 else UNCHANGED if after.equal(before) else FORBIDDEN
        position, complete, started = int(self.text_position), bool(self.complete), bool(self.started)
        recorded.append(Judgement(verdict, position, complete, started, self.alignment.clone()))
        return after

    AlignmentStreamAnalyzer.step = step
    try:
        yield recorded
    finally:
        AlignmentStreamAnalyzer.step = original


@pytest.fixture(scope="module")
def engine(tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> StockEngine:
    """Multilingual with sharper attention in the aligned layers, and with speech that sounds much alike.

    A tiny checkpoint's own weights show no alignment, and repeat no token.
    """
    engine = start("multilingual", tiny_checkpoint("multilingual"), tmp_path_factory.mktemp("cache"))
    for layer, _ in HEADS:
        attention = engine.loaded.upstream.t3.tfmr.layers[layer].self_attn
        attention.q_proj.weight = nn.Parameter(48 * attention.q_proj.weight, requires_grad=False)
    t3 = engine.loaded.upstream.t3
    for embedding in (t3.speech_emb, t3.speech_pos_emb.emb):
        embedding.weight = nn.Parameter(0.1 * embedding.weight, requires_grad=False)
    return engine


@pytest.fixture(scope="module")
def decoder(engine: StockEngine) -> Decoder:
    with torch.inference_mode():
        return Decoder(engine.loaded.upstream.t3, slots=2, length=256)


def compare(engine: StockEngine, decoder: Decoder, length: int, seed: int, **own: Any) -> list[Judgement]:
    """Decode a text by upstream and by the decoder; returns our guard's judgements, which must equal upstream's."""
    text = text_of(engine, length, seed=seed)
    with judgements() as expected:
        upstream = decode(engine, text, seed=seed, budget=BUDGET, **USUAL | own)
    with torch.inference_mode(), judgements() as found:
        prefix = decoder.embed_voice(conditionals(engine))
        guard = AlignmentGuard(start=prefix.count, text=length, stop=STOP)
        sequence = decoder.add(prefix, text, LlamaSampler(seed=seed, budget=BUDGET, guard=guard, **USUAL | own))
        while not sequence.sampler.finished:
            decoder.advance(sequence)
        decoder.finish(sequence)
    tokens = sequence.sampler.tokens
    assert (tokens[:-1] if tokens[-1] == STOP else tokens) == upstream.tokens
    assert [one.verdict for one in found] == [one.verdict for one in expected]
    for ones, others in zip(found, expected, strict=True):
        assert (ones.position, ones.complete, ones.started) == (others.position, others.complete, others.started)
        assert ones.alignment.shape == others.alignment.shape
        assert (ones.alignment - others.alignment).abs().max() < 1e-4
    return found


def test_it_forces_and_forbids_the_end_where_upstream_does(engine: StockEngine, decoder: Decoder) -> None:
    greedy = {"top_p": 0.01, "repetition_penalty": 1.0}
    judged_texts = [
        compare(engine, decoder, length, seed, **own)
        for length, seed, own in [(8, 1, greedy), (MIN_TEXT_TOKENS, 2, {}), (12, 3, {"temperature": 1.5}), (80, 4, {})]
    ]
    assert {one.verdict for judged in judged_texts for one in judged} == {FORCED, FORBIDDEN, UNCHANGED}
    assert judged_texts[0][-1].verdict == FORCED
    assert len(judged_texts[0]) < BUDGET
    assert any(one.complete for judged in judged_texts for one in judged)


def test_the_first_step_shows_both_positions_behind_the_text(engine: StockEngine, decoder: Decoder) -> None:
    first = compare(engine, decoder, 62, 9)[0]
    assert first.alignment.shape == (2, 62)


def attention_along(text: int, path: list[int]) -> Iterator[Tensor]:
    """Attention weights step by step, of two queries first, then of one each, with their peaks along `path`.

    The `text` positions lie behind 3 others.
    """
    for step, place in enumerate([0, *path]):
        rows = 2 if step == 0 else 1
        weights = torch.full((rows, 3 + text + 1 + rows + step), 0.001)
        weights[:, 3 + place] = 0.9
        yield weights


@pytest.mark.parametrize(
    ("path", "ended"),
    [
        (list(range(1, 12)), False),
        ([*range(1, 12), *[11] * 8], True),
        ([*range(1, 12), *range(7)], True),
        ([6, 7, 8, 2, 9, 10], False),
        ([0] * 12, False),
    ],
    ids=["to the end", "stays at the end", "begins again", "jumps", "does not begin"],
)
def test_the_same_weights_get_upstreams_verdict(path: list[int], ended: bool) -> None:
    text, draw = 12, torch.Generator().manual_seed(0)
    guard = AlignmentGuard(start=3, text=text, stop=STOP)
    tower: Any = nn.Module()
    tower.layers = [nn.Module() for _ in range(1 + max(layer for layer, _ in HEADS))]
    for layer in tower.layers:
        layer.self_attn = nn.Module()
    analyzer = AlignmentStreamAnalyzer(tower, None, text_tokens_slice=(3, 3 + text), eos_idx=STOP)
    forced = False
    for step, weights in enumerate(attention_along(text, path)):
        logits = torch.randn(1, 6563, generator=draw)
        voice_and_text = torch.rand(3 + text, weights.shape[1], generator=draw)
        for head in range(len(HEADS)):
            # In the first step upstream also gets the rows of voice and text.
            analyzer.last_aligned_attns[head] = torch.cat([voice_and_text, weights]) if step == 0 else weights
            for row in range(len(weights)):
                guard.observe(head, 3 + text + step + row, weights[row : row + 1])
        expected = analyzer.step(logits.clone(), next_token=step)
        assert torch.equal(guard.adjust(logits.clone(), last=step), expected)
        forced |= bool(expected[0, STOP] == 2**15)
    assert forced == ended
