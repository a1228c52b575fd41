"""Statistics of several texts, and the verdict on them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from worker.engines.chatterbox.precision_check.distances import FrameDistances, StepDistances, WaveDistance
from worker.engines.chatterbox.precision_check.statistics import (
    MAX_DECIBELS,
    Statistics,
    decibels,
    summarise,
)
from worker.engines.chatterbox.precision_check.verdict import (
    CLOSE,
    EQUAL,
    MAX_UPSTREAM_RATE,
    RATE_DEVIATIONS,
    RATE_MARGIN,
    Bound,
    Fitness,
    is_understood,
    judge,
    max_error_rate,
)
from worker.engines.chatterbox.precision_check.word_errors import WordErrors


def word_errors(errors: int, words: int = 100) -> WordErrors:
    return WordErrors(errors=errors, words=words)


def some(**changed: Any) -> Statistics:
    """Statistics of a precision that is equal to upstream, except for the given fields."""
    equal: dict[str, Any] = {
        "steps": 200,
        "logit_largest": 1e-6,
        "logit_mean": 1e-7,
        "divergence_mean": 1e-10,
        "divergence_largest": 1e-9,
        "agreement": 1.0,
        "clear_steps": 90,
        "clear_agreement": 1.0,
        "draw_agreement": 1.0,
        "frames": 400,
        "mel_mean": 1e-6,
        "mel_largest": 1e-5,
        "mel_cepstral": 1e-5,
        "vocoder_ratio": 119.0,
        "speaker_similarity": None,
        "word_errors": None,
    }
    return Statistics(**equal | changed)


CLOSE_BY = {"logit_largest": 0.02, "agreement": 0.92, "mel_largest": 0.15, "divergence_mean": 0.003}
"""Typical of int8."""


# The verdict


def test_equal() -> None:
    verdict = judge(some(), None)
    assert verdict.fitness is Fitness.EQUAL
    assert verdict.fit
    assert verdict.reasons == [bound.describe(some()) for bound in EQUAL]


def test_close() -> None:
    verdict = judge(some(**CLOSE_BY), None)
    assert verdict.fitness is Fitness.CLOSE
    assert verdict.fit
    assert verdict.reasons == [bound.describe(some(**CLOSE_BY)) for bound in CLOSE]


def beyond(bound: Bound, share: float = 1e-6) -> float:
    return bound.limit * (1 - share if bound.at_least else 1 + share)


@pytest.mark.parametrize("bound", EQUAL, ids=lambda bound: bound.statistic)
def test_each_bound_of_equality(bound: Bound) -> None:
    assert judge(some(**{bound.statistic: bound.limit}), None).fitness is Fitness.EQUAL
    assert judge(some(**{bound.statistic: beyond(bound)}), None).fitness is Fitness.CLOSE


@pytest.mark.parametrize("bound", CLOSE, ids=lambda bound: bound.statistic)
def test_each_bound_of_closeness(bound: Bound) -> None:
    at = some(**CLOSE_BY | {bound.statistic: bound.limit})
    past = some(**CLOSE_BY | {bound.statistic: beyond(bound)})
    assert judge(at, None).fitness is Fitness.CLOSE
    verdict = judge(past, None)
    assert verdict.fitness is Fitness.NOT_RECOMMENDED
    assert not verdict.fit
    assert verdict.reasons == [bound.describe(past)]


def test_another_flow_is_judged_by_its_speaker_and_not_by_its_spectrogram() -> None:
    far = {"mel_cepstral": 9.0, "vocoder_ratio": -3.0}
    verdict = judge(some(speaker_similarity=0.95, **far), None)
    assert verdict.fitness is Fitness.RENDERING
    assert verdict.fit
    assert "speaker's similarity to upstream's: 0.95 (at least 0.9)" in verdict.reasons
    for changed in ({"speaker_similarity": 0.8}, {"speaker_similarity": math.nan}, {"divergence_mean": 0.1}):
        assert not judge(some(**{"speaker_similarity": 0.95} | far | changed), None).fit


def test_every_failed_statistic_is_named() -> None:
    verdict = judge(some(**CLOSE_BY | {"divergence_mean": 0.5, "mel_cepstral": 3.25}), None)
    assert verdict.reasons == [
        "divergence of the next token: 0.5 nats (at most 0.01 nats)",
        "mel-cepstral distance: 3.25 dB (at most 1.00 dB)",
    ]


@pytest.mark.parametrize("statistic", sorted({bound.statistic for bound in CLOSE}))
def test_nan_is_not_recommended(statistic: str) -> None:
    verdict = judge(some(**{statistic: math.nan}), None)
    assert verdict.fitness is Fitness.NOT_RECOMMENDED
    assert "not a number" in verdict.reasons[0]


def test_no_clear_choice_is_no_reason() -> None:
    verdict = judge(some(**CLOSE_BY | {"clear_steps": 0, "clear_agreement": None}), None)
    assert verdict.fitness is Fitness.CLOSE
    assert "same most likely next token where upstream's is clear: none (at least 99.00%)" in verdict.reasons


def test_bounds_of_equality_are_the_narrower_ones() -> None:
    """Whatever is equal is close as well."""
    wide = {bound.statistic: bound for bound in CLOSE}
    for bound in EQUAL:
        if bound.statistic in wide:
            assert wide[bound.statistic].holds(some(**{bound.statistic: bound.limit}))


# Word error rates


def test_as_many_errors_as_upstream() -> None:
    assert judge(some(word_errors=word_errors(20)), word_errors(20)).fitness is Fitness.EQUAL
    assert judge(some(**CLOSE_BY, word_errors=word_errors(15)), word_errors(20)).fitness is Fitness.CLOSE


def test_more_word_errors_than_chance_explains() -> None:
    limit = max_error_rate(word_errors(20))
    few, many = word_errors(math.floor(100 * limit)), word_errors(math.floor(100 * limit) + 1)
    assert judge(some(word_errors=few), word_errors(20)).fit
    verdict = judge(some(word_errors=many), word_errors(20))
    assert verdict.fitness is Fitness.NOT_RECOMMENDED
    assert verdict.reasons == [
        f"word error rate: {many.rate:.1%}, upstream's 20.0% (at most {limit:.1%} over 100 words)"
    ]


def test_chance_counts_little_with_many_words() -> None:
    few, many = (max_error_rate(word_errors(words // 5, words)) - 0.2 - RATE_MARGIN for words in (50, 100_000))
    assert few == pytest.approx(RATE_DEVIATIONS * math.sqrt(2 * 0.2 * 0.8 / 50), rel=0.05)
    assert many < 0.004


def test_chance_counts_even_without_any_error() -> None:
    assert max_error_rate(word_errors(0, 60)) > RATE_MARGIN + 0.03


@pytest.mark.parametrize(("errors", "counts"), [(50, True), (51, False), (120, False)])
def test_word_error_rates_do_not_count_where_upstream_is_not_understood(errors: int, *, counts: bool) -> None:
    stock = word_errors(errors)
    assert is_understood(stock) is counts
    assert (stock.rate <= MAX_UPSTREAM_RATE) is counts
    assert judge(some(word_errors=word_errors(200)), stock).fit is not counts


@pytest.mark.parametrize(("found", "stock"), [(None, word_errors(10)), (word_errors(90), None), (None, None)])
def test_without_a_recogniser_word_errors_do_not_count(found: WordErrors | None, stock: WordErrors | None) -> None:
    assert judge(some(word_errors=found), stock).fitness is Fitness.EQUAL


# Statistics of several texts


def steps(*divergence: float, same: list[bool], clear: list[bool]) -> StepDistances:
    found = torch.tensor(divergence, dtype=torch.float64)
    return StepDistances(
        found * 2, found, found, torch.tensor(same), torch.tensor(clear), torch.tensor(same).logical_not()
    )


def frames(*cepstral: float) -> FrameDistances:
    found = torch.tensor(cepstral, dtype=torch.float64)
    return FrameDistances(found / 10, found / 2, found)


def waves(signal: float, noise: float) -> WaveDistance:
    return WaveDistance(torch.tensor([signal]), torch.tensor([noise]))


def test_texts_are_weighted_by_their_length() -> None:
    found = summarise(
        [steps(1, 2, 3, same=[True, True, False], clear=[False, True, True]), steps(6, same=[False], clear=[True])],
        [frames(1), frames(2, 4, 5)],
        [waves(50, 1), waves(450, 4)],
        [0.9, 0.7],
        [word_errors(1, 4), word_errors(3, 12)],
    )
    assert found.model_dump(exclude={"word_errors"}) == pytest.approx(
        {
            "steps": 4,
            "logit_largest": 12,
            "logit_mean": 3,
            "divergence_mean": 3,
            "divergence_largest": 6,
            "agreement": 0.5,
            "clear_steps": 3,
            "clear_agreement": 1 / 3,
            "draw_agreement": 0.5,
            "frames": 4,
            "mel_mean": 0.3,
            "mel_largest": 2.5,
            "mel_cepstral": 3,
            "vocoder_ratio": 20,
            "speaker_similarity": 0.8,
        }
    )
    assert found.word_errors == word_errors(4, 16)


def test_no_clear_choice_and_no_recogniser() -> None:
    found = summarise([steps(1, same=[True], clear=[False])], [frames(1)], [waves(1, 1)], [], [])
    assert (found.clear_steps, found.clear_agreement, found.word_errors) == (0, None, None)
    assert found.speaker_similarity is None


@pytest.mark.parametrize(
    ("signal", "noise", "ratio"),
    [
        (100.0, 1.0, 20.0),
        (1.0, 100.0, -20.0),
        (1.0, 0.0, MAX_DECIBELS),
        (0.0, 0.0, MAX_DECIBELS),
        (1.0, 1e-30, 150.0),
    ],
)
def test_decibels(signal: float, noise: float, ratio: float) -> None:
    assert decibels(signal, noise) == pytest.approx(ratio)


@pytest.mark.parametrize(("signal", "noise"), [(0.0, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_no_signal_or_infinite_noise(signal: float, noise: float) -> None:
    assert not decibels(signal, noise) >= 0


def test_nan_is_null_in_json() -> None:
    found = json.loads(some(mel_largest=math.inf, vocoder_ratio=math.nan).model_dump_json(by_alias=True))
    assert (found["melLargest"], found["vocoderRatio"], found["divergenceMean"]) == (None, None, 1e-10)
