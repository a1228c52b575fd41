"""The ways to serve a model that are compared, and how each is started."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.support.checkpoints import Size
from scripts.support.markdown import plural
from scripts.support.servers import (
    STOCK_LOCK,
    STOCK_WORKERS,
    WITHOUT_TIMEOUTS,
    Server,
    start_chorus,
    start_locked_server,
)
from worker.cards import MAX_PROMPT_SECONDS, FlowModel, Runtime
from worker.precision import Precision, Processor

BATCHED = "batched"
REDUCED_PRECISIONS = (Precision.BF16, Precision.INT8)


@dataclass(frozen=True)
class EnginePlan:
    """The options of the comparison, the same for each engine."""

    size: Size
    rounds: int
    utterances: int
    """Number of texts of the largest burst."""
    min_tokens: int
    max_tokens: int
    """Speech tokens of a text."""
    workers: int
    threads: int
    """Threads per worker."""
    slots: int | None
    """Utterances that a batched worker synthesizes at once; None: Chorus's default."""
    concurrency: tuple[int, ...]
    """Sizes of further bursts, for the time of the first answer; 1 is always one of them."""


@dataclass(frozen=True)
class Baseline:
    """One way to serve a model."""

    kind: str
    """STOCK_LOCK: upstream's classes, one model behind one lock with all cores. STOCK_WORKERS: upstream's classes in
    workers. BATCHED: the batched engine in workers."""
    precision: Precision = Precision.FP32
    prompt_seconds: int = MAX_PROMPT_SECONDS
    """Length of the reference clip that conditions S3Gen; less than the maximum changes the audio."""
    flow: FlowModel = FlowModel.UPSTREAM
    flow_steps: int | None = None
    """Flow and its Euler steps; others than upstream's change the audio."""

    @property
    def name(self) -> str:
        """Its name: stock-lock, batched-fp32, batched-fp32-meanflow, batched-int8-4s with a prompt of 4 s."""
        if self.kind != BATCHED:
            return self.kind
        prompt = f"-{self.prompt_seconds}s" if self.prompt_seconds < MAX_PROMPT_SECONDS else ""
        flow = "" if self.flow is FlowModel.UPSTREAM else f"-{self.flow}"
        steps = "" if self.flow_steps is None else f"-{self.flow_steps}-steps"
        return f"{self.kind}-{self.precision}{prompt}{flow}{steps}"

    def describe(self, plan: EnginePlan, *, slots: int, threads: int) -> str:
        """Its name and size, with the slots and threads that its models report."""
        each = plural(threads, "thread")
        if self.kind == STOCK_LOCK:
            return f"{self.name}: one model, one lock, {each}"
        workers = f"{plural(plan.workers, 'worker')}, {each} each"
        return f"{self.name}: {workers}" + (f", {plural(slots, 'slot')}" if self.kind == BATCHED else "")

    def start(self, engine: str, weights: Path, plan: EnginePlan, folder: Path) -> AbstractContextManager[Server]:
        """Run its server until the end of the block; log and sockets go to `folder`. Raises ServerError."""
        if self.kind == STOCK_LOCK:
            return start_locked_server(engine, weights, size=plan.size, folder=folder)
        settings: dict[str, object] = WITHOUT_TIMEOUTS | {"model_dir": weights, "runtime": Runtime.STOCK}
        if self.kind == BATCHED:
            settings |= {
                "runtime": Runtime.BATCHED,
                "precision": self.precision,
                "prompt_seconds": self.prompt_seconds,
                "flow": self.flow,
            }
            if self.flow_steps is not None:
                settings["flow_steps"] = self.flow_steps
            if plan.slots is not None:
                settings["slots"] = plan.slots
        return start_chorus(
            self.name, engine=engine, workers=plan.workers, threads=plan.threads, folder=folder, settings=settings
        )


LETTERS = {
    "a": (Baseline(STOCK_LOCK),),
    "b": (Baseline(STOCK_WORKERS),),
    "c": (Baseline(BATCHED),),
    "d": tuple(Baseline(BATCHED, precision) for precision in REDUCED_PRECISIONS),
}
"""The short form of `--sides`."""

BASELINES = {baseline.name: baseline for baselines in LETTERS.values() for baseline in baselines}
"""All baselines with full prompts, by name, in the order of the report."""


def select_baselines(sides: Iterable[str], reduced: Sequence[Precision]) -> list[Baseline]:
    """The baselines that the values of `--sides` name, in the order of the report. Raises KeyError at another name.

    The letter d stands for the batched engine in each precision of `reduced`.
    """
    names = set()
    for side in sides:
        if side == "d":
            names |= {Baseline(BATCHED, precision).name for precision in reduced}
        elif side in LETTERS:
            names |= {baseline.name for baseline in LETTERS[side]}
        else:
            names.add(BASELINES[side].name)
    return [baseline for name, baseline in BASELINES.items() if name in names]


def supported_precisions(processor: Processor) -> list[Precision]:
    """The precisions of side d where none are requested: the reduced ones that the processor supports."""
    return [precision for precision in REDUCED_PRECISIONS if processor.supports(precision)]


def with_shorter_prompts(baselines: Sequence[Baseline], prompt_seconds: int) -> list[Baseline]:
    """The baselines, and the batched ones again with prompts of `prompt_seconds` if these are shorter."""
    if prompt_seconds >= MAX_PROMPT_SECONDS:
        return list(baselines)
    return [*baselines, *(replace(baseline, prompt_seconds=prompt_seconds) for baseline in _batched(baselines))]


def with_other_flows(baselines: Sequence[Baseline], *, meanflow: bool, steps: int | None) -> list[Baseline]:
    """The baselines, and the batched ones again with the mean flow, and with so many steps of their own flow."""
    others = []
    if meanflow:
        others += [replace(baseline, flow=FlowModel.MEANFLOW) for baseline in _batched(baselines)]
    if steps is not None:
        others += [replace(baseline, flow_steps=steps) for baseline in _batched(baselines)]
    return [*baselines, *others]


def _batched(baselines: Sequence[Baseline]) -> list[Baseline]:
    return [baseline for baseline in baselines if baseline.kind == BATCHED]
