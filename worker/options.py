"""The options of a worker process, and its command line: the one place that writes and reads it.

`chorus serve` (through supervisord.conf), `chorus calibrate` and the tests all start workers with `WorkerOptions.argv`.

A new setting of the engines touches three places: the balancer's settings (a field of `EngineSettings`, which
`Settings.engine_options` passes on), `EngineOptions` (a field, its argument, and `label` or `audio_label` if it changes
the audio), and the engine that uses it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from worker.cards import CARDS, MAX_PROMPT_SECONDS, BatchedCard, EngineCard, FlowCard, FlowModel, Runtime
from worker.precision import Precision, Processor, unsupported_reason


@dataclass(frozen=True)
class EngineOptions:
    """The engine that a worker runs, and how it runs it."""

    engine: str
    """A name in `CARDS`."""
    cache_dir: Path
    """Folder for results that are computed once, such as the conditionals of a voice."""
    model_dir: Path | None = None
    """Folder of the checkpoint; None: the hub's cache."""
    runtime: Runtime = Runtime.BATCHED
    """Ignored by an engine that has no batched runtime."""
    precision: Precision = Precision.FP32
    prompt_seconds: int = MAX_PROMPT_SECONDS
    """Seconds of a voice's reference clip that condition the batched runtime's S3Gen, at most."""
    flow: FlowModel = FlowModel.UPSTREAM
    flow_steps: int | None = None
    """Euler steps of the flow; None: as many as upstream takes."""
    retakes: int = 0
    """Further takes of an utterance, at most, where the model of a Chatterbox engine failed on it."""
    trim_end: bool = False
    """Whether a Chatterbox engine trims what follows the last word of its audio."""
    slots: int = 1
    """Utterances at once."""
    threads: int = 1
    """Compute threads of the model."""

    @property
    def batched(self) -> BatchedCard | None:
        """The card of the batched runtime; None if these options run one utterance at a time."""
        return CARDS[self.engine].batched if self.runtime is Runtime.BATCHED else None

    @property
    def card(self) -> EngineCard:
        """The engine's card, with what the runtime can do and the speed that is expected of it."""
        card, steps = CARDS[self.engine], self.flow_steps_taken
        speedup = 1.0 if steps is None else card.flow_speedup(self.flow, steps)
        if self.batched is not None:
            return card.model_copy(update={"speed": self.batched.speed * speedup, "early_audio": True})
        return card if speedup == 1 else card.model_copy(update={"speed": card.speed * speedup})

    @property
    def flow_label(self) -> str:
        """The difference from upstream's flow: `meanflow`, `meanflow of 1 step`, `flow of 5 steps`; empty: none."""
        card, steps = self._flow_card, self.flow_steps_taken
        name = "" if self.flow is FlowModel.UPSTREAM else str(self.flow)
        if card is None or steps is None or steps == card.default:
            return name
        return f"{name or 'flow'} of {steps} {'step' if steps == 1 else 'steps'}"

    @property
    def flow_steps_taken(self) -> int | None:
        """Euler steps of the flow; None if the engine has none."""
        card = self._flow_card
        return None if card is None else self.flow_steps or card.default

    def label(self) -> str:
        """The options that change the arithmetic, as operators read them: `turbo, batched, int8`, or `hibari`.

        The keys of calibrations contain it: a label that changes invalidates them.
        """
        if CARDS[self.engine].batched is None:
            return self.engine
        prompts = f", prompts of {self.prompt_seconds} s" if self.prompt_seconds < MAX_PROMPT_SECONDS else ""
        flow = f", {self.flow_label}" if self.flow_label else ""
        return f"{self.engine}, {self.runtime}, {self.precision}{prompts}{flow}"

    def audio_label(self) -> str:
        """The label, with the options that change the audio but not the arithmetic: for the keys of the audio cache."""
        if CARDS[self.engine].batched is None:
            return self.label()
        retakes = f", {self.retakes} retakes" if self.retakes else ""
        return f"{self.label()}{retakes}{', end trimmed' if self.trim_end else ''}"

    def unsupported_reason(self, processor: Processor | None = None) -> str | None:
        """Why the engine, or the processor if one is given, does not support these options, and the alternatives.

        None if they are supported.
        """
        if (reason := self._unsupported_flow_reason()) is not None:
            return reason
        if self.batched is not None:
            return None if processor is None else unsupported_reason(self.precision, processor)
        subject = f"engine {self.engine}"
        alternative = f"run one of: {_names(lambda card: card.batched is not None)}"
        if CARDS[self.engine].batched is not None:
            subject = f"engine {self.engine} in the stock runtime"
            alternative = "choose the batched runtime (CHORUS_RUNTIME, --runtime)"
        if self.precision is not Precision.FP32:
            return f"{subject} computes in fp32 only; unset CHORUS_PRECISION (--precision), or {alternative}"
        if self.prompt_seconds < MAX_PROMPT_SECONDS:
            return f"{subject} cannot shorten the prompts of voices; unset CHORUS_PROMPT_SECONDS, or {alternative}"
        if self.slots > 1:
            return f"{subject} synthesizes one utterance at a time; unset CHORUS_SLOTS (--slots), or {alternative}"
        return None

    @property
    def _flow_card(self) -> FlowCard | None:
        return CARDS[self.engine].flows.get(self.flow)

    def _unsupported_flow_reason(self) -> str | None:
        card, others = self._flow_card, _names(lambda card: self.flow in card.flows)
        if card is None and self.flow is not FlowModel.UPSTREAM:
            fault = "has a mean flow of its own" if CARDS[self.engine].flows else "has no flow to replace"
            return f"engine {self.engine} {fault}; unset CHORUS_FLOW, or run one of: {others}"
        if self.flow_steps is None:
            return None
        if card is None:
            return f"engine {self.engine} has no flow; unset CHORUS_FLOW_STEPS, or run one of: {others}"
        if card.minimum <= self.flow_steps <= card.maximum:
            return None
        condition = "" if self.flow is FlowModel.UPSTREAM else f" with CHORUS_FLOW={self.flow}"
        return (
            f"the flow of engine {self.engine}{condition} takes {card.minimum} to {card.maximum} steps, not "
            f"{self.flow_steps}; change or unset CHORUS_FLOW_STEPS"
        )

    def argv(self) -> list[str]:
        """Returns the arguments from which `from_argv` makes these options again."""
        return _words({option.name: getattr(self, option.name) for option in fields(self)})

    @classmethod
    def from_argv(cls, argv: Sequence[str]) -> Self:
        """Returns the options in `argv`. Where they are wrong it prints why and ends the process with status 2."""
        parser = argparse.ArgumentParser(prog="worker", allow_abbrev=False)
        cls.add_arguments(parser)
        return cls(**vars(parser.parse_args(argv)))

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add an argument for each option, under its own name."""
        parser.add_argument("--engine", choices=sorted(CARDS), required=True)
        parser.add_argument("--cache-dir", type=Path, required=True, help="folder for results that are computed once")
        parser.add_argument("--model-dir", type=Path, help="folder of the checkpoint; left out: the hub's cache")
        parser.add_argument("--runtime", type=_choice_of(Runtime), default=Runtime.BATCHED)
        parser.add_argument("--precision", type=_choice_of(Precision), default=Precision.FP32)
        parser.add_argument(
            "--prompt-seconds",
            type=int,
            default=MAX_PROMPT_SECONDS,
            help="seconds of a voice's reference clip that condition the decoder, at most",
        )
        parser.add_argument(
            "--flow", type=_choice_of(FlowModel), default=FlowModel.UPSTREAM, help="model from tokens to spectrograms"
        )
        parser.add_argument("--flow-steps", type=int, help="Euler steps of the flow; left out: upstream's number")
        parser.add_argument(
            "--retakes", type=int, default=0, help="further takes of an utterance on which the model failed, at most"
        )
        parser.add_argument("--trim-end", action="store_true", help="trim what follows the last word of the audio")
        parser.add_argument("--slots", type=int, default=1, help="utterances at once")
        parser.add_argument("--threads", type=_threads, default=1, help="compute threads of the model")


@dataclass(frozen=True)
class WorkerOptions:
    """One worker process of a host. Only `index` differs between the workers of one server."""

    engine: EngineOptions
    layout: tuple[tuple[int, ...], ...]
    """The CPU numbers of every worker of the host, by index."""
    run_dir: Path
    """Folder of the sockets and of the workers' crash history."""
    voices_dir: Path
    index: int = 0
    """Number of this worker, from 0."""
    watchdog_seconds: float = 0.0
    """The process ends itself if its model makes no progress for so many seconds; 0: never."""
    log_level: str = "info"
    log_format: str = "text"
    """`text` or `json`."""
    log_text: bool = False
    """Whether the log contains the texts of utterances."""

    @property
    def cpus(self) -> tuple[int, ...]:
        """The CPU numbers that this worker may run on."""
        return self.layout[self.index]

    @property
    def socket(self) -> Path:
        """The path of this worker's Unix socket."""
        return self.run_dir / f"worker-{self.index}.sock"

    def argv(self) -> list[str]:
        """Returns the arguments of `python -m worker`, from which `from_argv` makes these options again."""
        return ["--index", str(self.index), *self.shared_argv()]

    def command(self) -> list[str]:
        """Returns the command that starts this worker with this process's interpreter."""
        return [sys.executable, "-m", "worker", *self.argv()]

    def shared_argv(self) -> list[str]:
        """Returns the arguments that all workers of the host share: all but `--index`, which supervisord.conf adds."""
        own = {option.name: getattr(self, option.name) for option in fields(self)}
        del own["index"], own["engine"]
        return [*self.engine.argv(), *_words(own | {"layout": _format_layout(self.layout)})]

    @classmethod
    def from_argv(cls, argv: Sequence[str]) -> Self:
        """Returns the options in `argv`. Where they are wrong it prints why and ends the process with status 2."""
        parser = argparse.ArgumentParser(prog="worker", description="One Chorus worker.", allow_abbrev=False)
        parser.add_argument("--index", type=int, required=True, help="number of this worker, from 0")
        EngineOptions.add_arguments(parser)
        parser.add_argument(
            "--layout", type=_parse_layout, required=True, help="CPU numbers of every worker, by index, such as 0,8;1,9"
        )
        parser.add_argument("--run-dir", type=Path, required=True, help="folder of the sockets")
        parser.add_argument("--voices-dir", type=Path, required=True, help="folder of voices")
        parser.add_argument(
            "--watchdog-seconds", type=float, default=0.0, help="longest time without progress; 0: unlimited"
        )
        parser.add_argument("--log-level", default="info")
        parser.add_argument("--log-format", choices=("text", "json"), default="text")
        parser.add_argument("--log-text", action="store_true", help="log the texts of utterances")
        values = vars(parser.parse_args(argv))
        if not 0 <= values["index"] < len(values["layout"]):
            parser.error(f"argument --index: {values['index']} is not in a layout of {len(values['layout'])}")
        engine = EngineOptions(**{option.name: values.pop(option.name) for option in fields(EngineOptions)})
        return cls(engine=engine, **values)


def _words(options: dict[str, Any]) -> list[str]:
    """Returns arguments for options by their names. None is left out, and a boolean is a flag."""
    words = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words += [flag] if value else []
        elif value is not None:
            words += [flag, str(value)]
    return words


def _names(chosen: Callable[[EngineCard], bool]) -> str:
    return ", ".join(name for name, card in CARDS.items() if chosen(card))


def _choice_of(members: type[StrEnum]) -> Callable[[str], StrEnum]:
    def convert(text: str) -> StrEnum:
        try:
            return members(text)
        except ValueError:
            names = ", ".join(repr(str(member)) for member in members)
            raise argparse.ArgumentTypeError(f"invalid choice: {text!r} (choose from {names})") from None

    return convert


def _threads(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} leaves no thread")
    return number


def _format_layout(layout: tuple[tuple[int, ...], ...]) -> str:
    return ";".join(",".join(map(str, cpus)) for cpus in layout)


def _parse_layout(text: str) -> tuple[tuple[int, ...], ...]:
    try:
        return tuple(tuple(int(cpu) for cpu in cpus.split(",")) for cpus in text.split(";"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} does not list the CPU numbers of workers, as in 0,8;1,9") from None
