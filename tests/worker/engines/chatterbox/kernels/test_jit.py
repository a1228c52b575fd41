"""Work that a worker's threads share comes out as it does in one of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from tests.support.precisions import precision_params
from worker.engines.chatterbox.kernels.attention_fp32 import attention_float
from worker.engines.chatterbox.kernels.jit import shared
from worker.engines.chatterbox.kernels.mish import mish_
from worker.engines.chatterbox.layers.attention import relative_attention, self_attention
from worker.engines.chatterbox.layers.convolution import convolution
from worker.engines.chatterbox.layers.decode_linear import product
from worker.engines.chatterbox.layers.linear import linear
from worker.engines.chatterbox.layers.onednn import Layer
from worker.precision import Precision


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    torch.manual_seed(7)
    before = torch.get_num_threads()
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_each_item_is_done_once(threads: int, count: int) -> None:
    done: list[tuple[int, str]] = []

    def note(first: int, end: int, mark: str) -> None:
        done.extend((item, mark) for item in range(first, end))

    torch.set_num_threads(threads)
    shared(note, count, "x")
    assert sorted(done) == [(item, "x") for item in range(count)]


def test_parts_run_at_the_same_time() -> None:
    """Each waits for all the others."""
    torch.set_num_threads(3)
    together = threading.Barrier(3, timeout=30)
    shared(lambda first, end: together.wait(), 3)


def test_a_part_that_fails_is_told() -> None:
    def fail(first: int, end: int) -> None:
        if end == 4:
            raise RuntimeError("the last part")

    torch.set_num_threads(2)
    with pytest.raises(RuntimeError, match="the last part"):
        shared(fail, 4)


@pytest.mark.parametrize("precision", precision_params([Precision.FP32, Precision.INT8]))
def test_kernels_compute_the_same_in_any_number_of_threads(precision: Precision) -> None:
    states = torch.randn(70, 128)
    weights = torch.randn(3, 192, 128) / 10
    distances = torch.randn(139, 128)
    relative = relative_attention(2, 64, precision)
    layers: dict[str, Layer] = {
        "attention": lambda states: attention_float(states, states, states),
        "relative attention": lambda states: relative(states, states, states, states, distances),
        "step": product(weights[0], None, precision, rows=8),
        "mish": lambda states: mish_(states.clone()),
    }
    if precision is Precision.INT8:
        # In float32 oneDNN may add numbers up in another order.
        layers["attention of bytes"] = self_attention(weights[0], weights[1], weights[2], 3, precision)
        layers["linear"] = linear(weights[0], None, precision, activation="gelu")
        layers["convolution"] = convolution(torch.randn(32, 128, 3), None, precision, before=1, after=1)
    for name, layer in layers.items():
        given = states[None] if name == "convolution" else states
        torch.set_num_threads(1)
        alone = layer(given)
        for threads in (2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(layer(given), alone), name
