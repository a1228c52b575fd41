"""Attacks by webhooks: receivers that are slow, endless or dead, and addresses that are not public."""

from __future__ import annotations

import asyncio
import base64
import secrets
import time

from balancer.host.processes import free_port
from scripts.attacks.attack import Attack, Checks, Criteria
from scripts.attacks.receivers import start_receivers
from scripts.attacks.target import ChorusPlan, Target, eventually
from scripts.attacks.texts import new_text
from scripts.attacks.wire import ATTACKER, HOST
from scripts.support.check import Check

SECRET = base64.b64encode(secrets.token_bytes(32)).decode()
BAD_PATHS = ("/slow", "/endless-head", "/endless-body", "/early-hints")
BAD_JOBS = 200
TOLD_SECONDS = 20.0
"""Time within which another caller's receiver is told, however slow those of others are."""


async def slow_receivers(target: Target) -> Checks:
    """A good receiver of one caller after 200 bad ones of another."""
    async with start_receivers() as receivers:
        bad = [*(receivers.url(path) for path in BAD_PATHS), f"http://{HOST}:{free_port()}/dead"]
        text = new_text()  # the same for all: their audio is cached, so that the webhooks come soon
        bodies = [{"text": text, "webhook": bad[number % len(bad)]} for number in range(BAD_JOBS)]
        queued = await target.queue(*bodies, source=ATTACKER)
        started = time.monotonic()
        while time.monotonic() < started + target.duration and receivers.received.total() < BAD_JOBS:
            await asyncio.sleep(0.1)
        tried = receivers.received.total()
        mine = await target.ask("POST", "/queue", {"text": text, "webhook": receivers.url("/good")})
        job_id = mine.json().get("requestId") if mine.status == 202 else None
        started = time.monotonic()

        async def told() -> bool:
            return job_id in receivers.jobs

        holds = await eventually(told, TOLD_SECONDS)
        seconds = f"{time.monotonic() - started:.1f} s" if holds else "not"
    return [
        Check(f"{BAD_JOBS} jobs with bad receivers", f"HTTP {queued.status}, {tried} tries arrived", holds=True),
        Check(f"another caller's receiver is told (at most {TOLD_SECONDS:g} s)", seconds, holds),
    ]


async def private_addresses(target: Target) -> Checks:
    """127.0.0.1 in many spellings, while webhooks to private addresses are not allowed."""
    async with start_receivers() as receivers:
        port = receivers.port
        hosts = (
            *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "0", "localhost", "localhost."),
            *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "127.0.0.2", "x@127.0.0.1", "①27.0.0.1"),
        )
        accepted = []
        for host in hosts:
            answer = await target.ask(
                "POST", "/queue", {"text": "Hello.", "webhook": f"http://{host}:{port}/good"}, source=ATTACKER
            )
            if answer.status == 202:
                accepted.append(host)
        await asyncio.sleep(target.duration / 2)
        arrived = receivers.received.total()
    return [
        Check(f"webhooks that arrived, of {len(hosts)} spellings of this host", str(arrived), arrived == 0),
        # A name is only looked up when the webhook is sent.
        Check("spellings that are refused only then", ", ".join(accepted) or "none", holds=True),
    ]


ATTACKS = (
    Attack(
        "slow-webhooks",
        "200 webhooks to slow, endless and dead receivers before a good one",
        slow_receivers,
        ChorusPlan({"webhook_secret": SECRET, "webhook_private": "true"}),
        Criteria(idle=False),
        max_seconds=60,
    ),
    Attack(
        "webhook-addresses",
        "webhooks to this host in many spellings",
        private_addresses,
        ChorusPlan({"webhook_secret": SECRET}),
        Criteria(idle=False),
    ),
)
