"""The load test, for capacity tuning: measures latency, errors and throughput of a running server."""

import asyncio
import random
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from balancer.load.arrivals import poisson
from balancer.load.client import ServerNotReadyError, SpeechClient
from balancer.load.driver import Driver, LoadLimits, RequestRecord
from balancer.load.summary import summarise
from balancer.load.texts import (
    NAME_COUNT,
    NAME_PLACE,
    NUMBER_COUNT,
    Text,
    TextLines,
    TextMix,
    TextSource,
    generate_texts,
    template_texts,
)
from scripts.load.report import print_tables, write_json
from scripts.support.console import report_progress, run_command, stderr

DEFAULT_CONCURRENCY = 4
TURNS = 2
"""Of each side, when two are compared."""
WITH_CACHE, WITHOUT_CACHE = "with the cache", "without the cache"
EXIT_FAILURES = 1
EXIT_NOT_READY = 3


@dataclass(frozen=True)
class LoadPlan:
    """The requests to send, and how to send them."""

    url: str
    concurrency: int | None
    """Clients of a closed loop; None for an open loop."""
    rate: float | None
    """Requests per second of an open loop; None for a closed loop."""
    requests: int
    """Maximum number of requests."""
    duration: float
    """Seconds after which no request is sent."""
    texts: Path | None
    """File with one text per line; None: the built-in mix."""
    template: str | None
    """A text with NAME, of which each request has another; None: other texts."""
    repeat: float
    """Share of requests that repeat an earlier text."""
    seed: int
    voice: str | None
    format: str
    timeout: float
    """Seconds after which a request counts as failed."""

    def __str__(self) -> str:
        if self.rate:
            return f"{self.url}: open loop, {self.rate:g} requests per second"
        return f"{self.url}: closed loop, {self.concurrency} clients"

    def settings(self) -> dict[str, object]:
        """The plan in types that JSON has."""
        return asdict(self) | {"texts": str(self.texts) if self.texts else None}


def main(
    *,
    url: Annotated[str, typer.Option(help="URL of the server under test.")] = "http://127.0.0.1:5000",
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Closed loop: number of clients, each of which sends its next request when the last one is answered. "
            f"Default without --rate: {DEFAULT_CONCURRENCY}.",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Open loop: requests per second, sent at random (Poisson) times, however many are outstanding. "
            "Latency counts from the time a request was due."
        ),
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="Stop after this many requests.")] = 100,
    duration: Annotated[float, typer.Option(help="Stop sending after this many seconds.")] = 60,
    texts: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="File with one text per line. Default: a mix of 60 % one sentence, 30 % four, 10 % twenty sentences.",
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="A text such as 'Hello NAME. Your order has shipped.': each request has another name. The server is "
            f"measured with its cache and without it, by turns, {TURNS} of each.",
        ),
    ] = None,
    repeat: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of requests that repeat an earlier text; all others are unique."),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Seed of texts and arrival times.")] = 0,
    voice: Annotated[str | None, typer.Option(help="Voice. Default: the default voice of the server.")] = None,
    audio_format: Annotated[str, typer.Option("--format", help="Audio format: wav, pcm, mp3, …")] = "wav",
    api_key: Annotated[str | None, typer.Option(envvar="CHORUS_API_KEY", help="API key of the server.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds after which a request counts as failed.")] = 120,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", dir_okay=False, help="Also write the result to this file."),
    ] = None,
    records: Annotated[bool, typer.Option("--records", help="Include every request in the JSON file.")] = False,
) -> None:
    """Measure throughput, latency and errors of a running server under load.

    Ctrl-C stops sending, awaits the outstanding answers and reports; a second Ctrl-C abandons them.
    Exit code: 0 no request failed, 1 a request failed, 2 wrong usage, 3 the server is not ready.
    """
    if concurrency and rate is not None:
        raise typer.BadParameter("--concurrency (closed loop) and --rate (open loop) exclude each other")
    _check_positive({"--rate": rate, "--duration": duration, "--timeout": timeout})
    if template is not None:
        _check_template(template, requests, others=(rate, texts, repeat or None, json_file))
    if json_file and not json_file.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {json_file.parent} for --json")
    if records and not json_file:
        raise typer.BadParameter("--records needs --json")

    plan = LoadPlan(
        url=_checked_url(url),
        concurrency=None if rate else concurrency or DEFAULT_CONCURRENCY,
        rate=rate,
        requests=requests,
        duration=duration,
        texts=texts,
        template=template,
        repeat=repeat,
        seed=seed,
        voice=voice,
        format=audio_format,
        timeout=timeout,
    )
    source = TextLines(_read_texts(texts)) if texts else TextMix(seed)
    _raise_open_file_limit()
    if template is not None:
        _compare(plan, template, api_key)
        return
    try:
        driver = asyncio.run(run(plan, source, api_key))
    except ServerNotReadyError as reason:
        report_progress(f"loadtest: {reason}")
        raise typer.Exit(EXIT_NOT_READY) from None

    summary = summarise(driver.records, seconds=driver.seconds, abandoned=driver.outstanding)
    print_tables(summary, str(plan), Console())
    if json_file:
        write_json(json_file, plan.settings(), summary, driver.records if records else None)
    if summary.failed:
        raise typer.Exit(EXIT_FAILURES)


