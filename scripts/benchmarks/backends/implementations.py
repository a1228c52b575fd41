"""The backends, ready to compute a step. Each is loaded in a process of its own, and imports its runtime alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.benchmarks.backends import inputs
from scripts.benchmarks.backends.backend import Backend, InferenceRuntime, Workload
from scripts.benchmarks.backends.inputs import SHARED_POSITIONS, Arrays
from worker.precision import Precision

Step = Callable[[], NDArray[np.float32]]
"""Computes a step; returns its first output as float32: logits (rows, tokens), or the velocity (1, bands, frames)."""

Prepare = Callable[[int], Step]
"""Prepares a step for a number of rows (decode) or frames (estimator)."""

GROUP_SIZE = 1024
"""Of OpenVINO's dynamic quantization: number of activations with a common scale, the width of T3."""


def load_backend(
    backend: Backend, workload: Workload, folder: Path, engine: str, weights: Path, *, threads: int
) -> Prepare:
    """Make a backend ready to compute steps of a workload.

    `folder` holds the files of `export.export_steps`, `weights` is the folder of the engine's checkpoint.
    """

    def make_inputs(size: int) -> Arrays:
        return inputs.decode_inputs(folder, size) if workload is Workload.DECODE else inputs.estimator_inputs(size)

    if backend.runtime is InferenceRuntime.ONNXRUNTIME:
        suffix = "-int8" if backend.precision is Precision.INT8 else ""
        return _onnxruntime(folder / f"{workload}{suffix}.onnx", make_inputs, threads)
    if backend.runtime is InferenceRuntime.OPENVINO:
        return _openvino(folder / f"{workload}.onnx", make_inputs, backend.precision, threads)
    model = _model(engine, weights, threads)
    if backend.runtime is InferenceRuntime.TORCH:
        return _torch(model, workload, make_inputs)
    if workload is Workload.DECODE:
        return _own_decode(model.t3, backend, make_inputs, inputs.read_shape(folder))
    return _own_estimator(model.s3gen, backend.precision, make_inputs)


@cache
def _model(engine: str, weights: Path, threads: int) -> Any:
    from worker.cpu_affinity import limit_torch  # noqa: PLC0415
    from worker.engines.chatterbox.upstream.lean_imports import lean_imports  # noqa: PLC0415

    with lean_imports():
        from worker.engines.chatterbox.upstream import loading, patches  # noqa: PLC0415

    limit_torch(threads)
    patches.install()
    with patches.muted():
        return loading.load(engine, weights)


def _torch(model: Any, workload: Workload, make_inputs: Callable[[int], Arrays]) -> Prepare:
    import torch  # noqa: PLC0415

    from scripts.benchmarks.backends.steps import DecodeStep, EstimatorStep, as_tensors  # noqa: PLC0415

    module = DecodeStep(model.t3) if workload is Workload.DECODE else EstimatorStep(model.s3gen)

    def prepare(size: int) -> Step:
        arguments = as_tensors(make_inputs(size))

        def step() -> NDArray[np.float32]:
            with torch.inference_mode():
                out = module(*arguments)
            result: NDArray[np.float32] = (out[0] if workload is Workload.DECODE else out).numpy()
            return result

        return step

    return prepare


