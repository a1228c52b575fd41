"""Frames that are cut anywhere, and messages that refuse unknown fields."""

from __future__ import annotations

import struct
import subprocess
import sys
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.support.harness import ROOT
from tests.support.worker_state import worker_state
from worker.contract import (
    MAX_MESSAGE_BYTES,
    MAX_PCM_FRAME_BYTES,
    EndOfUtterance,
    FrameDecoder,
    FrameKind,
    FramingError,
    Phase,
    Utterance,
    UtteranceError,
    WorkerState,
    encode_frame,
    max_pcm_bytes,
)

FRAMES = st.lists(st.tuples(st.sampled_from(FrameKind), st.binary(max_size=40)), max_size=6)

UTTERANCE: dict[str, Any] = {"id": "1", "text": "Hello.", "voice": "default", "seed": 1}


def encoded(sent: list[tuple[FrameKind, bytes]]) -> bytes:
    return b"".join(encode_frame(kind, payload) for kind, payload in sent)


# Frames


@given(FRAMES)
def test_frames_survive_a_cut_at_every_byte(sent: list[tuple[FrameKind, bytes]]) -> None:
    stream = encoded(sent)
    for cut in range(len(stream) + 1):
        decoder = FrameDecoder()
        assert decoder.feed(stream[:cut]) + decoder.feed(stream[cut:]) == sent


@given(FRAMES)
def test_frames_survive_a_byte_at_a_time(sent: list[tuple[FrameKind, bytes]]) -> None:
    decoder = FrameDecoder()
    assert [frame for byte in encoded(sent) for frame in decoder.feed(bytes([byte]))] == sent


@given(FRAMES, st.data())
def test_a_body_that_stops_early_gives_only_complete_frames(
    sent: list[tuple[FrameKind, bytes]], data: st.DataObject
) -> None:
    stream = encoded(sent)
    received = FrameDecoder().feed(stream[: data.draw(st.integers(0, len(stream)))])
    assert received == sent[: len(received)]


def test_the_bytes_on_the_wire() -> None:
    assert encode_frame(FrameKind.PCM, b"\x01\x02\x03") == b"P\x00\x00\x00\x03\x01\x02\x03"
    assert encode_frame(FrameKind.END, b"") == b"E\x00\x00\x00\x00"


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 500", b"\x00" * 5, b"p\x00\x00\x00\x00", b"\xff" * 64])
def test_garbage_is_no_frame(garbage: bytes) -> None:
    with pytest.raises(FramingError, match="not a frame"):
        FrameDecoder().feed(garbage)


def test_garbage_after_a_frame_is_no_frame() -> None:
    decoder = FrameDecoder()
    assert decoder.feed(encode_frame(FrameKind.PCM, b"ab")) == [(FrameKind.PCM, b"ab")]
    with pytest.raises(FramingError):
        decoder.feed(b"ab\x00\x00\x00\x00")


def test_a_length_over_the_limit_is_refused_before_its_payload_comes() -> None:
    for kind, limit in ((b"P", MAX_PCM_FRAME_BYTES), (b"E", MAX_MESSAGE_BYTES), (b"X", MAX_MESSAGE_BYTES)):
        assert FrameDecoder().feed(struct.pack(">cI", kind, limit)) == []
        with pytest.raises(FramingError, match=str(limit + 1)):
            FrameDecoder().feed(struct.pack(">cI", kind, limit + 1))


def test_the_frames_of_a_body_that_arrives_in_chunks() -> None:
    sent = [(FrameKind.PCM, b"abcd"), (FrameKind.PCM, b""), (FrameKind.END, b"{}")]
    stream = encoded(sent) + b"P\x00"
    decoder = FrameDecoder()
    chunks = [stream[start : start + 3] for start in range(0, len(stream), 3)]
    assert [frame for chunk in chunks for frame in decoder.feed(chunk)] == sent


# Messages


def test_an_utterance_crosses_unchanged() -> None:
    parameters = {"a": 1, "b": 1.0, "c": True, "d": "x"}
    sent = Utterance(**UTTERANCE, parameters=parameters, token_budget=9)
    received = Utterance.model_validate_json(sent.model_dump_json())
    assert received == sent
    assert {name: type(value) for name, value in received.parameters.items()} == {
        "a": int,
        "b": float,
        "c": bool,
        "d": str,
    }


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_seeds_within_range(seed: int) -> None:
    assert Utterance.model_validate(UTTERANCE | {"seed": seed}).seed == seed


@pytest.mark.parametrize("seed", [-1, 2**32, None, "x", 0.5])
def test_seeds_out_of_range(seed: object) -> None:
    with pytest.raises(ValidationError, match="seed"):
        Utterance.model_validate(UTTERANCE | {"seed": seed})


@pytest.mark.parametrize("field", ["id", "text", "voice", "seed"])
def test_an_utterance_needs_every_field(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        Utterance.model_validate({name: value for name, value in UTTERANCE.items() if name != field})


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"speed_of_light\n  Extra inputs"):
        Utterance.model_validate(UTTERANCE | {"speed_of_light": 1})


def test_a_newer_worker_may_add_fields() -> None:
    end = EndOfUtterance.model_validate({"id": "u", "samples": 3, "compute_seconds": 0.5, "speed_of_light": 1})
    assert end == EndOfUtterance(id="u", samples=3, compute_seconds=0.5)
    UtteranceError.model_validate({"code": "full", "message": "", "speed_of_light": 1})


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "-1"])
def test_amounts_are_finite_and_not_negative(number: str) -> None:
    with pytest.raises(ValidationError, match="compute_seconds"):
        EndOfUtterance.model_validate_json(f'{{"id": "u", "samples": 3, "compute_seconds": {number}}}')


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[(field, value) for field in ("speed", "cpu_seconds", "started_at") for value in (nan, inf, -1.0)],
        ("stage_seconds", {"decode": nan}),
        *[("pid", value) for value in (0, -1, 10**30)],
        *[("slots", value) for value in (0, 10**9)],
        *[("resident_bytes", value) for value in (-1, 10**30)],
        ("sample_rate", 0),
        ("model", "m" * 5001),
    ],
)
def test_a_state_has_only_values_that_can_be_reported(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        worker_state(**{field: value})


def test_the_audio_of_a_text_is_bounded() -> None:
    assert max_pcm_bytes(0, 24_000) == 60 * 24_000 * 2
    assert max_pcm_bytes(5000, 24_000) < 2**28


def test_an_utterance_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Utterance(**UTTERANCE).text = "other"  # type: ignore[misc]


@pytest.mark.parametrize("phase", Phase)
def test_only_ready_is_ready(phase: Phase) -> None:
    state = worker_state(phase=phase, in_flight=("a",))
    assert state.ready is (phase == "ready")
    assert WorkerState.model_validate_json(state.model_dump_json()) == state


# Imports


def test_the_balancer_gets_no_numerical_library_with_it() -> None:
    heavy = "[name for name in ('numpy', 'torch', 'hibari') if name in sys.modules]"
    code = f"import sys, worker.cards, worker.contract; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
