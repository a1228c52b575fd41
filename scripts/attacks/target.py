"""The server under attack, and what it is started with."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

from balancer.runtime.repository import REPOSITORY
from balancer.settings.base import MIB
from balancer.settings.settings import variable
from scripts.attacks.log_pipe import LogPipe, open_log_pipe
from scripts.attacks.wire import OTHER, TIMEOUT, Answer, NoAnswerError, exchange, post, request_head
from scripts.support.redis_server import RedisServer, start_redis
from scripts.support.servers import Server, clean_environment, start_chorus

ENGINE = "hibari"
WORKERS = 2
SOFT_DESCRIPTORS = 1024
"""The soft limit that systemd and most shells give."""
DEFAULT_MEMORY_MIB = 1024
COMMAND_SECONDS = 60.0

BYSTANDER_KEY = "bystander"
"""Name of the bystander's API key, if the server has keys."""

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Target:
    """A running server under attack."""

    server: Server
    folder: Path
    """Folder of its data, cache, voices and log."""
    port: int
    settings: Mapping[str, object]
    duration: float
    """Seconds that an attack takes which could go on for as long as it likes."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """API keys by name; empty if it needs none."""
    redis: RedisServer | None = None
    log_pipe: LogPipe | None = None

    @property
    def data_dir(self) -> Path:
        """Directory of jobs and keys."""
        return self.folder / "data"

    @property
    def voices_dir(self) -> Path:
        """Directory of voices, if the plan has voices of its own."""
        return self.folder / "voices"

    @property
    def log(self) -> Path:
        """The log of all processes."""
        return self.log_pipe.file if self.log_pipe else self.server.log

    @property
    def memory_bound(self) -> int:
        """Bytes of memory that the balancer may take."""
        return int(str(self.settings.get("memory_mib", DEFAULT_MEMORY_MIB))) * MIB

    def balancer(self) -> psutil.Process | None:
        """The balancer's process, the newest if there are two; None while there is none."""
        newest: tuple[float, psutil.Process | None] = (0.0, None)
        for process in self.server.processes_of("balancer"):
            with suppress(psutil.NoSuchProcess):  # it may just have ended
                newest = max(newest, (process.create_time(), process), key=lambda pair: pair[0])
        return newest[1]

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Headers = (),
        key: str | None = None,
        source: str = OTHER,
        timeout: float = TIMEOUT,
    ) -> Answer:
        """The answer to a request, sent with the API key of that name. Raises NoAnswerError."""
        sent = (*headers, *self._authorization(key))
        request = request_head(method, path, sent) if body is None else post(path, body, sent)
        return await exchange(self.port, request, source=source, timeout=timeout)

    async def speak(
        self,
        text: str,
        *,
        cached: bool = False,
        key: str | None = None,
        source: str = OTHER,
        timeout: float = TIMEOUT,
        **fields: object,
    ) -> Answer:
        """The answer to a request for speech, not from the cache unless `cached`. Raises NoAnswerError."""
        headers = () if cached else (("Cache-Control", "no-store"),)
        body = {"text": text, **fields}
        return await self.ask("POST", "/tts", body, headers=headers, key=key, source=source, timeout=timeout)

    async def speech_status(
        self,
        text: str,
        *,
        cached: bool = False,
        key: str | None = None,
        source: str = OTHER,
        timeout: float = TIMEOUT,
        **fields: object,
    ) -> str:
        """The status of a request for speech, or what happened instead."""
        try:
            answer = await self.speak(text, cached=cached, key=key, source=source, timeout=timeout, **fields)
        except NoAnswerError as error:
            return str(error)
        return str(answer.status)

    async def queue(
        self, *bodies: object, source: str = OTHER, key: str | None = None, timeout: float = TIMEOUT
    ) -> Answer:
        """The answer to a batch of jobs. Raises NoAnswerError."""
        lines = b"\n".join(json.dumps(body).encode() for body in bodies)
        headers = (("Content-Type", "application/x-ndjson"),)
        return await self.ask("POST", "/queue/batch", lines, headers=headers, key=key, source=source, timeout=timeout)

    async def health(self) -> dict[str, Any]:
        """What `/health` says. Raises NoAnswerError."""
        report: dict[str, Any] = (await self.ask("GET", "/health", key=self.any_key)).json()
        return report

    async def metrics(self) -> dict[str, float]:
        """The values of all metrics, by name and labels. Raises NoAnswerError."""
        text = (await self.ask("GET", "/metrics", key=self.any_key)).body.decode()
        lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    async def server_errors(self) -> float:
        """The number of requests that were answered with 5xx. Raises NoAnswerError."""
        metrics = await self.metrics()
        requests = {name: value for name, value in metrics.items() if name.startswith("chorus_requests_total{")}
        return sum(value for name, value in requests.items() if 'status="5' in name)

    async def idle(self, timeout: float) -> bool:
        """Whether all slots are free and nothing is queued within `timeout` seconds."""
        return await eventually(self._is_idle, timeout)

    async def _is_idle(self) -> bool:
        try:
            health = await self.health()
        except (NoAnswerError, ValueError):
            return False
        slots = health.get("slots")  # not there in an error
        return bool(slots and health["freeSlots"] == slots and not health["queueDepth"])

    async def command(self, *words: str, timeout: float = COMMAND_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run `chorus WORDS` with the server's settings. Raises TimeoutError."""
        environment = command_environment(self.settings) | {variable("port"): str(self.port)}
        process = await asyncio.create_subprocess_exec(
            *chorus_command(*words), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            async with asyncio.timeout(timeout):
                output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return subprocess.CompletedProcess(words, process.returncode or 0, output.decode(), errors.decode())

    @property
    def any_key(self) -> str | None:
        """The name of a key that is always there; None if no key is needed."""
        return BYSTANDER_KEY if self.keys else None

    def _authorization(self, key: str | None) -> Headers:
        secret = self.keys.get(key, key) if key else None
        return (("Authorization", f"Bearer {secret}"),) if secret else ()


async def eventually(condition: Any, timeout: float, interval: float = 0.1) -> bool:
    """Whether the coroutine function `condition` gives true within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not await condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(interval)
    return True


class TargetPlan(Protocol):
    """What a target is started with."""

    def start(self, folder: Path, duration: float) -> AbstractContextManager[Target]:
        """Run the target until the end of the block. Raises ServerError."""
        ...


@dataclass(frozen=True)
class ChorusPlan:
    """`chorus serve` with two workers and the built-in voice."""

    settings: Mapping[str, object] = field(default_factory=dict)
    descriptors: str = f"{SOFT_DESCRIPTORS}:"
    """Soft and hard limit of open files, as prlimit takes them; nothing after the colon leaves the hard limit."""
    keys: tuple[tuple[str, ...], ...] = ()
    """Names of API keys, each with the options of `chorus keys add`."""
    own_voices: bool = False
    """Whether the folder of voices is a copy, which the attack may change."""
    redis: bool = False
    log_pipe: bool = False
    """Whether the server's output goes to a pipe that the attack may stop reading."""

    @contextmanager
    def start(self, folder: Path, duration: float) -> Iterator[Target]:
        """Run the target until the end of the block. Raises ServerError."""
        settings = {"data_dir": folder / "data", "cache_dir": folder / "cache", "cache_mib": 1024}
        settings |= dict(self.settings)
        wrapper = ["prlimit", f"--nofile={self.descriptors}"]
        with ExitStack() as parts:
            if self.own_voices:
                shutil.copytree(REPOSITORY / "voices/default", folder / "voices/default")
                settings["voices_dir"] = folder / "voices"
            redis = parts.enter_context(start_redis(folder)) if self.redis else None
            if redis is not None:
                settings["redis_url"] = redis.url
            pipe = parts.enter_context(open_log_pipe(folder)) if self.log_pipe else None
            if pipe is not None:
                wrapper += ["sh", "-c", 'exec "$@" > "$0" 2>&1', str(pipe.path)]
            keys = {name: add_key(settings, name, *options) for name, *options in self.keys}
            server = parts.enter_context(
                start_chorus(
                    "chorus",
                    engine=ENGINE,
                    workers=WORKERS,
                    folder=folder,
                    settings=settings,
                    wrapper=wrapper,
                    api_key=keys.get(BYSTANDER_KEY),
                )
            )
            port = int(server.url.rpartition(":")[2])
            run_dir = {"run_dir": folder / "run"}
            yield Target(server, folder, port, settings | run_dir, duration, keys, redis, pipe)


def chorus_command(*words: str) -> list[str]:
    """The command `chorus WORDS`."""
    return [str(Path(sys.executable).with_name("chorus")), *words]


def command_environment(settings: Mapping[str, object]) -> dict[str, str]:
    """The environment of a command for a server with these settings."""
    return clean_environment() | {variable(name): str(value) for name, value in settings.items()}


def add_key(settings: Mapping[str, object], name: str, *options: str) -> str:
    """Add an API key to the keys file; returns the key."""
    done = subprocess.run(
        chorus_command("keys", "add", name, *options),
        env=command_environment(settings),
        capture_output=True,
        text=True,
        check=True,
        timeout=COMMAND_SECONDS,
    )
    return done.stdout.strip()