def _own_decode(t3: Any, backend: Backend, make_inputs: Callable[[int], Arrays], shape: inputs.KVCacheShape) -> Prepare:
    """The layers and the KV cache of the batched engine.

    The cache holds the positions that all rows have in common once or, for comparison, once per row. As in a worker,
    weights are packed once, for the largest batch.
    """
    import torch  # noqa: PLC0415

    from worker.engines.chatterbox.t3.gpt2 import Gpt2  # noqa: PLC0415
    from worker.engines.chatterbox.t3.kv_cache import QuerySpan  # noqa: PLC0415

    positions = shape.positions
    shared = min(SHARED_POSITIONS, positions - 2) if backend.shares_prefix else 0
    layers = Gpt2(t3, backend.precision, rows=shape.rows, length=max(shared, positions - shared + 1))
    cache = layers.cache

    def prepare(rows: int) -> Step:
        states, *past = (torch.from_numpy(array) for array in make_inputs(rows).values())
        pairs = list(zip(past[::2], past[1::2], strict=True))

        def fill(span: QuerySpan) -> None:
            plan = cache.plan_step([span])
            for layer, both in enumerate(pairs):
                keys, values = (one[span.row, :, span.start : span.start + span.count].transpose(0, 1) for one in both)
                cache.attention(layer, torch.zeros_like(keys), keys, values, plan)

        with torch.inference_mode():
            prefix = None
            if shared:
                cache.start_row(0, None)
                fill(QuerySpan(0, 0, shared))
                prefix = cache.copy_row(0, shared)
            for row in range(rows):
                cache.start_row(row, prefix)
                fill(QuerySpan(row, shared, positions - shared))
            # `forward` adds the position embedding.
            states = states - t3.tfmr.wpe.weight[positions]
        spans = [QuerySpan(row, positions, 1) for row in range(rows)]

        def step() -> NDArray[np.float32]:
            with torch.inference_mode():
                result: NDArray[np.float32] = layers.logits(layers.forward(states, spans, {})).numpy()
            return result

        return step

    return prepare


def _own_estimator(s3gen: Any, precision: Precision, make_inputs: Callable[[int], Arrays]) -> Prepare:
    import torch  # noqa: PLC0415

    from worker.engines.chatterbox.cooperative import run_to_completion  # noqa: PLC0415
    from worker.engines.chatterbox.s3gen.estimator import Estimator  # noqa: PLC0415

    estimator = Estimator(s3gen.flow.decoder.estimator, precision)

    def prepare(frames: int) -> Step:
        noisy, encoded, speaker, prompt, start_time, end_time = map(torch.from_numpy, make_inputs(frames).values())
        channels = torch.cat([noisy, encoded, speaker[:, :, None].expand(-1, -1, frames), prompt], 1)
        states = channels.transpose(1, 2).contiguous()

        def step() -> NDArray[np.float32]:
            with torch.inference_mode():
                velocity = run_to_completion(estimator.steps(states, start_time.item(), end_time.item()))
            result: NDArray[np.float32] = velocity.transpose(1, 2).numpy()
            return result

        return step

    return prepare


def _onnxruntime(file: Path, make_inputs: Callable[[int], Arrays], threads: int) -> Prepare:
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def prepare(size: int) -> Step:
        arrays = make_inputs(size)

        def step() -> NDArray[np.float32]:
            result: NDArray[np.float32] = session.run(None, arrays)[0]
            return result

        return step

    return prepare


def _openvino(file: Path, make_inputs: Callable[[int], Arrays], precision: Precision, threads: int) -> Prepare:
    import openvino  # noqa: PLC0415

    core = openvino.Core()
    model = core.read_model(str(file))
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if precision is Precision.BF16 else "f32",
        "ENABLE_CPU_PINNING": False,
    }
    if precision is Precision.INT8:
        _quantize(model)
        options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = GROUP_SIZE
    request = core.compile_model(model, "CPU", options).create_infer_request()

    def prepare(size: int) -> Step:
        tensors = {name: openvino.Tensor(array, shared_memory=True) for name, array in make_inputs(size).items()}

        def step() -> NDArray[np.float32]:
            request.infer(tensors, share_outputs=True)
            result: NDArray[np.float32] = request.get_output_tensor(0).data
            return result

        return step

    return prepare


def _quantize(model: Any) -> None:
    """Quantize the weights of matrix products to 8 bits, with a scale per output, in the form that OpenVINO detects."""
    from openvino import opset13 as operations  # noqa: PLC0415

    for product in model.get_ordered_ops():
        weight = product.input_value(1).get_node() if product.get_type_name() == "MatMul" else None
        if weight is None or weight.get_type_name() != "Constant":
            continue
        inner = 1 if product.get_attributes()["transpose_b"] else 0
        scales = np.abs(weight.data).max(inner, keepdims=True) / 127
        scales = np.maximum(scales, np.finfo(np.float32).tiny).astype(np.float32)
        quantized = np.round(weight.data / scales).astype(np.int8)
        scaled = operations.multiply(
            operations.convert(operations.constant(quantized, dtype=np.int8), "f32"), operations.constant(scales)
        )
        product.input(1).replace_source_output(scaled.output(0))
    model.validate_nodes_and_infer_types()
