"""Measures a running server: its times with one request and with many, and its answers at one rate after another."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache

from balancer.capacity.observer import Observer
from balancer.capacity.search import Search
from balancer.capacity.service_model import Level
from balancer.capacity.simulation import SimulatedFleet, SimulatedText
from balancer.capacity.step import Sample, Step
from balancer.capacity.study import Study
from balancer.load.arrivals import poisson
from balancer.load.client import SpeechClient
from balancer.load.driver import Driver, LoadLimits, RequestRecord
from balancer.load.texts import NUMBER_COUNT, Text, TextSource, generate_texts
from balancer.text.front_end import FrontEnd
from balancer.text.segments import split
from worker.cards import CARDS, EngineCard

SAMPLE_SECONDS = 0.5
WATCH_SECONDS = 0.1
LATE_SHARE = 0.05
"""Of a step's requests: when as many have missed the target, the step is ended, since its p95 has."""
MIN_LATE = 4
SETTLE_SECONDS = 30.0
"""In which a server is to have nothing left to do after a step."""
LEVEL_SHARE = 0.5
"""Of a step's time, that one level of the host's times, or the cache, is measured."""
CACHED_CLIENTS = 8
START_SHARE = 0.5
"""Of what the measured times would allow: the rate of the first step."""
MIXED_TEXTS = 300
"""Texts that stand for all of a source."""
MAX_REQUESTS = 1_000_000
DEFAULT_CARD = CARDS["hibari"]


class OutOfTimeError(Exception):
    """The time of this run is over; the study has what was measured."""


