"""Attacks by jobs: many of one caller before one of another, and batches against limits."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter

from scripts.attacks.attack import Attack, Checks, Criteria
from scripts.attacks.target import BYSTANDER_KEY, ChorusPlan, Target, eventually
from scripts.attacks.texts import long_text, new_text
from scripts.attacks.wire import ATTACKER, Answer, attackers
from scripts.support.check import Check

TURN_SECONDS = 15.0
"""Time within which a short job is done, however many another caller has queued before."""
LINES = 9500
SENDERS = 3
"""Batches that are sent at a time."""
TINY_SENDERS = 60
TINY_SECONDS = 90.0
LIMITED = ("carol", "--requests-per-minute", "2")
SERIAL = ("dave", "--concurrency", "1")


async def job_turns(target: Target) -> Checks:
    """A job after 2,000 of another caller."""
    bodies = [{"text": long_text(300, number), "priority": "interactive"} for number in range(2000)]
    queued = await target.queue(*bodies, source=ATTACKER)
    mine = await target.ask("POST", "/queue", {"text": new_text()})
    if mine.status != 202:
        return [Check("another caller's job", f"HTTP {mine.status}", holds=False)]
    started = time.monotonic()
    done = await job_done(target, mine, TURN_SECONDS)
    seconds = f"{time.monotonic() - started:.1f} s" if done else "not"
    return [
        Check("the batch of 2,000", str(queued.status), holds=True),
        Check(f"another caller's job is done (at most {TURN_SECONDS:g} s)", seconds, done),
    ]


async def batches_of_lines(target: Target) -> Checks:
    """Batches of 9,500 lines, from several addresses at a time: the first fills the queue, the others are refused."""
    bodies = [{"text": long_text(300, number)} for number in range(LINES)]
    statuses: Counter[int] = Counter()
    until = time.monotonic() + target.duration

    async def send(source: str) -> None:
        while time.monotonic() < until:
            statuses[(await target.queue(*bodies, source=source)).status] += 1

    await asyncio.gather(*map(send, attackers(SENDERS)))
    listed = ", ".join(f"{count} times {status}" for status, count in statuses.items())
    return [Check("the batches", listed, set(statuses) <= {202, 429, 503})]


async def batches_of_tiny_lines(target: Target) -> Checks:
    """Batches whose lines are as short as can be, from many addresses at a time: each line takes memory, too."""
    body = b'{"text":"a"}\n' * LINES
    headers = (("Content-Type", "application/x-ndjson"),)
    answers = await asyncio.gather(
        *(
            target.ask("POST", "/queue/batch", body, headers=headers, source=source, timeout=TINY_SECONDS)
            for source in attackers(TINY_SENDERS)
        )
    )
    statuses = Counter(answer.status for answer in answers)
    listed = ", ".join(f"{count} times {status}" for status, count in statuses.items())
    return [Check(f"{TINY_SENDERS} batches of {len(body)} bytes", listed, set(statuses) <= {202, 429, 503})]


async def job_limits(target: Target) -> Checks:
    """Batches of callers with two requests a minute, and with one request at a time."""
    many = await target.queue(*({"text": f"Line {number}."} for number in range(300)), key=LIMITED[0], source=ATTACKER)
    one = await target.ask("POST", "/queue", {"text": new_text()}, key=LIMITED[0], source=ATTACKER)
    bodies = [{"text": long_text(2000, number)} for number in range(8)]
    serial = await target.queue(*bodies, key=SERIAL[0], source=ATTACKER)
    running = 0
    if serial.status == 202:
        ids = [job["requestId"] for job in serial.json()["jobs"]]
        until = time.monotonic() + target.duration
        while time.monotonic() < until:
            states = [(await target.ask("GET", f"/status/{job_id}", key=SERIAL[0])).json()["state"] for job_id in ids]
            running = max(running, states.count("running"))
            await asyncio.sleep(0.1)
        for job_id in ids:
            await target.ask("DELETE", f"/queue/{job_id}", key=SERIAL[0])
    return [
        Check("300 jobs in a batch under 2 requests a minute", str(many.status), many.status == 429),
        Check("one job after them", str(one.status), one.status in {202, 429}),
        Check("jobs running at once with a concurrency of 1", str(running), running <= 1),
    ]


async def job_done(target: Target, queued: Answer, timeout: float, *, key: str | None = None) -> bool:
    """Whether a job that was accepted is done within `timeout` seconds. Raises NoAnswerError."""
    path = f"/status/{queued.json()['requestId']}"

    async def done() -> bool:
        answer = await target.ask("GET", path, key=key)
        try:
            return answer.status == 200 and answer.json()["state"] == "done"
        except (json.JSONDecodeError, KeyError):
            return False

    return await eventually(done, timeout, interval=0.25)


ATTACKS = (
    Attack(
        "job-turns",
        "2,000 jobs of one caller before one of another",
        job_turns,
        criteria=Criteria(idle=False),
    ),
    Attack(
        "batch-lines",
        "batches of 9,500 lines, one after another",
        batches_of_lines,
        ChorusPlan({"jobs_caller_share": 1}),
        Criteria(idle=False),
        max_seconds=90,
    ),
    Attack(
        "batch-memory",
        "60 batches of 9,500 tiny lines at once",
        batches_of_tiny_lines,
        ChorusPlan({"jobs_caller_share": 1}),
        Criteria(idle=False),
        max_seconds=120,
    ),
    Attack(
        "job-limits",
        "batches against limits of requests and of concurrency",
        job_limits,
        ChorusPlan(keys=((BYSTANDER_KEY,), LIMITED, SERIAL)),
        Criteria(idle=False),
    ),
)
