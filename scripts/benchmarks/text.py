"""The text front end alone: milliseconds for a text of 300 characters, and for a corpus that the script makes.

The corpus is deterministic: prose, chat answers in Markdown, web pages, prices and dates, and lines of one repeated
symbol, cut into texts of up to 5,000 characters. One process, no server: what a request pays before the cache.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Iterator
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from balancer.text.front_end import FrontEnd
from scripts.support.console import run_command, stderr

MIB = 2**20
LENGTHS = (50, 300, 1000, 5000)
_WORDS = (
    "the a an old quick river house garden letter winter train keeper window evening people music Doctor "
    "London Alice Henry went came saw said found took wrote opened closed slowly again never always with "
    "without over under before after because "
).split()
_FACTS = (
    "It costs ${n}.{d} or {n},{d} \u20ac.",
    "On March {d}, 2024 at {h}:30 pm, {n} people came.",
    "The wind is {n} km/h at -{d} \u00b0C.",
    "Call 555-123-4567 or write to team{d}@example.com.",
    "Chapter IV has {n},000 words, i.e. {d}% of it.",
    "Version 2.{d}.1 of the API returns JSON over HTTP.",
    "See https://example.com/docs/page{d}.html for more.",
    "\u201cIt\u2019s here,\u201d she said \u2014 and he didn\u2019t answer\u2026",
)
_FORMS = (
    "## {title}\n\n- **{a}**\n- {b}\n\n{c}\n\n",
    "<h2>{title}</h2><p>{a}<br/>{b}</p><ul><li>{c}</li></ul>\n",
    "{a} {b} {c}\n\n",
    "| Name | Value |\n|---|---|\n| {title} | {n} |\n\n{a}\n\n",
    "> {a}\n>\n> {b}\n\n{c}\n",
    "{title}\n==========\n{a}\n*****\n{b}\n",
)


def corpus(characters: int) -> Iterator[str]:
    """Texts of about so many characters together; always the same."""
    rng = random.Random("corpus")
    made = 0
    while made < characters:
        limit = rng.choice(LENGTHS)
        text = ""
        while len(text) < limit:
            text += _passage(rng)
        made += limit
        yield text[:limit]


def prose(characters: int, texts: int) -> list[str]:
    """So many texts of so many characters, of words and full stops alone."""
    rng = random.Random("prose")
    return [" ".join(_plain(rng) for _ in range(characters // 20))[:characters] for _ in range(texts)]


def _passage(rng: random.Random) -> str:
    values = {name: _sentence(rng) for name in ("a", "b", "c")}
    return rng.choice(_FORMS).format(**values, title=rng.choice(_WORDS).title(), n=rng.randint(2, 900))


def _sentence(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return rng.choice(_FACTS).format(n=rng.randint(2, 900), d=rng.randint(10, 28), h=rng.randint(1, 12))
    return _plain(rng)


def _plain(rng: random.Random) -> str:
    words = [rng.choice(_WORDS) for _ in range(rng.randint(5, 18))]
    return f"{' '.join(words).capitalize()}."


def main(
    mebibytes: Annotated[float, typer.Option(min=0.01, help="Size of the corpus in MiB.")] = 5.0,
    repeats: Annotated[int, typer.Option(min=10, help="Texts of each length that are timed one by one.")] = 500,
) -> None:
    """Measure the text front end."""
    process = psutil.Process()
    before = process.memory_info().rss
    front_end = FrontEnd()
    front_end.prepare("Warm up: 5 **words**.")
    table = Table(
        "text", "median ms", "p99 ms", "longest ms", "MB/s", title=f"one thread, Python, process {os.getpid()}"
    )
    for length in LENGTHS:
        texts = [text for text in corpus(length * repeats * len(LENGTHS) * 4) if len(text) == length][:repeats]
        table.add_row(f"{length} characters of the corpus", *_row(_timed(front_end, texts), length * len(texts)))
    table.add_row("300 characters of prose", *_row(_timed(front_end, prose(300, repeats)), 300 * repeats))
    size = round(mebibytes * MIB)
    texts = list(corpus(size))
    table.add_row(f"corpus of {size / MIB:g} MiB, {len(texts)} texts", *_row(_timed(front_end, texts), size))
    Console().print(table)
    grown = (process.memory_info().rss - before) / MIB
    Console().print(f"memory of the process grew by {grown:.1f} MiB, the corpus included")


def _timed(front_end: FrontEnd, texts: list[str]) -> list[float]:
    """Seconds of each text."""
    seconds = []
    for text in track(texts, "measuring", console=stderr):
        start = time.perf_counter()
        front_end.prepare(text)
        seconds.append(time.perf_counter() - start)
    return seconds


def _row(seconds: list[float], characters: int) -> tuple[str, str, str, str]:
    ordered = sorted(seconds)
    p99 = ordered[int(0.99 * (len(ordered) - 1))]
    median = statistics.median(ordered)
    return (
        f"{median * 1e3:.2f}",
        f"{p99 * 1e3:.2f}",
        f"{ordered[-1] * 1e3:.1f}",
        f"{characters / sum(ordered) / 1e6:.2f}",
    )


if __name__ == "__main__":
    run_command(main, "scripts/bench_text")
