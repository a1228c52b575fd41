"""Calibrations on disk: found where all conditions are the same, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from balancer.host.calibration import Calibration, Conditions
from balancer.host.calibration_store import UNKNOWN_WEIGHTS, calibrations_folder, find_calibration, save
from tests.support.calibrations import CONDITIONS, calibration, measurement

ASKED = CONDITIONS.model_copy(update={"weights": UNKNOWN_WEIGHTS})


def made(slots: int = 4, **conditions: Any) -> Calibration:
    held_for = Conditions.model_validate(CONDITIONS.model_dump() | conditions)
    return calibration(measurement(1, slots)).model_copy(update={"conditions": held_for})


def weights(digest: str = "a digest") -> Callable[[], str]:
    return lambda: digest


def unasked() -> NoReturn:
    raise AssertionError("gigabytes were read for nothing")


def other(*names: str) -> str:
    return f"No calibration matches this host, which differs in {', '.join(names)}; run `chorus calibrate`."


def test_where_there_is_none_nothing_is_said(tmp_path: Path) -> None:
    assert find_calibration(ASKED, tmp_path, unasked) == (None, None)


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    place = save(made(), tmp_path)
    assert list(calibrations_folder(tmp_path).iterdir()) == [place]
    assert find_calibration(ASKED, tmp_path, weights()) == (
        made().model_copy(update={"measured_at": _when(place)}),
        None,
    )


def _when(place: Path) -> object:
    return Calibration.model_validate_json(place.read_bytes()).measured_at


def test_a_later_one_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    assert save(made(slots=4), tmp_path) == save(made(slots=8), tmp_path)
    found, _ = find_calibration(ASKED, tmp_path, weights())
    assert found is not None
    assert found.measurements[0].slots == 8


def test_checkpoints_have_one_each(tmp_path: Path) -> None:
    save(made(slots=4), tmp_path)
    save(made(slots=8, weights="another"), tmp_path)
    found, _ = find_calibration(ASKED, tmp_path, weights("another"))
    assert found is not None
    assert found.measurements[0].slots == 8
    assert find_calibration(ASKED, tmp_path, weights("a third")) == (None, other("weights"))


@pytest.mark.parametrize("conditions", [{"cores": 4}, {"processor": "EPYC"}, {"quota": 1.5}])
def test_of_another_host_it_is_left_aside_and_the_weights_are_not_read(
    tmp_path: Path, conditions: dict[str, Any]
) -> None:
    save(made(**conditions), tmp_path)
    assert find_calibration(ASKED, tmp_path, unasked) == (None, other(*conditions))


@pytest.mark.parametrize(
    "conditions", [{"engine": label} for label in ("nano, batched, int8", "turbo, batched, fp32", "turbo, stock, int8")]
)
def test_of_another_way_to_run_it_is_no_matter(tmp_path: Path, conditions: dict[str, Any]) -> None:
    save(made(**conditions), tmp_path)
    assert find_calibration(ASKED, tmp_path, unasked) == (None, None)


@pytest.mark.parametrize("content", ["", "{}", "null", '{"conditions": 1}', "\0"])
def test_a_damaged_one_counts_for_nothing(tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    place = save(made(), tmp_path)
    place.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert find_calibration(ASKED, tmp_path, unasked) == (None, None)
    assert f"ignoring the calibration in {place}, which cannot be read" in caplog.text


def test_what_cannot_be_kept_leaves_nothing_half(tmp_path: Path) -> None:
    (calibrations_folder(tmp_path) / f"{CONDITIONS.file_stem}.json").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        save(made(), tmp_path)
    assert [path.suffix for path in calibrations_folder(tmp_path).iterdir()] == [".json"]
