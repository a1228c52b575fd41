"""Takes: what makes one bad, how many there are, and their seeds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.real_worker import utterance
from worker.engines.base import Samples, TakeReport
from worker.engines.chatterbox.takes import (
    LOOP_TOKENS,
    MAX_LOOP_PERIOD,
    MAX_LOOP_VALUES,
    SILENCE,
    TAKE_SHARE,
    Flaw,
    Takes,
    first_piece_seed,
    is_silent,
    loop_in,
    take_seed,
)
from worker.engines.chatterbox.token_budget import min_tokens

TEXT = "It is easy to tell the depth of a well."
RATE = 24_000


def speech(count: int) -> list[int]:
    """Tokens without a loop and without silence."""
    return [int(token) for token in np.random.default_rng(3).integers(0, SILENCE, count)]


GOOD = speech(60)


def takes(retakes: int = 2, *, token_budget: int | None = None) -> Takes:
    return Takes(utterance(TEXT, seed=7, token_budget=token_budget), retakes)


# Seeds


def test_the_first_take_has_the_utterances_seed_and_the_others_have_their_own() -> None:
    assert [take_seed(7, take) for take in range(3)] == [7, 369571992, 1009178997]


@given(seed=st.integers(0, 2**32 - 1), take=st.integers(0, 10))
def test_seeds_of_takes_are_seeds(seed: int, take: int) -> None:
    assert 0 <= take_seed(seed, take) < 2**32
    assert take_seed(seed, take) == take_seed(seed, take)


# Loops


@pytest.mark.parametrize(
    ("loop", "flaw"),
    [
        ([SILENCE], Flaw.SILENT),
        ([SILENCE, SILENCE, 4218], Flaw.SILENT),
        ([17], Flaw.LOOP),
        ([1, 2, 3, 4], Flaw.LOOP),
        (GOOD[:MAX_LOOP_PERIOD], Flaw.LOOP),
    ],
)
def test_a_loop_is_found_after_three_seconds(loop: list[int], flaw: Flaw) -> None:
    tokens = GOOD + loop * LOOP_TOKENS
    end = len(GOOD) + LOOP_TOKENS
    assert loop_in(tokens[:end]) is flaw
    assert loop_in(tokens[: end - 5]) is None


def test_speech_is_no_loop() -> None:
    assert loop_in([]) is None
    assert loop_in(speech(500)) is None
    assert loop_in([*GOOD, *[SILENCE] * (LOOP_TOKENS - 20), *GOOD]) is None


# Judgements


def test_a_good_take_is_the_only_one() -> None:
    good = takes()
    assert not good.spoiled(GOOD)
    good.judge_tokens(GOOD, cut=False)
    assert not good.discard()
    assert good.finish() == TakeReport()
    assert good.seed == 7


@pytest.mark.parametrize(
    ("tokens", "cut", "flaw"),
    [
        (GOOD, True, Flaw.CUT),
        ([*GOOD, *[SILENCE] * LOOP_TOKENS], True, Flaw.SILENT),
        (GOOD[: min_tokens(TEXT) - 1], False, Flaw.SHORT),
        ([], False, Flaw.SHORT),
        ([SILENCE] * 50 + GOOD[:5], False, Flaw.SILENT),
    ],
)
def test_a_bad_take_is_discarded_until_the_last(tokens: list[int], cut: bool, flaw: Flaw) -> None:
    bad = takes(retakes=2)
    seeds = []
    for last in (False, False, True):
        seeds.append(bad.seed)
        bad.judge_tokens(tokens, cut=cut)
        assert bad.discard() == (not last)
    assert seeds == [take_seed(7, take) for take in range(3)]
    assert bad.finish() == TakeReport((flaw, flaw), flaw)


def test_a_few_tokens_are_enough_for_fast_speech() -> None:
    fast = takes()
    fast.judge_tokens(GOOD[: min_tokens(TEXT)], cut=False)
    assert fast.finish().flaw is None


def test_a_take_that_loops_is_given_up_at_once_unless_it_is_the_last(caplog: pytest.LogCaptureFixture) -> None:
    looping = takes(retakes=1)
    tokens = GOOD + [17] * LOOP_TOKENS
    assert looping.spoiled(tokens)
    assert looping.discard()
    assert not looping.spoiled(tokens)
    looping.judge_tokens(tokens, cut=False)
    assert looping.finish() == TakeReport((Flaw.LOOP,), None), "the model came out of it and ended its text"
    assert [record.getMessage() for record in caplog.records] == ["take 1 is bad (loop) and taken again"]


def test_without_retakes_a_bad_take_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    bad = takes(retakes=0)
    bad.judge_tokens(GOOD, cut=True)
    assert not bad.discard()
    assert bad.finish() == TakeReport((), Flaw.CUT)
    assert [record.getMessage() for record in caplog.records] == ["take 1 is bad (cut) and the last: it is handed out"]


def test_a_take_whose_first_piece_is_handed_out_is_the_last() -> None:
    bad = takes(retakes=2)
    assert not bad.hand_out_first_piece([SILENCE, *range(MAX_LOOP_VALUES - 1)] * 7), "that is no speech"
    assert bad.hand_out_first_piece(GOOD[:28])
    assert not bad.spoiled([17] * LOOP_TOKENS)
    bad.judge_tokens(GOOD, cut=True)
    assert not bad.discard()
    assert bad.finish() == TakeReport((), Flaw.CUT)


def test_only_the_first_take_has_a_first_piece() -> None:
    bad = takes(retakes=2)
    bad.judge_tokens(GOOD, cut=True)
    assert bad.discard()
    assert not bad.hand_out_first_piece(GOOD[:28])


def test_noise_has_a_seed_of_its_own() -> None:
    assert first_piece_seed(7) == first_piece_seed(7)
    assert len({7, first_piece_seed(7), first_piece_seed(8), *(take_seed(7, take) for take in range(1, 9))}) == 11


def test_an_utterance_with_a_budget_of_its_own_is_not_judged() -> None:
    measured = takes(token_budget=8)
    assert measured.hand_out_first_piece([17] * 4)
    assert not measured.spoiled([17] * LOOP_TOKENS)
    measured.judge_tokens([17] * 8, cut=True)
    measured.judge_audio(np.zeros(100, np.float32), RATE)
    assert not measured.discard()
    assert measured.finish() == TakeReport()


@pytest.mark.parametrize(("limit", "discarded"), [(10 * (1 + TAKE_SHARE), True), (10 * (1 + TAKE_SHARE) - 1, False)])
def test_no_take_is_begun_that_would_hardly_end_in_time(limit: float, discarded: bool) -> None:
    now = 100.0
    late = Takes(utterance(TEXT, time_limit=limit), 2, clock=lambda: now)
    now += 10.0
    assert late.spoiled([17] * LOOP_TOKENS) == discarded
    late.judge_tokens(GOOD, cut=True)
    assert late.discard() == discarded


def test_a_take_that_was_given_up_is_discarded_though_time_has_passed() -> None:
    """Its audio would be of half its tokens."""
    now = 0.0
    late = Takes(utterance(TEXT, time_limit=10.0), 2, clock=lambda: now)
    assert late.spoiled([17] * LOOP_TOKENS)
    now = 20.0
    late.judge_tokens([17] * LOOP_TOKENS, cut=True)
    assert late.discard()


# Audio


def tone(seconds: float) -> Samples:
    samples: Samples = np.sin(np.arange(round(seconds * RATE)) / 20, dtype=np.float32) / 10
    return samples


def test_near_zero_audio_is_silent() -> None:
    assert is_silent(np.zeros(0, np.float32), RATE, 0.1)
    assert is_silent(tone(2) / 1000, RATE, 0.1)
    assert is_silent(np.concatenate([tone(0.05), tone(2) / 1000]), RATE, 0.1)
    assert not is_silent(np.concatenate([tone(0.2), tone(2) / 1000]), RATE, 0.1)


def test_a_long_gap_is_silent_and_a_long_end_is_not() -> None:
    gap = tone(3.1) / 1000
    assert is_silent(np.concatenate([tone(1), gap, tone(1)]), RATE, 0.1)
    assert not is_silent(np.concatenate([tone(1), gap[: 2 * RATE], tone(1)]), RATE, 0.1)
    assert not is_silent(np.concatenate([gap, tone(1), gap]), RATE, 0.1)


def test_silent_audio_is_taken_again() -> None:
    silent = takes(retakes=1)
    silent.judge_tokens(GOOD, cut=False)
    silent.judge_audio(tone(2) / 1000, RATE)
    assert silent.discard()
    silent.judge_tokens(GOOD, cut=False)
    silent.judge_audio(tone(2), RATE)
    assert not silent.discard()
    assert silent.finish() == TakeReport((Flaw.SILENT,))
