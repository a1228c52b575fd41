"""Attacks on who comes in: a keys file with a fault, keys changed at once, foreign hosts, forged addresses."""

from __future__ import annotations

import asyncio
import json
import re
import time
from ipaddress import ip_address

from balancer.host.processes import free_port, running
from balancer.runtime.repository import REPOSITORY
from scripts.attacks.attack import Attack, Checks, Criteria
from scripts.attacks.jobs import job_done
from scripts.attacks.target import BYSTANDER_KEY, ChorusPlan, Target, chorus_command, command_environment
from scripts.attacks.texts import new_text
from scripts.attacks.wire import ATTACKER, exchange, request_head
from scripts.support.check import Check

FAULTY_KEYS = {"keys": [{"name": "shop", "digest": "0" * 63}]}
"""A digest has 64 digits."""
SETTLE_SECONDS = 1.0
REFUSE_SECONDS = 60.0
"""Time within which a server with a faulty keys file must have refused to start."""
ADDED_AT_ONCE = 6
COMMANDS_SECONDS = 120.0
JOB_SECONDS = 15.0


async def faulty_file(target: Target) -> Checks:
    """A keys file with a fault appears at a server without keys; and a server is started with one."""
    file = target.data_dir / "keys.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(FAULTY_KEYS), encoding="utf-8")
    await asyncio.sleep(SETTLE_SECONDS)
    open_still = await target.speech_status(new_text())
    port = free_port()
    folders = {"run_dir": target.folder / "second", "data_dir": target.data_dir, "cache_dir": target.folder / "cache"}
    environment = command_environment(folders | {"port": port})
    command = chorus_command("serve", "--workers", "1", "--threads", "1")
    with running(command, log=target.folder / "second.log", env=environment, cwd=REPOSITORY) as second:
        started = time.monotonic()
        while second.poll() is None and time.monotonic() < started + REFUSE_SECONDS:
            await asyncio.sleep(0.1)
        code = second.poll()
    return [
        Check("a request without a key", open_still, open_still in {"401", "403", "503"}),
        Check("a server started with the file ends with", str(code), code not in {None, 0}),
    ]


async def keys_at_once(target: Target) -> Checks:
    """Keys are added at once, and one is revoked meanwhile."""
    leaked = (await target.command("keys", "add", "leaked")).stdout.strip()
    commands = [("keys", "add", f"new-{number}") for number in range(ADDED_AT_ONCE)] + [("keys", "revoke", "leaked")]
    done = await asyncio.gather(*(target.command(*words, timeout=COMMANDS_SECONDS) for words in commands))
    await asyncio.sleep(SETTLE_SECONDS)
    statuses = [await target.speech_status(new_text(), key=result.stdout.strip()) for result in done[:-1]]
    revoked = await target.speech_status(new_text(), key=leaked)
    bystander = await target.speech_status(new_text(), key=BYSTANDER_KEY)
    good = statuses.count("200")
    return [
        Check("added keys that are in force", f"{good} of {ADDED_AT_ONCE}", good == ADDED_AT_ONCE),
        Check("the revoked key", revoked, revoked == "401"),
        Check("the key of before", bystander, bystander == "200"),
    ]


async def key_made_anew(target: Target) -> Checks:
    """A key is revoked, and another one gets its name."""
    first = (await target.command("keys", "add", "alice")).stdout.strip()
    job = await target.ask("POST", "/queue", {"text": new_text(), "idempotencyKey": "k"}, key=first)
    done = job.status == 202 and await job_done(target, job, JOB_SECONDS, key=first)
    job_id = job.json().get("requestId")
    await target.command("keys", "revoke", "alice")
    second = (await target.command("keys", "add", "alice")).stdout.strip()
    audio = (await target.ask("GET", f"/audio/{job_id}", key=second)).status
    again = await target.ask("POST", "/queue", {"text": new_text(), "idempotencyKey": "k"}, key=second)
    await target.command("keys", "revoke", "alice")
    fresh = again.status == 202 and again.json().get("requestId") != job_id
    return [
        Check("a job of the old key", "done" if done else f"HTTP {job.status}", done),
        Check("its audio with the new key", str(audio), audio == 404),
        Check(
            "its idempotency key with the new key", f"{again.status}, {'another job' if fresh else 'the same'}", fresh
        ),
    ]


async def foreign_hosts(target: Target) -> Checks:
    """Requests as a browser sends them for a page whose name leads to this host: DNS rebinding."""
    body = json.dumps({"text": new_text()}).encode()
    own, foreign = f"127.0.0.1:{target.port}", f"evil.example:{target.port}"
    cases = {
        "a foreign Host": (foreign, None, False),
        "a foreign Host and Origin": (foreign, f"http://{foreign}", False),
        "a foreign Origin": (own, f"http://{foreign}", False),
        "a name like a loopback one": (f"127.0.0.1.evil.example:{target.port}", None, False),
        "its own address": (own, None, True),
        "its own address and Origin": (own, f"http://{own}", True),
        "localhost": (f"localhost:{target.port}", None, True),
    }
    wrong = []
    for name, (host, origin, allowed) in cases.items():
        length = (("Content-Type", "application/json"), ("Content-Length", str(len(body))))
        headers = (*length, *([("Origin", origin)] if origin else []))
        answer = await exchange(target.port, request_head("POST", "/tts", headers, host=host) + body, source=ATTACKER)
        if answer.status not in ({200} if allowed else {400, 403, 421}):
            wrong.append(f"{name}: {answer.status}")
    return [Check(f"answers as they should be, of {len(cases)}", "; ".join(wrong) or "all", not wrong)]


async def forged_addresses(target: Target) -> Checks:
    """What a trusted proxy forwards is no address."""
    log_size = target.log.stat().st_size
    for forged in ("\x9b31mEVIL\x85line", "unknown", "a=b c", "1.2.3.4, evil", "1" * 5000, "10.0.0.1 extra"):
        headers = (("Content-Type", "application/json"), ("X-Forwarded-For", forged), ("Content-Length", "17"))
        await exchange(target.port, request_head("POST", "/tts", headers) + b'{"text":"Hello."}')
    await asyncio.sleep(SETTLE_SECONDS)
    log = target.log.read_bytes()[log_size:].decode(errors="replace")
    callers = set(re.findall(r'caller=("(?:[^"\\]|\\.)*"|\S+)', log))
    strange = sorted(caller for caller in callers if not _is_address(caller))
    raw = sum(character in log for character in "\x9b\x85\u2028\x1b")
    return [
        Check("callers that are no addresses", ", ".join(strange)[:200] or "none", not strange),
        Check("raw control characters in the log", str(raw), not raw),
    ]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


CLOSED = Criteria(latency=False, failures=False, serves=False, idle=False)
"""The bystander has no key: it must be refused."""
KEYED = ChorusPlan(keys=((BYSTANDER_KEY,),))

ATTACKS = (
    Attack("faulty-keys", "a keys file with a slip in it", faulty_file, criteria=CLOSED, max_seconds=100),
    Attack("keys-at-once", "keys added and revoked at once", keys_at_once, KEYED, max_seconds=180),
    Attack("key-made-anew", "a new key with the name of an old one", key_made_anew, KEYED, max_seconds=120),
    Attack("foreign-hosts", "DNS rebinding: a foreign Host or Origin", foreign_hosts),
    Attack(
        "forged-addresses",
        "X-Forwarded-For that is no address",
        forged_addresses,
        ChorusPlan({"trusted_proxies": "127.0.0.0/8"}),
    ),
)
