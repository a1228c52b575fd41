"""A Chatterbox worker needs no more memory after a hundred utterances than after the first few."""

from __future__ import annotations

import random
from pathlib import Path

import httpx

from tests.support.harness import wait_until
from tests.support.real_worker import Worker, start_worker, utterance, worker_options
from tests.support.recordings import record, speech
from tests.support.tiny_models import TinyCheckpoint
from worker.contract import FrameDecoder, FrameKind, Utterance

UTTERANCES = 120
FIRST = 20
MAX_TOKENS = 40
"""Tokens of an utterance, at most. The first few utterances have only some of these lengths, so memory that is cached
for each length would show as growth. Most utterances are short, as the work grows with the length."""
PROMPT_SECONDS = 2
"""Of the cloned voice's clip: the work of S3Gen grows with them."""
ALLOWED = 20 * 2**20
"""Allowed growth in bytes, from the most among the first utterances to the last utterance."""
START_SECONDS = 120
"""Time-out for loading the libraries on a busy machine."""

TEXT = "the birch canoe slid on smooth planks glue sheet to dark blue background it is easy tell depth of a well"


def private(worker: Worker) -> int:
    """The worker's private memory in bytes."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])


async def speak(client: httpx.AsyncClient, spoken: Utterance, *, cancelled: bool) -> None:
    async with client.stream("POST", "/synthesize", content=spoken.model_dump_json()) as answer:
        assert answer.status_code == 200
        if cancelled:
            return
        frames = FrameDecoder().feed(await answer.aread())
    assert [kind for kind, _ in frames] == [FrameKind.PCM, FrameKind.END]


async def test_memory_does_not_grow(tiny_checkpoint: TinyCheckpoint, run_dir: Path) -> None:
    voices = run_dir / "voices"
    for name, description in (("default", 'engine = "*"'), ("ada", 'reference = "clip.wav"\nsynthetic = true')):
        (voices / name).mkdir(parents=True)
        (voices / name / "voice.toml").write_text(f'name = "{name}"\n{description}\n')
    record(voices / "ada" / "clip.wav", speech(5.2))
    draw = random.Random(0)
    used: list[int] = []
    checkpoint = tiny_checkpoint("turbo")
    options = worker_options(run_dir, "turbo", model_dir=checkpoint, prompt_seconds=PROMPT_SECONDS, voices_dir=voices)
    with start_worker(options) as worker:
        wait_until(lambda: worker.state().ready, timeout=START_SECONDS)
        async with worker.client() as client:
            for number in range(UTTERANCES):
                spoken = utterance(
                    TEXT[draw.randrange(50) : draw.randint(55, 100)],
                    id=str(number),
                    voice=draw.choice(["default", "ada"]),
                    seed=number,
                    token_budget=max(2, round(MAX_TOKENS ** draw.random())),
                )
                await speak(client, spoken, cancelled=number % 8 == 5)
                wait_until(lambda: not worker.state().in_flight)
                used.append(private(worker))
        assert worker.state().done >= UTTERANCES * 7 // 8
    first = max(used[:FIRST])
    assert used[-1] <= first + ALLOWED, f"MiB: {[size // 2**20 for size in used]}"
