"""Which runtimes there are, in which precisions, and what they need. Imports none of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec

from worker.precision import Precision, Processor


class Runtime(StrEnum):
    """Who computes."""

    TORCH = "torch"
    """A plain module, as torch computes it."""
    OWN = "own"
    """What the batched engine runs: this project's layers on oneDNN's products."""
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"


NAMES = {
    Runtime.TORCH: "torch",
    Runtime.OWN: "the batched engine's own",
    Runtime.ONNXRUNTIME: "ONNX Runtime",
    Runtime.OPENVINO: "OpenVINO",
}

PRECISIONS = {
    Runtime.TORCH: (Precision.FP32,),
    Runtime.OWN: tuple(Precision),
    Runtime.ONNXRUNTIME: (Precision.FP32, Precision.INT8),
    Runtime.OPENVINO: tuple(Precision),
}

DECODE, ESTIMATOR = "decode", "estimator"
"""The steps that are taken."""

EXTRA = "bench"
"""Of this package's extras, the one that brings all of them."""


@dataclass(frozen=True)
class Contender:
    """One runtime in one precision."""

    runtime: Runtime
    precision: Precision
    shared: bool = True
    """Of the project's own decode: whether the positions that all rows share are held, and read, once."""

    def __str__(self) -> str:
        return NAMES[self.runtime] + ("" if self.shared else ", no positions shared")

    def does(self, work: str) -> bool:
        """Whether it is another one than the rest in this work: the estimator knows no positions."""
        return self.shared or work == DECODE

    @property
    def needs(self) -> tuple[str, ...]:
        """Modules that it imports beside those of the engine."""
        if self.runtime is Runtime.ONNXRUNTIME:
            return ("onnxruntime", "onnx_ir") if self.precision is Precision.INT8 else ("onnxruntime",)
        return ("openvino",) if self.runtime is Runtime.OPENVINO else ()

    @property
    def missing(self) -> list[str]:
        """Of those, the ones that are not installed."""
        return [module for module in self.needs if find_spec(module) is None]


def contenders(found: Processor) -> Iterator[Contender]:
    """All that this processor has instructions for."""
    for runtime, precisions in PRECISIONS.items():
        for precision in precisions:
            if found.supports(precision):
                yield Contender(runtime, precision)
        if runtime is Runtime.OWN:
            yield Contender(runtime, Precision.FP32, shared=False)
