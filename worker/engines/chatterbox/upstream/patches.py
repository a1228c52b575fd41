"""The few places where the upstream package is reached into, all of them module-level names that it looks up itself.

Its decode loops run over `tqdm(range(…))`, its flow prints, its tokenizer downloads a file of the checkpoint. Replacing
those names gives cancellation between tokens, a budget, and quiet logs, and leaves the arithmetic alone.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import chatterbox.models.s3gen.flow_matching
import chatterbox.models.t3.t3
import chatterbox.models.tokenizers.tokenizer
import spacy_pkuseg

from worker.checkpoints.catalogue import SEGMENTER
from worker.engines.base import Cancellation, UnspeakableError
from worker.stage_timer import StageTimer

log = logging.getLogger(__name__)

Step = TypeVar("Step")


@dataclass
class Steps:
    """What upstream's decode loop runs over: stops at the budget, raises CancelledError when asked to."""

    cancellation: Cancellation
    budget: int
    taken: int = 0
    """Tokens made so far."""

    def over(self, loop: Iterable[Step]) -> Iterator[Step]:
        """The steps of `loop`, as far as the budget goes."""
        for step in loop:
            self.cancellation.check()
            if self.taken >= self.budget:
                log.warning("stopped after %d speech tokens: the model did not end by itself", self.taken)
                return
            self.taken += 1
            yield step


@contextmanager
def decoding(steps: Steps) -> Iterator[None]:
    """A block in which upstream decodes by `steps`."""

    def progress_bar(loop: Iterable[Step], **_: Any) -> Iterator[Step]:
        return steps.over(loop)

    _T3.tqdm = progress_bar
    try:
        yield
    finally:
        _T3.tqdm = _no_bar


@contextmanager
def muted() -> Iterator[None]:
    """A block without upstream's prints and warnings, which tell an operator nothing."""
    with contextlib.redirect_stdout(_Lines()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def settle() -> None:
    """Make the lasting changes: no progress bars, no downloads past ours, no log lines below errors."""
    _T3.tqdm = _no_bar
    chatterbox.models.s3gen.flow_matching.tqdm = _no_bar
    _TOKENIZER.hf_hub_download = _beside_the_tokenizer
    _TOKENIZER.ChineseCangjieConverter._init_segmenter = _later
    for library in ("chatterbox", "transformers"):
        logging.getLogger(library).setLevel(logging.ERROR)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_not_upstreams)


def staged(model: Any, stages: StageTimer) -> None:
    """Have `stages` count what an upstream object spends in each stage of its `generate`, from now on."""
    for owner, method, stage in (
        (model.t3, "inference", "decode"),
        (model.t3, "inference_turbo", "decode"),
        (model.s3gen, "flow_inference", "flow"),
        (model.s3gen, "hift_inference", "vocoder"),
        (model.watermarker, "apply_watermark", "watermark"),
    ):
        stages.watch(owner, method, stage)


_T3: Any = chatterbox.models.t3.t3
_TOKENIZER: Any = chatterbox.models.tokenizers.tokenizer


def _no_bar(loop: Iterable[Step], **_: Any) -> Iterable[Step]:
    return loop


def _beside_the_tokenizer(*, filename: str, cache_dir: Path, **_: Any) -> str:
    """Where Multilingual's tokenizer, which passes its own folder, finds a file of its checkpoint."""
    return str(Path(cache_dir) / filename)


class Segmenter:
    """Finds the words in Chinese text. Nothing else needs its model, which is loaded with the first such text."""

    def __init__(self) -> None:
        self._segmenter: Any = None

    def cut(self, text: str) -> list[str]:
        """The words of `text`. Raises UnspeakableError where the model is not on this host."""
        if self._segmenter is None:
            home = Path(spacy_pkuseg.config.pkuseg_home)
            # The constructor downloads what it does not find; a worker never does.
            if not (home / f"{SEGMENTER}.zip").exists() or not (home / SEGMENTER).is_dir():
                raise UnspeakableError(
                    f"Chinese needs a model that finds its words, and there is none in {home}; "
                    "`chorus models download multilingual` brings it"
                )
            self._segmenter = spacy_pkuseg.pkuseg(SEGMENTER)
        words: list[str] = self._segmenter.cut(text)
        return words


def _later(converter: Any) -> None:
    converter.segmenter = Segmenter()


def _not_upstreams(record: logging.LogRecord) -> bool:
    # Upstream logs by the root logger in places; nothing of ours does.
    return record.name != "root" or record.levelno >= logging.ERROR


class _Lines(io.TextIOBase):
    """Takes printed text into the log, at its least level."""

    def write(self, text: str) -> int:
        if text.strip():
            log.debug("upstream: %s", text.strip())
        return len(text)
