"""What all turns with one engine come to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from scripts.benchmarks.burst import BurstResult
from scripts.benchmarks.engine.run import Trial
from scripts.support.memory import ProcessMemory, total_memory

STAGES = ("decode", "flow", "vocoder", "watermark")
"""Those that every side has; further ones come after them."""
REST = "rest"


@dataclass(frozen=True)
class Result:
    """One engine."""

    engine: str
    utterances: int
    trials: list[Trial]

    @property
    def sides(self) -> list[str]:
        """By letter, those that were measured."""
        return sorted({trial.side for trial in self.trials})

    def of(self, side: str) -> list[Trial]:
        """A side's trials, by round."""
        return sorted((trial for trial in self.trials if trial.side == side), key=lambda trial: trial.round)

    def speeds(self, side: str, together: int) -> list[float]:
        """Audio seconds a second with so many requests at once, by round."""
        return [trial.speed(together) for trial in self.of(side)]

    def ratios(self, side: str, other: str, together: int) -> list[float]:
        """One side's speed over another's, by round; of rounds in which both were measured."""
        others = {trial.round: trial.speed(together) for trial in self.of(other)}
        return [trial.speed(together) / others[trial.round] for trial in self.of(side) if trial.round in others]

    def stages(self, side: str) -> dict[str, float]:
        """Seconds of a model's time for each second of audio, by stage, all models' added up; medians of the rounds.

        The rest is everything else that happens while all texts are spoken: other work, and idleness at the end.
        """
        rounds = [_stages(trial, self.utterances) for trial in self.of(side)]
        names = {name for stages in rounds for name in stages}
        return {name: median(stages.get(name, 0.0) for stages in rounds) for name in sorted(names)}

    def first_answers(self, side: str, together: int) -> list[float]:
        """Seconds until the first of so many requests sent at once was answered, by run and round."""
        return [seconds for trial in self.of(side) for seconds in trial.first_answers(together)]

    def memory(self, side: str) -> Footprint:
        """The most of all rounds."""
        return max((Footprint.of(trial.memory) for trial in self.of(side)), key=lambda footprint: footprint.whole)

    def slower_alone(self) -> Iterator[str]:
        """The batched sides that speak one utterance alone slower than stock on the same threads."""
        for side in self.sides:
            alike = [other for other in ("b", "a") if self._threads(other) == self._threads(side)]
            ratios = self.ratios(side, alike[0], 1) if alike else []
            if side not in ("a", "b") and ratios and median(ratios) < 1:
                yield side

    @property
    def runs(self) -> list[BurstResult]:
        """All of them."""
        return [run for trial in self.trials for runs in trial.runs.values() for run in runs]

    def _threads(self, side: str) -> int | None:
        return next((trial.threads for trial in self.of(side)), None)


@dataclass(frozen=True)
class Footprint:
    """What memory a side takes, in bytes."""

    private: int
    """Of all its processes."""
    private_peak: int
    """The most that was seen of each, added up."""
    shared: int
    """One copy for all of them."""
    whole: int
    """Private and shared."""
    each_model: int
    """What each process with a model was seen with at most: what a further one costs."""

    @classmethod
    def of(cls, memories: list[ProcessMemory]) -> Footprint:
        """That of these processes."""
        private, whole = total_memory(memories)
        models = [memory for memory in memories if memory.process.startswith(("worker", "server"))]
        return cls(
            private=private,
            private_peak=sum(memory.private_peak for memory in memories),
            shared=whole - private,
            whole=whole,
            each_model=max(memory.private_peak for memory in models),
        )


def _stages(trial: Trial, utterances: int) -> dict[str, float]:
    runs = trial.runs[utterances]
    audio = sum(sum(run.audio_seconds) for run in runs)
    stages = {stage: seconds / audio for stage, seconds in trial.stages.items()}
    there_was = trial.models * sum(run.seconds for run in runs) / audio
    return stages | {REST: max(0.0, there_was - sum(stages.values()))}
