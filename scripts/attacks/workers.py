"""Attacks by workers: one that is short of memory, and ones that break the contract beside a sound one."""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from balancer.host.processes import free_port, running
from balancer.runtime.repository import REPOSITORY
from balancer.settings.settings import variable
from scripts.attacks.attack import Attack, Checks, Criteria, all_spoken
from scripts.attacks.fake_worker import LATE, MARK
from scripts.attacks.target import Target, eventually
from scripts.attacks.texts import long_text, new_text
from scripts.attacks.wire import NoAnswerError
from scripts.support.check import Check
from scripts.support.markdown import mib
from scripts.support.servers import clean_environment, running_server

SPARE_ADDRESS_BYTES = 20 * 2**20
"""Address space that is left to a worker that is short of memory."""
TEXTS = 24
CLIENTS = 4
REPLACED_SECONDS = 30.0
ATTEMPT_SECONDS = 4
ODD_TEXTS = 8
ANSWER_SECONDS = 20.0
MAX_GROWTH = 256 * 2**20
"""Bytes of memory that answers of an odd worker may take, states and audio."""


async def sick_worker(target: Target) -> Checks:
    """One of two workers has no memory left: all that it is given fails, at once."""
    sick = target.server.processes_of("worker")[0]
    limit = sick.memory_info().vms + SPARE_ADDRESS_BYTES
    resource.prlimit(sick.pid, resource.RLIMIT_AS, (limit, limit))
    texts = iter(range(TEXTS))

    async def client() -> list[str]:
        return [await target.speech_status(long_text(1500, seed), timeout=60.0) for seed in texts]

    statuses = [status for found in await asyncio.gather(*(client() for _ in range(CLIENTS))) for status in found]

    async def replaced() -> bool:
        return not sick.is_running()

    gone = await eventually(replaced, REPLACED_SECONDS)
    return [
        all_spoken("requests", statuses),
        Check("the sick worker is replaced", "yes" if gone else f"not within {REPLACED_SECONDS:g} s", gone),
    ]


@dataclass(frozen=True)
class OddWorkerPlan:
    """A balancer without supervisord, with a sound stub worker and one that breaks the contract."""

    kind: str

    @contextmanager
    def start(self, folder: Path, duration: float) -> Iterator[Target]:
        """Run the target until the end of the block. Raises ServerError."""
        run_dir, port = folder / "run", free_port()
        run_dir.mkdir(mode=0o700)
        settings = {
            "data_dir": folder / "data",
            "cache_dir": folder / "cache",
            "run_dir": run_dir,
            "port": port,
            "workers": 2,
            "attempt_seconds": ATTEMPT_SECONDS,
        }
        environment = clean_environment() | {variable(name): str(value) for name, value in settings.items()}
        sound = ["-m", "scripts.support.stub_worker", "--index", "0", "--folder", str(run_dir)]
        odd = ["-m", "scripts.attacks.fake_worker", "--index", "1", "--folder", str(run_dir), "--kind", self.kind]
        with ExitStack() as parts:
            for words in (sound, odd):
                log = folder / f"{words[1]}.log"
                parts.enter_context(running([sys.executable, *words], log=log, env=environment, cwd=REPOSITORY))
            server = parts.enter_context(
                running_server(
                    "balancer",
                    [sys.executable, "-m", "balancer"],
                    environment,
                    folder / "balancer.log",
                    port,
                    lambda health: health.get("slots") == 2,
                )
            )
            yield Target(server, folder, port, settings, duration)


async def odd_worker(target: Target, *, sound_only: bool) -> Checks:
    """A worker becomes odd while others speak. With `sound_only` every text must be spoken by the sound one."""
    balancer = target.balancer()
    memory = [balancer.memory_info().rss if balancer else 0]
    (target.folder / "run" / MARK).touch()
    started = time.monotonic()
    statuses, of_others = [], 0
    for _ in range(ODD_TEXTS):
        try:
            answer = await target.speak(new_text(), format="pcm", timeout=ANSWER_SECONDS)
            statuses.append(str(answer.status))
            of_others += answer.status == 200 and LATE in answer.body
        except NoAnswerError as error:
            statuses.append(str(error))
        await asyncio.sleep(0.3)
        if balancer and balancer.is_running():
            memory.append(balancer.memory_info().rss)
        if time.monotonic() > started + 2.5 * ANSWER_SECONDS:
            break
    health = (await target.ask("GET", "/health")).status
    metrics = (await target.ask("GET", "/metrics")).status
    growth = max(memory) - memory[0]
    told = {"200", "500", "503", "504"}
    spoken = (
        all_spoken("texts", statuses)
        if sound_only
        else Check("texts", ", ".join(statuses), all(status in told for status in statuses))
    )
    return [
        spoken,
        Check("answers with the audio of another request", str(of_others), of_others == 0),
        Check(f"memory taken (at most {mib(MAX_GROWTH)})", mib(growth), growth <= MAX_GROWTH),
        Check("/health and /metrics", f"{health}, {metrics}", (health, metrics) == (200, 200)),
    ]


_ODD = (
    ("endless", "one of two workers makes audio without end"),
    ("endless-state", "a worker's state has no end"),
    ("nan-state", "a worker's state has numbers that JSON does not have"),
    ("late", "a worker answers twice, the second time late"),
    ("silent", "a worker takes utterances and never answers"),
    ("garbage", "a worker does not speak HTTP"),
    ("failing", "a worker fails at every utterance, at once"),
)

ATTACKS = (
    Attack(
        "sick-worker",
        "one of two workers has no memory left",
        sick_worker,
        criteria=Criteria(idle=False),
        max_seconds=120,
    ),
    *(
        Attack(
            f"odd-worker-{kind}",
            title,
            partial(odd_worker, sound_only=kind not in {"silent", "endless"}),
            OddWorkerPlan(kind),
            max_seconds=75,
        )
        for kind, title in _ODD
    ),
)
