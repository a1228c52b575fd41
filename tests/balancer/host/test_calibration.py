"""The order of measurements, and the conditions under which a calibration is valid."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from balancer.host.calibration import (
    DEFAULT_SLOTS,
    EQUAL_FIRST_SOUND,
    EQUAL_SPEED_SHARE,
    Calibration,
    Measurement,
    Objective,
    default_threads,
    earliest,
    probes,
    worker_configurations,
)
from tests.support.calibrations import CONDITIONS, calibration, measurement


def ranked(*measurements: Measurement, objective: Objective = Objective.THROUGHPUT) -> list[tuple[int, int]]:
    made = calibration(*measurements).model_copy(update={"objective": objective})
    return [(one.threads, one.slots) for one in made.ranked]


def test_a_measurement_as_text() -> None:
    assert measurement(2, 8, 250.0).speed == 2.5
    assert str(measurement(2, 8, 250.0)) == "8 workers of 2 threads and 8 slots: 2.5 audio seconds per second"
    assert str(measurement(workers=1)) == "1 worker of 1 thread and 1 slot: 1 audio seconds per second"
    assert str(measurement(first_sound_seconds=1.23)).endswith(", first sound after 1.23 s")


def test_the_fastest_is_the_best() -> None:
    assert ranked(measurement(1, 1, 100), measurement(1, 8, 300), measurement(2, 8, 200)) == [(1, 8), (2, 8), (1, 1)]


def test_among_equally_fast_ones_the_fewest_slots_are_best() -> None:
    alike = (measurement(1, 16, 300), measurement(2, 8, 298), measurement(1, 8, 297), measurement(1, 4, 290))
    assert ranked(*alike) == [(1, 8), (2, 8), (1, 16), (1, 4)]


def test_for_latency_the_earliest_first_sound_is_the_best_and_then_the_fastest() -> None:
    alone = measurement(1, 8, 900, first_sound_seconds=4.0)
    early = measurement(4, 8, 500, first_sound_seconds=2.0)
    nearly = measurement(2, 8, 600, first_sound_seconds=2.15)
    few_slots = measurement(2, 4, 590, first_sound_seconds=2.2)
    late = measurement(8, 8, 950, first_sound_seconds=2.3)
    found = (alone, early, nearly, few_slots, late)
    assert ranked(*found, objective=Objective.LATENCY) == [(2, 4), (2, 8), (4, 8), (8, 8), (1, 8)]
    assert ranked(*found)[0] == (8, 8)
    assert {one.threads for one in earliest(found)} == {2, 4}


@given(st.lists(st.builds(measurement, st.integers(1, 8), st.integers(1, 32), st.floats(1, 1000)), min_size=1))
def test_without_first_sounds_both_objectives_choose_alike(measurements: list[Measurement]) -> None:
    assert ranked(*measurements, objective=Objective.LATENCY) == ranked(*measurements)


@given(
    st.lists(
        st.builds(
            measurement,
            st.integers(1, 8),
            st.integers(1, 32),
            st.floats(1, 1000),
            first_sound_seconds=st.floats(0.1, 10),
        ),
        min_size=1,
    )
)
def test_for_latency_none_is_lost_and_the_best_is_early(measurements: list[Measurement]) -> None:
    order = calibration(*measurements).model_copy(update={"objective": Objective.LATENCY}).ranked
    assert sorted(map(str, order)) == sorted(map(str, measurements))
    soonest = min(one.first_sound_seconds or 0 for one in measurements)
    assert (order[0].first_sound_seconds or 0) <= EQUAL_FIRST_SOUND * soonest


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


@pytest.mark.parametrize(
    ("objective", "max_threads", "threads"),
    [
        (Objective.THROUGHPUT, 1, [1]),
        (Objective.THROUGHPUT, 64, [1, 2, 4]),
        (Objective.LATENCY, 2, [1, 2]),
        (Objective.LATENCY, 7, [1, 2, 4]),
        (Objective.LATENCY, 64, [1, 2, 4, 8]),
    ],
)
def test_the_threads_that_are_measured(objective: Objective, max_threads: int, threads: list[int]) -> None:
    assert default_threads(objective, max_threads) == threads


def test_probes_have_the_usual_slots_as_far_as_they_fit() -> None:
    assert probes(worker_configurations([1, 2], DEFAULT_SLOTS), 8) == [(1, 8), (2, 8)]
    assert probes([(1, 1), (1, 4), (2, 1)], 8) == [(1, 4), (2, 1)]
