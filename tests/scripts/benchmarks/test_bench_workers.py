"""The comparison of workers with a locked server: the real program with real servers and tiny models."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.benchmarks.burst import similar_utterances, varied_texts
from scripts.support.servers import STOCK_LOCK, STOCK_WORKERS
from tests.support.bench import TIMEOUT, Bench, bench, tiny_options
from worker.engines.chatterbox.token_budget import token_budget

TOKENS = 58


@pytest.fixture
def program(tiny_turbo: Path) -> Iterator[Bench]:
    options = [*tiny_options(tiny_turbo), "--engine", "turbo", "--rounds", "1", "--utterances", "2"]
    with bench("workers", *options) as program:
        yield program


@pytest.mark.parametrize("tokens", [98, 500])
def test_texts_have_about_the_given_length_and_different_lengths(tokens: int) -> None:
    lengths = [token_budget(text) for text in varied_texts(7, tokens)]
    assert sum(lengths) / 7 == tokens - (tokens - 50) % 4
    assert len(set(lengths)) == 7
    assert max(lengths) - min(lengths) == 24


@pytest.mark.parametrize("tokens", [54, 998])
def test_no_text_is_shorter_or_longer_than_possible(tokens: int) -> None:
    assert {54 <= token_budget(text) <= 1000 for text in varied_texts(8, tokens)} == {True}


def test_texts_and_seeds_differ_within_a_round_and_between_rounds() -> None:
    both = similar_utterances(8, 98, 0) + similar_utterances(8, 98, 1)
    assert len({token_budget(utterance.text) for utterance in both}) == 16
    assert len({utterance.text for utterance in both}) == 16
    assert len({utterance.seed for utterance in both}) == 16


@pytest.mark.usefixtures("one_core")
def test_both_servers_make_the_same_audio_and_the_tables_have_their_speeds(program: Bench, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    process = program.start("--tokens", str(TOKENS), "--workers", "2", "--json", str(file))
    tables, messages = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 0, messages
    assert program.leftovers() == []
    [result] = json.loads(file.read_text())["engines"]
    bursts = {burst["server"]: burst for burst in result["bursts"]}
    # Turbo adds three tokens of silence to each text.
    expected = [(token_budget(utterance.text) + 3) / 25 for utterance in similar_utterances(2, TOKENS, 0)]
    for burst in bursts.values():
        assert burst["audio_seconds"] == pytest.approx(expected, abs=0.1)
    assert bursts[STOCK_LOCK]["audio_seconds"] == bursts[STOCK_WORKERS]["audio_seconds"]

    speeds = {server: sum(burst["audio_seconds"]) / burst["seconds"] for server, burst in bursts.items()}
    ratio = speeds[STOCK_WORKERS] / speeds[STOCK_LOCK]
    assert ratio > 0
    assert result["ratios"] == [pytest.approx(ratio)]
    assert f"Workers over the locked server: {ratio:.2f}\n" in tables
    assert f"| 2 workers, 1 thread each | {speeds[STOCK_WORKERS]:.3f} |" in tables

    # The locked server answers one text after the other.
    first, last = sorted(bursts[STOCK_LOCK]["answers"])
    assert first < 0.8 * last

    processes = {server: {memory["process"] for memory in result["memory"][server]} for server in bursts}
    assert processes == {
        STOCK_LOCK: {"server"},
        STOCK_WORKERS: {"worker 0", "worker 1", "balancer", "supervisord"},
    }
    # Weights of more than 400 MB: private in the locked server, shared by the workers.
    workers = [memory for memory in result["memory"][STOCK_WORKERS] if memory["process"].startswith("worker")]
    assert all(memory["shared"] > 400e6 and memory["private_peak"] >= memory["private"] > 0 for memory in workers)


@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize(
    ("signum", "moment"),
    [(signal.SIGTERM, "starting the locked server"), (signal.SIGINT, "starting 2 workers")],
)
def test_an_interruption_leaves_nothing_behind(program: Bench, signum: signal.Signals, moment: str) -> None:
    process = program.start("--workers", "2", "--utterances", "1")
    assert process.stderr
    assert any(moment in line for line in process.stderr)

    process.send_signal(signum)
    process.communicate(timeout=TIMEOUT)

    assert process.returncode not in {0, None}
    assert program.leftovers() == []


@pytest.mark.usefixtures("one_core")
def test_a_server_that_does_not_start_is_named_with_the_end_of_its_log(program: Bench, tiny_turbo: Path) -> None:
    vocabulary = tiny_turbo / "tiny/turbo/vocab.json"
    vocabulary.unlink()
    vocabulary.write_text('{"a": 0, "<|endoftext|>": 1}')
    process = program.start()
    _, messages = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 1
    assert program.leftovers() == []
    assert f"{STOCK_LOCK} did not start: it ended with 1\nThe end of its log:\n" in messages
    assert "the tokenizer has" in messages


def test_an_incomplete_checkpoint_is_not_overwritten(program: Bench, tiny_turbo: Path) -> None:
    weights = tiny_turbo / "tiny/turbo/t3_turbo_v1.safetensors"
    weights.unlink()
    process = program.start()
    _, messages = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 1
    assert "lack t3_turbo_v1.safetensors" in messages
    assert not weights.exists()


def test_an_unknown_engine_is_refused_by_name(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.benchmarks.workers", "--engine", "hibari"],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=os.environ | {"TMPDIR": str(tmp_path), "COLUMNS": "200"},
    )

    assert done.returncode == 2
    assert "there is no checkpoint of 'hibari'" in done.stderr
    assert list(tmp_path.iterdir()) == []
