"""The steps as files: ONNX as torch writes it, and the same with weights in 8 bits for ONNX Runtime."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from scripts.benchmarks.backends import inputs
from scripts.benchmarks.backends.inputs import Arrays, Shape, Work
from scripts.benchmarks.backends.steps import DecodeStep, EstimatorStep, tensors
from worker.engines.chatterbox.upstream import patches
from worker.engines.chatterbox.upstream.loading import load

OPSET = 17
ACCURACY_LEVEL = 4
"""Of MatMulNBits: activations are brought to 8 bits, too."""
BLOCK = 128
"""Weights that share a scale."""


def prepare(engine: str, weights: Path, folder: Path, *, rows: int, positions: int, eight_bits: bool) -> None:
    """Write into `folder` all that the contenders read: inputs of up to `rows` rows, and both steps as ONNX.

    `weights` is the folder of a checkpoint of Turbo's architecture.
    """
    patches.install()
    with patches.muted():
        model = load(engine, weights)
    config = model.t3.tfmr.config
    shape = Shape(config.n_layer, rows, config.n_head, positions, config.n_embd // config.n_head)
    inputs.write_decode(folder, shape)
    made = [f"new_{name}" for name in shape.names]
    growing = {name: {0: "rows"} for name in ("states", Work.DECODE.result, *made)}
    growing |= {name: {0: "rows", 2: "positions"} for name in shape.names}
    file = folder / f"{Work.DECODE}.onnx"
    _export(DecodeStep(model.t3), inputs.decode(folder, min(2, rows)), [Work.DECODE.result, *made], growing, file)
    growing = {name: {2: "frames"} for name in ("noisy", "wanted", "prompt", Work.ESTIMATOR.result)}
    file = folder / f"{Work.ESTIMATOR}.onnx"
    _export(EstimatorStep(model.s3gen), inputs.estimator(100), [Work.ESTIMATOR.result], growing, file)
    if eight_bits:
        for work in Work:
            _to_8_bits(folder / f"{work}.onnx", folder / f"{work}-int8.onnx")


def _export(step: nn.Module, given: Arrays, results: list[str], growing: dict[str, dict[int, str]], file: Path) -> None:
    """Write a module; `growing` names the dimensions that are to have any length."""
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells what tracing takes for granted
        torch.onnx.export(
            step,
            tuple(tensors(given)),
            str(file),
            input_names=list(given),
            output_names=results,
            dynamic_axes=growing,
            opset_version=OPSET,
            dynamo=False,
        )


def _to_8_bits(file: Path, to: Path) -> None:
    """Write the same model with the weights of its products in 8 bits, a scale for each block of them."""
    from onnxruntime.quantization.matmul_nbits_quantizer import (  # noqa: PLC0415 - needs a package of its own
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    logging.getLogger("onnxruntime.quantization").setLevel(logging.WARNING)
    config = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, accuracy_level=ACCURACY_LEVEL, bits=8)
    quantizer: Any = MatMulNBitsQuantizer(onnx.load(file), algo_config=config)
    quantizer.process()
    quantizer.model.save_model_to_file(str(to), use_external_data_format=False)
