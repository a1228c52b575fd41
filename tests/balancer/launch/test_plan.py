"""The layout and the weights that `chorus serve` chooses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import pytest

from balancer.cache.weights_fingerprint import weights_fingerprint
from balancer.cpu_lists import LayoutError
from balancer.host.calibration import Calibration
from balancer.host.calibration_store import save
from balancer.host.cpu_budget import Core, Host
from balancer.launch import plan
from balancer.launch.plan import choose_layout, with_weights
from balancer.launch.preflight import LaunchError, check
from balancer.settings.settings import Settings
from tests.support.checkpoint_files import write
from tests.support.launch import ICE_LAKE, settings_in
from worker.checkpoints.catalogue import CHECKPOINTS, MEANFLOW, Checkpoint, DownloadError

TURBO = CHECKPOINTS["turbo"]


# The weights


def prepared(settings: Settings) -> Settings:
    return with_weights(settings, announce=lambda _: None)


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch, cache: Path) -> list[str | None]:
    """The revisions that were downloaded: a stand-in for the hub."""
    requested: list[str | None] = []

    def download(checkpoint: Checkpoint, *, revision: str | None, announce: Callable[[str], None]) -> Path:
        requested.append(revision)
        return write(checkpoint, cache.with_name(revision or checkpoint.revision))

    monkeypatch.setattr(plan, "download", download)
    return requested


def test_an_engine_that_comes_with_its_weights(folder: Path, tmp_path: Path) -> None:
    settings = settings_in(folder)
    assert prepared(settings) == settings
    with pytest.raises(LaunchError) as caught:
        check(settings_in(folder, model_dir=tmp_path))
    assert str(caught.value) == "engine hibari comes with its weights; unset CHORUS_MODEL_DIR (--model-dir)"


def test_weights_in_the_cache_are_taken_from_there(folder: Path, cache: Path, downloads: list[str | None]) -> None:
    write(TURBO, cache)
    settings = settings_in(folder, engine="turbo")
    check(settings)
    assert prepared(settings) == settings.updated(model_dir=cache)
    assert downloads == []


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("revision", [None, "a" * 40])
def test_missing_weights_are_downloaded_once(
    folder: Path, cache: Path, downloads: list[str | None], partial: bool, revision: str | None
) -> None:
    place = cache.with_name(revision or TURBO.revision)
    if partial:
        write(TURBO, place)
        (place / TURBO.files[0]).unlink()
    settings = settings_in(folder, engine="turbo", model_revision=revision)
    assert prepared(settings).engine.model_dir == place
    assert prepared(settings).engine.model_dir == place
    assert downloads == [revision]


def test_damaged_weights_are_reported(folder: Path, cache: Path, downloads: list[str | None]) -> None:
    write(TURBO, cache)
    (cache / TURBO.files[0]).write_bytes(b"")
    with pytest.raises(LaunchError, match=r"ve.safetensors is empty; run: chorus models download turbo"):
        prepared(settings_in(folder, engine="turbo"))
    assert downloads == []


def test_weights_are_looked_for_in_model_dir_only(
    folder: Path, cache: Path, tmp_path: Path, downloads: list[str | None]
) -> None:
    write(TURBO, cache)
    own = write(TURBO, tmp_path / "own")
    settings = settings_in(folder, engine="turbo", model_dir=own)
    assert prepared(settings) == settings
    (own / TURBO.files[0]).unlink()
    with pytest.raises(LaunchError, match=f"turbo's weights in {own} lack ve.safetensors"):
        prepared(settings)
    with pytest.raises(LaunchError, match="does not exist"):
        prepared(settings_in(folder, engine="turbo", model_dir=tmp_path / "nowhere"))
    assert downloads == []


def test_weights_of_another_model_under_this_ones_names_are_refused(
    folder: Path, cache: Path, tmp_path: Path, downloads: list[str | None]
) -> None:
    own = write(TURBO, tmp_path / "own")
    original = write(CHECKPOINTS["chatterbox"], tmp_path / "original")
    shutil.copy(original / "t3_cfg.safetensors", own / "t3_turbo_v1.safetensors")
    shutil.copy(original / "s3gen.safetensors", own / "s3gen_meanflow.safetensors")
    with pytest.raises(LaunchError) as caught:
        prepared(settings_in(folder, engine="turbo", model_dir=own))
    assert str(caught.value) == (
        f"the weights in {own} are not turbo's: "
        "t3_turbo_v1.safetensors has no tensor tfmr.h.0.attn.c_attn.weight: it is another model's; "
        "s3gen_meanflow.safetensors has no tensor flow.decoder.estimator.time_embed_mixer.weight: "
        "it is another model's; "
        "put them there whole, or unset CHORUS_MODEL_DIR (--model-dir) and run: chorus models download turbo"
    )
    assert downloads == []


def test_the_mean_flow_is_downloaded_beside_the_engines_files(
    folder: Path, cache: Path, tmp_path: Path, downloads: list[str | None]
) -> None:
    """`cache` is the folder of the repository that has it."""
    settings = settings_in(folder, engine="chatterbox", flow="meanflow", model_revision="a" * 40)
    assert prepared(settings).engine.model_dir == cache.with_name("a" * 40)
    assert downloads == ["a" * 40, None]
    assert (cache / MEANFLOW.files[0]).exists()
    own = write(CHECKPOINTS["chatterbox"], tmp_path / "own")
    settings = settings_in(folder, engine="chatterbox", flow="meanflow", model_dir=own)
    assert prepared(settings) == settings
    shutil.copy(own / "s3gen.safetensors", own / MEANFLOW.files[0])
    with pytest.raises(
        LaunchError, match=f"the weights in {own} are not meanflow's: s3gen_meanflow.safetensors has no"
    ):
        prepared(settings)
    shutil.rmtree(cache)
    (own / MEANFLOW.files[0]).unlink()
    with pytest.raises(LaunchError, match="meanflow's weights are not on this host; run: chorus models download mean"):
        prepared(settings)
    assert len(downloads) == 2


def test_a_download_that_fails(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> NoReturn:
        raise DownloadError("no answer from the hub")

    monkeypatch.setattr(plan, "download", download)
    with pytest.raises(LaunchError, match="no answer from the hub"):
        prepared(settings_in(folder, engine="turbo"))


# The layout


def test_an_impossible_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    def impossible(*_: object, **__: object) -> NoReturn:
        raise LayoutError("memory holds no worker")

    monkeypatch.setattr(plan, "plan_layout", impossible)
    with pytest.raises(LaunchError, match="memory holds no worker"):
        choose_layout(Settings())


@pytest.fixture
def roomy(ice_lake: None, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Whatever the tests run on, it counts as a host of two cores with memory for all."""
    host = Host((Core((0,), 0), Core((1,), 0)), frozenset({0, 1}), None, 256 * 2**30)
    monkeypatch.setattr(plan, "detect_topology", lambda: host)
    return host


