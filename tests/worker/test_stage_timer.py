from __future__ import annotations

from collections.abc import Callable, Generator

import pytest

from worker import stage_timer as module
from worker.stage_timer import StageTimer


class Clock:
    """A clock that goes only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_each_stage_has_the_seconds_of_all_its_blocks(clock: Clock) -> None:
    stages = StageTimer()
    for stage, seconds in (("decode", 1.0), ("flow", 5.0), ("decode", 2.0)):
        with stages(stage):
            clock.passes(seconds)
        clock.passes(10)
    assert stages.seconds == {"decode": 3, "flow": 5}


def test_a_block_within_a_block_is_not_counted_twice(clock: Clock) -> None:
    stages = StageTimer()
    with stages("sound"):
        clock.passes(1)
        with stages("vocoder"):
            clock.passes(2)
        clock.passes(4)
    assert stages.seconds == {"sound": 5, "vocoder": 2}


def test_a_block_that_fails_has_taken_its_time(clock: Clock) -> None:
    def fail() -> None:
        with stages("decode"):
            clock.passes(1)
            raise KeyError

    stages = StageTimer()
    with pytest.raises(KeyError):
        fail()
    clock.passes(10)
    with stages("flow"):
        clock.passes(2)
    assert stages.seconds == {"decode": 1, "flow": 2}


def test_a_watched_method_does_what_it_did_and_is_counted(clock: Clock) -> None:
    class Model:
        def speak(self, text: str, *, ending: Callable[[str], str]) -> str:
            clock.passes(3)
            return ending(text)

    stages, model = StageTimer(), Model()
    stages.watch(model, "speak", "decode")
    assert model.speak("a", ending=str.upper) == "A"
    assert stages.seconds == {"decode": 3}
    assert Model().speak("b", ending=str.upper) == "B"
    assert stages.seconds == {"decode": 3}


def test_of_a_generator_its_steps_are_counted_and_nothing_between(clock: Clock) -> None:
    def pieces() -> Generator[int, None, str]:
        clock.passes(1)
        yield 5
        clock.passes(2)
        yield 6
        clock.passes(4)
        return "whole"

    stages = StageTimer()
    steps = stages.steps("flow", pieces())
    seen = []

    def others_between() -> Generator[int, None, None]:
        seen.append((yield from steps))

    for piece in others_between():
        seen.append(str(piece))
        clock.passes(10)
    assert seen == ["5", "6", "whole"]
    assert stages.seconds == {"flow": 7}
