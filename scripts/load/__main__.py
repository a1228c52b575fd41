"""Load test for capacity tuning: asks a running server for speech, tells how fast and how well it answers."""

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

from scripts.load.arrivals import poisson
from scripts.load.client import ServerNotReadyError, SpeechClient
from scripts.load.driver import Bounds, Driver, Record
from scripts.load.report import print_tables, summarise, write_json
from scripts.load.texts import NUMBERS, Lines, Mix, Source, supply

DEFAULT_CONCURRENCY = 4
EXIT_FAILURES = 1
EXIT_NOT_READY = 3

errors = Console(stderr=True)


app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)  # locals hold the key


@dataclass(frozen=True)
class Plan:
    """What to send, and how."""

    url: str
    concurrency: int | None
    """Clients of a closed loop; None for an open one."""
    rate: float | None
    """Requests a second of an open loop; None for a closed one."""
    requests: int
    duration: float
    texts: Path | None
    repeat: float
    seed: int
    voice: str | None
    format: str
    timeout: float

    def __str__(self) -> str:
        pace = (
            f"open loop, {self.rate:g} requests a second" if self.rate else f"closed loop, {self.concurrency} clients"
        )
        return f"{self.url}: {pace}"

    def settings(self) -> dict[str, object]:
        """Return the plan in JSON's types."""
        return asdict(self) | {"texts": str(self.texts) if self.texts else None}


@app.command()
def loadtest(
    *,
    url: Annotated[str, typer.Option(help="The server under test.")] = "http://127.0.0.1:5000",
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Closed loop: so many clients, each sends its next request when the last is answered. "
            f"{DEFAULT_CONCURRENCY} unless --rate is given.",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Open loop: so many requests a second, at random (Poisson) times, however many are "
            "outstanding. Latency counts from when a request was due."
        ),
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="Stop sending after so many requests.")] = 100,
    duration: Annotated[float, typer.Option(help="Stop sending after so many seconds.")] = 60,
    texts: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Texts, one a line. Without it a mix: 60 % one sentence, 30 % four, 10 % twenty.",
        ),
    ] = None,
    repeat: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of requests that repeat an earlier text; all others are unique."),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Settles texts and arrival times.")] = 0,
    voice: Annotated[str | None, typer.Option(help="Without it the server's own choice.")] = None,
    audio_format: Annotated[str, typer.Option("--format", help="wav, pcm, mp3, ...")] = "wav",
    api_key: Annotated[str | None, typer.Option(envvar="CHORUS_API_KEY")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds until a request counts as failed.")] = 120,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", dir_okay=False, help="Also write the result there."),
    ] = None,
    records: Annotated[bool, typer.Option("--records", help="Write every request to the JSON file, too.")] = False,
) -> None:
    """Measure a running server: throughput, latency and errors under a load.

    Ctrl-C stops sending and reports once the outstanding answers are in; a second one does not wait for them.
    Exit code: 0 all well, 1 some request failed, 2 wrong usage, 3 no server ready at the address.
    """
    if concurrency and rate is not None:
        raise typer.BadParameter("a load is closed (--concurrency) or open (--rate), not both")
    for option, value in (("--rate", rate), ("--duration", duration), ("--timeout", timeout)):
        if value is not None and not 0 < value < float("inf"):
            raise typer.BadParameter(f"{option} must be more than 0")
    if json_file and not json_file.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {json_file.parent} for --json")
    if records and not json_file:
        raise typer.BadParameter("--records go to the file that --json names")

    plan = Plan(
        url=_address(url),
        concurrency=None if rate else concurrency or DEFAULT_CONCURRENCY,
        rate=rate,
        requests=requests,
        duration=duration,
        texts=texts,
        repeat=repeat,
        seed=seed,
        voice=voice,
        format=audio_format,
        timeout=timeout,
    )
    source = Lines(_lines(texts)) if texts else Mix(seed)
    _allow_many_connections()
    try:
        driver = asyncio.run(run(plan, source, api_key))
    except ServerNotReadyError as reason:
        errors.print(f"loadtest: {reason}", markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_NOT_READY) from None

    summary = summarise(driver.records, seconds=driver.seconds, abandoned=driver.outstanding)
    print_tables(summary, str(plan), Console())
    if json_file:
        write_json(json_file, plan.settings(), summary, driver.records if records else None)
    if summary.failed:
        raise typer.Exit(EXIT_FAILURES)


async def run(plan: Plan, source: Source, api_key: str | None) -> Driver:
    """Carry out the plan; the driver returned holds the records. Raises ServerNotReadyError."""
    first_number = random.SystemRandom().randrange(NUMBERS)
    texts = supply(source, seed=plan.seed, repeat=plan.repeat, first_number=first_number)
    async with SpeechClient(
        plan.url,
        voice=plan.voice,
        audio_format=plan.format,
        api_key=api_key,
        timeout=plan.timeout,
    ) as client:
        await client.check_ready()
        with _progress(plan.requests) as on_record:
            driver = Driver(client.speak, texts, Bounds(plan.requests, plan.duration), on_record)
            _stop_on_interrupt(driver)
            if plan.rate:
                await driver.open(poisson(plan.rate, plan.seed))
            else:
                await driver.closed(plan.concurrency or DEFAULT_CONCURRENCY)
    return driver


@contextmanager
def _progress(requests: int) -> Iterator[Callable[[Record], None]]:
    """Show a bar, where there is a terminal for it; calling the function given out moves it."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]} failed"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("", total=requests, failed=0)
        failed = 0

        def on_record(record: Record) -> None:
            nonlocal failed
            failed += record.error is not None
            progress.update(task, advance=1, failed=failed)

        yield on_record


def _stop_on_interrupt(driver: Driver) -> None:
    def stop() -> None:
        if not driver.stopping:
            errors.print(f"loadtest: stopping; {driver.outstanding} outstanding, Ctrl-C again abandons them")
        driver.stop()

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop)


def _address(url: str) -> str:
    """Check a URL, and that it may be shown and stored."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise typer.BadParameter(f"--url: {error}") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.userinfo:
        raise typer.BadParameter("--url must look like http://host:port; a key goes into --api-key")
    return url


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"--texts: {error}") from None
    if not (texts := [stripped for line in lines if (stripped := line.strip())]):
        raise typer.BadParameter(f"--texts: {path} has no text in it")
    return texts


def _allow_many_connections() -> None:
    """Raise the limit on open files: an open loop has a socket for each request outstanding."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    app(prog_name="scripts/loadtest")
