"""The background tasks of the balancer's app, in the order in which they start and are stopped."""

from __future__ import annotations

import asyncio
import os

from balancer.api import control
from balancer.app.services import Services
from balancer.jobs.public_network import ReceiverRules
from balancer.jobs.webhook_client import WebhookClient
from balancer.jobs.webhooks import Webhooks
from balancer.operations import heartbeat
from balancer.operations.agent_check import AgentCheck
from balancer.operations.handover import Succession, Supervision, ask_predecessor, stop_predecessor
from balancer.operations.loop_lag import observe_loop_lag
from balancer.operations.ready_banner import print_ready_banner
from balancer.operations.recycling import RecycleLimits, WorkerRecycler
from balancer.operations.systemd_status import report_to_systemd
from balancer.runtime.background import BackgroundTask, OnFailure
from balancer.runtime.lifecycle import Lifecycle
from balancer.runtime.systemd import is_notified
from balancer.settings.settings import Settings

RECYCLING = "recycling"
WEBHOOKS = "webhooks"
AGENT_CHECK = "agent check"

STOPPED_ON_HAND_OVER = (RECYCLING, WEBHOOKS, AGENT_CHECK)
"""Names of the tasks that only one balancer of a host may run, in the order in which they are stopped."""


def create_background_tasks(settings: Settings, services: Services, lifecycle: Lifecycle) -> list[BackgroundTask]:
    """Returns the tasks that these settings ask for."""
    dispatcher = services.dispatcher
    return [
        # Its view of the workers is shared with every request that waits for one of them.
        BackgroundTask("fleet", lambda: services.fleet.run(dispatcher), OnFailure.END_PROCESS),
        # The others find what they left undone: in the job store, in the workers' states, on their socket.
        BackgroundTask("jobs", services.jobs.executor.run),
        BackgroundTask("ready banner", lambda: print_ready_banner(settings, services.host_state)),
        BackgroundTask("degradation", services.degradation.run),
        *_systemd(settings, services, lifecycle),
        BackgroundTask("loop lag", lambda: observe_loop_lag(services.metrics.record_loop_lag)),
        BackgroundTask("history", services.history_sampler.run),
        *_operations(settings, services, lifecycle),
        *_webhooks(settings, services),
        *_agent_check(settings, services),
    ]


def _systemd(settings: Settings, services: Services, lifecycle: Lifecycle) -> list[BackgroundTask]:
    """The report to systemd, if it has asked for one."""
    if not is_notified():
        return []
    workers = settings.layout.workers
    return [BackgroundTask("systemd", lambda: report_to_systemd(services.host_state, lifecycle, workers=workers))]


def _operations(settings: Settings, services: Services, lifecycle: Lifecycle) -> list[BackgroundTask]:
    """The recycling of workers, the heartbeat for the watchdog, and the control socket."""
    recycling, folder = settings.recycling, settings.server.socket_dir
    recycler = WorkerRecycler(services.dispatcher, RecycleLimits(recycling.recycle_utterances, recycling.recycle_bytes))
    supervision = Supervision.of(os.environ)
    control_api = control.create_control_api(
        services.host_state,
        recycler,
        services.process_cpu,
        services.history,
        Succession(supervision, lifecycle),
        hand_over=lifecycle.hand_over,
    )

    async def take_control() -> None:
        """Takes the control socket from a predecessor, and has that stopped."""
        replaces = await ask_predecessor(supervision, settings.server.control_socket, lifecycle)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(control.serve(control_api, settings.server.control_socket))
            if replaces and supervision is not None:
                tasks.create_task(stop_predecessor(supervision))

    tasks = [BackgroundTask(RECYCLING, recycler.run), BackgroundTask("control socket", take_control)]
    if supervision is not None:
        program = supervision.program
        tasks.append(BackgroundTask("heartbeat", lambda: heartbeat.beat(folder, program)))
    return tasks


def _webhooks(settings: Settings, services: Services) -> list[BackgroundTask]:
    """The delivery of webhooks, if they are offered."""
    if settings.jobs.webhook_secret is None:
        return []
    secret = settings.jobs.webhook_secret.get_secret_value()
    client = WebhookClient(secret, ReceiverRules.of(settings.jobs))
    webhooks = Webhooks(services.stores.jobs.outbox, services.metrics, client)
    return [BackgroundTask(WEBHOOKS, webhooks.run)]


def _agent_check(settings: Settings, services: Services) -> list[BackgroundTask]:
    """The answer to HAProxy's agent check, if it is asked for."""
    host, port = settings.server.host, settings.server.agent_port
    if port is None:
        return []
    metrics = services.metrics
    agent_check = AgentCheck(services.host_state, lambda: metrics.open_requests)
    return [BackgroundTask(AGENT_CHECK, lambda: agent_check.serve(host, port))]
