"""The engine's own kernels against the libraries', in fp32 and in int8: products, self-attention and feed-forward.

A product of few rows goes through as many layers as a model has, so that memory delivers the weights, not a cache.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from scripts.support.console import run_command
from worker.engines.chatterbox.kernels.packed_gemm import PackedLinearF32, PackedLinearInt8
from worker.engines.chatterbox.kernels.simd.targets import TARGET
from worker.engines.chatterbox.layers.attention import attention, self_attention
from worker.engines.chatterbox.layers.feed_forward import feed_forward
from worker.engines.chatterbox.layers.linear import linear
from worker.engines.chatterbox.layers.onednn import Layer
from worker.precision import Precision, detect_processor

ROWS = (1, 2, 3, 4, 6, 8, 16, 32)
INPUTS, OUTPUTS = 1024, 4096
"""The widest layer of T3."""
FRAMES, CHANNELS, HEADS = 700, 256, 8
"""A flow's estimator at 700 frames."""

Sides = dict[str, Callable[[], object]]


def decode_sides(rows: int, layers: Sequence[dict[str, Layer]]) -> Sides:
    """One pass of so many rows over all layers, by each implementation."""
    states = torch.randn(rows, INPUTS)
    return {name: lambda name=name: [layer[name](states) for layer in layers] for name in layers[0]}  # type: ignore[misc]


def implementations(weight: Tensor, bias: Tensor) -> dict[str, Layer]:
    """A linear layer by each implementation."""
    layers: dict[str, Layer] = {
        "MKL fp32": partial(F.linear, weight=weight.clone(), bias=bias),
        "oneDNN fp32": linear(weight, bias, Precision.FP32, rows=8),
        "own fp32": PackedLinearF32(weight, bias),
    }
    if TARGET.integers is not None:
        layers["own int8"] = PackedLinearInt8(weight, bias)
    return layers


def attention_sides() -> Sides:
    """Self-attention of all frames, its layer norm and its products included; in MKL's column that of PyTorch."""
    states, norm = torch.randn(FRAMES, CHANNELS), nn.LayerNorm(CHANNELS)
    weights = torch.randn(3, HEADS * 64, CHANNELS) / CHANNELS**0.5
    query, key, value = weights
    weight = weights.flatten(0, 1)

    def by_pytorch() -> Tensor:
        qkv = F.linear(norm(states), weight).view(FRAMES, 3, HEADS, 64)
        queries, keys, values = qkv.permute(1, 2, 0, 3)
        return attention(queries, keys, values)

    def own(precision: Precision) -> Callable[[], object]:
        return partial(self_attention(norm, query, key, value, HEADS, precision), states)

    sides: Sides = {"MKL fp32": by_pytorch, "own fp32": own(Precision.FP32)}
    if TARGET.integers is not None:
        sides["own int8"] = own(Precision.INT8)
    return sides


def feed_forward_sides() -> Sides:
    """A feed-forward with GELU of all frames, its layer norm and residual included."""
    states, norm = torch.randn(FRAMES, CHANNELS), nn.LayerNorm(CHANNELS)
    up, down = nn.Linear(CHANNELS, 4 * CHANNELS), nn.Linear(4 * CHANNELS, CHANNELS)

    def layer(precision: Precision) -> Callable[[], object]:
        return partial(feed_forward(norm, up, down, precision, activation="gelu"), states)

    sides: Sides = {
        "MKL fp32": lambda: states + down(F.gelu(up(norm(states)))),
        "oneDNN fp32": layer(Precision.FP32),
    }
    if TARGET.integers is not None:
        sides["own int8"] = layer(Precision.INT8)
    return sides


def measure(sides: Sides, rounds: int) -> dict[str, float]:
    """The median milliseconds of each side, whose runs alternate."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for run in sides.values():
        run()
    for _ in range(rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) * 1e3 for name, times in seconds.items()}


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Timed runs of each side.")] = 9,
    layers: Annotated[int, typer.Option(min=1, help="Layers that a pass of few rows goes through.")] = 16,
    threads: Annotated[int, typer.Option(min=1, help="Threads.")] = 1,
) -> None:
    """Measure the kernels."""
    torch.set_num_threads(threads)
    with torch.inference_mode():
        stack = [implementations(torch.randn(OUTPUTS, INPUTS), torch.randn(OUTPUTS)) for _ in range(layers)]
        names = list(stack[0])
        target = TARGET.instruction_set or "no instruction set"
        table = Table("work", *names, title=f"Milliseconds; {detect_processor().name}, kernels for {target}")

        def add(work: str, milliseconds: dict[str, float], count: int) -> None:
            table.add_row(
                work, *(f"{milliseconds[name] / count:.3f}" if name in milliseconds else "" for name in names)
            )

        for rows in ROWS:
            add(f"{rows} x {INPUTS} x {OUTPUTS}", measure(decode_sides(rows, stack), rounds), layers)
        for inputs, outputs in ((CHANNELS, 4 * CHANNELS), (4 * CHANNELS, CHANNELS)):
            wide = [implementations(torch.randn(outputs, inputs), torch.randn(outputs))]
            states = torch.randn(FRAMES, inputs)
            sides: Sides = {name: partial(layer, states) for name, layer in wide[0].items()}
            add(f"{FRAMES} x {inputs} x {outputs}", measure(sides, rounds), 1)
        add(f"self-attention of {FRAMES} frames, {HEADS} heads", measure(attention_sides(), rounds), 1)
        add(f"feed-forward of {FRAMES} frames", measure(feed_forward_sides(), rounds), 1)
    Console().print(table)


if __name__ == "__main__":
    run_command(main, "scripts/bench_kernels")
