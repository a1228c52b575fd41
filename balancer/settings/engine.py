"""The speech engine, its checkpoint and its arithmetic."""

from __future__ import annotations

from pydantic import Field, field_validator

from balancer.settings.base import AbsolutePath, SettingsGroup
from worker.cards import CARDS, LANGUAGE_PACKS, MAX_PROMPT_SECONDS, EngineCard, FlowModel, Runtime
from worker.precision import Precision

_PACKS = {pack.engine: pack.name for pack in LANGUAGE_PACKS}
_ENGINES = f"{', '.join(sorted(CARDS.keys() - _PACKS.keys()))}, or multilingual-PACK with PACK one of " + ", ".join(
    sorted(_PACKS.values())
)


class EngineSettings(SettingsGroup):
    """The speech engine, its checkpoint and its arithmetic."""

    title = "Engine"

    engine: str = Field("hibari", description=f"Engine that the workers run: {_ENGINES}.")
    model_dir: AbsolutePath | None = Field(
        None, description="Directory of the engine's checkpoint; unset: the cache of the Hugging Face hub."
    )
    model_revision: str | None = Field(
        None, description="Revision of the checkpoint on the Hugging Face hub; unset: the one this version supports."
    )
    runtime: Runtime = Field(
        Runtime.BATCHED,
        description="Implementation of the Chatterbox engines: `batched` decodes several utterances at once, `stock` "
        "runs the upstream classes, one utterance at a time.",
    )
    precision: Precision = Field(
        Precision.FP32,
        description="Number format of the batched runtime: `fp32` (equal to `stock` within a tolerance), or `bf16` or "
        "`int8`, if the processor has instructions for it.",
    )
    prompt_seconds: int = Field(
        MAX_PROMPT_SECONDS,
        ge=2,
        le=MAX_PROMPT_SECONDS,
        description="Seconds from the end of a voice's reference clip that condition the batched runtime's S3Gen "
        "decoder: fewer decode faster, but the voice resembles the speaker less; listen before you change it.",
    )
    flow: FlowModel = Field(
        FlowModel.UPSTREAM,
        description="Flow of Original and Multilingual: `upstream`, or `meanflow`, Turbo's two-step flow: a "
        "tenth of its work, another rendering of the voice; compare them with `chorus check-precision`.",
    )
    flow_steps: int | None = Field(
        None,
        ge=1,
        le=10,
        description="Steps of the flow: 4 to 10 for Original and Multilingual, 1 to 2 for Turbo, Nano and `meanflow`; "
        "fewer are faster and coarser; unset: upstream's, the most.",
    )
    retakes: int = Field(
        2,
        ge=0,
        le=10,
        description="Further takes of an utterance with other seeds, at most, where a Chatterbox model missed its end, "
        "stopped far too soon, fell silent or repeated a sound; 0: none.",
    )
    trim_end: bool = Field(
        True, description="Whether silence and noise behind the last word of a Chatterbox engine's audio are trimmed."
    )

    @field_validator("engine")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in CARDS:
            raise ValueError(f"there is no such engine; there are: {', '.join(sorted(CARDS))}")
        return name

    @property
    def card(self) -> EngineCard:
        """The engine's card."""
        return CARDS[self.engine]
