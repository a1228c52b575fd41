"""The end of speech, found by Silero VAD (as Chorus does) and by the level alone, under what models add to it.

The voice is hibari's. What follows it is made: noise of several levels, hum, clicks, breaths. For each, the table has
the speech that was lost, and what was left behind the speech, in milliseconds: the mean and the worst.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import typer
from hibari import Hibari
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from scripts.support.console import run_command
from worker.engines.base import Samples
from worker.engines.chatterbox.trailing_audio import MARGIN_SECONDS, TrailingAudioTrimmer

RATE = 24_000
"""Of hibari and of Chatterbox, in Hz."""
TAIL_SECONDS = 1.5
END_LEVEL = 0.01
"""The voice ends with its last sample of this share of its peak."""
SENTENCES = (
    "The birch canoe slid on the smooth planks.",
    "Glue the sheet to the dark blue background.",
    "It's easy to tell the depth of a well.",
    "These days a chicken leg is a rare dish.",
    "Rice is often served in round bowls.",
    "The juice of lemons makes fine punch.",
    "He asked for six fresh fish.",
    "The boat left at half past.",
    "Hello there, what is this?",
    "She sees.",
    "Stop that.",
    "Yes.",
)

Tail = Callable[[int, float, np.random.Generator], Samples]
"""Makes so many samples that follow a voice of a given level (root mean square)."""
EndFinder = Callable[[Samples], int]
"""The number of samples that are kept."""


def voice(text: str) -> Samples:
    """A sentence in hibari's voice, up to the end of its last sound."""
    hibari = Hibari(threads=1)
    random = np.random.default_rng(1)
    chunks = [hibari.from_ids(ids, rng=random) for ids in map(hibari.ids, hibari.phonemize(text)) if len(ids) > 2]
    samples: Samples = np.concatenate(chunks).astype(np.float32)
    loud = np.flatnonzero(np.abs(samples) >= END_LEVEL * np.abs(samples).max())
    return samples[: int(loud[-1]) + 1]


def level_of(samples: Samples) -> float:
    """The root mean square of the loud parts of a voice."""
    return float(10 ** (np.percentile(_levels(samples), 95) / 20))


def with_tail(samples: Samples, tail: Tail, seed: int = 0) -> Samples:
    """The voice, with TAIL_SECONDS of something behind it."""
    made = tail(round(TAIL_SECONDS * RATE), level_of(samples), np.random.default_rng(seed))
    return np.concatenate([samples, made.astype(np.float32)])


def white(decibels: float) -> Tail:
    """White noise, relative to the voice."""
    return lambda count, level, random: (random.standard_normal(count) * level * 10 ** (decibels / 20)).astype(
        np.float32
    )


def pink(decibels: float) -> Tail:
    """Pink noise, relative to the voice."""

    def make(count: int, level: float, random: np.random.Generator) -> Samples:
        spectrum = np.fft.rfft(random.standard_normal(count))
        noise = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 1), count)
        scaled: Samples = (noise / noise.std() * level * 10 ** (decibels / 20)).astype(np.float32)
        return scaled

    return make


def hum(count: int, level: float, _: np.random.Generator) -> Samples:
    """Mains hum at 50 and 100 Hz, 20 dB below the voice."""
    phase = 2 * np.pi * 50 * np.arange(count) / RATE
    waves: Samples = ((np.sin(phase) + np.sin(2 * phase) / 2) * level / 10).astype(np.float32)
    return waves


