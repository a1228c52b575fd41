"""Attacks by HTTP messages: endless, odd and malformed ones."""

from __future__ import annotations

import asyncio
import json
import random
import time
from contextlib import suppress
from itertools import count

from scripts.attacks.attack import Attack, Checks
from scripts.attacks.target import Target, eventually
from scripts.attacks.texts import new_text
from scripts.attacks.wire import ATTACKER, HOST, Answer, NoAnswerError, exchange, parse_answer, post, request_head
from scripts.support.check import Check
from scripts.support.markdown import mib

FLOOD_BYTES = 24 * 2**20
FLOOD_SECONDS = 12.0
MAX_GROWTH = 64 * 2**20
"""Bytes of memory that a refused flood may take."""
CHUNKED = (("Content-Type", "application/json"), ("Transfer-Encoding", "chunked"))
H2C = (
    ("Connection", "Upgrade, HTTP2-Settings"),
    ("Upgrade", "h2c"),
    ("HTTP2-Settings", "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA"),
)

FUZZ_CLIENTS = 16
FUZZ_ANSWER_SECONDS = 0.5
"""Mutated messages are often incomplete: no answer comes within this time then."""
MAX_LOG_LINES = 3
"""Lines of log of one malformed message."""


async def header_floods(target: Target) -> Checks:
    """Headers, one header, a request line and trailers that do not end."""
    floods = {
        "headers": (b"GET /health HTTP/1.1\r\nHost: x\r\n", b"a:\r\n" * 16384),
        "one header": (b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ", b"a" * 65536),
        "request line": (b"GET /", b"a" * 65536),
        "trailers": (request_head("POST", "/tts", CHUNKED, close=False) + b"2\r\n{}\r\n0\r\n", b"a: b\r\n" * 10000),
    }
    checks = []
    for name, (start, piece) in floods.items():
        sent, refused, growth = await _flood(target, start, piece)
        checks.append(Check(f"{name}: refused after", mib(sent) if refused else f"not after {mib(sent)}", refused))
        checks.append(Check(f"{name}: memory (at most {mib(MAX_GROWTH)})", mib(growth), growth <= MAX_GROWTH))
    return checks


async def _flood(target: Target, start: bytes, piece: bytes) -> tuple[int, bool, int]:
    """Send a message that does not end.

    Returns the bytes that were taken, whether the server then closed the connection, and by how much its memory grew.
    """
    balancer = target.balancer()
    before = balancer.memory_info().rss if balancer else 0
    sent, refused = 0, False
    reader, writer = await asyncio.open_connection(HOST, target.port, local_addr=(ATTACKER, 0))
    try:
        async with asyncio.timeout(FLOOD_SECONDS):
            writer.write(start)
            while sent < FLOOD_BYTES and not reader.at_eof():
                writer.write(piece)
                await writer.drain()
                sent += len(piece)
            if sent < FLOOD_BYTES:
                refused = True
    except TimeoutError:
        pass  # the server takes no more, but does not refuse either
    except OSError:
        refused = True
    after = balancer.memory_info().rss if balancer and balancer.is_running() else before
    writer.close()
    return sent, refused, max(0, after - before)


async def odd_heads(target: Target) -> Checks:
    """Hosts, codings, expectations and upgrades that a server must refuse or ignore, each in its own way."""
    body = json.dumps({"text": "Hello."}).encode()
    length = (("Content-Type", "application/json"), ("Content-Length", str(len(body))))

    def message(*headers: tuple[str, str], host: str | None = HOST, close: bool = True) -> bytes:
        return request_head("POST", "/tts", (*length, *headers), host=host, close=close) + body

    expected = {
        "no Host": (message(host=None), {400}),
        "two Hosts": (message(("Host", "other")), {400}),
        "Content-Encoding: gzip": (message(("Content-Encoding", "gzip")), {400, 415}),
        "Expect: 100-continue": (message(("Expect", "100-continue")), {200}),
        "unknown Expect": (message(("Expect", "a-miracle")), {417}),
        "Upgrade: h2c": (message(*H2C, close=False), {200}),
        "Upgrade: websocket": (message(("Upgrade", "websocket"), ("Connection", "Upgrade, close"), close=False), {200}),
        "no such path": (post("/nothing", {}), {404}),
        "not a request": (b"HELLO\r\n\r\n", {400}),
        "two lengths": (message(("Content-Length", "5")), {400}),
        "length and chunks": (message(("Transfer-Encoding", "chunked")), {400}),
    }
    received = await asyncio.gather(*(_answer(target, request) for request, _ in expected.values()))
    answers = dict(zip(expected, received, strict=True))
    wrong = [
        f"{name}: {_told(answers[name])}"
        for name, (_, statuses) in expected.items()
        if (answer := answers[name]) is None or answer.status not in statuses
    ]
    shapeless = [name for name, answer in answers.items() if answer and answer.status >= 400 and not _is_error(answer)]
    return [
        Check(f"answers as they should be, of {len(expected)}", "; ".join(wrong) or "all", not wrong),
        Check("errors in another shape than the usual one", ", ".join(shapeless) or "none", not shapeless),
    ]


async def _answer(target: Target, request: bytes) -> Answer | None:
    """The first answer on a connection, also one that stays open; None if there is none within some seconds."""
    received = b""
    with suppress(OSError):
        reader, writer = await asyncio.open_connection(HOST, target.port, local_addr=(ATTACKER, 0))
        try:
            writer.write(request)
            with suppress(TimeoutError):
                async with asyncio.timeout(5.0):
                    while data := await reader.read(2**16):
                        received += data
                        # The request's own text is short: its audio comes whole, well before the connection closes.
                        await asyncio.sleep(0.2)
                        if b"\r\n\r\n" in received and b"100 Continue" not in received[:30]:
                            break
                    received += await asyncio.wait_for(reader.read(2**22), 0.2)
        finally:
            writer.close()
    try:
        return parse_answer(received)
    except NoAnswerError:
        return _head_of(received)


def _head_of(received: bytes) -> Answer | None:
    """An answer of which the body is not complete yet."""
    status = received.partition(b" ")[2][:3]
    return Answer(int(status), {}, b"") if received.startswith(b"HTTP/1.1 ") and status.isdigit() else None


def _told(answer: Answer | None) -> str:
    return "no answer" if answer is None else str(answer.status)


def _is_error(answer: Answer) -> bool:
    try:
        return isinstance(answer.json()["error"]["message"], str)
    except (ValueError, KeyError, TypeError):
        return False


async def trailer_fields(target: Target) -> Checks:
    """A trailer with the name of a header, which must not be taken for one."""
    ids = []
    for _ in range(2):
        body = json.dumps({"text": new_text()}).encode()
        head = request_head("POST", "/queue", CHUNKED)
        chunk = b"%x\r\n%b\r\n0\r\nIdempotency-Key: from-a-trailer\r\n\r\n" % (len(body), body)
        answer = await exchange(target.port, head + chunk)
        ids.append(answer.json().get("requestId") if answer.status == 202 else str(answer.status))
    taken = ids[0] == ids[1] or "409" in ids
    return [Check("a trailer counts as a header", "yes" if taken else "no", not taken)]


async def fuzz(target: Target) -> Checks:
    """Mutated requests, as many as can be sent."""
    errors, log_size = await target.server_errors(), target.log.stat().st_size
    sent = count()
    bad: list[str] = []
    until = time.monotonic() + target.duration

    async def client(number: int) -> None:
        rng = random.Random(f"fuzz {number}")
        while time.monotonic() < until:
            next(sent)
            received = await _answer_to_fuzz(target.port, _mutated(rng))
            if received.startswith(b"HTTP/1.1 5"):
                bad.append(received[:60].decode("latin-1"))

    async with asyncio.TaskGroup() as group:
        for number in range(FUZZ_CLIENTS):
            group.create_task(client(number))
    messages = next(sent)
    log = target.log.read_bytes()[log_size:]
    errors = await target.server_errors() - errors
    lines = log.count(b"\n") / messages
    return [
        Check("answers 5xx", f"{max(len(bad), int(errors))} of {messages}", not bad and not errors),
        Check("tracebacks in the log", str(log.count(b"Traceback")), b"Traceback" not in log),
        Check(f"lines of log each (at most {MAX_LOG_LINES})", f"{lines:.1f}", lines <= MAX_LOG_LINES),
    ]


def _mutated(rng: random.Random) -> bytes:
    message = bytearray(rng.choice(_FUZZ_SEEDS))
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(message))
        match rng.randrange(5):
            case 0:
                message[at] = rng.randrange(256)
            case 1:
                message[at:at] = rng.choice(_FUZZ_TOKENS)
            case 2:
                del message[at : at + rng.randrange(1, 20)]
            case 3:
                message[at:at] = message[at : at + rng.randrange(1, 200)]
            case _:
                message[at:at] = rng.randbytes(rng.randrange(1, 8))
        message = message or bytearray(b"\r\n")
    return bytes(message)


