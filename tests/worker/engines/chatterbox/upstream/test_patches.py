"""Where the upstream package is reached into: its loops stop when they should, and nothing else of it changes."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.support.stock import CountedCancellation, StockEngine
from worker.checkpoints.catalogue import SEGMENTER
from worker.engines.base import Cancellation, CancelledError, UnspeakableError
from worker.engines.chatterbox.upstream import patches
from worker.engines.chatterbox.upstream.patches import Segmenter, Steps, decoding, muted, settle

assert StockEngine is not None  # imported first: it takes upstream's warnings


@pytest.fixture(autouse=True)
def settled() -> None:
    settle()


# Decoding


def test_steps_are_those_of_the_loop() -> None:
    steps = Steps(Cancellation(), budget=10)
    assert list(steps.over(range(3))) == [0, 1, 2]
    assert steps.taken == 3


def test_steps_end_with_the_budget(caplog: pytest.LogCaptureFixture) -> None:
    steps = Steps(Cancellation(), budget=4)
    assert list(steps.over(range(1000))) == [0, 1, 2, 3]
    assert steps.taken == 4
    assert "stopped after 4 speech tokens" in caplog.text


def test_a_loop_as_long_as_the_budget_ended_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    assert len(list(Steps(Cancellation(), budget=4).over(range(4)))) == 4
    assert caplog.text == ""


def test_steps_are_cancelled_between_tokens() -> None:
    cancellation = Cancellation()
    taken = Steps(cancellation, budget=10).over(range(1000))
    assert [next(taken), next(taken)] == [0, 1]
    cancellation.request()
    with pytest.raises(CancelledError):
        next(taken)


def test_steps_look_once_a_token() -> None:
    cancellation = CountedCancellation()
    assert len(list(Steps(cancellation, budget=10).over(range(7)))) == 7
    assert cancellation.looks == 7


def test_upstream_decodes_by_the_steps_within_the_block_alone() -> None:
    steps = Steps(Cancellation(), budget=2)
    with decoding(steps):
        assert list(patches._T3.tqdm(range(5), desc="Sampling", dynamic_ncols=True)) == [0, 1]
    assert steps.taken == 2
    assert list(patches._T3.tqdm(range(5), desc="Sampling", dynamic_ncols=True)) == [0, 1, 2, 3, 4]


def test_the_loop_is_given_back_after_a_failure() -> None:
    def fail() -> None:
        with decoding(Steps(Cancellation(), budget=0)):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(patches._T3.tqdm(range(3))) == [0, 1, 2]


# Quiet


def test_prints_and_warnings_go_no_further(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "worker.engines.chatterbox.upstream.patches"), muted():
        print("loaded a network")  # noqa: T201 - as upstream does
        warnings.warn("an old name", FutureWarning, stacklevel=1)
    assert capsys.readouterr() == ("", "")
    assert "upstream: loaded a network" in caplog.text
    print("heard")  # noqa: T201
    assert capsys.readouterr().out == "heard\n"


def test_upstreams_root_log_lines_are_dropped_below_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record.getMessage())

    kept: list[str] = []
    monkeypatch.setattr(logging.getLogger(), "handlers", [Kept()])
    settle()
    logging.getLogger().warning("a root line")
    logging.getLogger().error("a root error")
    logging.getLogger("chatterbox.models").warning("a library's line")
    logging.getLogger("worker").warning("ours")
    assert kept == ["a root error", "ours"]


# The tokenizer of many languages


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Addresses that something tried to reach."""
    tried: list[Any] = []

    def refuse(*arguments: Any, **_: Any) -> None:
        tried.append(arguments)
        raise OSError("there is no network")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("spacy_pkuseg.config.pkuseg_home", "/nonexistent")
    return tried


def test_the_tokenizer_finds_its_file_beside_it(tmp_path: Path, no_network: list[Any]) -> None:
    (tmp_path / "Cangjie5_TC.json").write_text('["中\\tl", "文\\tyk"]')
    converter = patches._TOKENIZER.ChineseCangjieConverter(tmp_path)
    assert converter.word2cj == {"中": "l", "文": "yk"}
    assert isinstance(converter.segmenter, Segmenter)
    assert no_network == []


def test_chinese_without_the_model_that_finds_its_words(tmp_path: Path, no_network: list[Any]) -> None:
    (tmp_path / "Cangjie5_TC.json").write_text('["中\\tl", "文\\tyk"]')
    with pytest.raises(UnspeakableError, match="`chorus models download multilingual` brings it"):
        patches._TOKENIZER.ChineseCangjieConverter(tmp_path)("中文")
    assert no_network == []


def test_half_a_segmenter_is_none(tmp_path: Path, no_network: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spacy_pkuseg.config.pkuseg_home", str(tmp_path))
    (tmp_path / f"{SEGMENTER}.zip").touch()
    with pytest.raises(UnspeakableError, match=f"there is none in {tmp_path}"):
        Segmenter().cut("中文")
    assert no_network == []
