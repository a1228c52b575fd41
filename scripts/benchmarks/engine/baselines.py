"""The four ways to serve an engine that are measured, and how one is started."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.support.checkpoints import Size
from scripts.support.markdown import plural
from scripts.support.servers import WITHOUT_TIMEOUTS, Server, start_chorus, start_locked_server
from worker.cards import MAX_PROMPT_SECONDS, Runtime
from worker.precision import Precision

LETTERS = ("a", "b", "c", "d")


@dataclass(frozen=True)
class Plan:
    """What is done with each engine."""

    size: Size
    rounds: int
    utterances: int
    least_tokens: int
    most_tokens: int
    """Of an utterance."""
    workers: int
    threads: int
    """Of each worker."""
    slots: int | None
    """Utterances that a batched worker speaks at once; None: as Chorus chooses."""
    concurrency: tuple[int, ...]
    """At how many requests at once the first answer is waited for; one is always among them."""


@dataclass(frozen=True)
class Side:
    """One of them."""

    letter: str
    """a: one model behind one lock with every core; b: workers with upstream's own classes; c: the batched engine in
    float32; d: the same in a reduced precision."""
    precision: Precision = Precision.FP32
    prompt_seconds: int = MAX_PROMPT_SECONDS
    """Of a voice's clip that lead the decoder of sound; upstream's, unless it is another sound that is measured."""

    @property
    def name(self) -> str:
        """What it is called in results, such as a, b, c-fp32, d-int8, or d-int8-4s with a shorter prompt."""
        if self.letter in ("a", "b"):
            return self.letter
        prompt = f"-{self.prompt_seconds}s" if self.prompt_seconds < MAX_PROMPT_SECONDS else ""
        return f"{self.letter}-{self.precision}{prompt}"

    def described(self, plan: Plan, *, slots: int, threads: int) -> str:
        """What it is, in words, with the slots and threads that its models turned out to have."""
        each = plural(threads, "thread")
        if self.letter == "a":
            return f"(a) stock, one model, one lock, {each}"
        workers = f"{plural(plan.workers, 'worker')}, {each} each"
        if self.letter == "b":
            return f"(b) stock, {workers}"
        prompt = f", prompts of {self.prompt_seconds} s" if self.prompt_seconds < MAX_PROMPT_SECONDS else ""
        return f"({self.letter}) batched {self.precision}, {workers}, {plural(slots, 'slot')}{prompt}"

    def start(self, engine: str, weights: Path, plan: Plan, folder: Path) -> AbstractContextManager[Server]:
        """Run it until the end of the block; log and sockets go to `folder`. Raises ServerError."""
        if self.letter == "a":
            return start_locked_server(engine, weights, size=plan.size, folder=folder)
        settings: dict[str, object] = WITHOUT_TIMEOUTS | {"model_dir": weights, "runtime": Runtime.STOCK}
        if self.letter != "b":
            way = {"precision": self.precision, "prompt_seconds": self.prompt_seconds}
            settings |= {"runtime": Runtime.BATCHED} | way
            if plan.slots is not None:
                settings["slots"] = plan.slots
        return start_chorus(
            self.name, engine=engine, workers=plan.workers, threads=plan.threads, folder=folder, settings=settings
        )


def sides(
    letters: Iterable[str], precisions: Iterable[Precision], prompt_seconds: int = MAX_PROMPT_SECONDS
) -> Iterator[Side]:
    """Those of the letters, d once for each of the reduced precisions; then c and d with a shorter prompt, if asked."""
    found = []
    for letter in letters:
        if letter == "d":
            found += [Side(letter, precision) for precision in precisions]
        else:
            found.append(Side(letter))
    yield from found
    if prompt_seconds < MAX_PROMPT_SECONDS:
        yield from (replace(side, prompt_seconds=prompt_seconds) for side in found if side.letter in ("c", "d"))
