"""Prepares a start: chooses the layout for this host and finds the engine's weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from balancer.cache.weights_fingerprint import weights_fingerprint
from balancer.cpu_lists import LayoutError, parse_cores
from balancer.host.calibration import CalibrationConditions
from balancer.host.calibration_store import UNKNOWN_WEIGHTS, find_calibration
from balancer.host.cpu_budget import CpuBudget, Host
from balancer.host.layout import Layout, plan_layout
from balancer.host.memory_budget import WorkerMemory
from balancer.host.topology import detect_topology
from balancer.launch.download import download
from balancer.launch.preflight import LaunchError, TransientLaunchError, check_engine_options
from balancer.settings.settings import Settings
from worker.cards import FlowModel
from worker.checkpoints.catalogue import (
    CHECKPOINTS,
    MEANFLOW,
    Checkpoint,
    CheckpointError,
    DownloadError,
    MissingCheckpointError,
    check_fit,
    find,
    find_meanflow,
)
from worker.precision import detect_processor


def choose_layout(settings: Settings) -> Layout:
    """Returns the layout that `chorus serve` would start on this host. Raises LaunchError."""
    check_engine_options(settings)
    host = detect_topology()
    try:
        calibration, remark = find_calibration(
            calibration_conditions(settings, host), settings.storage.cache_dir, lambda: weights_fingerprint(settings)
        )
        layout = plan_layout(
            host,
            WorkerMemory.of(settings.engine_options()),
            workers=settings.layout.workers,
            threads=settings.layout.threads,
            slots=settings.layout.slots,
            cores=parse_cores(settings.layout.cores) if settings.layout.cores is not None else None,
            measured=calibration.ranked if calibration is not None else (),
        )
    except LayoutError as error:
        raise LaunchError(str(error)) from error
    return layout if remark is None else replace(layout, reasons=(*layout.reasons, remark))


def calibration_conditions(settings: Settings, host: Host, weights: str = UNKNOWN_WEIGHTS) -> CalibrationConditions:
    """Returns the conditions under which a calibration of this host with these settings is valid."""
    budget = CpuBudget.of(host)
    return CalibrationConditions(
        engine=settings.engine_options().label(),
        weights=weights,
        processor=detect_processor().name,
        cores=len(budget.cores),
        quota=budget.quota,
    )


def with_weights(settings: Settings, *, announce: Callable[[str], object]) -> Settings:
    """Returns the settings with the folder of the engine's weights as `model_dir`, where all workers find them.

    Weights that are not in the hub's cache are downloaded first, once, and `announce` is told so. That takes minutes,
    so it comes after all other checks. Raises LaunchError.
    """
    checkpoint = CHECKPOINTS.get(settings.engine.engine)
    if checkpoint is None:
        return settings
    try:
        folder = _find_or_download(checkpoint, settings, announce)
        check_fit(checkpoint, folder)
        if settings.engine.flow is FlowModel.MEANFLOW:
            check_fit(MEANFLOW, _find_or_download_meanflow(folder, settings, announce))
    except DownloadError as error:
        raise TransientLaunchError(str(error)) from error
    except CheckpointError as error:
        raise LaunchError(str(error)) from error
    return settings.updated(model_dir=folder)


def _find_or_download(checkpoint: Checkpoint, settings: Settings, announce: Callable[[str], object]) -> Path:
    try:
        return find(checkpoint, model_dir=settings.engine.model_dir, revision=settings.engine.model_revision)
    except MissingCheckpointError:
        if settings.engine.model_dir is not None:
            raise
    return download(checkpoint, revision=settings.engine.model_revision, announce=announce)


def _find_or_download_meanflow(folder: Path, settings: Settings, announce: Callable[[str], object]) -> Path:
    try:
        return find_meanflow(folder)
    except MissingCheckpointError:
        if settings.engine.model_dir is not None:
            raise
    return download(MEANFLOW, revision=None, announce=announce)
