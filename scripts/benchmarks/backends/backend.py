"""The backends: inference runtimes in the precisions that they support. Imports none of the runtimes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec

from worker.precision import Precision, Processor


class Workload(StrEnum):
    """The step that is computed."""

    DECODE = "decode"
    """One position of every row through T3: its layers, attention over the KV cache, and its head."""
    ESTIMATOR = "estimator"
    """One step of S3Gen's flow estimator."""


class InferenceRuntime(StrEnum):
    """The library that computes."""

    TORCH = "torch"
    """PyTorch, with a plain module."""
    OWN = "own"
    """The layers and kernels of the batched engine."""
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"


NAMES = {
    InferenceRuntime.TORCH: "PyTorch",
    InferenceRuntime.OWN: "batched engine",
    InferenceRuntime.ONNXRUNTIME: "ONNX Runtime",
    InferenceRuntime.OPENVINO: "OpenVINO",
}

PRECISIONS = {
    InferenceRuntime.TORCH: (Precision.FP32,),
    InferenceRuntime.OWN: tuple(Precision),
    InferenceRuntime.ONNXRUNTIME: (Precision.FP32, Precision.INT8),
    InferenceRuntime.OPENVINO: tuple(Precision),
}

EXTRA = "bench"
"""The extra of this package that installs all runtimes."""


@dataclass(frozen=True)
class Backend:
    """One runtime in one precision."""

    runtime: InferenceRuntime
    precision: Precision
    shares_prefix: bool = True
    """Whether the batched engine stores and reads the positions that all rows have in common only once."""

    def __str__(self) -> str:
        return NAMES[self.runtime] + ("" if self.shares_prefix else " without shared prefix")

    def runs(self, workload: Workload) -> bool:
        """Whether it is measured in this workload; the estimator has no prefix to share."""
        return self.shares_prefix or workload is Workload.DECODE

    @property
    def required_modules(self) -> tuple[str, ...]:
        """The modules that it imports, besides those of the engine."""
        if self.runtime is InferenceRuntime.ONNXRUNTIME:
            return ("onnxruntime", "onnx_ir") if self.precision is Precision.INT8 else ("onnxruntime",)
        return ("openvino",) if self.runtime is InferenceRuntime.OPENVINO else ()

    @property
    def missing_modules(self) -> list[str]:
        """The required modules that are not installed."""
        return [module for module in self.required_modules if find_spec(module) is None]


def supported_backends(processor: Processor) -> Iterator[Backend]:
    """The backends whose precision the processor supports."""
    for runtime, precisions in PRECISIONS.items():
        for precision in precisions:
            if processor.supports(precision):
                yield Backend(runtime, precision)
        if runtime is InferenceRuntime.OWN:
            yield Backend(runtime, Precision.FP32, shares_prefix=False)
