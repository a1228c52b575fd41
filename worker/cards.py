"""The engines that this version can run, and the properties of each that are known without loading it.

The balancer validates requests and chooses the layout by these cards, and the engines in the workers use the same ones.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from worker.precision import Precision

_MIB = 2**20


class Runtime(StrEnum):
    """The implementation that runs the weights of the Chatterbox engines."""

    BATCHED = "batched"
    """Our own loops: several utterances at once."""
    STOCK = "stock"
    """The upstream classes: one utterance at a time."""


class FlowModel(StrEnum):
    """The model that turns speech tokens into a spectrogram: the flow of S3Gen."""

    UPSTREAM = "upstream"
    """The engine's own, as in upstream's classes."""
    MEANFLOW = "meanflow"
    """Turbo's, behind another engine's tokens: a mean flow, distilled to two steps without guidance."""


class _Card(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Parameter(_Card):
    """A numeric parameter of an engine, which a request may set within [minimum, maximum]."""

    name: str
    minimum: float
    maximum: float
    default: float
    integer: bool = False
    description: str = ""


class Choice(_Card):
    """A parameter of an engine for which a request may choose one of several words."""

    name: str
    choices: tuple[str, ...]
    description: str = ""

    @property
    def only(self) -> str | None:
        """The word if there is just one, which then holds without being asked for."""
        return self.choices[0] if len(self.choices) == 1 else None


class SegmentLength(_Card):
    """The length of text, in characters, that an engine speaks best in one utterance."""

    minimum: int = 1
    """A shorter sentence is spoken together with a neighbour."""
    maximum: int


MAX_PROMPT_SECONDS = 10
"""Seconds of a voice's reference clip that upstream conditions S3Gen on, at most."""


class FlowCard(_Card):
    """The Euler steps of a flow."""

    minimum: int
    maximum: int
    default: int
    """Upstream's number."""
    rows: int = 1
    """Spectrograms of an utterance in each step: 2 with classifier-free guidance."""


class BatchedCard(_Card):
    """The properties of an engine's batched runtime."""

    slots: int
    """Utterances that a worker synthesizes at once by default; a calibration may find a better number for a host."""
    slot_bytes: dict[Precision, int]
    """Maximum memory of each slot in bytes: the keys and values of its positions."""
    resident_bytes: dict[Precision, int]
    """Maximum private memory of each worker in bytes, without its slots."""
    speed: float
    """Prior for the speed of one utterance while all slots are in use, on one thread: audio seconds per second."""


class EngineCard(_Card):
    """The properties of an engine that are known without loading it."""

    name: str
    description: str
    sample_rate: int
    """Samples per second of its PCM."""
    parameters: tuple[Parameter | Choice, ...] = ()
    tags: tuple[str, ...] = ()
    """Sounds and manners of speaking that it knows as tags in a text."""
    clones_voices: bool = False
    """Whether it can clone the voice of a reference clip."""
    resident_bytes: int
    """Measured private memory of each worker in bytes."""
    shared_bytes: int = 0
    """Memory that all workers of a host share, in bytes: weights mapped from their files."""
    batched: BatchedCard | None = None
    """None if there is no batched runtime: the engine then synthesizes one utterance at a time, in fp32."""
    flows: dict[FlowModel, FlowCard] = {}
    """The flows that it can run, its own first; none if it has no S3Gen."""
    flow_share: float = 0.0
    """Share of its own flow in the time of an utterance."""
    segments: SegmentLength
    """A longer text is spoken in several utterances."""
    extra: str | None = None
    """The extra of this package that installs the engine's libraries; None if no extra is needed."""
    seconds_per_character: float
    """Prior for the duration of a text's audio, in seconds per character."""
    speed: float
    """Prior for one worker's speed on one thread: audio seconds per second."""
    early_audio: bool = False
    """Whether it hands out a first piece of an utterance's audio before it has the rest: its batched runtime can."""

    def parameter(self, name: str) -> Parameter | Choice | None:
        """Returns the parameter of that name, or None if the engine has none."""
        return next((parameter for parameter in self.parameters if parameter.name == name), None)

    def flow_speedup(self, flow: FlowModel, steps: int) -> float:
        """Returns how many times as fast it is with another flow, or number of steps, than with its own: a prior."""
        if flow not in self.flows:
            return 1.0
        own = self.flows[FlowModel.UPSTREAM]
        work = self.flows[flow].rows * steps / (own.rows * own.default)
        return 1 / (1 + self.flow_share * (work - 1))


