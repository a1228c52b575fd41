"""Three hosts behind deploy/haproxy.cfg under load: one is killed, one drained, one restarted, and Redis fails over."""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import httpx
import typer

from balancer.host.processes import free_port, wait_until
from scripts.hosts.clients import Outcome, check_jobs, send_jobs, speak_at_once, speak_at_rate
from scripts.hosts.host import WORKERS, Host
from scripts.hosts.listeners import Heard, Listeners, texts
from scripts.hosts.proxy import Proxy, start_proxy
from scripts.support.console import report_progress, run_command
from scripts.support.sentinels import Sentinels, start_sentinels
from scripts.support.servers import interrupt_on_signals
from scripts.support.stream_twins import hear_undisturbed

ADDRESSES = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
MIN_RATIO = 2.9
SEEN_SECONDS = 15.0
JOB_INTERVAL_SECONDS = 0.5
CLIENTS_PER_SLOT = 3
MIN_SECONDS = 75.0
KILL = "a host is killed"
"""The only step in which streams may break off."""


class FailoverRun:
    """The three hosts, and what is done to them."""

    def __init__(self, hosts: list[Host], proxy: Proxy, redis: Sentinels) -> None:
        self.hosts = hosts
        self.proxy = proxy
        self.redis = redis

    def await_states(self, *used: bool) -> None:
        """Wait until HAProxy sends new requests to these hosts, and to no others. Raises TimeoutError."""
        wanted = {f"host{number}": in_use for number, in_use in enumerate(used, 1)}

        def seen() -> bool:
            return {name: state.startswith("UP") for name, state in self.proxy.states().items()} == wanted

        try:
            wait_until(seen, timeout=SEEN_SECONDS)
        except TimeoutError as error:
            raise TimeoutError(f"HAProxy sees {self.proxy.states()}, not {wanted}") from error

    def lose_a_host(self) -> None:
        """The first host dies, and is there again later."""
        self.hosts[0].kill()
        self.await_states(False, True, True)
        self.hosts[0].start()
        self.await_states(True, True, True)

    def drain_a_host(self) -> None:
        """The second host drains, gets nothing new, and comes back. Raises RuntimeError if it gets something new."""
        host = self.hosts[1]
        host.drain()
        self.await_states(True, False, True)
        host.await_idle()
        before = host.spoken()
        time.sleep(3.0)
        # Jobs are its own affair: a host that drains goes on with them.
        report_progress(f"while it drained: {host.spoken() - before} utterances, of jobs")
        host.resume()
        self.await_states(True, True, True)

    def restart_a_host(self) -> None:
        """The third host is stopped as its operator does it, and started."""
        self.hosts[2].stop()
        self.hosts[2].start()
        self.await_states(True, True, True)

    def lose_redis(self) -> None:
        """The primary of Redis dies, and its replica takes its place."""
        self.redis.kill_primary()
        wait_until(lambda: self.redis.failed_over, timeout=SEEN_SECONDS)


async def measure_ratio(failover: FailoverRun, client: httpx.AsyncClient, seconds: float) -> float:
    """The throughput of three hosts as a multiple of one's, the others draining."""
    slots = WORKERS * CLIENTS_PER_SLOT
    for host in failover.hosts[1:]:
        host.drain()
    await asyncio.to_thread(failover.await_states, True, False, False)
    one = await speak_at_once(client, slots, seconds, 100_000)
    for host in failover.hosts[1:]:
        host.resume()
    await asyncio.to_thread(failover.await_states, True, True, True)
    three = await speak_at_once(client, len(failover.hosts) * slots, seconds, 200_000)
    report_progress(f"one host: {one:.2f} requests a second; three: {three:.2f}; ratio {three / one:.2f}")
    return three / one


