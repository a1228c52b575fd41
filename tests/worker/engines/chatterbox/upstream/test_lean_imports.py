"""What stands in for functions of librosa and SciPy returns what they return."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import scipy.signal

from tests.support.stock import BUILT_IN  # noqa: F401 - imports upstream's packages as a worker does
from worker.engines.chatterbox.upstream.lean_imports import get_window, resample, resource_filename


@pytest.mark.parametrize("length", [16, 17])
def test_a_window(length: int) -> None:
    assert np.array_equal(get_window("hann", length, fftbins=True), scipy.signal.get_window("hann", length))


def test_another_window_is_scipys() -> None:
    expected = scipy.signal.get_window("hamming", 16, fftbins=False)
    assert np.array_equal(get_window("hamming", 16, fftbins=False), expected)


@pytest.mark.parametrize(("rate", "target"), [(24_000, 32_000), (32_000, 24_000), (24_000, 24_000)])
@pytest.mark.parametrize("length", [1, 7201, 24_000])
def test_resampled_audio(rate: int, target: int, length: int) -> None:
    samples = np.random.default_rng(0).normal(size=length).astype(np.float32)
    expected = librosa.resample(samples, orig_sr=rate, target_sr=target)
    found = resample(samples, orig_sr=rate, target_sr=target)
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


def test_audio_resampled_by_another_method_is_librosas() -> None:
    samples = np.random.default_rng(0).normal(size=100).astype(np.float32)
    rates = {"orig_sr": 24_000, "target_sr": 32_000}
    expected = librosa.resample(samples, **rates, res_type="polyphase")
    assert np.array_equal(resample(samples, **rates, res_type="polyphase"), expected)


def test_audio_that_is_not_finite_is_refused_as_by_librosa() -> None:
    with pytest.raises(librosa.ParameterError, match="not finite"):
        resample(np.full(100, np.nan, np.float32), orig_sr=24_000, target_sr=32_000)


def test_a_file_of_a_package() -> None:
    assert resource_filename("tests.support.stock", "vendor").endswith("/tests/support/vendor")
