"""The order of measurements, and the conditions under which a calibration is valid."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from balancer.host.calibration import (
    DEFAULT_SLOTS,
    DEFAULT_THREADS,
    EQUAL_SPEED_SHARE,
    Calibration,
    Measurement,
    worker_configurations,
)
from tests.support.calibrations import CONDITIONS, calibration, measurement


def ranked(*measurements: Measurement) -> list[tuple[int, int]]:
    return [(one.threads, one.slots) for one in calibration(*measurements).ranked]


def test_a_measurement_as_text() -> None:
    assert measurement(2, 8, 250.0).speed == 2.5
    assert str(measurement(2, 8, 250.0)) == "8 workers of 2 threads and 8 slots: 2.5 audio seconds per second"
    assert str(measurement(workers=1)) == "1 worker of 1 thread and 1 slot: 1 audio seconds per second"


def test_the_fastest_is_the_best() -> None:
    assert ranked(measurement(1, 1, 100), measurement(1, 8, 300), measurement(2, 8, 200)) == [(1, 8), (2, 8), (1, 1)]


def test_among_equally_fast_ones_the_fewest_slots_are_best() -> None:
    alike = (measurement(1, 16, 300), measurement(2, 8, 298), measurement(1, 8, 297), measurement(1, 4, 290))
    assert ranked(*alike) == [(1, 8), (2, 8), (1, 16), (1, 4)]


@given(st.lists(st.builds(measurement, st.integers(1, 8), st.integers(1, 32), st.floats(1, 1000)), min_size=1))
def test_the_best_is_nearly_the_fastest_and_none_is_lost(measurements: list[Measurement]) -> None:
    order = calibration(*measurements).ranked
    assert order[0].speed >= EQUAL_SPEED_SHARE * max(one.speed for one in measurements)
    assert sorted(map(str, order)) == sorted(map(str, measurements))
    rest = [one.speed for one in order if one.speed < EQUAL_SPEED_SHARE * max(two.speed for two in measurements)]
    assert rest == sorted(rest, reverse=True)


@pytest.mark.parametrize(
    "fault",
    [{"threads": 0}, {"slots": 0}, {"workers": 0}, {"utterances": 0}, {"audio": 0.0}, {"seconds": 0.0}, {"speed": 1.0}],
)
def test_an_impossible_measurement(fault: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        measurement(**fault)


def test_a_calibration_needs_measurements() -> None:
    with pytest.raises(ValidationError):
        calibration()


def test_the_differences_of_conditions() -> None:
    assert CONDITIONS.differences(CONDITIONS) == ()
    other = CONDITIONS.model_copy(update={"cores": 4, "weights": "another"})
    assert CONDITIONS.differences(other) == ("weights", "cores")


@pytest.mark.parametrize("other", [{"weights": "b"}, {"processor": "EPYC"}, {"cores": 4}, {"quota": 2.5}])
def test_each_set_of_conditions_has_a_file_of_its_own(other: dict[str, object]) -> None:
    changed = CONDITIONS.model_copy(update=other)
    assert changed.file_stem != CONDITIONS.file_stem
    assert changed.file_prefix == CONDITIONS.file_prefix == "turbo_batched_int8."
    assert CONDITIONS.file_stem.startswith(CONDITIONS.file_prefix)


def test_no_prefix_matches_the_files_of_another_engine() -> None:
    labels = ("turbo, batched, fp32", "turbo, batched, fp32, prompts of 4 s", "multilingual", "multilingual-v3")
    several = [CONDITIONS.model_copy(update={"engine": label}) for label in labels]
    for one in several:
        assert [other for other in several if other.file_stem.startswith(one.file_prefix)] == [one]


def test_a_calibration_survives_json() -> None:
    made = calibration(measurement(1, 4), measurement(2, 8))
    assert Calibration.model_validate_json(made.model_dump_json()) == made


def test_worker_configurations_are_distinct_and_ascending() -> None:
    assert worker_configurations([2, 1, 2], [4, 1]) == [(1, 1), (1, 4), (2, 1), (2, 4)]
    assert len(worker_configurations(DEFAULT_THREADS, DEFAULT_SLOTS)) == 15
