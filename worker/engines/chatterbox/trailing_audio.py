"""Trims what a model adds behind the last word: a last token of noise, silence, breaths.

Silero VAD, a small speech detector, finds the end of the speech. A level cannot: noise may be as loud as a soft sound
(docs/chatterbox.md has both). Pauses between the segments of a text are the balancer's.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torchaudio.functional import resample

from worker.contract import Utterance
from worker.engines.base import ModelUnavailableError, Samples
from worker.engines.chatterbox.token_budget import TOKENS_PER_SECOND

SPEECH_BEGINS, SPEECH_ENDS = 0.5, 0.35
"""Probabilities of speech, Silero's own: it begins at the first, and lasts while it is not below the second."""

MARGIN_SECONDS = 0.1
"""Audio that stays behind the speech: the faint end of its last sound."""
FADE_SECONDS = 0.02
MIN_TRIMMED_SECONDS = 0.1
"""Less is left as it is."""

_DETECTOR_RATE = 16_000
_FRAME, _CONTEXT = 512, 64
"""Samples of each step of the detector, and of those before that it is given again."""
_ENDS_WITH_SOUND = re.compile(r"\][\W_]*\Z")


def without_last_token(samples: Samples, sample_rate: int) -> Samples:
    """The audio without that of its last speech token, 40 ms, but at least one token's."""
    token = sample_rate // TOKENS_PER_SECOND
    return samples[: max(token, len(samples) - token)]


class TrailingAudioTrimmer:
    """A speech detector, and what follows from it for the end of an utterance's audio; without state between calls."""

    def __init__(self) -> None:
        """Raises ModelUnavailableError where the detector is not installed."""
        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(_model_file()), options, providers=["CPUExecutionProvider"])

    def trim(self, samples: Samples, sample_rate: int, utterance: Utterance, *, sent: int = 0) -> Samples:
        """The audio up to a moment behind its last speech, faded out; all of it where there is little behind that.

        `sent` samples have been handed out already: they stay as they are, and the fade follows them.

        Audio without speech stays as it is, and so does that of a text that ends with a sound, such as `[laugh]`, and
        that of an utterance with a token budget of its own, which measures the engine.
        """
        if utterance.token_budget is not None or _ENDS_WITH_SOUND.search(utterance.text):
            return samples
        end = self.speech_end(samples, sample_rate)
        if end is None:
            return samples
        fade = round(FADE_SECONDS * sample_rate)
        kept = max(end + round(MARGIN_SECONDS * sample_rate), sent + fade)
        if len(samples) - kept < MIN_TRIMMED_SECONDS * sample_rate:
            return samples
        trimmed = samples[:kept].copy()
        trimmed[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
        return trimmed

    def speech_end(self, samples: Samples, sample_rate: int) -> int | None:
        """The number of samples up to the end of the last speech; None if there is none."""
        probabilities = self._probabilities(samples, sample_rate)
        speech = np.flatnonzero(probabilities >= SPEECH_BEGINS)
        if not len(speech):
            return None
        behind = int(speech[-1]) + 1
        ended = np.flatnonzero(probabilities[behind:] < SPEECH_ENDS)
        frames = behind + (int(ended[0]) if len(ended) else len(probabilities) - behind)
        return min(len(samples), frames * _FRAME * sample_rate // _DETECTOR_RATE)

    def _probabilities(self, samples: Samples, sample_rate: int) -> Samples:
        """The probability of speech in each frame: float32 (frames,)."""
        audio = resample(torch.from_numpy(samples), sample_rate, _DETECTOR_RATE).numpy()
        padded = np.pad(audio, (_CONTEXT, -len(audio) % _FRAME))
        frames = sliding_window_view(padded, _CONTEXT + _FRAME)[::_FRAME]
        state = np.zeros((1, 1, 128), np.float32)
        probabilities: Samples = self._session.run(
            ["speech_probs"], {"input": np.ascontiguousarray(frames), "h": state, "c": state}
        )[0]
        return probabilities.reshape(-1)


def _model_file() -> Path:
    # The package is not imported: it would limit PyTorch to one thread in the whole process.
    spec = find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        raise ModelUnavailableError(
            "trimming the end of audio needs silero-vad, which belongs to the extra `chatterbox`: install it again, or "
            "set CHORUS_TRIM_END=false"
        )
    return Path(spec.submodule_search_locations[0]) / "data" / "silero_vad_16k_sequence.onnx"
