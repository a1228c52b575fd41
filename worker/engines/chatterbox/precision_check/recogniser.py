"""What a speech recogniser hears in speech, beside the words that were to be said.

The recogniser is pocketsphinx: small, offline, English only. It mishears more than people do, all precisions alike;
what counts is the difference between them.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import torch
import torchaudio

from worker.engines.base import Samples
from worker.engines.chatterbox.precision_check.statistics import Heard
from worker.engines.chatterbox.precision_check.word_recognition import SAMPLE_RATE, recognise, words

LANGUAGE = "en"
LIBRARIES = ("pocketsphinx", "jiwer")

_LOUDEST = 32_767


def unable(language: str) -> str | None:
    """Why nothing can be heard of speech in a language, with what to do about it; None where it can."""
    absent = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if absent:
        return f"nobody listened: {' and '.join(absent)} must be installed for that, by: pip install -e '.[check]'"
    if language != LANGUAGE:
        return f"nobody listened: the recogniser knows English only, and the texts are spoken as {language!r}"
    return None


def listen(text: str, samples: Samples, rate: int) -> Heard | None:
    """Have speech recognised that is to say `text`; None where that has no words."""
    import jiwer  # noqa: PLC0415 - optional, see `unable`

    said = words(text)
    if not said:
        return None
    found = jiwer.process_words(" ".join(said), transcribe(samples, rate))
    return Heard(errors=found.substitutions + found.deletions + found.insertions, words=len(said))


def transcribe(samples: Samples, rate: int) -> str:
    """The words in speech at `rate` samples a second, in lower case."""
    resampled = torchaudio.functional.resample(torch.from_numpy(samples), rate, SAMPLE_RATE).numpy()
    return recognise((np.clip(resampled, -1, 1) * _LOUDEST).astype("<i2").tobytes())
