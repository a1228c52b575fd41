"""What was handed on of an utterance is neither handed on again nor replaced."""

from __future__ import annotations

import pytest

from balancer.dispatch.early_audio import AttemptAudio, AudioDivergedError, EarlyAudio


def test_each_piece_is_handed_on_at_once() -> None:
    heard: list[bytes] = []
    audio = AttemptAudio(EarlyAudio(heard.append))
    audio.add(b"abcd")
    assert heard == [b"abcd"]
    audio.add(b"ef")
    audio.finish()
    assert heard == [b"abcd", b"ef"]


@pytest.mark.parametrize("pieces", [[b"abcdefgh"], [b"ab", b"cdef", b"gh"], [b"abcd", b"efgh"]])
def test_what_was_handed_on_is_skipped_however_the_next_attempt_is_cut(pieces: list[bytes]) -> None:
    heard: list[bytes] = []
    early = EarlyAudio(heard.append)
    AttemptAudio(early).add(b"abcd")
    again = AttemptAudio(early)
    for piece in pieces:
        again.add(piece)
    again.finish()
    assert b"".join(heard) == b"abcdefgh"


def test_two_attempts_side_by_side_are_heard_as_one() -> None:
    heard: list[bytes] = []
    early = EarlyAudio(heard.append)
    slow, fast = AttemptAudio(early), AttemptAudio(early)
    slow.add(b"ab")
    fast.add(b"abcd")
    slow.add(b"cdef")
    fast.add(b"ef")
    assert b"".join(heard) == b"abcdef"


@pytest.mark.parametrize("pieces", [[b"abcX"], [b"X"], [b"abcd", b"X"]])
def test_other_audio_than_was_handed_on_is_an_error(pieces: list[bytes]) -> None:
    heard: list[bytes] = []
    early = EarlyAudio(heard.append)
    AttemptAudio(early).add(b"abcde")
    other = AttemptAudio(early)
    *same, last = pieces
    for piece in same:
        other.add(piece)
    with pytest.raises(AudioDivergedError, match="is other than"):
        other.add(last)
    assert heard == [b"abcde"]


def test_less_audio_than_was_handed_on_is_an_error() -> None:
    early = EarlyAudio(lambda _: None)
    AttemptAudio(early).add(b"abcd")
    shorter = AttemptAudio(early)
    shorter.add(b"ab")
    with pytest.raises(AudioDivergedError, match="2 bytes, and 4"):
        shorter.finish()


def test_a_later_listener_gets_what_there_is_and_then_the_rest() -> None:
    early = EarlyAudio(lambda _: None)
    early.add(b"ab")
    early.add(b"cd")
    heard: list[bytes] = []
    with early.followed_by(heard.append):
        assert heard == [b"ab", b"cd"]
        early.add(b"ef")
    early.add(b"gh")
    assert heard == [b"ab", b"cd", b"ef"]