_FUZZ_SEEDS = (
    post("/tts", {"text": "Hello."}),
    post("/v1/audio/speech", {"model": "tts-1", "input": "Hello.", "voice": "alloy"}),
    post("/queue", {"text": "Hello."}, (("Idempotency-Key", "k"),)),
    request_head("GET", "/status/abc?x=1", (("Accept", "text/event-stream"), ("Range", "bytes=0-5"))),
    request_head("POST", "/tts", (*CHUNKED, ("Expect", "100-continue"))) + b'10\r\n{"text":"Hello."}\r\n0\r\n\r\n',
    request_head("GET", "/ready", close=False) + request_head("GET", "/health"),
)
_FUZZ_TOKENS = (
    *(b"\r\n", b"\r", b"\n", b"\0", b":", b" ", b"\t", b",", b"\xff", b"%00", b"../", b"HTTP/1.1", b"HTTP/9.9"),
    *(b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked, gzip\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Host: a\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"CONNECT "),
    *(
        b'"text":',
        b"1e999",
        b"\\ud800",
        b"[" * 300,
        b"{" * 300,
        b"A" * 9000,
        b"ffffffffff\r\n",
        b"Range: bytes=9-2\r\n",
    ),
)


async def _answer_to_fuzz(port: int, message: bytes) -> bytes:
    with suppress(OSError, TimeoutError):
        reader, writer = await asyncio.open_connection(HOST, port, local_addr=(ATTACKER, 0))
        try:
            async with asyncio.timeout(FUZZ_ANSWER_SECONDS):
                writer.write(message)
                return await reader.read(2**16)
        finally:
            writer.close()
    return b""


async def ranges(target: Target) -> Checks:
    """Ranges of a job's audio that are odd: ignored, or refused in the usual shape."""
    queued = await target.ask("POST", "/queue", {"text": new_text()})
    path = f"/audio/{queued.json()['requestId']}"

    async def done() -> bool:
        return (await target.ask("GET", path)).status == 200

    await eventually(done, 20.0)
    reversed_range = await target.ask("GET", path, headers=(("Range", "bytes=9-2"),))
    beyond = await target.ask("GET", path, headers=(("Range", "bytes=999999999-"),))
    return [
        Check("bytes=9-2 is ignored", str(reversed_range.status), reversed_range.status == 200),
        Check("a range past the end", f"{beyond.status}", beyond.status == 416 and _is_error(beyond)),
    ]


ATTACKS = (
    Attack("header-floods", "headers, a header, a request line and trailers of 24 MiB", header_floods, max_seconds=60),
    Attack("odd-heads", "Host, Content-Encoding, Expect and Upgrade as they should not be", odd_heads),
    Attack("trailer-fields", "a trailer with the name of a header", trailer_fields),
    Attack("ranges", "odd ranges of a job's audio", ranges),
    Attack("fuzz", "mutated requests", fuzz, max_seconds=330),
)
