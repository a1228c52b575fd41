"""Each runtime, ready to take a step. Loaded in a process of its own; imports of each runtime are its own, too."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.benchmarks.backends import inputs
from scripts.benchmarks.backends.backend import Contender, Runtime
from scripts.benchmarks.backends.inputs import SHARED_POSITIONS, Arrays, Work
from worker.precision import Precision

Step = Callable[[], NDArray[np.float32]]
"""Takes the step, and gives its first output as float32: logits (rows, tokens), or a direction (1, bands, frames)."""

Prepare = Callable[[int], Step]
"""The step for so many rows or frames."""

GROUP = 1024
"""Of OpenVINO's dynamic quantisation: activations that share a scale, all of T3's width."""


def load(contender: Contender, work: Work, folder: Path, engine: str, weights: Path, *, threads: int) -> Prepare:
    """Make it ready. `folder` has what `export.prepare` wrote, `weights` is the engine's checkpoint."""

    def given(size: int) -> Arrays:
        return inputs.decode(folder, size) if work is Work.DECODE else inputs.estimator(size)

    if contender.runtime is Runtime.ONNXRUNTIME:
        suffix = "-int8" if contender.precision is Precision.INT8 else ""
        return _onnxruntime(folder / f"{work}{suffix}.onnx", given, threads)
    if contender.runtime is Runtime.OPENVINO:
        return _openvino(folder / f"{work}.onnx", given, contender.precision, threads)
    model = _model(engine, weights, threads)
    if contender.runtime is Runtime.TORCH:
        return _torch(model, work, given)
    if work is Work.DECODE:
        return _own_decode(model.t3, contender, given, inputs.shape_of(folder))
    return _own_estimator(model.s3gen, contender.precision, given)


@cache
def _model(engine: str, weights: Path, threads: int) -> Any:
    from worker.cpu_affinity import limit_torch  # noqa: PLC0415
    from worker.engines.chatterbox.upstream import loading, patches  # noqa: PLC0415

    limit_torch(threads)
    patches.install()
    with patches.muted():
        return loading.load(engine, weights)


def _torch(model: Any, work: Work, given: Callable[[int], Arrays]) -> Prepare:
    import torch  # noqa: PLC0415

    from scripts.benchmarks.backends.steps import DecodeStep, EstimatorStep, tensors  # noqa: PLC0415

    module = DecodeStep(model.t3) if work is Work.DECODE else EstimatorStep(model.s3gen)

    def prepare(size: int) -> Step:
        arguments = tensors(given(size))

        def step() -> NDArray[np.float32]:
            with torch.inference_mode():
                out = module(*arguments)
            result: NDArray[np.float32] = (out[0] if work is Work.DECODE else out).numpy()
            return result

        return step

    return prepare


def _own_decode(t3: Any, contender: Contender, given: Callable[[int], Arrays], shape: inputs.Shape) -> Prepare:
    """The project's own layers and cache, the positions that all rows share held once or, for comparison, by each.

    As in a worker, weights are laid out once, for the most rows.
    """
    import torch  # noqa: PLC0415

    from worker.engines.chatterbox.t3.gpt2 import Gpt2  # noqa: PLC0415
    from worker.engines.chatterbox.t3.kv_cache import QuerySpan  # noqa: PLC0415

    positions = shape.positions
    shared = min(SHARED_POSITIONS, positions - 2) if contender.shared else 0
    layers = Gpt2(t3, contender.precision, rows=shape.rows, length=max(shared, positions - shared + 1))
    cache = layers.cache

    def prepare(rows: int) -> Step:
        states, *past = (torch.from_numpy(array) for array in given(rows).values())
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
                prefix = cache.copy_prefix(0, shared)
            for row in range(rows):
                cache.start_row(row, prefix)
                fill(QuerySpan(row, shared, positions - shared))
            # It adds the positions itself.
            states = states - t3.tfmr.wpe.weight[positions]
        spans = [QuerySpan(row, positions, 1) for row in range(rows)]

        def step() -> NDArray[np.float32]:
            with torch.inference_mode():
                result: NDArray[np.float32] = layers.logits(layers.forward(states, spans, {})).numpy()
            return result

        return step

    return prepare


def _own_estimator(s3gen: Any, precision: Precision, given: Callable[[int], Arrays]) -> Prepare:
    import torch  # noqa: PLC0415

    from worker.engines.chatterbox.cooperative import run_to_completion  # noqa: PLC0415
    from worker.engines.chatterbox.s3gen.estimator import Estimator  # noqa: PLC0415

    estimator = Estimator(s3gen.flow.decoder.estimator, precision)

    def prepare(frames: int) -> Step:
        noisy, wanted, speaker, prompt, time, until = map(torch.from_numpy, given(frames).values())
        channels = torch.cat([noisy, wanted, speaker[:, :, None].expand(-1, -1, frames), prompt], 1)
        states = channels.transpose(1, 2).contiguous()

        def step() -> NDArray[np.float32]:
            with torch.inference_mode():
                velocity = run_to_completion(estimator.steps(states, time.item(), until.item()))
            result: NDArray[np.float32] = velocity.transpose(1, 2).numpy()
            return result

        return step

    return prepare


def _onnxruntime(file: Path, given: Callable[[int], Arrays], threads: int) -> Prepare:
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def prepare(size: int) -> Step:
        arrays = given(size)

        def step() -> NDArray[np.float32]:
            result: NDArray[np.float32] = session.run(None, arrays)[0]
            return result

        return step

    return prepare


def _openvino(file: Path, given: Callable[[int], Arrays], precision: Precision, threads: int) -> Prepare:
    import openvino  # noqa: PLC0415

    core = openvino.Core()
    model = core.read_model(str(file))
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if precision is Precision.BF16 else "f32",
        "ENABLE_CPU_PINNING": False,
    }
    if precision is Precision.INT8:
        _to_8_bits(model)
        options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = GROUP
    request = core.compile_model(model, "CPU", options).create_infer_request()

    def prepare(size: int) -> Step:
        tensors = {name: openvino.Tensor(array, shared_memory=True) for name, array in given(size).items()}

        def step() -> NDArray[np.float32]:
            request.infer(tensors, share_outputs=True)
            result: NDArray[np.float32] = request.get_output_tensor(0).data
            return result

        return step

    return prepare


def _to_8_bits(model: Any) -> None:
    """Bring the weights of a model's products to 8 bits, a scale for each output, in the form OpenVINO looks for."""
    from openvino import opset13 as operations  # noqa: PLC0415

    for product in model.get_ordered_ops():
        weight = product.input_value(1).get_node() if product.get_type_name() == "MatMul" else None
        if weight is None or weight.get_type_name() != "Constant":
            continue
        inner = 1 if product.get_attributes()["transpose_b"] else 0
        scales = np.abs(weight.data).max(inner, keepdims=True) / 127
        scales = np.maximum(scales, np.finfo(np.float32).tiny).astype(np.float32)
        whole = np.round(weight.data / scales).astype(np.int8)
        scaled = operations.multiply(
            operations.convert(operations.constant(whole, dtype=np.int8), "f32"), operations.constant(scales)
        )
        product.input(1).replace_source_output(scaled.output(0))
    model.validate_nodes_and_infer_types()
