"""Patches of the upstream package: its loops stop when they should, and nothing else of it changes."""

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
from worker.engines.chatterbox.upstream.patches import DecodeLimit, Segmenter, install, limited_decoding, muted

assert StockEngine is not None  # imported first: it suppresses upstream's warnings


@pytest.fixture(autouse=True)
def installed() -> None:
    install()


# Decoding


def test_a_limited_loop_has_the_steps_of_the_loop() -> None:
    limit = DecodeLimit(Cancellation(), budget=10)
    assert list(limit.apply(range(3))) == [0, 1, 2]
    assert limit.tokens == 3


def test_a_loop_ends_with_the_budget() -> None:
    limit = DecodeLimit(Cancellation(), budget=4)
    assert list(limit.apply(range(1000))) == [0, 1, 2, 3]
    assert limit.tokens == 4
    assert limit.reached


def test_a_loop_ends_where_it_is_stopped() -> None:
    limit = DecodeLimit(Cancellation(), budget=10, stopped=lambda: limit.tokens == 3)
    assert list(limit.apply(range(1000))) == [0, 1, 2]
    assert limit.reached


def test_a_loop_that_the_model_leaves_has_reached_no_limit() -> None:
    limit = DecodeLimit(Cancellation(), budget=4)
    for step in limit.apply(range(4)):
        if step == 3:
            break
    assert not limit.reached
    assert len(list(limit.apply(range(4)))) == 0
    assert limit.reached


def test_a_loop_is_cancelled_between_tokens() -> None:
    cancellation = Cancellation()
    loop = DecodeLimit(cancellation, budget=10).apply(range(1000))
    assert [next(loop), next(loop)] == [0, 1]
    cancellation.request()
    with pytest.raises(CancelledError):
        next(loop)


def test_a_loop_checks_for_cancellation_once_per_token() -> None:
    cancellation = CountedCancellation()
    assert len(list(DecodeLimit(cancellation, budget=10).apply(range(7)))) == 7
    assert cancellation.checks == 7


def test_upstreams_loops_are_limited_only_within_the_block() -> None:
    limit = DecodeLimit(Cancellation(), budget=2)
    with limited_decoding(limit):
        assert list(patches._T3.tqdm(range(5), desc="Sampling", dynamic_ncols=True)) == [0, 1]
    assert limit.tokens == 2
    assert list(patches._T3.tqdm(range(5), desc="Sampling", dynamic_ncols=True)) == [0, 1, 2, 3, 4]


def test_the_loop_is_restored_after_a_failure() -> None:
    def fail() -> None:
        with limited_decoding(DecodeLimit(Cancellation(), budget=0)):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(patches._T3.tqdm(range(3))) == [0, 1, 2]


# Output and logs


def test_prints_and_warnings_do_not_get_out(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "worker.engines.chatterbox.upstream.patches"), muted():
        print("loaded a network")  # noqa: T201 - as upstream does
        warnings.warn("an old name", FutureWarning, stacklevel=1)
    assert capsys.readouterr() == ("", "")
    assert "upstream: loaded a network" in caplog.text
    print("printed")  # noqa: T201
    assert capsys.readouterr().out == "printed\n"


def test_upstreams_root_log_lines_are_dropped_below_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    messages: list[str] = []
    monkeypatch.setattr(logging.getLogger(), "handlers", [Recorder()])
    install()
    logging.getLogger().warning("a root line")
    logging.getLogger().error("a root error")
    logging.getLogger("chatterbox.models").warning("a library's line")
    logging.getLogger("worker").warning("this project's line")
    assert messages == ["a root error", "this project's line"]


# Multilingual's tokenizer


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Addresses that something tried to connect to; all attempts fail."""
    tried: list[Any] = []

    def refuse(*arguments: Any, **_: Any) -> None:
        tried.append(arguments)
        raise OSError("there is no network")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("spacy_pkuseg.config.pkuseg_home", "/nonexistent")
    return tried


def test_the_tokenizer_reads_its_file_from_the_checkpoint(tmp_path: Path, no_network: list[Any]) -> None:
    (tmp_path / "Cangjie5_TC.json").write_text('["中\\tl", "文\\tyk"]')
    converter = patches._TOKENIZER.ChineseCangjieConverter(tmp_path)
    assert converter.word2cj == {"中": "l", "文": "yk"}
    assert isinstance(converter.segmenter, Segmenter)
    assert no_network == []


def test_chinese_without_the_segmentation_model(tmp_path: Path, no_network: list[Any]) -> None:
    (tmp_path / "Cangjie5_TC.json").write_text('["中\\tl", "文\\tyk"]')
    with pytest.raises(UnspeakableError, match="run `chorus models download` for this engine"):
        patches._TOKENIZER.ChineseCangjieConverter(tmp_path)("中文")
    assert no_network == []


def test_half_a_segmentation_model_is_missing(
    tmp_path: Path, no_network: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spacy_pkuseg.config.pkuseg_home", str(tmp_path))
    (tmp_path / f"{SEGMENTER}.zip").touch()
    with pytest.raises(UnspeakableError, match=f"missing in {tmp_path}"):
        Segmenter().cut("中文")
    assert no_network == []
