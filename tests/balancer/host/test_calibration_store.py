"""Calibrations on disk: found only if all conditions are the same."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from balancer.host.calibration import Calibration, CalibrationConditions
from balancer.host.calibration_store import UNKNOWN_WEIGHTS, calibrations_folder, find_calibration, save
from tests.support.calibrations import CONDITIONS, calibration, measurement

CURRENT = CONDITIONS.model_copy(update={"weights": UNKNOWN_WEIGHTS})


def calibration_under(slots: int = 4, **conditions: Any) -> Calibration:
    changed = CalibrationConditions.model_validate(CONDITIONS.model_dump() | conditions)
    return calibration(measurement(1, slots)).model_copy(update={"conditions": changed})


def weights(digest: str = "a digest") -> Callable[[], str]:
    return lambda: digest


def not_to_be_called() -> NoReturn:
    raise AssertionError("the weights were read for nothing")


def other(*names: str) -> str:
    return f"No calibration matches this host, which differs in {', '.join(names)}; run `chorus calibrate`."


def test_without_calibrations_there_is_no_remark(tmp_path: Path) -> None:
    assert find_calibration(CURRENT, tmp_path, not_to_be_called) == (None, None)


def test_a_saved_calibration_is_found(tmp_path: Path) -> None:
    place = save(calibration_under(), tmp_path)
    assert list(calibrations_folder(tmp_path).iterdir()) == [place]
    assert find_calibration(CURRENT, tmp_path, weights()) == (
        calibration_under().model_copy(update={"measured_at": _measured_at(place)}),
        None,
    )


def _measured_at(place: Path) -> object:
    return Calibration.model_validate_json(place.read_bytes()).measured_at


def test_a_later_calibration_replaces_an_earlier_one(tmp_path: Path) -> None:
    assert save(calibration_under(slots=4), tmp_path) == save(calibration_under(slots=8), tmp_path)
    found, _ = find_calibration(CURRENT, tmp_path, weights())
    assert found is not None
    assert found.measurements[0].slots == 8


def test_each_checkpoint_has_its_own(tmp_path: Path) -> None:
    save(calibration_under(slots=4), tmp_path)
    save(calibration_under(slots=8, weights="another"), tmp_path)
    found, _ = find_calibration(CURRENT, tmp_path, weights("another"))
    assert found is not None
    assert found.measurements[0].slots == 8
    assert find_calibration(CURRENT, tmp_path, weights("a third")) == (None, other("weights"))


@pytest.mark.parametrize("conditions", [{"cores": 4}, {"processor": "EPYC"}, {"quota": 1.5}])
def test_one_of_another_host_is_ignored_without_reading_the_weights(tmp_path: Path, conditions: dict[str, Any]) -> None:
    save(calibration_under(**conditions), tmp_path)
    assert find_calibration(CURRENT, tmp_path, not_to_be_called) == (None, other(*conditions))


@pytest.mark.parametrize(
    "conditions", [{"engine": label} for label in ("nano, batched, int8", "turbo, batched, fp32", "turbo, stock, int8")]
)
def test_one_of_other_engine_options_is_ignored_silently(tmp_path: Path, conditions: dict[str, Any]) -> None:
    save(calibration_under(**conditions), tmp_path)
    assert find_calibration(CURRENT, tmp_path, not_to_be_called) == (None, None)


@pytest.mark.parametrize("content", ["", "{}", "null", '{"conditions": 1}', "\0"])
def test_a_damaged_one_is_ignored(tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    place = save(calibration_under(), tmp_path)
    place.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert find_calibration(CURRENT, tmp_path, not_to_be_called) == (None, None)
    assert f"ignoring the calibration in {place}, which cannot be read" in caplog.text


def test_a_failed_save_leaves_no_partial_file(tmp_path: Path) -> None:
    (calibrations_folder(tmp_path) / f"{CONDITIONS.file_stem}.json").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        save(calibration_under(), tmp_path)
    assert [path.suffix for path in calibrations_folder(tmp_path).iterdir()] == [".json"]