def clicks(count: int, level: float, _: np.random.Generator) -> Samples:
    """Two clicks of 2 ms, as loud as the voice."""
    samples = np.zeros(count, np.float32)
    for start in (count // 3, 2 * count // 3):
        samples[start : start + 48] = np.hanning(48) * np.sign(np.sin(np.arange(48))) * level
    return samples


def breath(decibels: float) -> Tail:
    """A breath of 0.4 s after 0.3 s of silence, relative to the voice."""

    def make(count: int, level: float, random: np.random.Generator) -> Samples:
        noise = _filtered(random.standard_normal(count), [500, 5000], "bandpass", order=2)
        envelope = np.zeros(count)
        start, length = round(0.3 * RATE), round(0.4 * RATE)
        envelope[start : start + length] = np.hanning(length)
        scaled: Samples = (noise / noise.std() * envelope * level * 10 ** (decibels / 20)).astype(np.float32)
        return scaled

    return make


TAILS: dict[str, Tail] = {
    "silence": lambda count, _, __: np.zeros(count, np.float32),
    **{f"white noise, {decibels} dB": white(decibels) for decibels in (-50, -40, -30, -20, -10)},
    **{f"pink noise, {decibels} dB": pink(decibels) for decibels in (-30, -20)},
    "hum, -20 dB": hum,
    "clicks": clicks,
    **{f"a breath, {decibels} dB": breath(decibels) for decibels in (-30, -20)},
}


def find_by_level(samples: Samples, begins: float, ends: float) -> int:
    """The end of the last 60 ms that are louder than `begins`, and of all behind that is louder than `ends`.

    Both are in dB relative to the voice; below 100 Hz nothing counts. The margin is that of the trimmer.
    """
    levels = _levels(_filtered(samples, 100, "highpass", order=4))
    levels -= np.percentile(levels, 95)
    runs = np.flatnonzero(np.convolve(levels >= begins, np.ones(6), "valid") >= 6)
    if not len(runs):
        return len(samples)
    behind = int(runs[-1]) + 6
    quiet = np.flatnonzero(levels[behind:] < ends)
    frames = behind + (int(quiet[0]) if len(quiet) else len(levels) - behind)
    return min(len(samples), frames * RATE // 100 + round(MARGIN_SECONDS * RATE))


def _filtered(samples: NDArray[np.floating[Any]], hertz: float | list[float], kind: str, *, order: int) -> Samples:
    """The samples behind a Butterworth filter with these corner frequencies."""
    from scipy.signal import butter, sosfilt  # noqa: PLC0415 - takes a second, also where only a tail's name is needed

    filtered: Samples = sosfilt(butter(order, hertz, kind, fs=RATE, output="sos"), samples)
    return filtered


def _levels(samples: Samples) -> Samples:
    """The level of each 10 ms, in dB."""
    frame = RATE // 100
    frames = samples[: len(samples) // frame * frame].reshape(-1, frame)
    levels: Samples = 10 * np.log10((frames**2).mean(axis=1) + 1e-12)
    return levels


def finders() -> dict[str, EndFinder]:
    """The ways to find the end, by name."""
    trimmer = TrailingAudioTrimmer()

    def find_by_speech(samples: Samples) -> int:
        end = trimmer.speech_end(samples, RATE)
        return len(samples) if end is None else min(len(samples), end + round(MARGIN_SECONDS * RATE))

    return {
        "Silero VAD": find_by_speech,
        "level -30/-45 dB": lambda samples: find_by_level(samples, -30, -45),
        "level -20/-35 dB": lambda samples: find_by_level(samples, -20, -35),
    }


def run(sentences: Annotated[int, typer.Option(min=1, max=len(SENTENCES), help="Sentences.")] = len(SENTENCES)) -> None:
    """Print what each way to find the end of speech loses and leaves, and what it costs."""
    voices = [voice(text) for text in SENTENCES[:sentences]]
    ways = finders()
    table = Table("behind the voice", *ways, title="Speech lost / left behind it, in ms: mean (worst)")
    seconds = dict.fromkeys(ways, 0.0)
    audio_seconds = 0.0
    for name, tail in TAILS.items():
        cells = []
        made = [(len(samples), with_tail(samples, tail, seed)) for seed, samples in enumerate(voices)]
        audio_seconds += sum(len(samples) for _, samples in made) / RATE
        for way, find in ways.items():
            started = time.perf_counter()
            kept = [find(samples) for _, samples in made]
            seconds[way] += time.perf_counter() - started
            excess = [(count - end) / RATE * 1000 for count, (end, _) in zip(kept, made, strict=True)]
            cells.append(f"{_figures([max(0.0, -each) for each in excess])} / {_figures(excess)}")
        table.add_row(name, *cells)
    costs = [f"{seconds[way] / audio_seconds * 1000:.1f}" for way in ways]
    table.add_row("milliseconds per second of audio", *costs)
    Console().print(table)


def _figures(milliseconds: list[float]) -> str:
    return f"{statistics.mean(milliseconds):.0f} ({max(milliseconds):.0f})"


if __name__ == "__main__":
    run_command(run, "scripts/bench_trim")