def calibrated(settings: Settings, host: Host) -> None:
    """Keep a calibration for these settings on that host: three slots are the fastest."""
    configuration = {"threads": 1, "workers": 2, "utterances": 4, "seconds": 10, "answer_seconds": 5, "worker_bytes": 1}
    measurements = [
        configuration | {"slots": slots, "audio_seconds": audio} for slots, audio in ((1, 4), (3, 9), (8, 6))
    ]
    held_for = plan.calibration_conditions(settings, host, weights_fingerprint(settings))
    made = {"conditions": held_for, "measured_at": datetime.now(UTC), "measurements": measurements}
    save(Calibration.model_validate(made), settings.storage.cache_dir)


def test_a_calibration_under_the_same_conditions_is_used(folder: Path, roomy: Host, tmp_path: Path) -> None:
    weights = write(TURBO, tmp_path / "weights")
    settings = settings_in(folder, engine="turbo", model_dir=weights, cache_dir=folder / "cache")
    assert choose_layout(settings).slots == 8
    calibrated(settings, roomy)
    chosen = choose_layout(settings)
    assert chosen.slots == 3
    assert (
        "3 slots per worker, from this host's calibration: 2 workers of 1 thread and 3 slots: 0.9 audio"
        in chosen.reasons[1]
    )
    assert choose_layout(settings.updated(slots=5)).slots == 5
    assert choose_layout(settings.updated(cores="0")).slots == 3


@pytest.mark.parametrize("other", ["weights", "processor", "cores", "quota"])
def test_a_calibration_under_other_conditions_is_ignored_with_a_remark(
    folder: Path, roomy: Host, tmp_path: Path, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = write(TURBO, tmp_path / "weights")
    settings = settings_in(folder, engine="turbo", model_dir=weights, cache_dir=folder / "cache")
    calibrated(settings, roomy)
    match other:
        case "weights":
            (weights / "conds.pt").unlink()
        case "processor":
            monkeypatch.setattr(plan, "detect_processor", lambda: replace(ICE_LAKE, name="Sky Lake"))
        case "cores":
            monkeypatch.setattr(plan, "detect_topology", lambda: replace(roomy, allowed=frozenset({0})))
        case "quota":
            monkeypatch.setattr(plan, "detect_topology", lambda: replace(roomy, quota=1.5))
    chosen = choose_layout(settings)
    assert chosen.slots == 8
    assert f"No calibration matches this host, which differs in {other}; run `chorus calibrate`." in chosen.reasons


@pytest.mark.parametrize("other", [{"runtime": "stock"}, {"precision": "int8"}, {"engine": "nano"}])
def test_a_calibration_of_other_engine_options_is_ignored_silently(
    folder: Path, roomy: Host, tmp_path: Path, other: dict[str, str]
) -> None:
    settings = settings_in(folder, engine="turbo", cache_dir=folder / "cache")
    calibrated(settings, roomy)
    chosen = choose_layout(Settings.load({}, **({"engine": "turbo", "cache_dir": folder / "cache"} | other)))
    assert not [
        reason for reason in chosen.reasons if "calibration matches" in reason or "host's calibration" in reason
    ]


def test_the_settings_reach_the_layout() -> None:
    layout = choose_layout(Settings.load({}, cores="0"))
    assert layout.workers == ((0,),)
    one = choose_layout(Settings.load({}, workers=1, threads=1))
    assert (len(one.workers), one.threads) == (1, 1)
