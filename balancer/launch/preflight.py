"""Checks before a start: what would keep the server from running is refused here, with what to do about it."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path

from balancer.access.api_keys import KeysFileError, read_keys
from balancer.access.exposure import ExposureError, check_exposure
from balancer.requests.bodies import DEFAULT_VOICE
from balancer.settings.base import stand_in_home
from balancer.settings.settings import Settings
from balancer.settings.storage import StorageSettings
from voices.registry import Registry, UnknownVoiceError, VoiceError
from worker.checkpoints.catalogue import CHECKPOINTS, missing_extra
from worker.precision import detect_processor

MAX_SOCKET_PATH_BYTES = 107
"""Length of the path of a Unix socket on Linux (`man 7 unix`), without the terminating NUL."""


class LaunchError(RuntimeError):
    """The server cannot start; the message says why and what to do. Starting it again would not help."""


class TransientLaunchError(LaunchError):
    """The server cannot start now; later it may, with the same settings."""


def check(settings: Settings) -> None:
    """Raise LaunchError for anything that would keep the server from starting, except for the engine's weights.

    `balancer.launch.plan.with_weights` checks the weights. Creates the run directory.
    """
    try:
        check_exposure(settings)
    except ExposureError as error:
        raise LaunchError(str(error)) from error
    _check_folders(settings)
    _check_keys(settings.keys_path)
    check_engine(settings)
    check_voices(settings)
    _check_home(settings)
    _check_redis(settings.storage)
    _check_port(settings)
    _check_run_dir(settings.server.socket_dir)


def check_engine(settings: Settings) -> None:
    """Raise LaunchError for anything that would keep the engine from running, except for its weights."""
    check_engine_options(settings)
    if missing := missing_extra(settings.engine.card):
        raise LaunchError(missing)
    if settings.engine.model_dir is not None and settings.engine.engine not in CHECKPOINTS:
        raise LaunchError(
            f"engine {settings.engine.engine} comes with its weights; unset CHORUS_MODEL_DIR (--model-dir)"
        )


def check_engine_options(settings: Settings) -> None:
    """Raise LaunchError if the engine or this processor does not support the settings of the engine."""
    if (reason := settings.engine_options().unsupported_reason(detect_processor())) is not None:
        raise LaunchError(reason)


def check_voices(settings: Settings) -> None:
    """Raise LaunchError if the voice with which every worker warms up is missing, or is not one of this engine."""
    card, folder = settings.engine.card, settings.storage.voices_dir
    try:
        voice = Registry.load(folder).resolve(DEFAULT_VOICE)
    except VoiceError as error:
        raise LaunchError(str(error)) from error
    except UnknownVoiceError as error:
        raise LaunchError(f"the voice `{DEFAULT_VOICE}` is needed in {folder}: {error}") from error
    if not voice.fits(card.name, clones_voices=card.clones_voices):
        raise LaunchError(f"engine {card.name} does not support the voice `{DEFAULT_VOICE}` in {folder}")


def _check_folders(settings: Settings) -> None:
    for name, folder in (("data", settings.storage.data_dir), ("cache", settings.storage.cache_dir)):
        for path in (folder, *folder.parents):
            if path.exists():
                if not path.is_dir():
                    raise LaunchError(
                        f"the {name} directory {folder}: {path} is not a folder; remove it, or set "
                        f"CHORUS_{name.upper()}_DIR to another"
                    )
                break


def _check_keys(file: Path) -> None:
    try:
        read_keys(file)
    except KeysFileError as error:
        raise LaunchError(f"{error}; mend the file, or remove it and make new keys with `chorus keys add`") from error


def _check_home(settings: Settings) -> None:
    """Refuse a stand-in for a home directory that another user may have made, with keys and jobs of theirs in it."""
    home = stand_in_home()
    if home is None or not any(
        folder.is_relative_to(home) for folder in (settings.storage.data_dir, settings.storage.cache_dir)
    ):
        return
    _make_private(home, "directory", "set HOME, or CHORUS_DATA_DIR and CHORUS_CACHE_DIR")


def _check_redis(storage: StorageSettings) -> None:
    """Refuse a cluster: one script changes keys that it keeps on several nodes. A Redis that is away may come later."""
    if storage.redis_url is None:
        return
    from balancer.redis.client import is_cluster  # noqa: PLC0415 - loaded only where there is a Redis

    if asyncio.run(is_cluster(storage.redis_url.get_secret_value())):
        raise LaunchError(
            "CHORUS_REDIS_URL names a node of a Redis Cluster, which cannot hold jobs; use one primary with replicas "
            "and Sentinel, such as redis+sentinel://host:26379/chorus/0"
        )


def _check_run_dir(folder: Path) -> None:
    # The last worker that a host can have binds its socket under a temporary name that ends with its process id.
    longest = folder / "worker-1023.sock.4194304"
    if len(os.fsencode(longest)) > MAX_SOCKET_PATH_BYTES:
        raise LaunchError(f"the path of the run directory is too long for sockets: {folder}; set CHORUS_RUN_DIR")
    _make_private(folder, "run directory", "set CHORUS_RUN_DIR")
    if _answers(folder / "supervisor.sock"):
        raise TransientLaunchError(
            f"a Chorus already runs with the run directory {folder}; stop it, or choose another --port"
        )


def _make_private(folder: Path, name: str, instead: str) -> None:
    """Create a folder that only this user may open, or see that it is one. Raises LaunchError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise LaunchError(f"cannot create the {name} {folder}: {error.strerror}; {instead}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise LaunchError(
            f"the {name} {folder} must be a folder of yours that nobody else may open (mode 0700); "
            f"change its owner or mode, or {instead}"
        )


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        return client.connect_ex(str(path)) == 0


def _check_port(settings: Settings) -> None:
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        return  # systemd has opened the sockets
    failed = f"cannot listen on {settings.server.host}:{settings.server.port}"
    instead = "choose another --port or --host"
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            settings.server.host, settings.server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except UnicodeError as error:  # it cannot be encoded as a domain name
        raise LaunchError(f"{failed}: this is not a host name; {instead}") from error
    except OSError as error:
        raise TransientLaunchError(f"{failed}: {error.strerror}; {instead}") from error
