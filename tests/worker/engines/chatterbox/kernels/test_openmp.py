"""A kernel's work in the threads that PyTorch computes in: each item once, no error lost, the same numbers."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from tests.support.precisions import precision_params
from worker.engines.chatterbox.kernels import openmp
from worker.engines.chatterbox.kernels.activations import mish_
from worker.engines.chatterbox.kernels.attention_fp32 import attention_fp32
from worker.engines.chatterbox.kernels.openmp import parallel, parallel_for
from worker.engines.chatterbox.layers.attention import relative_attention, self_attention
from worker.engines.chatterbox.layers.convolution import convolution
from worker.engines.chatterbox.layers.decode_linear import decode_linear
from worker.engines.chatterbox.layers.feed_forward import feed_forward
from worker.engines.chatterbox.layers.linear import linear
from worker.engines.chatterbox.layers.onednn import Layer
from worker.precision import Precision


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def seeded_inference() -> Iterator[None]:
    torch.manual_seed(7)
    with torch.inference_mode():
        yield


@pytest.fixture(params=["PyTorch's library", "own thread pool"])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "own thread pool":
        monkeypatch.setattr(openmp, "_library", lambda: None)


# parallel


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_each_part_is_done_once(count: int) -> None:
    done: list[int] = []
    parallel(done.append, count)
    assert sorted(done) == list(range(count))


@pytest.mark.usefixtures("threads")
def test_parts_are_done_at_once() -> None:
    barrier = threading.Barrier(2, timeout=30)
    passed: list[int] = []

    def part(_: int) -> None:
        barrier.wait()
        passed.append(threading.get_native_id())

    parallel(part, 2)
    assert len(set(passed)) == 2


@pytest.mark.usefixtures("threads")
def test_an_error_of_a_part_is_raised_and_the_next_run_works() -> None:
    done: list[int] = []

    def part(number: int) -> None:
        if number == 1:
            raise ValueError("the second part")
        done.append(number)

    with pytest.raises(ValueError, match="the second part"):
        parallel(part, 2)
    assert done == [0]
    parallel(done.append, 2)
    assert sorted(done) == [0, 0, 1]


@pytest.mark.usefixtures("threads")
def test_between_pytorchs_own_work() -> None:
    torch.set_num_threads(2)
    weight, states = torch.randn(300, 200), torch.randn(500, 200)
    expected = states @ weight.t()
    out = torch.zeros_like(expected)

    def part(number: int) -> None:
        rows = slice(250 * number, 250 * (number + 1))
        out[rows] = expected[rows] * 2

    for _ in range(50):
        parallel(part, 2)
        assert torch.equal(out, expected * 2)
        assert torch.equal(states @ weight.t(), expected)
        out.zero_()


# parallel_for


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_each_item_is_done_once(threads: int, count: int) -> None:
    done: list[tuple[int, str]] = []

    def note(begin: int, end: int, mark: str) -> None:
        done.extend((item, mark) for item in range(begin, end))

    torch.set_num_threads(threads)
    parallel_for(note, count, "x")
    assert sorted(done) == [(item, "x") for item in range(count)]


def test_ranges_run_at_the_same_time() -> None:
    """Each waits for all the others."""
    torch.set_num_threads(3)
    barrier = threading.Barrier(3, timeout=30)
    parallel_for(lambda begin, end: barrier.wait(), 3)


def test_an_error_in_a_range_is_raised() -> None:
    def fail(begin: int, end: int) -> None:
        if end == 4:
            raise RuntimeError("the last part")

    torch.set_num_threads(2)
    with pytest.raises(RuntimeError, match="the last part"):
        parallel_for(fail, 4)


@pytest.mark.usefixtures("seeded_inference")
@pytest.mark.parametrize("precision", precision_params([Precision.FP32, Precision.INT8]))
def test_kernels_compute_the_same_in_any_number_of_threads(precision: Precision) -> None:
    states = torch.randn(70, 128)
    weights = torch.randn(3, 192, 128) / 10
    distance_keys = torch.randn(139, 128)
    relative = relative_attention(2, 64, precision)
    layers: dict[str, Layer] = {
        "fp32 attention": lambda states: attention_fp32(states, states, states),
        "relative attention": lambda states: relative(states, states, states, states, distance_keys),
        "decode linear": decode_linear(weights[0], None, precision, rows=8),
        "mish": lambda states: mish_(states.clone()),
    }
    if precision is Precision.INT8:
        # In float32 oneDNN may add numbers up in another order.
        norm = nn.LayerNorm(128)
        layers["int8 attention"] = self_attention(norm, weights[0], weights[1], weights[2], 3, precision)
        hidden = nn.Linear(128, 256), nn.Linear(256, 128)
        layers["feed-forward"] = feed_forward(norm, *hidden, precision, activation="silu")
        layers["linear"] = linear(weights[0], None, precision, activation="gelu")
        layers["convolution"] = convolution(torch.randn(32, 128, 3), None, precision, before=1, after=1)
    for name, layer in layers.items():
        given = states[None] if name == "convolution" else states
        torch.set_num_threads(1)
        expected = layer(given)
        for threads in (2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(layer(given), expected), name
