"""The engines that this version can run, and what is known of each without loading it.

The balancer checks requests and lays out workers by these cards, the worker's engines go by the same ones.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from worker.precision import Precision

_MIB = 2**20


class Runtime(StrEnum):
    """How the Chatterbox family's weights are run."""

    BATCHED = "batched"
    """By our own loops, several utterances at once."""
    STOCK = "stock"
    """By upstream's own classes, one utterance at a time."""


class _Card(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Parameter(_Card):
    """One knob of an engine that a request may set: a number within [minimum, maximum]."""

    name: str
    minimum: float
    maximum: float
    default: float
    integer: bool = False
    description: str = ""


class Choice(_Card):
    """One setting of an engine that a request may choose: one of a few words."""

    name: str
    choices: tuple[str, ...]
    description: str = ""


MAX_PROMPT_SECONDS = 10
"""Seconds of a voice's reference clip that upstream conditions S3Gen on, at most."""


class BatchedCard(_Card):
    """What is known of an engine's batched runtime."""

    slots: int
    """Utterances at once that a worker has unless more is known: see `balancer.calibration`."""
    slot_bytes: int
    """Memory in bytes that each of them takes at most: the keys and values of its own positions."""
    resident_bytes: dict[Precision, int]
    """Memory in bytes that each worker takes for itself beside its slots, and at most."""
    speed: float
    """Prior for the speed of one utterance among so many on one thread: audio seconds per second."""


class EngineCard(_Card):
    """What is known of an engine before, and without, loading it."""

    name: str
    description: str
    sample_rate: int
    """Samples a second of the PCM it makes."""
    parameters: tuple[Parameter | Choice, ...] = ()
    clones_voices: bool = False
    """Whether it speaks with the voice of a reference clip."""
    resident_bytes: int
    """Memory that each worker takes for itself in bytes, measured."""
    shared_bytes: int = 0
    """Memory in bytes that all workers of a host share: weights mapped from their files."""
    batched: BatchedCard | None = None
    """None where there is no batched runtime, and no choice: the engine speaks one utterance at a time, in fp32."""
    longest_text: int | None = None
    """Most characters of one utterance; None where the engine takes any length."""
    extra: str | None = None
    """The extra of this package that brings the engine's libraries; None where the base has them."""
    seconds_per_character: float
    """Prior for the audio length of a text, in seconds a character."""
    speed: float
    """Prior for one worker's speed on one thread: audio seconds per second."""

    def parameter(self, name: str) -> Parameter | Choice | None:
        """The parameter of that name, or None where the engine has none such."""
        return next((parameter for parameter in self.parameters if parameter.name == name), None)


LANGUAGES = (
    "ar", "da", "de", "el", "en", "es", "fi", "fr", "he", "hi", "it", "ja",
    "ko", "ms", "nl", "no", "pl", "pt", "ru", "sv", "sw", "tr", "zh",
)  # fmt: skip
"""What Chatterbox Multilingual speaks, as ISO 639-1 codes."""

# Defaults are those of the upstream classes' `generate`, ranges those of its demo pages or wider.
_TEMPERATURE = Parameter(
    name="temperature", minimum=0.05, maximum=5, default=0.8, description="Higher is livelier and less predictable."
)
_EXAGGERATION = Parameter(
    name="exaggeration", minimum=0, maximum=2, default=0.5, description="How expressive; 0.5 is neutral."
)
_CFG_WEIGHT = Parameter(
    name="cfg_weight", minimum=0, maximum=2, default=0.5, description="How closely text and voice are followed."
)
_MIN_P = Parameter(
    name="min_p",
    minimum=0,
    maximum=1,
    default=0.05,
    description="Least probability of a token, as a share of the best.",
)
_TOP_K = Parameter(
    name="top_k", minimum=0, maximum=6563, default=1000, integer=True, description="Likeliest tokens kept; 0 keeps all."
)


def _top_p(default: float) -> Parameter:
    return Parameter(
        name="top_p", minimum=0.01, maximum=1, default=default, description="Probability mass of the tokens kept."
    )


def _repetition_penalty(default: float) -> Parameter:
    return Parameter(
        name="repetition_penalty", minimum=1, maximum=3, default=default, description="1 leaves repetition alone."
    )


_LLAMA = (_EXAGGERATION, _CFG_WEIGHT, _TEMPERATURE, _top_p(1.0), _MIN_P)
_GPT2 = (_TEMPERATURE, _top_p(0.95), _TOP_K, _repetition_penalty(1.2))
_LANGUAGE = Choice(name="language", choices=LANGUAGES, description="Left out: the voice's own.")


POSITIONS = 2048
"""Positions of its own that a slot has room for: up to 1,024 of text, 40 s of speech, and what is between."""


def _batched(*, layers: int, width: int, rows: int, weights_mib: int, sound_mib: int, speed: float) -> BatchedCard:
    """A batched runtime by the shape of its T3: `rows` of keys and values an utterance, in float32.

    `weights_mib` are those of T3's layers in float32, of which each worker has a copy; all else that a worker takes for
    itself in its longest utterance is `sound_mib`.
    """
    return BatchedCard(
        slots=8,
        slot_bytes=rows * layers * width * POSITIONS * 2 * 4,
        resident_bytes={precision: _MIB * (sound_mib + weights_mib * part // 4) for precision, part in _PARTS.items()},
        speed=speed,
    )


_PARTS = {Precision.FP32: 4, Precision.BF16: 2, Precision.INT8: 1}
"""Bytes of one weight."""


_CHATTERBOX = EngineCard(
    name="chatterbox",
    description="Chatterbox (Original): English, cloned voices, expressiveness to set.",
    sample_rate=24_000,
    parameters=(*_LLAMA, _repetition_penalty(1.2)),
    clones_voices=True,
    # One thread's peak was 2,617 MiB in an utterance of 24 s and grows faster than its length, up to 40 s.
    resident_bytes=4096 * _MIB,
    shared_bytes=3072 * _MIB,
    longest_text=600,
    extra="chatterbox",
    # Not measured: Turbo's, and as much more as upstream's own takes.
    batched=_batched(layers=30, width=1024, rows=2, weights_mib=1920, sound_mib=3724, speed=0.03),
    seconds_per_character=0.065,
    speed=0.05,
)
_TURBO = _CHATTERBOX.model_copy(
    update={
        "name": "turbo",
        "description": "Chatterbox Turbo: English, cloned voices, tags such as [laugh].",
        "parameters": _GPT2,
        # One thread's peak was 2,922 MiB in the longest utterance, of 40 s; 594 between short ones.
        "resident_bytes": 3072 * _MIB,
        "shared_bytes": 2304 * _MIB,
        # One thread's peak was 4,093 MiB in fp32 in an utterance of 40 s, its slot included: 2,884 when ready, where
        # int8 has 1,936. Two workers with all slots taken made 1.252 audio seconds a second: an eighth of a half of
        # that is the prior, the sisters' in proportion to what they do in stock.
        "batched": _batched(layers=24, width=1024, rows=1, weights_mib=1152, sound_mib=2700, speed=0.078),
        "speed": 0.12,
    }
)
_MULTILINGUAL = _CHATTERBOX.model_copy(
    update={
        "name": "multilingual",
        "description": f"Chatterbox Multilingual (V2): {len(LANGUAGES)} languages, cloned voices.",
        "parameters": (_LANGUAGE, *_LLAMA, _repetition_penalty(2.0)),
    }
)

CARDS: dict[str, EngineCard] = {
    card.name: card
    for card in (
        EngineCard(
            name="hibari",
            description="Embedded English voice, 24 kHz; needs no download.",
            sample_rate=24_000,
            # Its peak was 416 MiB after texts of 5,000 characters of every kind, on one thread; 217 before the first.
            resident_bytes=448 * _MIB,
            seconds_per_character=0.065,
            speed=60.0,
        ),
        _CHATTERBOX,
        _TURBO,
        _TURBO.model_copy(
            update={
                "name": "nano",
                "description": "Chatterbox Nano: Turbo with a smaller model; English, cloned voices, tags.",
                "shared_bytes": 1600 * _MIB,
                "batched": _batched(layers=12, width=768, rows=1, weights_mib=324, sound_mib=2700, speed=0.12),
                "speed": 0.2,
            }
        ),
        _MULTILINGUAL,
        _MULTILINGUAL.model_copy(
            update={
                "name": "multilingual-v3",
                "description": f"Chatterbox Multilingual (V3): {len(LANGUAGES)} languages, cloned voices.",
                "parameters": (_LANGUAGE, *_LLAMA, _repetition_penalty(1.2)),
            }
        ),
    )
}
"""Every engine that this version can run, by name."""
