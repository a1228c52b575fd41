"""Word errors of synthesised speech, counted with a speech recogniser.

The recogniser is pocketsphinx: small, offline, English only. It makes more errors than people do, equally for every
precision, so only the difference between precisions counts.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import torch
import torchaudio

from worker.engines.base import Samples
from worker.engines.chatterbox.precision_check.word_errors import WordErrors
from worker.engines.chatterbox.precision_check.word_recognition import SAMPLE_RATE, recognise, words

LANGUAGE = "en"
LIBRARIES = ("pocketsphinx", "jiwer")

_MAX_INT16 = 32_767


def unavailable_reason(language: str) -> str | None:
    """Why speech in a language cannot be recognised, and what to install; None where it can."""
    absent = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if absent:
        return f"no word error rates: {' and '.join(absent)} must be installed, with: pip install -e '.[check]'"
    if language != LANGUAGE:
        return f"no word error rates: the recogniser knows English only, and the texts are in {language!r}"
    return None


def count_word_errors(text: str, samples: Samples, rate: int) -> WordErrors | None:
    """Word errors in speech of `text`, at `rate` samples per second; None where the text has no words."""
    expected = words(text)
    return WordErrors.count(expected, transcribe(samples, rate)) if expected else None


def transcribe(samples: Samples, rate: int) -> str:
    """The words in speech at `rate` samples per second, in lower case."""
    resampled = torchaudio.functional.resample(torch.from_numpy(samples), rate, SAMPLE_RATE).numpy()
    return recognise((np.clip(resampled, -1, 1) * _MAX_INT16).astype("<i2").tobytes())
