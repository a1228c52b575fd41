"""The tempo changes, the pitch and the sounds do not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from balancer.audio.tempo import MAX_SPEED, MIN_SPEED, Tempo, change_tempo

RATE = 24_000


def tone(seconds: float, rate: int = RATE, hertz: float = 440.0) -> bytes:
    """A sine at a quarter of full scale."""
    times = np.arange(round(seconds * rate)) / rate
    pcm: bytes = (8_192 * np.sin(2 * np.pi * hertz * times)).astype("<i2").tobytes()
    return pcm


def changed(pcm: bytes, rate: int, speed: float) -> bytes:
    """In pieces of a second."""
    pieces = [pcm[start : start + 2 * rate] for start in range(0, len(pcm), 2 * rate)]
    return b"".join(change_tempo(pieces, rate, speed))


def samples(pcm: bytes) -> int:
    return len(pcm) // 2


def energy_near(hertz: float, pcm: bytes, rate: int) -> float:
    """Energy within 20 % of `hertz`, in squared 16-bit steps, summed over samples."""
    signal = np.frombuffer(pcm, "<i2").astype(float)
    near = np.abs(np.fft.rfftfreq(len(signal), 1 / rate) - hertz) < hertz / 5
    return float(2 * np.sum(np.abs(np.fft.rfft(signal)[near]) ** 2) / len(signal))


@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 25_000, 48_000])
@pytest.mark.parametrize("speed", [MIN_SPEED, 0.3, 0.7, 0.999, 1.001, 1.99, 2.01, 3.0, MAX_SPEED])
def test_tempo_scales_to_the_sample(speed: float, rate: int) -> None:
    pcm = tone(1.0, rate)
    assert samples(changed(pcm, rate, speed)) == round(samples(pcm) / speed)


# Blending windows shifts sounds by some milliseconds, which matters more the shorter the tail becomes: hence up to
# double speed only. At 25 kHz the windows are the longest.
@pytest.mark.parametrize("rate", [24_000, 25_000, 44_100])
@pytest.mark.parametrize("speed", [MIN_SPEED, 0.5, 0.8, 1.5, 2.0])
def test_tempo_keeps_the_tail(speed: float, rate: int) -> None:
    tail = tone(0.05, rate, hertz=1_500)
    result = changed(tone(0.95, rate) + tail, rate, speed)
    assert energy_near(1_500, result, rate) > 0.7 * energy_near(1_500, tail, rate) / speed


def test_tempo_does_not_skip_sounds() -> None:
    # Clicks of 10 ms. A single filter at 4 times the speed skips almost half of them; two at twice the speed
    # occasionally weaken one that falls between two windows.
    click = 16_000 * np.sin(np.arange(240) / 2)
    noise = np.random.default_rng(1).normal(0, 30, RATE)
    places = range(0, RATE, 250)
    audible = 0
    for place in places:
        signal = noise.copy()
        signal[place : place + len(click)] += click
        result = changed(signal.astype("<i2").tobytes(), RATE, 4.0)
        audible += np.abs(np.frombuffer(result, "<i2")).max() > 2_000
    assert audible > 0.9 * len(places)


def test_at_speed_one_the_samples_stay() -> None:
    pcm = tone(2.5)
    assert changed(pcm, RATE, 1.0) == pcm


@pytest.mark.parametrize("speed", [MIN_SPEED, 0.8, 1.5, MAX_SPEED])
def test_pieces_of_any_size_give_the_same(speed: float) -> None:
    pcm = tone(1.0)
    tempo = Tempo(RATE, speed)
    pieces = [tempo.feed(pcm[start : start + 1234]) for start in range(0, len(pcm), 1234)]
    assert b"".join(pieces) + tempo.finish() == changed(pcm, RATE, speed)


@pytest.mark.parametrize("speed", [0.0, -1.0, 0.2499, 4.001, 5.0, math.inf, math.nan])
def test_speed_out_of_range_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        changed(tone(0.1), RATE, speed)
