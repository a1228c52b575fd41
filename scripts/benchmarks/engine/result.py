"""The result of all turns with one engine: speeds, ratios, stages and memory of each baseline. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from scripts.benchmarks.burst import BurstResult
from scripts.benchmarks.engine.run import BaselineRun
from scripts.support.memory import ProcessMemory, total_memory
from scripts.support.servers import STOCK_LOCK, STOCK_WORKERS

STAGES = ("decode", "flow", "vocoder", "watermark")
"""The stages of every baseline; a baseline may have others."""
REST = "rest"


@dataclass(frozen=True)
class EngineResult:
    """The measurements of one engine."""

    engine: str
    utterances: int
    """Size of the largest burst."""
    runs: list[BaselineRun]

    @property
    def baselines(self) -> list[str]:
        """The names of the measured baselines, in the order of the report."""
        return list(dict.fromkeys(run.baseline for run in self.runs))

    def of(self, baseline: str) -> list[BaselineRun]:
        """The runs of a baseline, by round."""
        return sorted((run for run in self.runs if run.baseline == baseline), key=lambda run: run.round)

    def speeds(self, baseline: str, size: int) -> list[float]:
        """Seconds of audio per second with bursts of a size, by round."""
        return [run.speed(size) for run in self.of(baseline)]

    def ratios(self, baseline: str, other: str, size: int) -> list[float]:
        """A baseline's speed over another's with bursts of a size, by round; rounds that have both."""
        others = {run.round: run.speed(size) for run in self.of(other)}
        return [run.speed(size) / others[run.round] for run in self.of(baseline) if run.round in others]

    def stages(self, baseline: str) -> dict[str, float]:
        """Seconds of the models' time per second of audio, by stage; medians of the rounds.

        The times of all models are added up. REST is all other time during the largest burst: other work, and idle
        time towards its end.
        """
        rounds = [_stages(run, self.utterances) for run in self.of(baseline)]
        names = {name for stages in rounds for name in stages}
        return {name: median(stages.get(name, 0.0) for stages in rounds) for name in sorted(names)}

    def first_answers(self, baseline: str, size: int) -> list[float]:
        """Seconds until the first answer of each burst of a size, by round."""
        return [seconds for run in self.of(baseline) for seconds in run.first_answers(size)]

    def memory(self, baseline: str) -> Footprint:
        """The memory in the round that needed most."""
        return max((Footprint.of(run.memory) for run in self.of(baseline)), key=lambda footprint: footprint.total)

    def slower_alone(self) -> Iterator[str]:
        """The batched baselines that synthesize a single utterance slower than a stock one with as many threads."""
        for baseline in self.baselines:
            peers = [name for name in (STOCK_WORKERS, STOCK_LOCK) if self._threads(name) == self._threads(baseline)]
            ratios = self.ratios(baseline, peers[0], 1) if peers else []
            if baseline not in (STOCK_LOCK, STOCK_WORKERS) and ratios and median(ratios) < 1:
                yield baseline

    @property
    def bursts(self) -> list[BurstResult]:
        """All bursts of all runs."""
        return [burst for run in self.runs for bursts in run.bursts.values() for burst in bursts]

    def _threads(self, baseline: str) -> int | None:
        return next((run.threads for run in self.of(baseline)), None)


@dataclass(frozen=True)
class Footprint:
    """The memory of a baseline, in bytes."""

    private: int
    """Private memory of all processes."""
    private_peak: int
    """The sum of their peaks."""
    shared: int
    """One copy of what the processes share."""
    total: int
    """Private and shared memory."""
    per_model: int
    """The largest peak of a process with a model: the cost of one more."""

    @classmethod
    def of(cls, memories: list[ProcessMemory]) -> Footprint:
        """The footprint of these processes."""
        private, total = total_memory(memories)
        models = [memory for memory in memories if memory.process.startswith(("worker", "server"))]
        return cls(
            private=private,
            private_peak=sum(memory.private_peak for memory in memories),
            shared=total - private,
            total=total,
            per_model=max(memory.private_peak for memory in models),
        )


def _stages(run: BaselineRun, utterances: int) -> dict[str, float]:
    bursts = run.bursts[utterances]
    audio = sum(sum(burst.audio_seconds) for burst in bursts)
    stages = {stage: seconds / audio for stage, seconds in run.stages.items()}
    available = run.models * sum(burst.seconds for burst in bursts) / audio
    return stages | {REST: max(0.0, available - sum(stages.values()))}
