"""Patches of the upstream package, all of module-level names that it looks up at each call.

Upstream's decode loops run over `tqdm(range(…))`, its flow prints, its tokenizer downloads a file of the checkpoint.
Replacing those names gives cancellation between tokens, a token budget, and quiet logs. The arithmetic stays as it is.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import chatterbox.models.s3gen.flow_matching
import chatterbox.models.t3.t3
import chatterbox.models.tokenizers.tokenizer
import spacy_pkuseg
import torch

from worker.checkpoints.catalogue import SEGMENTER
from worker.engines.base import Cancellation, UnspeakableError
from worker.stage_timer import StageTimer

log = logging.getLogger(__name__)

Step = TypeVar("Step")


@dataclass
class DecodeLimit:
    """Ends upstream's decode loop at the token budget, when its utterance is cancelled, or where `stopped` says so."""

    cancellation: Cancellation
    budget: int
    stopped: Callable[[], bool] = lambda: False
    """Called before each iteration."""
    tokens: int = 0
    """Tokens made so far."""
    reached: bool = False
    """Whether the loop ended without the model's having ended it: at the budget, at upstream's own, or by `stopped`."""

    def apply(self, loop: Iterable[Step]) -> Iterator[Step]:
        """The iterations of `loop` up to the budget. Raises CancelledError."""
        for step in loop:
            self.cancellation.check()
            if self.tokens >= self.budget or self.stopped():
                break
            self.tokens += 1
            yield step  # upstream leaves its loop here, when the model ends
        self.reached = True


@contextmanager
def limited_decoding(limit: DecodeLimit) -> Iterator[None]:
    """A block in which upstream's decode loops run under `limit`."""

    def progress_bar(loop: Iterable[Step], **_: Any) -> Iterator[Step]:
        return limit.apply(loop)

    _T3.tqdm = progress_bar
    try:
        yield
    finally:
        _T3.tqdm = _no_progress_bar


@contextmanager
def restored_attention(t3: Any) -> Iterator[None]:
    """A block after which T3's attention is as before: Multilingual's guard adds hooks to it for every utterance."""
    backbone = t3.tfmr
    attentions, implementation = backbone.config.output_attentions, backbone.config._attn_implementation
    try:
        yield
    finally:
        for layer in getattr(backbone, "layers", ()):
            layer.self_attn._forward_hooks.clear()
        backbone.config.output_attentions = attentions
        backbone.config._attn_implementation = implementation


@contextmanager
def muted() -> Iterator[None]:
    """A block without upstream's prints, which go to the debug log, and without warnings."""
    with contextlib.redirect_stdout(_DebugLog()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def install() -> None:
    """Apply the permanent patches: no progress bars, no downloads by upstream, none of its log lines below errors."""
    _T3.tqdm = _no_progress_bar
    chatterbox.models.s3gen.flow_matching.tqdm = _no_progress_bar
    _TOKENIZER.hf_hub_download = _local_file
    _TOKENIZER.ChineseCangjieConverter._init_segmenter = _lazy_segmenter
    for library in ("chatterbox", "transformers"):
        logging.getLogger(library).setLevel(logging.ERROR)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_not_from_root)


def time_stages(model: Any, timer: StageTimer) -> None:
    """Have `timer` measure, from now on, the stages of an upstream object's `generate`."""
    for owner, method, stage in (
        (model.t3, "inference", "decode"),
        (model.t3, "inference_turbo", "decode"),
        (model.s3gen, "flow_inference", "flow"),
        (model.s3gen, "hift_inference", "vocoder"),
        (model.watermarker, "apply_watermark", "watermark"),
    ):
        timer.watch(owner, method, stage)


def set_flow_steps(model: Any, steps: int) -> None:
    """Have the flow of an upstream object take so many Euler steps, whatever its `generate` asks for."""
    infer = model.s3gen.flow_inference

    def infer_in_steps(*arguments: Any, **options: Any) -> Any:
        return infer(*arguments, **options | {"n_cfm_timesteps": steps})

    model.s3gen.flow_inference = infer_in_steps


def transpose_without_onednn(model: Any) -> None:
    """Have the vocoder of an upstream object compute its transposed convolutions without oneDNN.

    For each new length of audio, oneDNN prepares them for longer than the decoder takes: 5 s of CPU time for 10 s of
    audio, of which PyTorch's own code takes 0.1 s in all.
    """
    for module in model.s3gen.mel2wav.modules():
        if isinstance(module, torch.nn.ConvTranspose1d):
            module.forward = _without_onednn(module.forward)


def _without_onednn(forward: Callable[..., Any]) -> Callable[..., Any]:
    def computed(*arguments: Any) -> Any:
        with torch.backends.mkldnn.flags(enabled=False):
            return forward(*arguments)

    return computed


_T3: Any = chatterbox.models.t3.t3
_TOKENIZER: Any = chatterbox.models.tokenizers.tokenizer


def _no_progress_bar(loop: Iterable[Step], **_: Any) -> Iterable[Step]:
    return loop


def _local_file(*, filename: str, cache_dir: Path, **_: Any) -> str:
    """Replaces the download: Multilingual's tokenizer passes the checkpoint's folder as `cache_dir`."""
    return str(Path(cache_dir) / filename)


class Segmenter:
    """Segments Chinese text into words. Its model is loaded with the first Chinese text: nothing else needs it."""

    def __init__(self) -> None:
        self._segmenter: Any = None

    def cut(self, text: str) -> list[str]:
        """The words of `text`. Raises UnspeakableError where the model is not on this host."""
        if self._segmenter is None:
            home = Path(spacy_pkuseg.config.pkuseg_home)
            # pkuseg's constructor downloads a missing model, which a worker must never do.
            if not (home / f"{SEGMENTER}.zip").exists() or not (home / SEGMENTER).is_dir():
                raise UnspeakableError(
                    f"Chinese needs a word segmentation model, which is missing in {home}: "
                    "run `chorus models download` for this engine"
                )
            self._segmenter = spacy_pkuseg.pkuseg(SEGMENTER)
        words: list[str] = self._segmenter.cut(text)
        return words


def _lazy_segmenter(converter: Any) -> None:
    converter.segmenter = Segmenter()


def _not_from_root(record: logging.LogRecord) -> bool:
    # Upstream logs with the root logger in places; this project never does.
    return record.name != "root" or record.levelno >= logging.ERROR


class _DebugLog(io.TextIOBase):
    """A text stream that writes printed text to the debug log."""

    def write(self, text: str) -> int:
        if text.strip():
            log.debug("upstream: %s", text.strip())
        return len(text)