LANGUAGES = (
    "ar", "da", "de", "el", "en", "es", "fi", "fr", "he", "hi", "it", "ja",
    "ko", "ms", "nl", "no", "pl", "pt", "ru", "sv", "sw", "tr", "zh",
)  # fmt: skip
"""Languages of Chatterbox Multilingual, as ISO 639-1 codes."""


class LanguagePack(_Card):
    """A finetune of Chatterbox Multilingual V3 for one language (upstream's Single Language Pack)."""

    name: str
    """As in the name of its repository, such as `es-es`."""
    language: str
    """One of LANGUAGES."""
    variety: str
    """The language, or its regional variety, in words."""

    @property
    def engine(self) -> str:
        """Name of the engine that runs it."""
        return f"multilingual-{self.name}"

    @property
    def t3_file(self) -> str:
        """The file of its T3 in its repository."""
        return f"t3_{self.name.replace('-', '_')}.safetensors"

    @property
    def s3gen_file(self) -> str:
        """The file of its S3Gen in its repository."""
        return "s3gen_v3.pt"


LANGUAGE_PACKS = (
    LanguagePack(name="zh-cmn", language="zh", variety="Mandarin Chinese"),
    LanguagePack(name="es-mx-latam", language="es", variety="Latin American Spanish"),
    LanguagePack(name="es-es", language="es", variety="Spanish of Spain"),
    LanguagePack(name="pt-br", language="pt", variety="Portuguese of Brazil"),
    LanguagePack(name="pt-pt", language="pt", variety="Portuguese of Portugal"),
    LanguagePack(name="hi", language="hi", variety="Hindi"),
)
"""Every language pack that this version can run."""

# Defaults are those of the upstream classes' `generate`, ranges those of its demo pages or wider.
_TEMPERATURE = Parameter(
    name="temperature", minimum=0.05, maximum=5, default=0.8, description="Higher is livelier and less predictable."
)
_EXAGGERATION = Parameter(
    name="exaggeration", minimum=0, maximum=2, default=0.5, description="How expressive; 0.5 is neutral."
)
_CFG_WEIGHT = Parameter(
    name="cfg_weight",
    minimum=0,
    maximum=2,
    default=0.5,
    description="How closely the audio follows text and voice (classifier-free guidance).",
)
_MIN_P = Parameter(
    name="min_p",
    minimum=0,
    maximum=1,
    default=0.05,
    description="Minimum probability of a token, relative to the most probable one.",
)
_TOP_K = Parameter(
    name="top_k",
    minimum=0,
    maximum=6563,
    default=1000,
    integer=True,
    description="Number of most probable tokens to draw from; 0: all.",
)


# The added tokens of Turbo's tokenizer (added_tokens.json of its checkpoint), which Nano shares.
_TAGS = (
    "[angry]", "[fear]", "[surprised]", "[whispering]", "[advertisement]", "[dramatic]",
    "[narration]", "[crying]", "[happy]", "[sarcastic]", "[clear throat]", "[sigh]", "[shush]",
    "[cough]", "[groan]", "[sniff]", "[gasp]", "[chuckle]", "[laugh]",
)  # fmt: skip


def _top_p(default: float) -> Parameter:
    return Parameter(
        name="top_p",
        minimum=0.01,
        maximum=1,
        default=default,
        description="Cumulative probability of the tokens to draw from.",
    )


def _repetition_penalty(default: float) -> Parameter:
    return Parameter(
        name="repetition_penalty",
        minimum=1,
        maximum=3,
        default=default,
        description="Penalty on repeated tokens; 1: none.",
    )


_LLAMA = (_EXAGGERATION, _CFG_WEIGHT, _TEMPERATURE, _top_p(1.0), _MIN_P)
_GPT2 = (_TEMPERATURE, _top_p(0.95), _TOP_K, _repetition_penalty(1.2))
_LANGUAGE = Choice(name="language", choices=LANGUAGES, description="Language of the text; default: the voice's.")


def _pack_parameters(pack: LanguagePack) -> tuple[Parameter | Choice, ...]:
    """The parameters of a language pack, with the defaults of upstream's demo of it."""
    language = Choice(name="language", choices=(pack.language,), description="Language of the text.")
    return language, _EXAGGERATION, _CFG_WEIGHT, _TEMPERATURE, _top_p(0.95), _MIN_P, _repetition_penalty(1.2)


