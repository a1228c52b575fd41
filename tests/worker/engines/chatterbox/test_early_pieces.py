"""Early pieces of the batched engine: the same whatever else runs, joined without a click, and watermarked."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.batched import SLOTS, TEXTS, all_samples, begin, start, together
from tests.support.real_worker import utterance
from tests.support.stock import BUILT_IN, TOKEN_SAMPLES, CountedCancellation
from tests.support.tiny_models import TinyCheckpoint
from worker.contract import Utterance
from worker.engines.base import Cancellation, CancelledError, Samples, TakeReport
from worker.engines.chatterbox import early_pieces, takes
from worker.engines.chatterbox.batched import BatchedEngine
from worker.engines.chatterbox.cooperative import run_to_completion
from worker.engines.chatterbox.early_pieces import CROSSFADE_SAMPLES, PIECE_GROWTH, crossfade, piece_ends
from worker.engines.chatterbox.s3gen import synthesizer
from worker.engines.chatterbox.t3.sampling import STOP, Gpt2Sampler
from worker.engines.chatterbox.takes import SILENCE
from worker.engines.chatterbox.token_budget import likely_tokens, token_budget
from worker.engines.chatterbox.upstream import patches

TEXT = "Hello there, my friend."
FIRST, TOKENS = 4, 12
"""Speech tokens of a first piece, and of an utterance."""
LOOKAHEAD = 3


@pytest.fixture(scope="module")
def turbo(tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> BatchedEngine:
    return start("turbo", tiny_checkpoint("turbo"), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def original(tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> BatchedEngine:
    return start("chatterbox", tiny_checkpoint("chatterbox"), tmp_path_factory.mktemp("cache"))


@pytest.fixture(params=["turbo", "original"])
def engine(request: pytest.FixtureRequest) -> BatchedEngine:
    """An engine for each kind of T3 and of flow."""
    found: BatchedEngine = request.getfixturevalue(request.param)
    return found


@pytest.fixture(autouse=True)
def short_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest may be short: these tests are to be fast."""
    monkeypatch.setattr(early_pieces, "MIN_REST_TOKENS", 1)


def request(seed: int = 5, *, first: int | None = FIRST, tokens: int | None = TOKENS, **fields: Any) -> Utterance:
    return utterance(TEXT, seed=seed, token_budget=tokens, first_piece_tokens=first, **fields)


def speak(engine: BatchedEngine, spoken: Utterance, cancellation: Cancellation | None = None) -> Iterator[Samples]:
    return engine.synthesize(spoken, BUILT_IN, cancellation or Cancellation())


def pieces(chunks: Iterator[Samples]) -> list[Samples]:
    """The chunks that have audio."""
    return [chunk for chunk in chunks if len(chunk)]


def report_of(engine: BatchedEngine, spoken: Utterance) -> tuple[list[Samples], TakeReport]:
    chunks, found = engine.synthesize(spoken, BUILT_IN, Cancellation()), []
    while True:
        try:
            found.append(next(chunks))
        except StopIteration as end:
            return [chunk for chunk in found if len(chunk)], end.value


def force(engine: BatchedEngine, monkeypatch: pytest.MonkeyPatch, *scripts: Sequence[int]) -> None:
    """Have the engine draw given tokens: a list for each take, whose last token is drawn from there on."""
    add, head = engine._add, engine._decoder._backbone.logits
    drawn: list[int] = []

    def begin_take(*arguments: Any) -> Any:
        drawn.append(0)
        return add(*arguments)

    def forced(states: torch.Tensor) -> torch.Tensor:
        script = scripts[min(len(drawn), len(scripts)) - 1]
        logits = torch.full_like(head(states), -1e9)
        logits[..., script[min(drawn[-1], len(script) - 1)]] = 1e9
        drawn[-1] += 1
        return logits

    monkeypatch.setattr(engine, "_add", begin_take)
    monkeypatch.setattr(engine._decoder._backbone, "logits", forced)


# Whether there is one


@pytest.mark.parametrize(
    ("first", "text", "budget", "ends"),
    [
        (None, TEXTS[1], 1000, []),
        (25, TEXTS[1], 1000, [28]),
        (25, TEXTS[1], 52, []),
        (25, TEXTS[1], 53, [28]),
        (25, "Hello there.", 1000, []),
        (1, "Hello there, my dear friend.", 1000, [4]),
    ],
)
def test_an_utterance_that_is_likely_long_enough_has_a_first_piece(
    monkeypatch: pytest.MonkeyPatch, first: int | None, text: str, budget: int, ends: list[int]
) -> None:
    monkeypatch.setattr(early_pieces, "MIN_REST_TOKENS", 25)
    assert piece_ends(utterance(text, first_piece_tokens=first), budget, LOOKAHEAD) == ends