async def load_and_break(
    failover: FailoverRun, client: httpx.AsyncClient, rate: float, seconds: float, listeners: Listeners
) -> Outcome:
    """Break one thing after another under load."""
    outcome = Outcome()
    began = time.monotonic()

    async def break_all() -> None:
        steps: tuple[tuple[str, Callable[[], None]], ...] = (
            (KILL, failover.lose_a_host),
            ("a host drains", failover.drain_a_host),
            ("a host is restarted", failover.restart_a_host),
            ("Redis fails over", failover.lose_redis),
        )
        for name, step in steps:
            await asyncio.sleep(5.0)
            report_progress(f"{time.monotonic() - began:.0f} s: {name}")
            listeners.during = name
            await asyncio.to_thread(step)
            report_progress(f"{time.monotonic() - began:.0f} s: over; {outcome.answered} answered, "
                            f"{outcome.failures.total()} failed; {listeners.heard.whole} streams whole, "
                            f"{listeners.heard.broken.total()} broken off")  # fmt: skip

    async with asyncio.TaskGroup() as group:
        jobs = group.create_task(send_jobs(client, JOB_INTERVAL_SECONDS, seconds, outcome))
        group.create_task(speak_at_rate(client, rate, seconds, outcome))
        group.create_task(listeners.run(seconds))
        group.create_task(break_all())
    await check_jobs(client, jobs.result(), outcome)
    if len(jobs.result()) != outcome.jobs_accepted:
        outcome.failures["two jobs with one id"] += 1
    return outcome


def main(
    rate: Annotated[float, typer.Option(help="Requests for speech per second.")] = 12.0,
    streams: Annotated[int, typer.Option(help="Listeners of streams, each of one after another.")] = 9,
    seconds: Annotated[float, typer.Option(min=MIN_SECONDS, help="Length of the load.")] = 90.0,
    ratio_seconds: Annotated[float, typer.Option(help="Length of each measurement of throughput; 0: none.")] = 10.0,
) -> None:
    """Try three hosts behind the shipped HAProxy, with stub workers: no request may fail, and no job be lost.

    A stream may break off where its host is killed; asked for again, it must sound the same.

    Exit code: 0 all is as it should be, else 1.
    """
    interrupt_on_signals()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="chorus-hosts-") as name, ExitStack() as running:
        folder = Path(name)
        (folder / "redis").mkdir()
        redis = running.enter_context(start_sentinels(folder / "redis"))
        port, agent_port = free_port(), free_port()
        hosts = [Host(address, port, agent_port, redis.url, folder) for address in ADDRESSES]
        for host in hosts:
            host.start()
            running.callback(host.kill)
        proxy = running.enter_context(start_proxy(folder, [host.url for host in hosts], agent_port))
        failover = FailoverRun(hosts, proxy, redis)
        failover.await_states(True, True, True)
        ratio, outcome, heard = asyncio.run(_try(failover, rate, seconds, ratio_seconds, streams))
    report_progress(
        f"{outcome.requests} requests, {outcome.failures.total()} failed {dict(outcome.failures) or ''}; "
        f"{outcome.jobs_accepted} jobs accepted in {outcome.job_tries} tries, {outcome.jobs_done} done"
    )
    report_progress(
        f"{heard.whole} streams whole, {heard.retried} of them after a part; {heard.broken.total()} broken off "
        f"{dict(heard.broken) or ''}; {heard.failures.total()} failed {dict(heard.failures) or ''}"
    )
    torn = heard.broken.keys() - {KILL}
    if (
        heard.failures
        or torn
        or outcome.failures
        or outcome.jobs_done != outcome.jobs_accepted
        or (ratio is not None and ratio < MIN_RATIO)
    ):
        raise typer.Exit(1)


async def _try(
    failover: FailoverRun, rate: float, seconds: float, ratio_seconds: float, streams: int
) -> tuple[float | None, Outcome, Heard]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=failover.proxy.url, timeout=60, limits=limits, trust_env=False) as client:
        ratio = await measure_ratio(failover, client, ratio_seconds) if ratio_seconds else None
        listeners = Listeners(client, await hear_undisturbed(client, texts(streams)))
        return ratio, await load_and_break(failover, client, rate, seconds, listeners), listeners.heard


if __name__ == "__main__":
    run_command(main, "scripts/try_hosts")