class Sweep:
    """Measures one server. `save` is given the study after each measurement, `tell` a line about it."""

    def __init__(
        self,
        observer: Observer,
        source: Callable[[], TextSource],
        *,
        api_key: str | None,
        within: float,
        save: Callable[[Study], None],
        tell: Callable[[str], None],
        start_rate: float | None = None,
    ) -> None:
        """`within` is the time of this run in seconds, `start_rate` that of the first step; None: by the times.

        `source` makes a new source of the same texts.
        """
        self._observer = observer
        self._source = source
        self._api_key = api_key
        self._until = time.monotonic() + within
        self._save = save
        self._tell = tell
        self._start_rate = start_rate

    async def run(self, study: Study) -> Study:
        """Measure what the study does not have yet. Raises OutOfTimeError."""
        self._study = study
        await self._measure_levels()
        await self._measure_cached()
        await self._measure_steps()
        self._keep(done=True)
        return self._study

    def _keep(self, **fields: object) -> None:
        self._study = self._study.model_copy(update=fields)
        self._save(self._study)

    def _check_time(self, seconds: float) -> None:
        if time.monotonic() + seconds > self._until:
            raise OutOfTimeError

    # The times of the host

    async def _measure_levels(self) -> None:
        slots = self._study.host.slots
        seconds = LEVEL_SHARE * self._study.conditions.step_seconds
        below = [2**power for power in range(slots.bit_length()) if 2**power < slots]
        for clients in [*below, 2 * slots][len(self._study.levels) :]:
            self._check_time(seconds)
            before = await self._observer.totals()
            if before is None:
                self._tell("GET /metrics tells nothing: no simulation without the host's times")
                return
            driver = await self._closed(self._single_segments(), clients, seconds, use_cache=False)
            totals = (await self._observer.totals() or before).since(before)
            good = [record for record in driver.records if record.error is None]
            if not good or not totals.utterances:
                self._tell(f"{clients} at once: no answers")
                return
            level = Level(
                clients=clients,
                seconds=driver.seconds,
                characters=tuple(record.characters for record in good),
                latencies=tuple(record.latency for record in good),
                audio_seconds=sum(record.audio_seconds or 0.0 for record in good),
                totals=totals,
            )
            self._tell(f"{clients} at once: an utterance takes {1000 * level.service:.0f} ms on its slot")
            self._keep(
                levels=(*self._study.levels, level),
                balancer_seconds=totals.balancer_cpu_seconds / totals.utterances,
            )

    async def _measure_cached(self) -> None:
        if self._study.cached_rate is not None:
            return
        seconds = LEVEL_SHARE * self._study.conditions.step_seconds
        self._check_time(seconds)
        text = next(self._texts())
        before = await self._observer.totals()
        await self._closed(iter([text]), 1, seconds, use_cache=True, requests=1)
        driver = await self._closed(itertools.repeat(text), CACHED_CLIENTS, seconds, use_cache=True)
        after = await self._observer.totals()
        hits = 0.0 if before is None or after is None else after.since(before).cache_hits
        rate = len(driver.records) / driver.seconds if hits > len(driver.records) / 2 else 0.0
        self._tell(f"from the cache: {rate:.0f} requests a second" if rate else "the server has no cache")
        self._keep(cached_rate=rate)

    # The steps

    async def _measure_steps(self) -> None:
        conditions = self._study.conditions
        # A run that goes on begins where the earlier one began.
        start = self._study.steps[0].rate if self._study.steps else self._start_rate or self._expected_start()
        search = Search(start)
        while (rate := search.next_rate(self._study.tried_rates)) is not None:
            self._check_time(conditions.step_seconds + (conditions.target.p95 or 0.0))
            await self._settle()
            step = await self._step(rate)
            reasons = conditions.target.broken_by(step)
            self._tell(
                f"{rate:.2f} a second: p95 {step.latency.p95:.2f} s" + (f": {'; '.join(reasons)}" if reasons else "")
            )
            self._keep(steps=(*self._study.steps, step))

    def _expected_start(self) -> float:
        """Half the rate that the measured times allow."""
        model = self._study.model
        if model is None:
            return 1.0
        texts = simulated_texts(self._source(), self._study.conditions.seed, self._study.host.engine)
        return START_SHARE * SimulatedFleet(model, self._study.host.size).limit(texts)

    async def _step(self, rate: float) -> Step:
        conditions = self._study.conditions
        seconds = conditions.step_seconds
        before = await self._observer.totals()
        samples: list[Sample] = []
        async with self._client(use_cache=False, stream=conditions.target.streams) as client:
            driver = Driver(client.synthesize, self._texts(), LoadLimits(MAX_REQUESTS, seconds), _ignore)
            sampling = asyncio.create_task(self._sample(driver, samples))
            run = asyncio.create_task(driver.open(poisson(rate, conditions.seed)))
            sent, ages = await self._watch(driver, run, seconds, expected=rate * seconds)
            await run
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)
        after = await self._observer.totals()
        return Step.of(
            rate,
            sent,
            driver.records,
            ages,
            totals=None if before is None or after is None else after.since(before),
            samples=samples,
        )

    async def _watch(
        self, driver: Driver, run: asyncio.Task[None], seconds: float, *, expected: float
    ) -> tuple[float, list[float]]:
        """Until the step is over, or its target missed: the seconds in which it sent, and the ages of what is open."""
        patience = self._study.conditions.target.p95
        began = time.monotonic()
        limit = seconds + (60.0 if patience is None else 2 * patience)
        while not run.done():
            await asyncio.wait({run}, timeout=WATCH_SECONDS)
            passed = time.monotonic() - began
            ages = driver.ages()
            late = _late(driver.records, ages, patience)
            if not run.done() and (late > max(MIN_LATE, LATE_SHARE * expected) or passed > limit):
                driver.stop()
                driver.stop()  # the second time, what has no answer yet is abandoned
                return min(passed, seconds), ages
        return seconds, []

    async def _sample(self, driver: Driver, samples: list[Sample]) -> None:
        began = time.monotonic()
        while True:
            samples.append(await self._observer.sample(time.monotonic() - began, driver.outstanding))
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _settle(self) -> None:
        """Wait until the server has nothing left to do."""
        until = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < until:
            sample = await self._observer.sample(0.0, 0)
            if not sample.queue_depth and not sample.slots_used:
                return
            await asyncio.sleep(WATCH_SECONDS)

    # Requests

    async def _closed(
        self, texts: Iterator[Text], clients: int, seconds: float, *, use_cache: bool, requests: int = MAX_REQUESTS
    ) -> Driver:
        async with self._client(use_cache=use_cache) as client:
            driver = Driver(client.synthesize, texts, LoadLimits(requests, seconds), _ignore)
            await driver.closed(clients)
        return driver

    def _client(self, *, use_cache: bool, stream: bool = False) -> SpeechClient:
        conditions = self._study.conditions
        return SpeechClient(
            conditions.url,
            voice=conditions.voice,
            audio_format="wav",
            api_key=self._api_key,
            timeout=max(120.0, 4 * (conditions.target.p95 or 0.0)),
            use_cache=use_cache,
            stream=stream,
        )

    def _texts(self) -> Iterator[Text]:
        """Texts that were never asked for, of the same lengths in each step: steps are to differ in their rates."""
        source = self._source()
        first = random.SystemRandom().randrange(NUMBER_COUNT)
        return generate_texts(source, seed=self._study.conditions.seed, repeat=0, first_number=first)

    def _single_segments(self) -> Iterator[Text]:
        """The segments of texts, each as a text of its own."""
        texts = itertools.islice(self._texts(), MIXED_TEXTS)
        segments = [Text(segment, None) for text in texts for segment in segments_of(text, self._card)]
        random.Random(f"segments {self._study.conditions.seed}").shuffle(segments)
        return itertools.cycle(segments)

    @property
    def _card(self) -> EngineCard:
        return card_of(self._study.host.engine)


def card_of(engine: str) -> EngineCard:
    """The card of an engine; that of the built-in voice for one that is not known here."""
    return CARDS.get(engine, DEFAULT_CARD)


def segments_of(text: Text, card: EngineCard) -> list[str]:
    """The segments in which the server speaks an English text."""
    spoken = _front_end(card.tags).prepare(text.content).plain
    return [segment.text for segment in split(spoken, "en", card.segments)]


@cache
def _front_end(tags: tuple[str, ...]) -> FrontEnd:
    return FrontEnd(tags)


def simulated_texts(source: TextSource, seed: int, engine: str) -> list[SimulatedText]:
    """As many texts as represent all of a source, for the simulation of an engine."""
    texts = itertools.islice(generate_texts(source, seed=seed, repeat=0, first_number=0), MIXED_TEXTS)
    card = card_of(engine)
    return [SimulatedText(tuple(map(len, segments_of(text, card))), text.length == "short") for text in texts]


def _late(records: Iterable[RequestRecord], ages: Iterable[float], patience: float | None) -> int:
    """Requests that have missed the target."""
    failed = sum(record.error is not None for record in records)
    if patience is None:
        return failed
    slow = sum(record.error is None and record.latency > patience for record in records)
    return failed + slow + sum(age > patience for age in ages)


def _ignore(_: RequestRecord) -> None:
    """Records are read from the driver."""
