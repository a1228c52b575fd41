"""`chorus serve`: checks what would go wrong later, chooses the layout, and becomes supervisord."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from balancer.requests.bodies import DEFAULT_VOICE
from balancer.settings import Settings
from voices.registry import Registry, UnknownVoiceError, VoiceError
from worker.checkpoints.catalogue import (
    CHECKPOINTS,
    missing_extra,
)
from worker.precision import detect_processor

SOCKET_PATH_BYTES = 107
"""Longest path of a Unix socket on Linux (`man 7 unix`), without the closing NUL."""


class LaunchError(RuntimeError):
    """The server cannot start; the message says why and what to do."""


def check(settings: Settings) -> None:
    """Raise LaunchError for whatever would keep the server from starting, save the weights: see `with_weights`."""
    check_reach(settings)
    check_engine(settings)
    check_voices(settings)
    _check_port(settings)
    _check_run_dir(settings.server.socket_dir)


def check_reach(settings: Settings) -> None:
    """Raise LaunchError where whoever reaches this host could use the server."""
    access = settings.access
    if settings.server.loopback or access.api_keys or access.allow_anonymous or settings.keys_path.exists():
        return
    raise LaunchError(
        f"refusing to listen on {settings.server.host} without API keys: whoever reaches this port could use it.\n"
        "Either make a key:     chorus keys add NAME, or export CHORUS_API_KEYS=$(openssl rand -hex 32)\n"
        "or stay on this host:  --host 127.0.0.1, with a proxy of yours in front\n"
        "or, behind a firewall: --allow-anonymous"
    )


def check_engine_options(settings: Settings) -> None:
    """Raise LaunchError if the engine or this processor does not support the settings of the engine."""
    if (reason := settings.engine_options().unsupported_reason(detect_processor())) is not None:
        raise LaunchError(reason)


def check_engine(settings: Settings) -> None:
    """Raise LaunchError for what keeps the engine from running, save its weights."""
    check_engine_options(settings)
    if missing := missing_extra(settings.engine.card):
        raise LaunchError(missing)
    if settings.engine.model_dir is not None and settings.engine.engine not in CHECKPOINTS:
        raise LaunchError(
            f"engine {settings.engine.engine} comes with its weights; unset CHORUS_MODEL_DIR (--model-dir)"
        )


def check_voices(settings: Settings) -> None:
    """Raise LaunchError where the voice that every worker warms up with is not there."""
    card, folder = settings.engine.card, settings.storage.voices_dir
    try:
        voice = Registry.load(folder).resolve(DEFAULT_VOICE)
    except VoiceError as error:
        raise LaunchError(str(error)) from error
    except UnknownVoiceError as error:
        raise LaunchError(f"the voice `{DEFAULT_VOICE}` is needed in {folder}: {error}") from error
    if not voice.fits(card.name, clones_voices=card.clones_voices):
        raise LaunchError(f"engine {card.name} cannot speak the voice `{DEFAULT_VOICE}` in {folder}")


def _check_run_dir(folder: Path) -> None:
    longest = folder / "worker-1023.sock.4194304"
    if len(os.fsencode(longest)) > SOCKET_PATH_BYTES:
        raise LaunchError(f"the path of the run directory is too long for sockets: {folder}; set CHORUS_RUN_DIR")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise LaunchError(f"cannot make the run directory {folder}: {error.strerror}; set CHORUS_RUN_DIR") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise LaunchError(
            f"the run directory {folder} must be a folder of yours that nobody else may open (mode 0700); "
            "mend it, or set CHORUS_RUN_DIR to another"
        )
    if _answers(folder / "supervisor.sock"):
        raise LaunchError(f"a Chorus runs already with the run directory {folder}; stop it, or choose another --port")


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        return client.connect_ex(str(path)) == 0


def _check_port(settings: Settings) -> None:
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            settings.server.host, settings.server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except (OSError, UnicodeError) as error:
        # UnicodeError: a host that the encoding of domain names cannot take.
        reason = error.strerror if isinstance(error, OSError) else "this is no host name"
        raise LaunchError(
            f"cannot listen on {settings.server.host}:{settings.server.port}: {reason}; choose another --port or --host"
        ) from error
