"""The server's own figures while it is measured: workers and queue from `/health`, sums from `/metrics`."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from balancer.capacity.step import Sample, StepTotals
from balancer.capacity.study import HostFacts

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
TIMEOUT_SECONDS = 10.0
SUMS = {
    "utterances": ("chorus_synthesis_seconds_count", {"outcome": "ok"}),
    "synthesis_seconds": ("chorus_synthesis_seconds_sum", {"outcome": "ok"}),
    "queue_seconds": ("chorus_queue_wait_seconds_sum", {"outcome": "ok"}),
    "balancer_cpu_seconds": ("process_cpu_seconds_total", {}),
    "cache_hits": ("chorus_cache_total", {"outcome": "hit"}),
}
"""The metric and the labels of each field of `StepTotals`."""


class Observer:
    """Asks one server, which may not tell a stranger: then its answers are None."""

    def __init__(self, url: str, api_key: str) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False)
        self._local = httpx.URL(url).host in LOOPBACK_HOSTS

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def facts(self) -> HostFacts | None:
        """The server and, if it is this one, its machine."""
        if (health := await self._health()) is None:
            return None
        workers = [worker for worker in health["workers"] if worker["phase"] in ("ready", "busy")]
        if not workers:
            return None
        return HostFacts(
            engine=workers[0]["engine"],
            workers=len(workers),
            slots=health["slots"],
            cpus=len(os.sched_getaffinity(0)) if self._local else sum(len(worker["cores"]) for worker in workers),
            processor=_processor() if self._local else "another machine",
        )

    async def sample(self, at: float, outstanding: int) -> Sample:
        """The server now."""
        host_cpu = psutil.cpu_percent(None) / 100 if self._local else None
        if (health := await self._health()) is None:
            return Sample(at=at, outstanding=outstanding, host_cpu=host_cpu)
        return Sample(
            at=at,
            outstanding=outstanding,
            queue_depth=health["queueDepth"],
            slots=health["slots"],
            slots_used=health["slots"] - health["freeSlots"],
            worker_cores=sum(worker.get("cpu_cores") or 0.0 for worker in health["workers"]),
            host_cpu=host_cpu,
        )

    async def totals(self) -> StepTotals | None:
        """The sums of the server's counters."""
        try:
            response = await self._http.get("/metrics")
        except httpx.HTTPError:
            return None
        if response.status_code != 200:
            return None
        sums = dict.fromkeys(SUMS, 0.0)
        for family in text_string_to_metric_families(response.text):
            for sample in family.samples:
                for field, (name, labels) in SUMS.items():
                    if sample.name == name and labels.items() <= sample.labels.items():
                        sums[field] += sample.value
        return StepTotals(**sums)

    async def _health(self) -> Mapping[str, Any] | None:
        try:
            response = await self._http.get("/health")
            report: dict[str, Any] = response.json()
        except (httpx.HTTPError, ValueError):
            return None
        return report if "workers" in report else None


def _processor() -> str:
    """The model of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
