"""Prepares the voice of a clip as a starting worker does, and prints how many times it computed conditionals.

prepare_voice.py ENGINE CHECKPOINT CACHE CLIP

It prints `loaded` once the model is loaded, and starts at a line on its standard input.
"""

from __future__ import annotations

import sys
from pathlib import Path

from voices.registry import Voice
from worker.engines import load
from worker.engines.base import Samples, VoiceSource
from worker.options import EngineOptions


def main(name: str, checkpoint: str, cache: str, clip: str) -> None:
    from worker.engines.chatterbox.upstream.conditionals import ConditionalsCache

    engine = load(EngineOptions(name, cache_dir=Path(cache), model_dir=Path(checkpoint)))
    computed = 0
    compute = ConditionalsCache._compute

    def counted(conditionals: ConditionalsCache, samples: Samples, rate: int) -> object:
        nonlocal computed
        computed += 1
        return compute(conditionals, samples, rate)

    ConditionalsCache._compute = counted  # type: ignore[assignment, method-assign]
    print("loaded", flush=True)  # noqa: T201
    sys.stdin.readline()
    engine.prepare(VoiceSource(Voice(name="ada", reference="clip.wav", synthetic=True), Path(clip)))
    print(computed)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
