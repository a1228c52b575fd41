"""Distances of logits, spectrograms and waves, on numbers whose distance is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from worker.engines.chatterbox.precision_check.distances import (
    CEPSTRA,
    StepDistances,
    concatenate,
    logit_distances,
    mel_distances,
    wave_distance,
)

BANDS = 80


def compared(expected: Tensor, found: Tensor, *, temperature: float = 1.0, seed: int = 0) -> StepDistances:
    generator = torch.Generator().manual_seed(seed)
    return logit_distances(expected, found, temperature=temperature, generator=generator)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Logits


def test_equal_logits_have_no_distance() -> None:
    logits = drawn(7, 50)
    found = compared(logits, logits.clone())
    for distance in (found.largest, found.mean, found.divergence):
        assert distance.tolist() == [0] * 7
    assert found.same_best.all()
    assert found.same_draw.all()


def test_differences_are_shares_of_the_range_of_upstreams_logits() -> None:
    found = compared(torch.tensor([[0.0, 10, 4, 6], [0, 1, 0, 0]]), torch.tensor([[0.0, 9, 4, 6.5], [0, 1, 0, 2]]))
    assert found.largest.tolist() == pytest.approx([0.1, 2.0])
    assert found.mean.tolist() == pytest.approx([0.0375, 0.5])


@pytest.mark.parametrize("seed", range(5))
def test_divergence_is_that_of_kullback_and_leibler(seed: int) -> None:
    expected, found = 3 * drawn(4, 30, seed=seed), 3 * drawn(4, 30, seed=seed + 100)
    p, q = expected.double().softmax(1).tolist(), found.double().softmax(1).tolist()
    by_hand = [sum(a * math.log(a / b) for a, b in zip(*rows, strict=True)) for rows in zip(p, q, strict=True)]
    assert compared(expected, found).divergence.tolist() == pytest.approx(by_hand)


def test_a_common_offset_changes_no_choice() -> None:
    logits = drawn(20, 50)
    found = compared(logits, logits + 1)
    assert found.divergence.tolist() == pytest.approx([0] * 20, abs=1e-6)
    assert found.same_best.all()
    assert found.same_draw.all()
    assert (found.largest > 0.1).all()


def test_a_choice_is_clear_where_the_best_is_twice_as_likely_as_the_next() -> None:
    odds = torch.tensor([[1.99, 1, 0.5], [2.01, 1, 0.5], [1, 0.5, 2.5], [1, 1, 1]])
    found = compared(odds.log(), odds.log())
    assert found.clear.tolist() == [False, True, True, False]


def test_another_most_likely_token() -> None:
    found = compared(torch.tensor([[1.0, 2, 0], [1, 2, 0]]), torch.tensor([[1.0, 1.5, 0], [1, 0.5, 0]]))
    assert found.same_best.tolist() == [True, False]


def test_the_same_draws_are_as_often_the_same_as_probabilities_allow() -> None:
    """Of tokens with probabilities p and q, one exponential race ends alike with probability sum of 1 / sum of max."""
    steps = 20_000
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.4, 0.4, 0.2])
    found = compared(p.log().expand(steps, -1), q.log().expand(steps, -1))
    expected = sum(1 / float(torch.maximum(p / p[token], q / q[token]).sum()) for token in range(3))
    assert float(found.same_draw.double().mean()) == pytest.approx(expected, abs=0.015)


def test_a_higher_temperature_draws_the_same_token_less_often() -> None:
    expected, found = 4 * drawn(2000, 20, seed=1), 4 * drawn(2000, 20, seed=1) + drawn(2000, 20, seed=2)
    cool, warm = (compared(expected, found, temperature=heat).same_draw.double().mean() for heat in (0.05, 20.0))
    assert warm > cool + 0.05


def test_the_same_seed_draws_the_same() -> None:
    expected, found = drawn(300, 40, seed=1), drawn(300, 40, seed=2)
    first, again, other = (compared(expected, found, seed=seed).same_draw for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("fault", [math.nan, math.inf])
def test_nan_and_infinity_are_far_from_any_number(fault: float) -> None:
    logits = drawn(1, 10)
    broken = logits.clone()
    broken[0, int(logits.argmin())] = fault
    found = compared(logits, broken)
    assert not found.largest.isfinite().any()
    assert not found.divergence.isfinite().any()
    assert not found.same_best.any()


# Spectrograms


def test_equal_spectrograms_have_no_distance() -> None:
    mel = drawn(5, BANDS)
    found = mel_distances(mel, mel.clone())
    for distance in (found.mean, found.largest, found.cepstral):
        assert distance.tolist() == [0] * 5


def test_band_differences_are_per_frame() -> None:
    mel = torch.zeros(2, BANDS)
    other = mel.clone()
    other[1, 3] = -0.8
    found = mel_distances(mel, other)
    assert found.mean.tolist() == pytest.approx([0, 0.01])
    assert found.largest.tolist() == pytest.approx([0, 0.8])


def test_loudness_does_not_count_as_cepstral_distance() -> None:
    mel = drawn(3, BANDS)
    found = mel_distances(mel, mel + 0.7)
    assert found.mean.tolist() == pytest.approx([0.7] * 3)
    assert found.cepstral.tolist() == pytest.approx([0] * 3, abs=1e-5)


@pytest.mark.parametrize("coefficient", [1, 2, CEPSTRA])
def test_cepstral_distance_is_kubicheks(coefficient: int) -> None:
    """A log spectrum of c * cos(m * w) has one mel-cepstral coefficient, c."""
    places = (torch.arange(BANDS) + 0.5) * math.pi / BANDS
    found = mel_distances(torch.zeros(1, BANDS), 0.3 * torch.cos(coefficient * places)[None])
    assert float(found.cepstral) == pytest.approx(10 / math.log(10) * math.sqrt(2 * 0.3**2), rel=1e-5)


def test_fine_structure_does_not_count_as_cepstral_distance() -> None:
    places = (torch.arange(BANDS) + 0.5) * math.pi / BANDS
    found = mel_distances(torch.zeros(1, BANDS), torch.cos((CEPSTRA + 1) * places)[None])
    assert float(found.cepstral) == pytest.approx(0, abs=1e-5)


def test_cepstral_distance_is_smaller_than_the_full_difference() -> None:
    difference = drawn(50, BANDS)
    full = 20 / math.log(10) * difference.double().square().mean(1).sqrt()
    found = mel_distances(torch.zeros(50, BANDS), difference).cepstral
    assert (found > 0).all()
    assert (found < full).all()


# Waves, and several texts


def test_waves() -> None:
    found = wave_distance(torch.tensor([1.0, -2, 2]), torch.tensor([1.0, -2, 1.5]))
    assert (found.signal.tolist(), found.noise.tolist()) == ([9.0], [0.25])


def test_texts_are_concatenated() -> None:
    first, second = (compared(drawn(count, 9, seed=count), drawn(count, 9)) for count in (2, 3))
    both = concatenate([first, second])
    assert both.divergence.tolist() == first.divergence.tolist() + second.divergence.tolist()
    assert both.same_best.tolist() == first.same_best.tolist() + second.same_best.tolist()
    waves = [wave_distance(drawn(8, seed=seed), drawn(8)) for seed in (1, 2)]
    assert concatenate(waves).signal.tolist() == [float(wave.signal) for wave in waves]
