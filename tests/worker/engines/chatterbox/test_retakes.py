"""Bad takes are taken again, in both engines: tokens are scripted, everything else is real."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import batched as batched_support
from tests.support import stock as stock_support
from tests.support.real_worker import utterance
from tests.support.stock import BUILT_IN, CountedCancellation, StockEngine
from tests.support.tiny_models import TinyCheckpoint
from worker.contract import Utterance
from worker.engines.base import Cancellation, CancelledError, Samples, TakeReport
from worker.engines.chatterbox import takes
from worker.engines.chatterbox.batched import BatchedEngine
from worker.engines.chatterbox.t3.sampling import START, STOP, Gpt2Sampler, LlamaSampler, Sampler
from worker.engines.chatterbox.takes import SILENCE, SOUNDS, take_seed
from worker.engines.chatterbox.token_budget import token_budget

TEXT = "Hi there."
GOOD = [*range(100, 110), STOP]
LOOP = [*range(200, 205), *[17] * 300]
SHORT = [300, STOP]
SEED = 5
LOOP_TOKENS = 12
"""A loop's length here: decoding takes most of the time of these tests."""

Engine = StockEngine | BatchedEngine


@dataclass
class Script:
    """Has an engine draw given tokens: one list for each take, the last one for all further takes."""

    tokens: Sequence[Sequence[int]]
    seeds: list[int] = field(default_factory=list)
    """The seeds of the takes so far."""
    drawn: list[int] = field(default_factory=list)
    """The numbers of tokens that were drawn for each take so far."""

    def begin(self, seed: int) -> None:
        self.seeds.append(seed)
        self.drawn.append(0)

    def force(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits of one draw, with one token forced."""
        tokens = self.tokens[min(len(self.seeds), len(self.tokens)) - 1]
        forced = torch.full_like(logits, -1e9)
        forced[..., tokens[min(self.drawn[-1], len(tokens) - 1)]] = 1e9
        self.drawn[-1] += 1
        return forced


def scripted(engine: Engine, monkeypatch: pytest.MonkeyPatch, *tokens: Sequence[int]) -> Script:
    script = Script(tokens)
    if isinstance(engine, BatchedEngine):
        add, head = engine._add, engine._decoder._backbone.logits

        def begin(request: Any, source: Any, seed: int) -> Any:
            script.begin(seed)
            return add(request, source, seed)

        monkeypatch.setattr(engine, "_add", begin)
        monkeypatch.setattr(engine._decoder._backbone, "logits", lambda states: script.force(head(states)))
        return script
    model = engine.loaded.upstream
    generate, speech_head = model.generate, model.t3.speech_head.forward

    def begin_upstream(*arguments: Any, **options: Any) -> Any:
        script.begin(torch.initial_seed())
        return generate(*arguments, **options)

    monkeypatch.setattr(model, "generate", begin_upstream)
    monkeypatch.setattr(model.t3.speech_head, "forward", lambda states: script.force(speech_head(states)))
    return script


def speak(
    engine: Engine, *, seed: int = SEED, cancellation: Cancellation | None = None, **fields: Any
) -> tuple[Samples, TakeReport]:
    """The samples of one utterance, and the engine's report."""
    request = utterance(TEXT, seed=seed, **fields)
    chunks = engine.synthesize(request, BUILT_IN, cancellation or Cancellation())
    samples: list[Samples] = []
    while True:
        try:
            samples.append(next(chunks))
        except StopIteration as end:
            report: TakeReport = end.value
            return np.concatenate(samples), report


@pytest.fixture(scope="module", params=["turbo-batched", "chatterbox-batched", "turbo-stock", "chatterbox-stock"])
def engine(
    request: pytest.FixtureRequest, tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> Engine:
    """An engine for each kind of T3 and each runtime."""
    name, runtime = request.param.split("-")
    support: Any = batched_support if runtime == "batched" else stock_support
    made: Engine = support.start(name, tiny_checkpoint(name), tmp_path_factory.mktemp("cache"))
    return made


@pytest.fixture(autouse=True)
def retakes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    engine._retakes = 2
    monkeypatch.setattr(takes, "LOOP_TOKENS", LOOP_TOKENS)
    monkeypatch.setattr(takes, "MAX_LOOP_PERIOD", LOOP_TOKENS // 3)
    yield
    if isinstance(engine, BatchedEngine):
        assert engine._decoder.free_slots == batched_support.SLOTS
        assert not engine._order.s3gen_queue


@pytest.fixture
def s3gen_calls(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of tokens that S3Gen was given, call by call."""
    calls: list[int] = []
    owner, method = (
        (engine._s3gen.flow, "steps")
        if isinstance(engine, BatchedEngine)
        else (engine.loaded.upstream.s3gen, "flow_inference")
    )
    original: Callable[..., Any] = getattr(owner, method)

    def call(tokens: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        calls.append(tokens.numel())
        return original(tokens, *arguments, **options)

    monkeypatch.setattr(owner, method, call)
    return calls


def test_upstreams_numbers_are_ours() -> None:
    from chatterbox.models.s3gen.const import S3GEN_SIL

    assert (SOUNDS, SILENCE) == (START, S3GEN_SIL)


def test_a_good_take_is_as_without_retakes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    script = scripted(engine, monkeypatch, GOOD)
    samples, report = speak(engine)
    assert (script.seeds, report) == ([SEED], TakeReport())
    engine._retakes = 0
    assert np.array_equal(speak(engine)[0], samples)


@pytest.mark.parametrize(("bad", "flaw"), [(LOOP, "loop"), ([*range(900)], "cut"), ([*[SILENCE] * 5, STOP], "silent")])
def test_a_bad_take_is_taken_again_with_another_seed_and_makes_no_audio(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, s3gen_calls: list[int], bad: Sequence[int], flaw: str
) -> None:
    script = scripted(engine, monkeypatch, bad, GOOD)
    samples, report = speak(engine)
    assert report == TakeReport((flaw,), None)
    assert script.seeds == [SEED, take_seed(SEED, 1)]
    assert len(s3gen_calls) == 1
    if flaw == "loop":
        assert script.drawn[0] <= 5 + LOOP_TOKENS + 1, "it is given up as soon as it loops"
    alone = scripted(engine, monkeypatch, GOOD)
    assert np.array_equal(speak(engine, seed=take_seed(SEED, 1))[0], samples)
    assert len(alone.seeds) == 1


def test_the_last_take_is_handed_out_though_it_is_bad(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, s3gen_calls: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    script = scripted(engine, monkeypatch, LOOP)
    samples, report = speak(engine)
    assert report == TakeReport(("loop", "loop"), "loop")
    assert script.seeds == [take_seed(SEED, take) for take in range(3)]
    assert script.drawn[2] >= token_budget(TEXT), "the last take is not given up"
    assert len(s3gen_calls) == 1
    assert len(samples) >= token_budget(TEXT) * stock_support.TOKEN_SAMPLES
    assert [record.getMessage() for record in caplog.records if record.name == takes.__name__] == [
        "take 1 is bad (loop) and taken again",
        "take 2 is bad (loop) and taken again",
        "take 3 is bad (loop) and the last: it is handed out",
    ]


def test_silent_audio_is_taken_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    script = scripted(engine, monkeypatch, GOOD)
    verdicts = iter([True, False])
    monkeypatch.setattr(takes, "is_silent", lambda *_: next(verdicts))
    samples, report = speak(engine)
    assert report == TakeReport(("silent",))
    monkeypatch.setattr(takes, "is_silent", lambda *_: False)
    assert np.array_equal(speak(engine, seed=script.seeds[1])[0], samples)


class HalvingTrimmer:
    """Trims half of every utterance."""

    trimmed: Samples

    def trim(self, samples: Samples, sample_rate: int, request: Utterance, *, sent: int = 0) -> Samples:
        assert (sample_rate, request.text) == (24_000, TEXT)
        self.trimmed = samples[: len(samples) // 2].copy()
        return self.trimmed.copy()


def test_the_end_is_trimmed_before_the_watermark(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(engine, monkeypatch, GOOD)
    trimmer = HalvingTrimmer()
    monkeypatch.setattr(engine, "_trimmer", trimmer)
    samples, _ = speak(engine)
    assert samples.shape == trimmer.trimmed.shape
    assert 0 < np.abs(samples - trimmer.trimmed).max() < 0.1, "the watermark is in the audio that is left"


def test_an_utterance_with_a_budget_of_its_own_is_taken_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    script = scripted(engine, monkeypatch, LOOP)
    assert speak(engine, token_budget=2 * LOOP_TOKENS)[1] == TakeReport()
    assert script.seeds == [SEED]


def test_a_further_take_is_cancelled_like_the_first(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    script = scripted(engine, monkeypatch, SHORT, LOOP)
    cancellation = CountedCancellation(10)
    with pytest.raises(CancelledError):
        speak(engine, cancellation=cancellation)
    assert cancellation.checks == 10
    assert script.seeds == [SEED, take_seed(SEED, 1)]


def test_a_loop_is_found_though_another_utterances_step_drew_the_token_after_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, the take is given up before that token is drawn."""
    if not isinstance(engine, BatchedEngine):
        return
    loop = [11, 12, 13, 14] * (LOOP_TOKENS // 4)
    draws: list[Sampler] = []

    def draw(sampler: Sampler, _: torch.Tensor) -> None:
        if sampler not in draws:
            draws.append(sampler)
        script = [*loop, 300] if sampler is draws[0] else GOOD
        sampler._append(script[len(sampler.tokens)])

    for kind in (Gpt2Sampler, LlamaSampler):
        monkeypatch.setattr(kind, "draw", draw)
    chunks = engine.synthesize(utterance(TEXT, seed=SEED), BUILT_IN, Cancellation())
    next(chunks)
    [sequence] = engine._decoder._sequences
    while sequence.sampler.tokens != loop:
        next(chunks)
    joining = batched_support.begin(engine, seed=9)
    next(joining)
    assert sequence.sampler.tokens == [*loop, 300]
    joining.close()  # type: ignore[attr-defined]
    next(chunks)
    assert sequence not in engine._decoder._sequences, "the next take has begun"
    chunks.close()


def test_another_utterance_in_flight_is_not_disturbed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    if not isinstance(engine, BatchedEngine):
        return
    expected = batched_support.all_samples(batched_support.begin(engine, seed=9))
    add, seeds = engine._add, []

    def record(request: Any, source: Any, seed: int) -> Any:
        seeds.append(seed)
        return add(request, source, seed)

    def spoiled(judged: takes.Takes, tokens: Sequence[int]) -> bool:
        if judged.seed == SEED and len(tokens) == 3:
            judged._flaw, judged._given_up = takes.Flaw.LOOP, True
        return judged._given_up

    monkeypatch.setattr(engine, "_add", record)
    monkeypatch.setattr(takes.Takes, "spoiled", spoiled)
    retaken = engine.synthesize(utterance(TEXT, seed=SEED), BUILT_IN, Cancellation())
    next(retaken)
    found: list[Samples] = []
    for chunk in batched_support.begin(engine, seed=9):
        found.append(chunk)
        next(retaken)
    assert seeds == [SEED, 9, take_seed(SEED, 1)]
    assert np.array_equal(np.concatenate(found), expected)
    retaken.close()