SLOT_POSITIONS = 2048
"""Capacity of a slot, in positions of the decoder: up to 1,024 of text, 40 s of speech, and the separators."""


def _batched(*, layers: int, width: int, rows: int, weights_mib: int, other_mib: int, speed: float) -> BatchedCard:
    """Returns the card of a batched runtime by the shape of its T3, with `rows` batch rows per utterance in float32.

    In int8 all workers map one copy of the packed weights of T3's layers, as they do in fp32 on processors with AVX2.
    Elsewhere, each worker has a copy of its own: `weights_mib` in float32. The rest of its private memory in the
    longest utterance is `other_mib`.
    """
    return BatchedCard(
        slots=8,
        slot_bytes={
            # Keys and values are float32 in fp32, else float16.
            precision: rows * layers * width * SLOT_POSITIONS * 2 * (4 if precision is Precision.FP32 else 2)
            for precision in Precision
        },
        resident_bytes={
            precision: _MIB * (other_mib + weights_mib * size // 4) for precision, size in _BYTES_PER_WEIGHT.items()
        },
        speed=speed,
    )


_BYTES_PER_WEIGHT = {Precision.FP32: 4, Precision.BF16: 2, Precision.INT8: 0}
"""Bytes of a weight in the copy that each worker may have of its own."""


_MEAN_FLOW = FlowCard(minimum=1, maximum=2, default=2)
_GUIDED_FLOW = FlowCard(minimum=4, maximum=10, default=10, rows=2)


_CHATTERBOX = EngineCard(
    name="chatterbox",
    description="Chatterbox (Original): English, cloned voices, adjustable expressiveness.",
    sample_rate=24_000,
    parameters=(*_LLAMA, _repetition_penalty(1.2)),
    clones_voices=True,
    # The peak on one thread was 2,617 MiB in an utterance of 24 s; it grows faster than the length, up to 40 s.
    resident_bytes=4096 * _MIB,
    shared_bytes=3072 * _MIB,
    flows={FlowModel.UPSTREAM: _GUIDED_FLOW, FlowModel.MEANFLOW: _MEAN_FLOW},
    flow_share=0.75,
    segments=SegmentLength(minimum=100, maximum=280),
    extra="chatterbox",
    # Not measured: Turbo's figure plus the difference between the two in the stock runtime.
    batched=_batched(layers=30, width=1024, rows=2, weights_mib=1920, other_mib=2724, speed=0.03),
    seconds_per_character=0.065,
    speed=0.05,
)
_TURBO = _CHATTERBOX.model_copy(
    update={
        "name": "turbo",
        "description": "Chatterbox Turbo: English, cloned voices, tags such as [laugh].",
        "parameters": _GPT2,
        "tags": _TAGS,
        # The peak on one thread was 2,922 MiB in the longest utterance, of 40 s; 594 between short ones.
        "resident_bytes": 3072 * _MIB,
        "shared_bytes": 2304 * _MIB,
        "flows": {FlowModel.UPSTREAM: _MEAN_FLOW},
        "flow_share": 0.45,
        # With the weights mapped, the peak on one thread was 1,972 MiB in fp32 (int8: 1,836), about 560 of slots, in an
        # utterance of 40 s after eight of 6 s at once, in which it was 1,369 (int8: 1,295). Two workers with all 8
        # slots in use made 1.252 audio seconds per second: the prior is a sixteenth of that. The priors of the other
        # engines are in proportion to their speed in the stock runtime.
        "batched": _batched(layers=24, width=1024, rows=1, weights_mib=1152, other_mib=1700, speed=0.078),
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
            # The peak on one thread was 416 MiB after many kinds of texts of 5,000 characters; 217 before the first.
            resident_bytes=448 * _MIB,
            segments=SegmentLength(minimum=8, maximum=400),
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
                "flow_share": 0.55,
                "batched": _batched(layers=12, width=768, rows=1, weights_mib=324, other_mib=1700, speed=0.12),
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
        *(
            _MULTILINGUAL.model_copy(
                update={
                    "name": pack.engine,
                    "description": f"Chatterbox Multilingual (V3), the pack for {pack.variety}; cloned voices.",
                    "parameters": _pack_parameters(pack),
                }
            )
            for pack in LANGUAGE_PACKS
        ),
    )
}
"""Every engine that this version can run, by name."""
