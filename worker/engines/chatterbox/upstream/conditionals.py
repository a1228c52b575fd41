"""Conditionals: what a model needs to know of a voice, computed once per voice and model and shared by all workers.

They are cached as safetensors, never pickled, in files named by the clip's digest, below a folder named by the model's
fingerprint: a changed clip or checkpoint has other files. Each file is written under a temporary name and then renamed,
so a reader finds a complete file or none.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from chatterbox.models.t3.modules.cond_enc import T3Cond
from hibari import Hibari
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from voices.conditionals_cache import cache_file, clip_digest
from worker.cards import MAX_PROMPT_SECONDS
from worker.engines.base import Samples, VoiceUnusableError
from worker.engines.chatterbox.token_budget import TOKENS_PER_SECOND
from worker.engines.chatterbox.upstream.loading import ModelVariant
from worker.engines.chatterbox.upstream.reference_clip import read_clip

log = logging.getLogger(__name__)

FORMAT = 1
"""Version of the cached files; to be incremented when their content, or the way it is computed, changes."""

TURBO_MIN_SECONDS = 5.0
"""Turbo and Nano assert that a reference clip is longer than this."""

FALLBACK_VOICE_TEXT = (
    "This voice was made by a machine and belongs to nobody. It speaks for a model that came without a voice of its "
    "own, so that there is something to hear until an operator adds a voice, with the speaker's consent on record."
)
"""Spoken by Hibari, the reference clip for a checkpoint without a built-in voice."""

ConditionalTensors = dict[str, Tensor]
"""Tensors by name: `t3.…` for the decoder of tokens, `gen.…` for S3Gen."""


class ConditionalsCache:
    """The conditionals of every voice for one loaded model, cached on disk below `folder`."""

    def __init__(self, model: Any, variant: ModelVariant, checkpoint: Path, folder: Path) -> None:
        self._model = model
        self._variant = variant
        self._built_in: ConditionalTensors | None = None if model.conds is None else _to_tensors(model.conds)
        self._folder = folder
        self._fingerprint = model_fingerprint(variant, checkpoint)

    def of_clip(self, clip: Path) -> ConditionalTensors:
        """The conditionals of a reference clip. Raises VoiceUnusableError where the model cannot use the clip."""
        try:
            digest = clip_digest(clip)
        except OSError as error:
            raise VoiceUnusableError(f"the reference clip {clip.name} cannot be read: {error.strerror}") from error
        return self._cached(digest, lambda: self._read(clip))

    def built_in(self) -> ConditionalTensors:
        """The conditionals of the checkpoint's own voice, or of a synthetic voice where it has none."""
        if self._built_in is None:
            digest = hashlib.sha256(f"{version('hibari-tts')} {FALLBACK_VOICE_TEXT}".encode()).hexdigest()
            self._built_in = self._cached(digest, _fallback_clip)
        return self._built_in

    def _cached(self, digest: str, read: Callable[[], tuple[Samples, int]]) -> ConditionalTensors:
        file = cache_file(self._folder, self._fingerprint, digest)
        if (tensors := _load(file)) is not None:
            return tensors
        samples, rate = read()
        try:
            with _locked(file):
                # Another worker may have computed them while this one waited for the lock.
                if (tensors := _load(file)) is None:
                    tensors = self._compute(samples, rate)
                    _save(tensors, file)
        except OSError as error:
            log.warning("conditionals cannot be cached in %s: %s", file.parent, error)
            tensors = self._compute(samples, rate)
        return tensors

    def _read(self, clip: Path) -> tuple[Samples, int]:
        samples, rate = read_clip(clip)
        if self._variant.turbo and len(samples) / rate <= TURBO_MIN_SECONDS:
            raise VoiceUnusableError(
                f"the reference clip is {len(samples) / rate:.1f} s long; this engine needs more than "
                f"{TURBO_MIN_SECONDS:g} s"
            )
        return samples, rate

    def _compute(self, samples: Samples, rate: int) -> ConditionalTensors:
        # Upstream takes a file, and reads fewer formats than voices may have.
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            soundfile.write(file.name, samples, rate, subtype="FLOAT")
            self._model.prepare_conditionals(file.name)
        return _to_tensors(self._model.conds)


def to_upstream(tensors: ConditionalTensors, variant: ModelVariant) -> Any:
    """A new `Conditionals` object of upstream's with copies of the tensors: upstream modifies it while it works."""
    parts: dict[str, dict[str, Tensor | None]] = {"t3": {}, "gen": {"prompt_feat_len": None}}
    for name, tensor in tensors.items():
        part, _, key = name.partition(".")
        parts[part][key] = tensor.clone()
    return variant.module.Conditionals(T3Cond(**parts["t3"]), parts["gen"])


def shorten_prompt(voice: dict[str, Tensor], seconds: int) -> dict[str, Tensor]:
    """S3Gen's conditionals, upstream's `ref_dict`, with the last `seconds` of their prompt only.

    The prompt's end is what the utterance continues. The speaker's embedding still comes from the whole prompt. From
    MAX_PROMPT_SECONDS on, the prompt is left as it is.
    """
    if seconds >= MAX_PROMPT_SECONDS:
        return voice
    tokens, frames = voice["prompt_token"], voice["prompt_feat"]
    frames_per_token = frames.shape[1] // tokens.shape[1]
    count = min(seconds * TOKENS_PER_SECOND, tokens.shape[1])
    return voice | {
        "prompt_token": tokens[:, -count:],
        "prompt_token_len": torch.full_like(voice["prompt_token_len"], count),
        "prompt_feat": frames[:, -count * frames_per_token :],
    }


def model_fingerprint(variant: ModelVariant, checkpoint: Path) -> str:
    """Hash of all that conditionals depend on besides the clip: upstream's version and the encoders' weights."""
    # A mean flow has the same encoders, or it would not load.
    files = (variant.s3gen_file, variant.ve_file)
    parts = [str(FORMAT), version("chatterbox-tts"), variant.upstream.__name__]
    for file in (checkpoint / name for name in files):
        if not file.exists():
            continue
        content = file.resolve()
        status = content.stat()
        # In the hub's cache a link's target is named by its content. Elsewhere the modification time must do.
        parts += [file.name, content.name if file.is_symlink() else str(status.st_mtime_ns), str(status.st_size)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _to_tensors(conditionals: Any) -> ConditionalTensors:
    parts = {"t3": vars(conditionals.t3), "gen": conditionals.gen}
    return {
        f"{part}.{key}": value.detach().clone().contiguous()
        for part, values in parts.items()
        for key, value in values.items()
        # Upstream computes this embedding from the tokens again for every utterance.
        if torch.is_tensor(value) and key != "cond_prompt_speech_emb"
    }


def _load(file: Path) -> ConditionalTensors | None:
    try:
        tensors = load_file(file)
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        log.warning("%s is damaged and will be computed again: %s", file, error)
        return None
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _save(tensors: ConditionalTensors, file: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".", delete=False) as temporary:
        path = Path(temporary.name)
    try:
        save_file(tensors, path)
        path.replace(file)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """A block that one process at a time enters for this file; the next process finds what the first has computed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = file.with_suffix(".lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        # A process that opened the lock before it is deleted may compute once more, and writes the same content.
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _fallback_clip() -> tuple[Samples, int]:
    voice = Hibari(threads=1)
    samples = voice(FALLBACK_VOICE_TEXT, seed=0)
    return np.asarray(samples, dtype=np.float32), 24_000
