"""Callers that have a server speak all the time, and count the answers that are not whole."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

import httpx

from balancer.host.processes import wait_until

CALLERS = 2
PAUSE_SECONDS = 0.25
"""Between an answer and the next request of a caller: an upgrade needs some of the CPU as well."""
KEY = "a-key-of-the-trial-only"
"""An API key for the servers of the trials."""
TIMEOUT_SECONDS = 60.0
MIN_AUDIO_BYTES = 10_000
TEXT = "Request {number} of caller {caller} is spoken while the host is changed."


@dataclass
class Tally:
    """The answers so far."""

    answered: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    """The number of failures of each kind."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, failure: str | None) -> None:
        """Count an answer, or why it is none."""
        with self._lock:
            if failure is None:
                self.answered += 1
            else:
                self.failures[failure] += 1

    @property
    def failed(self) -> int:
        """The number of requests without a whole answer."""
        return sum(self.failures.values())

    def describe(self) -> str:
        """Both numbers, and what failed."""
        reasons = ", ".join(f"{number} x {reason}" for reason, number in self.failures.most_common())
        return f"{self.answered} answered, {self.failed} failed" + (f" ({reasons})" if reasons else "")


@contextmanager
def steady_load(url: str, callers: int = CALLERS) -> Iterator[Tally]:
    """Callers, each with one request after another, for the time of the block; its end waits for the last answers."""
    tally, stopping = Tally(), threading.Event()

    def call(client: httpx.Client, caller: int) -> None:
        for number in count():
            if stopping.wait(PAUSE_SECONDS):
                return
            tally.add(speak(client, TEXT.format(number=number, caller=caller)))

    with _calling(url, callers, call):
        try:
            yield tally
        finally:
            stopping.set()


def speak(client: httpx.Client, text: str) -> str | None:
    """Why a text is not spoken; None if it is."""
    try:
        response = client.post("/tts", json={"text": text})
    except httpx.HTTPError as error:
        return type(error).__name__
    if response.status_code != 200:
        return str(response.status_code)
    return None if len(response.content) >= MIN_AUDIO_BYTES else "no audio"


@contextmanager
def in_flight(url: str, number: int, tally: Tally, key: str | None = None) -> Iterator[None]:
    """Has so many requests under way for the block, each of one utterance; its end waits for their answers.

    `key` is the API key, if there is one.
    """

    def call(client: httpx.Client, index: int) -> None:
        text = f"Request {index} is in flight when the server is told to stop, and is answered."
        tally.add(speak(client, text))

    headers = bearer(key)
    with _calling(url, number, call, headers):
        until(lambda: _utterances(url, headers) + tally.answered + tally.failed >= number, TIMEOUT_SECONDS)
        yield


@contextmanager
def _calling(
    url: str, callers: int, call: Callable[[httpx.Client, int], None], headers: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run `call` in a thread for each caller, which has a number; the end of the block waits for all of them."""

    def run(caller: int) -> None:
        with httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
            call(client, caller)

    threads = [threading.Thread(target=run, args=(caller,)) for caller in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()


def bearer(key: str | None) -> dict[str, str]:
    """The header that carries an API key."""
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def _utterances(url: str, headers: Mapping[str, str]) -> int:
    """The utterances that the server knows of, queued and running."""
    health = httpx.get(f"{url}/health", headers=headers, trust_env=False).json()
    return int(health["queueDepth"] + sum(worker["in_flight"] for worker in health["workers"] if "in_flight" in worker))


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition comes to hold within so many seconds."""
    try:
        wait_until(condition, timeout=seconds)
    except TimeoutError:
        return False
    return True