@pytest.mark.parametrize(
    ("first", "budget", "ends"), [(None, 1000, []), (25, 127, [28]), (25, 128, [28, 103]), (5, 1000, [8, 23, 83])]
)
def test_further_pieces_are_longer_each_time(
    monkeypatch: pytest.MonkeyPatch, first: int | None, budget: int, ends: list[int]
) -> None:
    monkeypatch.setattr(early_pieces, "MIN_REST_TOKENS", 25)
    long = utterance(f"{TEXTS[1]} {TEXTS[1]}", first_piece_tokens=first, further_pieces=True)
    assert 130 < likely_tokens(long.text) < 5 * 4**3
    assert piece_ends(long, budget, LOOKAHEAD) == ends


def test_ordinary_speech_takes_more_than_the_fewest_and_less_than_the_most() -> None:
    assert likely_tokens(TEXT) < token_budget(TEXT) / 2
    assert 10 < len(TEXT) / likely_tokens(TEXT) * 25 < 25, "letters per second"


# The join


def test_a_crossfade_leads_from_one_to_the_other() -> None:
    ones, twos = np.ones(1000, np.float32), np.full(2000, 2, np.float32)
    joined = crossfade(ones, twos)
    assert joined.shape == twos.shape
    assert np.abs(np.diff(np.concatenate([ones, joined]))).max() < 2 / CROSSFADE_SAMPLES
    assert (joined[CROSSFADE_SAMPLES:] == 2).all()
    assert len(crossfade(ones, twos[:7])) == 7


