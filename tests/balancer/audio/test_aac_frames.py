"""Frames of AAC that are filled to one size, and decode as before."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import pytest

from balancer.audio.aac_frames import FRAME_SAMPLES, fill, frame_bytes

RATE = 48_000


@pytest.fixture(scope="module")
def frames() -> list[bytes]:
    """The frames of a second of noise that fades in from silence, of many sizes."""
    noise = np.random.default_rng(0).normal(0, 3_000, RATE) * np.linspace(0, 1, RATE) ** 2
    encoder = av.CodecContext.create("aac", "w")
    encoder.sample_rate, encoder.format, encoder.layout = RATE, "fltp", "mono"
    encoder.options = {"b": "80000", "bt": "0", "aac_coder": "fast"}
    samples = (noise / 2**15).astype(np.float32)

    def pieces() -> Iterator[av.AudioFrame | None]:
        for start in range(0, RATE - FRAME_SAMPLES, FRAME_SAMPLES):
            frame = av.AudioFrame.from_ndarray(samples[np.newaxis, start : start + FRAME_SAMPLES], "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            yield frame
        yield None

    return [bytes(packet) for piece in pieces() for packet in encoder.encode(piece)]


def decoded(frames: list[bytes]) -> list[bytes]:
    decoder = av.CodecContext.create("aac", "r")
    decoder.extradata = bytes((0b00010001, 0b10001000))  # AAC-LC, 48 kHz, mono
    packets = [*(av.Packet(frame) for frame in frames), None]
    return [frame.to_ndarray().tobytes() for packet in packets for frame in decoder.decode(packet)]


def test_a_filled_frame_has_the_size_and_the_same_sound(frames: list[bytes]) -> None:
    size = frame_bytes(80_000, RATE)
    assert len({len(frame) for frame in frames}) > 10
    filled = [fill(frame, size) for frame in frames]
    assert {len(frame) for frame in filled} == {size}
    assert decoded(filled) == decoded(frames)


@pytest.mark.parametrize("more", [*range(40), 100, 266])
def test_any_number_of_bytes_can_be_added(frames: list[bytes], more: int) -> None:
    filled = [fill(frame, len(frame) + more) for frame in frames[::6]]
    assert [len(frame) for frame in filled] == [len(frame) + more for frame in frames[::6]]
    assert decoded(filled) == decoded(frames[::6])


def test_one_element_adds_271_bytes_at_most(frames: list[bytes]) -> None:
    assert len(fill(frames[0], 5000)) - len(frames[0]) in (270, 271)


def test_a_frame_that_is_too_long_stays(frames: list[bytes]) -> None:
    assert fill(frames[-1], 3) == frames[-1]


def test_the_largest_frame_of_a_bit_rate() -> None:
    assert frame_bytes(80_000, 48_000) == 214
    assert frame_bytes(64_000, 44_100) == 186
