"""Settings, a processor, a layout and a caught start of supervisord, for the tests of `balancer.launch`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

from balancer.host.layout import Layout
from balancer.host.processes import free_port
from balancer.launch import supervisor
from balancer.launch.supervisor import become_supervisor
from balancer.settings.settings import Settings
from worker.precision import Processor

ICE_LAKE = Processor("Ice Lake", frozenset({"avx2", "avx512bw", "avx512_vnni"}))
"""A processor with AVX512-VNNI, and without BF16."""

TWO_WORKERS = Layout(((0,), (1,)), 1, 1, ("because",))


def settings_in(folder: Path, **settings: object) -> Settings:
    """Settings with their directories in `folder`, which do not exist yet, and a free port."""
    own = {"run_dir": folder / "run", "data_dir": folder / "data", "cache_dir": folder / "cache", "port": free_port()}
    return Settings.load({}, **(own | settings))


class ExecutedError(Exception):
    """The call of `os.execve` that would have replaced this process."""

    def __init__(self, program: str, arguments: list[str], environ: dict[str, str]) -> None:
        super().__init__(program)
        self.arguments, self.environ = arguments, environ


def executed(
    settings: Settings, layout: Layout, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> ExecutedError:
    """The call of `os.execve` with which `become_supervisor` ends."""

    def execve(program: str, arguments: list[str], environ: dict[str, str]) -> NoReturn:
        raise ExecutedError(program, arguments, environ)

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(supervisor, "listen", lambda host, port: [])
    monkeypatch.setattr(supervisor, "_relay_output", lambda settings: None)
    with pytest.raises(ExecutedError) as caught:
        become_supervisor(settings, layout, environ)
    return caught.value