@pytest.mark.parametrize("further", [False, True], ids=["two pieces", "three pieces"])
def test_pieces_are_as_long_as_the_whole_and_join_without_a_click(engine: BatchedEngine, further: bool) -> None:
    tokens = FIRST * PIECE_GROWTH + 6
    whole = all_samples(speak(engine, request(first=None, tokens=tokens)))
    found = pieces(speak(engine, request(tokens=tokens, further_pieces=further)))
    ends = np.cumsum([len(piece) for piece in found])
    assert [*ends[:-1] // TOKEN_SAMPLES] == ([FIRST, FIRST * PIECE_GROWTH] if further else [FIRST])
    assert ends[-1] == len(whole)
    steps = np.abs(np.diff(np.concatenate(found)))
    joins = np.concatenate([np.arange(end - 1, end - 1 + CROSSFADE_SAMPLES) for end in ends[:-1]])
    assert steps[joins].max() <= np.delete(steps, joins).max()
    assert steps[ends[:-1] - 1].max() <= np.sort(steps)[-10], "the step from piece to piece is one of many"


@pytest.mark.parametrize("between", [None, 26], ids=["the rest", "a piece between"])
def test_a_piece_is_what_it_would_be_in_one_go(engine: BatchedEngine, between: int | None) -> None:
    """Up to the watermark: the flow's frames and the vocoder's samples behind the crossfade."""
    s3gen, voice = engine._s3gen, engine.loaded.conditionals("default").gen
    tokens = torch.randint(0, 6561, (36,), generator=torch.Generator().manual_seed(1)).tolist()
    now, last = (tokens, True) if between is None else (tokens[: between + LOOKAHEAD], False)
    with torch.inference_mode():
        steps = partial(s3gen.piece_steps, voice=voice, seed=3)
        first = run_to_completion(steps(None, tokens[: 20 + LOOKAHEAD], last=False))
        piece = run_to_completion(steps(first, now, last=last))
        noise = s3gen.flow.noise(torch.tensor(now), voice, 3)
        mel = run_to_completion(s3gen.flow.steps_from(noise, torch.tensor(now), voice))
        excitation = torch.cat([first.excited, first.excitation.fork().extend(s3gen.vocoder.frequencies(mel)[40:])])
        whole = run_to_completion(s3gen.vocoder.piece_steps(mel, excitation)).numpy()
        again = run_to_completion(steps(first, now, last=last))
    assert (first.start, first.end) == (0, 20 * TOKEN_SAMPLES)
    assert len(first.wave) == (20 + LOOKAHEAD) * TOKEN_SAMPLES
    assert len(piece.audio) == ((between or len(tokens)) - 20) * TOKEN_SAMPLES
    assert len(piece.excited) == (between or len(tokens)) * TOKEN_SAMPLES
    assert np.abs(piece.wave[piece.start :] - whole[first.end :]).max() < 1e-6
    assert np.array_equal(again.wave, piece.wave)


def test_the_noise_of_a_token_does_not_depend_on_how_many_follow(engine: BatchedEngine) -> None:
    flow, voice = engine._s3gen.flow, engine.loaded.conditionals("default").gen
    few, many = (flow.noise(torch.zeros(count), voice, 3) for count in (7, 31))
    assert torch.equal(few, many[: len(few)])
    assert len(many) - len(few) == 48
    assert not torch.equal(few, flow.noise(torch.zeros(7), voice, 4))


def test_the_noise_of_a_token_does_not_depend_on_how_much_of_the_prompt_precedes_it(engine: BatchedEngine) -> None:
    flow, voice = engine._s3gen.flow, engine.loaded.conditionals("default").gen
    shorter = voice | {"prompt_token": voice["prompt_token"][:, 4:]}
    long, short = (flow.noise(torch.zeros(7), prompted, 3) for prompted in (voice, shorter))
    assert len(long) - len(short) == 8
    assert torch.equal(long[8:], short)


def test_the_first_piece_is_made_from_the_end_of_the_prompt(
    engine: BatchedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3gen, voice = engine._s3gen, engine.loaded.conditionals("default").gen
    tokens = torch.randint(0, 6561, (20,), generator=torch.Generator().manual_seed(1)).tolist()

    def wave(prompted: dict[str, Any]) -> Samples:
        with torch.inference_mode():
            return run_to_completion(s3gen.piece_steps(None, tokens, prompted, 3, last=False)).wave

    whole = wave(voice)
    monkeypatch.setattr(synthesizer, "PIECE_PROMPT_TOKENS", 10)
    ending = voice | {"prompt_token": voice["prompt_token"][:, -10:], "prompt_feat": voice["prompt_feat"][:, -20:]}
    assert np.array_equal(wave(voice), wave(ending))
    assert not np.array_equal(wave(voice), whole)


def test_each_piece_is_watermarked(turbo: BatchedEngine) -> None:
    with patches.muted():
        import perth

        detector = perth.PerthImplicitWatermarker()

    def detect(samples: Samples) -> float:
        return float(detector.get_watermark(samples, sample_rate=24_000, round=False).mean())

    long = utterance(f"{TEXTS[1]} {TEXTS[1]}", token_budget=130, first_piece_tokens=25, further_pieces=True)
    marked = pieces(speak(turbo, long))
    assert len(marked) == 3
    for samples in (*marked, np.concatenate(marked[:2]), np.concatenate(marked)):
        assert detect(samples) > 0.9
    mark = turbo.loaded.upstream.watermarker
    mark.apply_watermark = lambda wav, sample_rate: wav
    try:
        unmarked = pieces(speak(turbo, long))
    finally:
        del mark.apply_watermark
    assert [len(piece) for piece in unmarked] == [len(piece) for piece in marked]
    assert detect(np.concatenate(unmarked)) < 0.2


# The same, whatever else runs


def test_the_samples_do_not_depend_on_what_else_runs_or_on_the_slots(
    engine: BatchedEngine, tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pieced = partial(request, tokens=FIRST * PIECE_GROWTH + 6, further_pieces=True)
    alone = pieces(speak(engine, pieced()))
    others: dict[int, Callable[[], Iterator[Samples]]] = {
        1: partial(begin, engine, TEXTS[0], seed=2),
        2: partial(speak, engine, request(seed=6, playout_deadline=0.0)),
        3: partial(begin, engine, TEXTS[3], seed=3, budget=5),
    }
    found = together({0: partial(speak, engine, pieced(playout_deadline=1.0))} | others, random.Random(4))
    assert np.array_equal(found[0], np.concatenate(alone))
    name = engine.card.name
    single = start(name, tiny_checkpoint(name), tmp_path_factory.mktemp("cache"), slots=1)
    again = pieces(speak(single, pieced()))
    assert len(alone) == 3
    assert all(np.array_equal(one, other) for one, other in zip(alone, again, strict=True))


def test_a_take_that_ends_before_a_first_piece_is_made_whole(
    turbo: BatchedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_early = [*range(100, 100 + FIRST + LOOKAHEAD - 1), STOP]
    force(turbo, monkeypatch, ends_early)
    expected = all_samples(speak(turbo, request(first=None)))
    [found] = pieces(speak(turbo, request()))
    assert np.array_equal(found, expected)


def test_a_take_that_ends_just_after_a_first_piece_has_one_whatever_joins(
    turbo: BatchedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An utterance that joins draws the other's next token, its last, before the piece is begun."""
    script = [*range(100, 100 + FIRST + LOOKAHEAD), STOP]
    monkeypatch.setattr(Gpt2Sampler, "draw", lambda sampler, _: sampler._append(script[len(sampler.tokens)]))
    alone = pieces(speak(turbo, request()))
    assert len(alone) == 2
    chunks = speak(turbo, request())
    next(chunks)
    [sequence] = turbo._decoder._sequences
    while sequence.sampler.tokens != script[:-1]:
        assert not len(next(chunks))
    joining = begin(turbo, seed=9)
    next(joining)
    assert sequence.sampler.tokens == script
    joining.close()  # type: ignore[attr-defined]
    assert all(np.array_equal(one, other) for one, other in zip(pieces(chunks), alone, strict=True))


def test_a_text_that_is_too_short_is_made_whole(turbo: BatchedEngine) -> None:
    expected = all_samples(speak(turbo, utterance("Hi.", token_budget=8)))
    [found] = pieces(speak(turbo, utterance("Hi.", token_budget=8, first_piece_tokens=FIRST)))
    assert np.array_equal(found, expected)


# Takes


def test_no_take_follows_a_first_piece(turbo: BatchedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turbo, "_retakes", 2)
    monkeypatch.setattr(takes, "LOOP_TOKENS", 6)
    monkeypatch.setattr(takes, "MAX_LOOP_PERIOD", 2)
    force(turbo, monkeypatch, [*range(100, 110), *[17] * 8, STOP])
    monkeypatch.setattr(takes, "is_silent", lambda *_: True)
    found, report = report_of(turbo, request(tokens=None))
    assert len(found) == 2
    assert report == TakeReport((), "silent")


def test_tokens_without_speech_give_no_first_piece(turbo: BatchedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turbo, "_retakes", 2)
    good = [*range(100, 120), STOP]
    force(turbo, monkeypatch, [*[SILENCE] * 12, STOP], good)
    found, report = report_of(turbo, request(tokens=None))
    assert report == TakeReport(("silent",))
    assert len(found) == 1


def test_trimming_leaves_what_was_sent(turbo: BatchedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed: list[tuple[int, int]] = []

    class Trimmer:
        def trim(self, samples: Samples, rate: int, _: Utterance, *, sent: int) -> Samples:
            trimmed.append((len(samples), sent))
            return samples[: sent + 700]

    pieced = request(tokens=FIRST * PIECE_GROWTH + 6, further_pieces=True)
    untrimmed = np.concatenate(pieces(speak(turbo, pieced)))
    monkeypatch.setattr(turbo, "_trimmer", Trimmer())
    first, second, rest = pieces(speak(turbo, pieced))
    sent = np.concatenate([first, second])
    assert trimmed == [(len(untrimmed), len(sent))]
    assert len(rest) == 700
    assert np.array_equal(sent, untrimmed[: len(sent)])


# The order of work


def test_a_first_piece_goes_before_whole_utterances(turbo: BatchedEngine) -> None:
    """They are in S3Gen's queue when the listener arrives, who needs decode steps first."""
    # The second is added a step later.
    budgets = (6, 5)
    expected = [all_samples(begin(turbo, seed=budget, budget=budget)) for budget in budgets]
    alone = pieces(speak(turbo, request()))
    wholes = [begin(turbo, seed=budget, budget=budget) for budget in budgets]
    found: list[list[Samples]] = [[], []]
    while len(turbo._order.s3gen_queue) < 2:
        for whole, samples in zip(wholes, found, strict=True):
            samples.append(next(whole))
    listener = speak(turbo, request(playout_deadline=0.0))
    heard: list[Samples] = []
    while not heard:
        heard += [chunk for chunk in [next(listener)] if len(chunk)]
        for whole, samples in zip(wholes, found, strict=True):
            samples.append(next(whole))
            assert not len(samples[-1]), "nothing is made of the whole utterances meanwhile"
    for number, whole in enumerate(wholes):
        for chunk in whole:
            found[number].append(chunk)
            heard += [piece for piece in [next(listener, np.empty(0, np.float32))] if len(piece)]
    heard += pieces(listener)
    assert all(np.array_equal(np.concatenate(one), other) for one, other in zip(found, expected, strict=True))
    assert all(np.array_equal(one, other) for one, other in zip(heard, alone, strict=True))


# Cancellation


def test_a_cancelled_utterance_frees_its_slot_in_every_state(turbo: BatchedEngine) -> None:
    counted = CountedCancellation()
    checks: list[int] = []
    audio: list[int] = []
    for chunk in speak(turbo, request(), counted):
        checks.append(len(turbo._order.s3gen_queue))
        if len(chunk):
            audio.append(counted.checks)
    states = "".join(map(str, checks))
    assert states.strip("0").count("10") == 1, "decode, first piece, decode, rest"
    flow = states.index("1") + 2
    points = {"before": 3, "first piece": flow, "decode after it": audio[0] + 2, "rest": counted.checks - 1}
    for state, at in points.items():
        staying = begin(turbo, seed=9, budget=3)
        next(staying)
        with pytest.raises(CancelledError):
            for _ in speak(turbo, request(), CountedCancellation(at)):
                pass
        assert turbo._decoder.free_slots == SLOTS - 1, state
        assert not turbo._order.s3gen_queue, state
        staying.close()  # type: ignore[attr-defined]
    assert turbo._decoder.free_slots == SLOTS
    assert turbo._order.decode_is_next
