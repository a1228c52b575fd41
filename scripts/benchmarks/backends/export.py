"""Writes the files that the backends read: inputs, and the steps as ONNX, for ONNX Runtime with 8-bit weights, too."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from scripts.benchmarks.backends import inputs
from scripts.benchmarks.backends.backend import Workload
from scripts.benchmarks.backends.inputs import Arrays, KVCacheShape
from scripts.benchmarks.backends.steps import DecodeStep, EstimatorStep, as_tensors
from worker.engines.chatterbox.upstream.lean_imports import lean_imports

with lean_imports():
    from worker.engines.chatterbox.upstream import patches
    from worker.engines.chatterbox.upstream.loading import load

OPSET = 17
ACCURACY_LEVEL = 4
"""Of ONNX Runtime's MatMulNBits: activations are quantized to 8 bits, too."""
BLOCK_SIZE = 128
"""Number of weights with a common scale."""
LOGITS, VELOCITY = "logits", "velocity"
"""Names of the first outputs of the two steps."""


def export_steps(engine: str, weights: Path, folder: Path, *, rows: int, positions: int, int8: bool) -> None:
    """Write all files that the backends read into `folder`, for batches of up to `rows` rows.

    `weights` is the folder of a checkpoint with Turbo's architecture. With `int8` the steps are also written with
    8-bit weights.
    """
    patches.install()
    with patches.muted():
        model = load(engine, weights)
    config = model.t3.tfmr.config
    shape = KVCacheShape(config.n_layer, rows, config.n_head, positions, config.n_embd // config.n_head)
    inputs.write_decode_inputs(folder, shape)
    new = [f"new_{name}" for name in shape.names]
    dynamic = {name: {0: "rows"} for name in ("states", LOGITS, *new)}
    dynamic |= {name: {0: "rows", 2: "positions"} for name in shape.names}
    example = inputs.decode_inputs(folder, min(2, rows))
    _export(DecodeStep(model.t3), example, [LOGITS, *new], dynamic, folder / f"{Workload.DECODE}.onnx")
    dynamic = {name: {2: "frames"} for name in ("noisy", "encoded", "prompt", VELOCITY)}
    example = inputs.estimator_inputs(100)
    _export(EstimatorStep(model.s3gen), example, [VELOCITY], dynamic, folder / f"{Workload.ESTIMATOR}.onnx")
    if int8:
        for workload in Workload:
            _quantize(folder / f"{workload}.onnx", folder / f"{workload}-int8.onnx")


def _export(
    step: nn.Module, example: Arrays, outputs: list[str], dynamic: dict[str, dict[int, str]], file: Path
) -> None:
    """Write a module as ONNX; `dynamic` names the dimensions of variable size."""
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values that tracing turns into constants
        torch.onnx.export(
            step,
            tuple(as_tensors(example)),
            str(file),
            input_names=list(example),
            output_names=outputs,
            dynamic_axes=dynamic,
            opset_version=OPSET,
            dynamo=False,
        )


def _quantize(source: Path, target: Path) -> None:
    """Write a model with the weights of its matrix products in 8 bits, with a scale per block."""
    from onnxruntime.quantization.matmul_nbits_quantizer import (  # noqa: PLC0415 - needs an optional package
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    logging.getLogger("onnxruntime.quantization").setLevel(logging.WARNING)
    config = DefaultWeightOnlyQuantConfig(
        block_size=BLOCK_SIZE, is_symmetric=True, accuracy_level=ACCURACY_LEVEL, bits=8
    )
    quantizer: Any = MatMulNBitsQuantizer(onnx.load(source), algo_config=config)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target), use_external_data_format=False)
