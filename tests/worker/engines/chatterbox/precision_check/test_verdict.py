"""What figures are summed up to, and what verdict they get."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from worker.engines.chatterbox.precision_check.distances import FrameDistances, StepDistances, WaveDistance
from worker.engines.chatterbox.precision_check.statistics import MOST_DECIBELS, Figures, Heard, decibels, figures, total
from worker.engines.chatterbox.precision_check.verdict import (
    CHANCE,
    CLOSE,
    EQUAL,
    UNDERSTOOD,
    WORSE,
    Bound,
    Fitness,
    judge,
    most_errors,
    understood,
)


def heard(errors: int, words: int = 100) -> Heard:
    return Heard(errors=errors, words=words)


def some(**changed: Any) -> Figures:
    """Figures of a precision that is equal to upstream, but for what is changed."""
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
        "heard": None,
    }
    return Figures(**equal | changed)


CLOSE_BY = {"logit_largest": 0.02, "agreement": 0.92, "mel_largest": 0.15, "divergence_mean": 0.003}
"""About what int8 has."""


# The verdict


def test_equal() -> None:
    verdict = judge(some(), None)
    assert verdict.fitness is Fitness.EQUAL
    assert verdict.fit
    assert verdict.reasons == [bound.told(some()) for bound in EQUAL]


def test_close() -> None:
    verdict = judge(some(**CLOSE_BY), None)
    assert verdict.fitness is Fitness.CLOSE
    assert verdict.fit
    assert verdict.reasons == [bound.told(some(**CLOSE_BY)) for bound in CLOSE]


def beyond(bound: Bound, share: float = 1e-6) -> float:
    return bound.limit * (1 - share if bound.at_least else 1 + share)


@pytest.mark.parametrize("bound", EQUAL, ids=lambda bound: bound.figure)
def test_each_bound_of_equality(bound: Bound) -> None:
    assert judge(some(**{bound.figure: bound.limit}), None).fitness is Fitness.EQUAL
    assert judge(some(**{bound.figure: beyond(bound)}), None).fitness is Fitness.CLOSE


@pytest.mark.parametrize("bound", CLOSE, ids=lambda bound: bound.figure)
def test_each_bound_of_closeness(bound: Bound) -> None:
    at = some(**CLOSE_BY | {bound.figure: bound.limit})
    past = some(**CLOSE_BY | {bound.figure: beyond(bound)})
    assert judge(at, None).fitness is Fitness.CLOSE
    verdict = judge(past, None)
    assert verdict.fitness is Fitness.NOT_RECOMMENDED
    assert not verdict.fit
    assert verdict.reasons == [bound.told(past)]


def test_whatever_failed_is_named() -> None:
    verdict = judge(some(**CLOSE_BY | {"divergence_mean": 0.5, "mel_cepstral": 3.25}), None)
    assert verdict.reasons == [
        "divergence of the next token: 0.5 nats (at most 0.01 nats)",
        "mel-cepstral distance: 3.25 dB (at most 1.00 dB)",
    ]


@pytest.mark.parametrize("figure", sorted({bound.figure for bound in CLOSE}))
def test_what_is_no_number_is_not_recommended(figure: str) -> None:
    verdict = judge(some(**{figure: math.nan}), None)
    assert verdict.fitness is Fitness.NOT_RECOMMENDED
    assert "not a number" in verdict.reasons[0]


def test_where_no_choice_is_clear_none_can_differ() -> None:
    verdict = judge(some(**CLOSE_BY | {"clear_steps": 0, "clear_agreement": None}), None)
    assert verdict.fitness is Fitness.CLOSE
    assert "the same where upstream's choice is clear: none (at least 99.00%)" in verdict.reasons


def test_bounds_of_equality_are_the_narrower_ones() -> None:
    """Nothing is equal that is not close, too."""
    wide = {bound.figure: bound for bound in CLOSE}
    for bound in EQUAL:
        if bound.figure in wide:
            assert wide[bound.figure].holds(some(**{bound.figure: bound.limit}))


# Word error rates


def test_as_many_errors_as_upstream() -> None:
    assert judge(some(heard=heard(20)), heard(20)).fitness is Fitness.EQUAL
    assert judge(some(**CLOSE_BY, heard=heard(15)), heard(20)).fitness is Fitness.CLOSE


def test_more_errors_than_chance_makes() -> None:
    limit = most_errors(heard(20))
    few, many = heard(math.floor(100 * limit)), heard(math.floor(100 * limit) + 1)
    assert judge(some(heard=few), heard(20)).fit
    verdict = judge(some(heard=many), heard(20))
    assert verdict.fitness is Fitness.NOT_RECOMMENDED
    assert verdict.reasons == [
        f"word error rate: {many.rate:.1%}, upstream's 20.0% (at most {limit:.1%} over 100 words)"
    ]


def test_many_words_leave_little_to_chance() -> None:
    few, many = (most_errors(heard(words // 5, words)) - 0.2 - WORSE for words in (50, 100_000))
    assert few == pytest.approx(CHANCE * math.sqrt(2 * 0.2 * 0.8 / 50), rel=0.05)
    assert many < 0.004


def test_no_error_at_all_still_leaves_something_to_chance() -> None:
    assert most_errors(heard(0, 60)) > WORSE + 0.03


@pytest.mark.parametrize(("errors", "said"), [(50, True), (51, False), (120, False)])
def test_where_upstream_itself_is_not_understood_word_error_rates_do_not_count(errors: int, *, said: bool) -> None:
    stock = heard(errors)
    assert understood(stock) is said
    assert (stock.rate <= UNDERSTOOD) is said
    assert judge(some(heard=heard(200)), stock).fit is not said


@pytest.mark.parametrize(("found", "stock"), [(None, heard(10)), (heard(90), None), (None, None)])
def test_where_nobody_listened_nothing_is_judged(found: Heard | None, stock: Heard | None) -> None:
    assert judge(some(heard=found), stock).fitness is Fitness.EQUAL


# Summing up


def steps(*divergence: float, same: list[bool], clear: list[bool]) -> StepDistances:
    told = torch.tensor(divergence, dtype=torch.float64)
    return StepDistances(
        told * 2, told, told, torch.tensor(same), torch.tensor(clear), torch.tensor(same).logical_not()
    )


def frames(*cepstral: float) -> FrameDistances:
    told = torch.tensor(cepstral, dtype=torch.float64)
    return FrameDistances(told / 10, told / 2, told)


def waves(signal: float, noise: float) -> WaveDistance:
    return WaveDistance(torch.tensor([signal]), torch.tensor([noise]))


def test_texts_count_by_their_length() -> None:
    found = figures(
        [steps(1, 2, 3, same=[True, True, False], clear=[False, True, True]), steps(6, same=[False], clear=[True])],
        [frames(1), frames(2, 4, 5)],
        [waves(50, 1), waves(450, 4)],
        [heard(1, 4), heard(3, 12)],
    )
    assert found.model_dump(exclude={"heard"}) == pytest.approx(
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
        }
    )
    assert found.heard == heard(4, 16)


def test_no_clear_choice_and_nobody_listening() -> None:
    found = figures([steps(1, same=[True], clear=[False])], [frames(1)], [waves(1, 1)], [])
    assert (found.clear_steps, found.clear_agreement, found.heard) == (0, None, None)


def test_words_of_several_texts() -> None:
    assert total([]) is None
    assert total([heard(1, 2)]) == heard(1, 2)
    assert total([heard(1, 2), heard(0, 8), heard(5, 5)]) == heard(6, 15)
    assert heard(6, 15).rate == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("signal", "noise", "ratio"),
    [
        (100.0, 1.0, 20.0),
        (1.0, 100.0, -20.0),
        (1.0, 0.0, MOST_DECIBELS),
        (0.0, 0.0, MOST_DECIBELS),
        (1.0, 1e-30, 150.0),
    ],
)
def test_decibels(signal: float, noise: float, ratio: float) -> None:
    assert decibels(signal, noise) == pytest.approx(ratio)


@pytest.mark.parametrize(("signal", "noise"), [(0.0, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_no_signal_or_noise_without_end(signal: float, noise: float) -> None:
    assert not decibels(signal, noise) >= 0


def test_what_is_no_number_is_null_in_json() -> None:
    told = json.loads(some(mel_largest=math.inf, vocoder_ratio=math.nan).model_dump_json(by_alias=True))
    assert (told["melLargest"], told["vocoderRatio"], told["divergenceMean"]) == (None, None, 1e-10)
