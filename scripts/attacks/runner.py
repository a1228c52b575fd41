"""Runs attacks one after another, and checks what others noticed of each and what it leaves behind."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from scripts.attacks.attack import Attack, Checks, Outcome
from scripts.attacks.bystander import Bystander, Observation, start_bystander
from scripts.attacks.resources import Peaks, ResourceSampler
from scripts.attacks.target import BYSTANDER_KEY, Target, TargetPlan, eventually
from scripts.attacks.texts import CACHED_TEXT, new_text
from scripts.attacks.wire import REFUSED, NoAnswerError
from scripts.support.check import Check
from scripts.support.console import report_progress
from scripts.support.markdown import mib, milliseconds
from scripts.support.servers import ServerError

CALM_SECONDS = 2.0
"""How long others are observed before an attack."""
PAUSE_SECONDS = 0.3
"""Pause between the two: what was asked before is answered before."""
MIN_ATTACK_SECONDS = 3.0
"""How long they are observed from the beginning of an attack, at least."""
SETTLE_SECONDS = 20.0
"""All slots must be free, and what was opened must be closed, within this time after an attack."""

MAX_LATENCY_FACTOR = 5.0
MAX_LATENCY_SECONDS = 0.1
SPARE_DESCRIPTORS = 24
"""Descriptors that the balancer may have gained: connections to workers and databases that it uses again."""


@dataclass(frozen=True)
class _Look:
    """The balancer at a moment."""

    pid: int | None
    descriptors: int


def run_attacks(attacks: Sequence[Attack], *, duration: float) -> Iterator[Outcome]:
    """The outcome of each attack, as it becomes known. Attacks with equal plans share a server as long as it serves."""
    remaining = list(attacks)
    while remaining:
        plan = remaining[0].target
        group = [attack for attack in remaining if attack.target == plan]
        remaining = [attack for attack in remaining if attack.target != plan]
        while group:
            yield from _run_on_one_server(plan, group, duration)


def _run_on_one_server(plan: TargetPlan, group: list[Attack], duration: float) -> Iterator[Outcome]:
    """Run attacks on a new server until one leaves it unusable; those that were run are removed from `group`."""
    with tempfile.TemporaryDirectory(prefix="chorus-attack-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        folder = Path(name)
        report_progress("starting a server")
        try:
            target = stack.enter_context(plan.start(folder, duration))
            asyncio.run(_cache_text(target))
            bystander = stack.enter_context(
                start_bystander(
                    target.port, CACHED_TEXT, folder / "bystander.jsonl", api_key=target.keys.get(BYSTANDER_KEY)
                )
            )
            asyncio.run(bystander.started())
        except (ServerError, NoAnswerError, TimeoutError) as error:
            attack = group.pop(0)
            yield Outcome(attack.name, attack.title, [Check("the server starts", str(error), holds=False)])
            return
        usable = True
        while group and usable:
            attack = group.pop(0)
            report_progress(f"{attack.name}: {attack.title}")
            outcome = asyncio.run(run_attack(attack, target, bystander))
            usable = outcome.usable
            yield outcome


async def _cache_text(target: Target) -> None:
    answer = await target.speak(CACHED_TEXT, cached=True, key=target.any_key)
    if answer.status != 200:
        raise target.server.failure(f"it does not speak before any attack: HTTP {answer.status} {answer.body[:200]!r}")


async def run_attack(attack: Attack, target: Target, bystander: Bystander) -> Outcome:
    """Run one attack on a target that is idle."""
    calm_start = time.monotonic()
    await asyncio.sleep(CALM_SECONDS)
    calm_end = time.monotonic()
    await asyncio.sleep(PAUSE_SECONDS)
    before = _look(target)
    start = time.monotonic()
    with ResourceSampler(target) as sampler:
        checks = await _attack(attack, target)
        seconds = time.monotonic() - start
        await asyncio.sleep(max(0.0, MIN_ATTACK_SECONDS - seconds))
        end = time.monotonic()
    calm = await bystander.observation(calm_start, calm_end)
    attacked = await bystander.observation(start, end)
    checks += common_checks(attack, calm, attacked, sampler.peaks, target.memory_bound)
    aftermath = await _aftermath(attack, target, before)
    return Outcome(
        attack.name,
        attack.title,
        [*checks, *aftermath],
        usable=attack.criteria.serves and attack.criteria.idle and all(check.holds for check in aftermath),
        seconds=seconds,
        calm_p99=calm.p99,
        attacked_p99=attacked.p99,
        failures=attacked.failures.total(),
        peak_memory=sampler.peaks.memory,
        peak_descriptors=sampler.peaks.descriptors,
    )


async def _attack(attack: Attack, target: Target) -> Checks:
    """The attack's own checks."""
    try:
        async with asyncio.timeout(attack.max_seconds):
            return list(await attack.run(target))
    except TimeoutError:
        reason = f"not within {attack.max_seconds:g} s"
    # LookupError and ValueError: an answer has another shape than the attack expects.
    except (NoAnswerError, OSError, ServerError, psutil.Error, LookupError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
    return [Check("the attack ran to its end", reason, holds=False)]


def _look(target: Target) -> _Look:
    with suppress(psutil.Error):  # it may just have ended
        if (balancer := target.balancer()) is not None:
            return _Look(balancer.pid, balancer.num_fds())
    return _Look(None, 0)


def common_checks(attack: Attack, calm: Observation, attacked: Observation, peaks: Peaks, memory_bound: int) -> Checks:
    """What others noticed of an attack, and what memory it took."""
    criteria, checks = attack.criteria, []
    if criteria.latency:
        limit = max(MAX_LATENCY_FACTOR * (calm.p99 or 0.0), MAX_LATENCY_SECONDS)
        p99 = attacked.p99
        value = f"{milliseconds(calm.p99)}, {milliseconds(p99)} (at most {milliseconds(limit)})"
        checks.append(
            Check("others' p99 of a cached answer, before and during", value, p99 is not None and p99 <= limit)
        )
    failures = attacked.failures
    if criteria.failures:
        listed = ", ".join(f"{count} times {reason}" for reason, count in failures.most_common(3))
        checks.append(Check("others' failed requests", f"{listed or 0} of {len(attacked.records)}", not failures))
    elif criteria.refusals:
        refused = failures[REFUSED]
        checks.append(Check("others' refused connections", f"{refused} of {len(attacked.records)}", not refused))
    if criteria.memory:
        guarded = "; killed for it" if peaks.guarded else ""
        value = f"{mib(peaks.memory)}{guarded} (at most {mib(memory_bound)})"
        checks.append(Check("memory of the balancer", value, peaks.memory <= memory_bound))
    return checks


async def _aftermath(attack: Attack, target: Target, before: _Look) -> Checks:
    """What an attack leaves behind."""
    criteria, checks = attack.criteria, []
    if criteria.same_balancer:
        same = before.pid is not None and _look(target).pid == before.pid
        checks.append(Check("the balancer is the same process", "yes" if same else "no", same))
    if criteria.serves:
        checks.append(await _serves(target))
    if criteria.idle:
        idle = await target.idle(SETTLE_SECONDS)
        checks.append(Check("all slots are free", "yes" if idle else f"not within {SETTLE_SECONDS:g} s", idle))
        checks.append(await _descriptors(target, before))
    return checks


async def _serves(target: Target) -> Check:
    try:
        answer = await target.speak(new_text(), key=target.any_key, timeout=SETTLE_SECONDS)
        value = str(answer.status)
    except NoAnswerError as error:
        value = str(error)
    return Check("a new text afterwards", value, value == "200")


async def _descriptors(target: Target, before: _Look) -> Check:
    limit = before.descriptors + SPARE_DESCRIPTORS

    async def closed() -> bool:
        return 0 < _look(target).descriptors <= limit

    holds = await eventually(closed, SETTLE_SECONDS)
    value = f"{before.descriptors}, {_look(target).descriptors} (at most {limit})"
    return Check("descriptors of the balancer, before and after", value, holds)