def _compare(plan: LoadPlan, template: str, api_key: str | None) -> None:
    """Measure texts of a template with the cache and without, and print both."""
    try:
        drivers = asyncio.run(run_by_turns(plan, template_texts(template), api_key))
    except ServerNotReadyError as reason:
        report_progress(f"loadtest: {reason}")
        raise typer.Exit(EXIT_NOT_READY) from None
    failed = 0
    for title, turns in drivers.items():
        records = [record for driver in turns for record in driver.records]
        abandoned = sum(driver.outstanding for driver in turns)
        summary = summarise(records, seconds=sum(driver.seconds for driver in turns), abandoned=abandoned)
        print_tables(summary, f"{plan}, {title}", Console())
        failed += summary.failed
    if failed:
        raise typer.Exit(EXIT_FAILURES)


def _client(plan: LoadPlan, api_key: str | None, *, use_cache: bool = True) -> SpeechClient:
    return SpeechClient(
        plan.url,
        voice=plan.voice,
        audio_format=plan.format,
        api_key=api_key,
        timeout=plan.timeout,
        use_cache=use_cache,
    )


async def run_by_turns(plan: LoadPlan, texts: Iterator[Text], api_key: str | None) -> dict[str, list[Driver]]:
    """Carry out the plan with the cache and without; the drivers of each, one per turn. Raises ServerNotReadyError."""
    drivers: dict[str, list[Driver]] = {WITH_CACHE: [], WITHOUT_CACHE: []}
    per_turn = LoadLimits(plan.requests // TURNS, plan.duration)
    with _progress(len(drivers) * per_turn.requests * TURNS) as on_record:
        for turn in range(TURNS):
            # The order alternates, so that a machine that heats up or gets busy favours none.
            for side in drivers if turn % 2 == 0 else reversed(drivers):
                async with _client(plan, api_key, use_cache=side == WITH_CACHE) as client:
                    await client.check_ready()
                    driver = Driver(client.synthesize, texts, per_turn, on_record)
                    _stop_on_interrupt(driver)
                    await driver.closed(plan.concurrency or DEFAULT_CONCURRENCY)
                drivers[side].append(driver)
    return drivers


async def run(plan: LoadPlan, source: TextSource, api_key: str | None) -> Driver:
    """Carry out the plan; the driver that is returned has the records. Raises ServerNotReadyError."""
    first_number = random.SystemRandom().randrange(NUMBER_COUNT)
    texts = generate_texts(source, seed=plan.seed, repeat=plan.repeat, first_number=first_number)
    async with _client(plan, api_key) as client:
        await client.check_ready()
        with _progress(plan.requests) as on_record:
            driver = Driver(client.synthesize, texts, LoadLimits(plan.requests, plan.duration), on_record)
            _stop_on_interrupt(driver)
            if plan.rate:
                await driver.open(poisson(plan.rate, plan.seed))
            else:
                await driver.closed(plan.concurrency or DEFAULT_CONCURRENCY)
    return driver


@contextmanager
def _progress(requests: int) -> Iterator[Callable[[RequestRecord], None]]:
    """Show a progress bar if standard error is a terminal; gives the function that advances it by one record."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]} failed"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        task = progress.add_task("", total=requests, failed=0)
        failed = 0

        def on_record(record: RequestRecord) -> None:
            nonlocal failed
            failed += record.error is not None
            progress.update(task, advance=1, failed=failed)

        yield on_record


def _stop_on_interrupt(driver: Driver) -> None:
    def stop() -> None:
        if not driver.stopping:
            report_progress(f"loadtest: stopping; {driver.outstanding} outstanding, Ctrl-C again abandons them")
        driver.stop()

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop)


def _check_positive(options: dict[str, float | None]) -> None:
    for option, value in options.items():
        if value is not None and not 0 < value < float("inf"):
            raise typer.BadParameter(f"{option} must be more than 0")


def _check_template(template: str, requests: int, *, others: tuple[object, ...]) -> None:
    """Raises BadParameter if the template cannot be used, or not with the other options."""
    if NAME_PLACE not in template:
        raise typer.BadParameter(f"--template needs {NAME_PLACE}, in whose place the names go")
    if any(other is not None for other in others):
        raise typer.BadParameter("--template goes without --rate, --texts, --repeat and --json")
    if requests % TURNS or 2 * requests > NAME_COUNT:
        raise typer.BadParameter(f"--template needs --requests to be a multiple of {TURNS}, up to {NAME_COUNT // 2}")


def _checked_url(url: str) -> str:
    """The URL, if it is valid and without credentials, which the report would show. Raises BadParameter."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise typer.BadParameter(f"--url: {error}") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.userinfo:
        raise typer.BadParameter("--url must look like http://host:port; a key goes into --api-key")
    return url


def _read_texts(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"--texts: {error}") from None
    if not (texts := [stripped for line in lines if (stripped := line.strip())]):
        raise typer.BadParameter(f"--texts: {path} contains no text")
    return texts


def _raise_open_file_limit() -> None:
    """Raise the limit of open files: an open loop has a socket for each outstanding request."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))


if __name__ == "__main__":
    run_command(main, "scripts/loadtest")
