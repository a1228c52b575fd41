"""The options of a worker, and the command line that carries them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.cards import CARDS, MAX_PROMPT_SECONDS, FlowModel, Runtime
from worker.options import EngineOptions, WorkerOptions
from worker.precision import Precision, Processor

CACHE = Path("/cache")
ICE_LAKE = Processor("Ice Lake", frozenset({"avx2", "avx512bw", "avx512_vnni"}))

counts = st.integers(1, 64)
paths = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).map(
    lambda name: Path("/") / name
)
engine_options = st.builds(
    EngineOptions,
    engine=st.sampled_from(sorted(CARDS)),
    cache_dir=paths,
    model_dir=st.none() | paths,
    runtime=st.sampled_from(Runtime),
    precision=st.sampled_from(Precision),
    prompt_seconds=st.integers(2, MAX_PROMPT_SECONDS),
    flow=st.sampled_from(FlowModel),
    flow_steps=st.none() | st.integers(1, 10),
    retakes=st.integers(0, 10),
    trim_end=st.booleans(),
    slots=counts,
    threads=counts,
)
layouts = st.lists(st.lists(st.integers(0, 1023), min_size=1).map(tuple), min_size=1).map(tuple)


@st.composite
def worker_options(draw: st.DrawFn) -> WorkerOptions:
    layout = draw(layouts)
    return WorkerOptions(
        engine=draw(engine_options),
        layout=layout,
        run_dir=draw(paths),
        voices_dir=draw(paths),
        index=draw(st.integers(0, len(layout) - 1)),
        watchdog_seconds=draw(st.floats(0, 1e9)),
        log_level=draw(st.sampled_from(["debug", "info", "warning", "error"])),
        log_format=draw(st.sampled_from(["text", "json"])),
        log_text=draw(st.booleans()),
    )


@given(engine_options)
def test_the_engines_options_survive_the_command_line(options: EngineOptions) -> None:
    assert EngineOptions.from_argv(options.argv()) == options


@given(worker_options())
def test_a_workers_options_survive_the_command_line(options: WorkerOptions) -> None:
    assert WorkerOptions.from_argv(options.argv()) == options
    assert options.argv() == ["--index", str(options.index), *options.shared_argv()]
    assert options.command() == [sys.executable, "-m", "worker", *options.argv()]


@given(worker_options())
def test_the_workers_of_a_host_differ_in_their_index_only(options: WorkerOptions) -> None:
    for index in range(len(options.layout)):
        other = replace(options, index=index)
        assert other.shared_argv() == options.shared_argv()
        assert (other.cpus, other.socket.name) == (options.layout[index], f"worker-{index}.sock")


def test_what_is_left_out_has_its_default() -> None:
    assert EngineOptions.from_argv(["--engine", "turbo", "--cache-dir", "/cache"]) == EngineOptions("turbo", CACHE)
    words = ["--index", "0", "--layout", "3", "--run-dir", "/run", "--voices-dir", "/voices"]
    options = WorkerOptions(EngineOptions("turbo", CACHE), ((3,),), Path("/run"), Path("/voices"))
    assert WorkerOptions.from_argv([*words, "--engine", "turbo", "--cache-dir", "/cache"]) == options


@pytest.mark.parametrize(
    ("options", "label"),
    [
        ({"engine": "hibari"}, "hibari"),
        ({"engine": "hibari", "runtime": Runtime.STOCK}, "hibari"),
        ({"engine": "turbo"}, "turbo, batched, fp32"),
        ({"engine": "turbo", "retakes": 2, "trim_end": True}, "turbo, batched, fp32"),
        ({"engine": "turbo", "slots": 8, "threads": 2, "model_dir": CACHE}, "turbo, batched, fp32"),
        ({"engine": "nano", "runtime": Runtime.STOCK}, "nano, stock, fp32"),
        ({"engine": "turbo", "precision": Precision.INT8}, "turbo, batched, int8"),
        ({"engine": "turbo", "prompt_seconds": 4}, "turbo, batched, fp32, prompts of 4 s"),
        ({"engine": "turbo", "flow_steps": 2}, "turbo, batched, fp32"),
        ({"engine": "turbo", "flow_steps": 1}, "turbo, batched, fp32, flow of 1 step"),
        ({"engine": "chatterbox", "flow_steps": 10}, "chatterbox, batched, fp32"),
        (
            {"engine": "chatterbox", "runtime": Runtime.STOCK, "flow_steps": 5},
            "chatterbox, stock, fp32, flow of 5 steps",
        ),
        ({"engine": "multilingual", "flow": FlowModel.MEANFLOW}, "multilingual, batched, fp32, meanflow"),
        (
            {"engine": "chatterbox", "flow": FlowModel.MEANFLOW, "flow_steps": 1},
            "chatterbox, batched, fp32, meanflow of 1 step",
        ),
    ],
)
def test_the_label_names_what_changes_the_arithmetic(options: dict[str, Any], label: str) -> None:
    assert EngineOptions(cache_dir=CACHE, **options).label() == label


@pytest.mark.parametrize(
    ("options", "label"),
    [
        ({"engine": "hibari", "retakes": 2, "trim_end": True}, "hibari"),
        ({"engine": "turbo"}, "turbo, batched, fp32"),
        ({"engine": "turbo", "retakes": 2, "trim_end": True}, "turbo, batched, fp32, 2 retakes, end trimmed"),
        ({"engine": "nano", "runtime": Runtime.STOCK, "trim_end": True}, "nano, stock, fp32, end trimmed"),
    ],
)
def test_the_label_of_the_audio_names_what_else_changes_it(options: dict[str, Any], label: str) -> None:
    assert EngineOptions(cache_dir=CACHE, **options).audio_label() == label


MEANFLOW = {"flow": FlowModel.MEANFLOW}
OTHERS = "unset CHORUS_FLOW, or run one of: chatterbox, multilingual, multilingual-v3"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"engine": "hibari"} | MEANFLOW, f"engine hibari has no flow to replace; {OTHERS}"),
        ({"engine": "turbo"} | MEANFLOW, f"engine turbo has a mean flow of its own; {OTHERS}"),
        ({"engine": "hibari", "flow_steps": 2}, "engine hibari has no flow; unset CHORUS_FLOW_STEPS, or run one of: "),
        ({"engine": "nano", "flow_steps": 3}, "the flow of engine nano takes 1 to 2 steps, not 3; change or unset "),
        ({"engine": "chatterbox", "flow_steps": 3}, "the flow of engine chatterbox takes 4 to 10 steps, not 3; "),
        (
            {"engine": "chatterbox", "flow_steps": 4} | MEANFLOW,
            "the flow of engine chatterbox with CHORUS_FLOW=meanflow takes 1 to 2 steps, not 4; ",
        ),
    ],
)
@pytest.mark.parametrize("runtime", Runtime)
def test_a_flow_that_the_engine_does_not_run(options: dict[str, Any], reason: str, runtime: Runtime) -> None:
    found = EngineOptions(cache_dir=CACHE, runtime=runtime, **options).unsupported_reason()
    assert found is not None
    assert found.startswith(reason)


@pytest.mark.parametrize("runtime", Runtime)
@pytest.mark.parametrize(
    ("engine", "flow", "steps"),
    [
        ("turbo", FlowModel.UPSTREAM, 1),
        ("chatterbox", FlowModel.UPSTREAM, 4),
        ("multilingual", FlowModel.UPSTREAM, 10),
        ("chatterbox", FlowModel.MEANFLOW, None),
        ("multilingual-v3", FlowModel.MEANFLOW, 1),
    ],
)
def test_flows_that_both_runtimes_run(engine: str, flow: FlowModel, steps: int | None, runtime: Runtime) -> None:
    assert EngineOptions(engine, CACHE, runtime=runtime, flow=flow, flow_steps=steps).unsupported_reason() is None


def test_the_processor_counts_only_where_one_is_given() -> None:
    options = EngineOptions("turbo", CACHE, precision=Precision.BF16)
    assert options.unsupported_reason() is None
    reason = options.unsupported_reason(ICE_LAKE)
    assert reason is not None
    assert reason.startswith("precision bf16 needs a processor with AVX512-BF16")
    assert replace(options, precision=Precision.INT8).unsupported_reason(ICE_LAKE) is None


def test_the_card_has_the_speed_that_is_expected_of_the_runtime() -> None:
    batched = CARDS["turbo"].batched
    assert batched is not None
    options = EngineOptions("turbo", CACHE)
    assert (options.batched, options.card.speed) == (batched, batched.speed)
    assert options.card.early_audio
    assert not any(card.early_audio for card in CARDS.values()), "the stock runtime makes an utterance in one go"
    stock = replace(options, runtime=Runtime.STOCK)
    assert (stock.batched, stock.card) == (None, CARDS["turbo"])
    assert EngineOptions("hibari", CACHE).card == CARDS["hibari"]


@pytest.mark.parametrize("runtime", Runtime)
def test_the_card_expects_more_of_a_shorter_flow(runtime: Runtime) -> None:
    own = EngineOptions("chatterbox", CACHE, runtime=runtime)
    speeds = [
        replace(own, flow=flow, flow_steps=steps).card.speed
        for flow, steps in ((FlowModel.UPSTREAM, 10), (FlowModel.UPSTREAM, 5), (FlowModel.MEANFLOW, 2))
    ]
    assert speeds == sorted(set(speeds))
    assert speeds[0] == own.card.speed
    # A tenth of the flow's work is left, which was three quarters of all.
    assert speeds[2] / speeds[0] == pytest.approx(1 / (0.25 + 0.075))
