"""What a speech recogniser hears in speech, beside the words that were to be said.

The recogniser is pocketsphinx: small, offline, English only. It mishears more than people do, all precisions alike;
what counts is the difference between them.
"""

from __future__ import annotations

import importlib.util
import re

import numpy as np
import torch
import torchaudio

from worker.engines.base import Samples
from worker.engines.chatterbox.precision_check.statistics import Heard

LANGUAGE = "en"
LIBRARIES = ("pocketsphinx", "jiwer")

_HEARING_RATE = 16_000
_LOUDEST = 32_767
_TAG = re.compile(r"\[[^\]]*\]")
"""Turbo's laughs and sighs, which are no words."""


def unable(language: str) -> str | None:
    """Why nothing can be heard of speech in a language, with what to do about it; None where it can."""
    absent = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if absent:
        return f"nobody listened: {' and '.join(absent)} must be installed for that, by: pip install -e '.[check]'"
    if language != LANGUAGE:
        return f"nobody listened: the recogniser knows English only, and the texts are spoken as {language!r}"
    return None


def words(text: str) -> list[str]:
    """The words that a recogniser can know: letters and apostrophes, in lower case."""
    plain = _TAG.sub(" ", text.lower()).replace("\u2019", "'")
    return "".join(letter if letter.isalpha() or letter == "'" else " " for letter in plain).split()


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
    from pocketsphinx import Decoder  # noqa: PLC0415 - optional, see `unable`

    heard = torchaudio.functional.resample(torch.from_numpy(samples), rate, _HEARING_RATE).numpy()
    pcm = (np.clip(heard, -1, 1) * _LOUDEST).astype("<i2")
    # One that has heard something hears the next differently: it adapts to the loudness of each band.
    decoder = Decoder(samprate=_HEARING_RATE, loglevel="FATAL")
    decoder.start_utt()
    decoder.process_raw(pcm.tobytes(), full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return hypothesis.hypstr if hypothesis is not None else ""
