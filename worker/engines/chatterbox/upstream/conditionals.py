"""What a model has to know of a voice: computed once per voice and model, kept on disk, shared by all workers.

Kept as safetensors, never pickled, in files named by the clip's content below a folder named by the model's, so a clip
or a checkpoint that changes finds nothing stale. Written aside and renamed: whoever reads finds a whole file or none.
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
from worker.engines.chatterbox.upstream.loading import Member
from worker.engines.chatterbox.upstream.reference_clip import read_clip

log = logging.getLogger(__name__)

FORMAT = 1
"""Grows when what is kept, or the way it is computed, changes."""

TURBO_LEAST_SECONDS = 5.0
"""Turbo and Nano assert that a reference clip is longer than this."""

STAND_IN_TEXT = (
    "This voice was made by a machine and belongs to nobody. It speaks for a model that came without a voice of its "
    "own, so that there is something to hear until an operator adds a voice, with the speaker's consent on record."
)

Kept = dict[str, Tensor]
"""Tensors by name: `t3.` those that the decoder of tokens needs, `gen.` those of the decoder of sound."""


class Conditionals:
    """The conditionals of every voice for one loaded model, kept below `folder`."""

    def __init__(self, model: Any, member: Member, checkpoint: Path, folder: Path) -> None:
        self._model = model
        self._member = member
        self._own: Kept | None = None if model.conds is None else _taken(model.conds)
        self._cache = folder
        self._identity = identity(member, checkpoint)

    def of_clip(self, clip: Path) -> Kept:
        """Those of a reference clip. Raises VoiceUnusableError where the clip is none that the model can use."""
        try:
            content = clip_digest(clip)
        except OSError as error:
            raise VoiceUnusableError(f"the reference clip {clip} cannot be read: {error.strerror}") from error
        return self._kept(content, lambda: self._read(clip))

    def built_in(self) -> Kept:
        """Those of the voice that the checkpoint came with, or of a stand-in that nobody has."""
        if self._own is None:
            content = hashlib.sha256(f"{version('hibari-tts')} {STAND_IN_TEXT}".encode()).hexdigest()
            self._own = self._kept(content, _stand_in)
        return self._own

    def _kept(self, name: str, clip: Callable[[], tuple[Samples, int]]) -> Kept:
        file = cache_file(self._cache, self._identity, name)
        if (kept := _load(file)) is not None:
            return kept
        samples, rate = clip()
        try:
            with _only_one(file):
                # Another worker may have computed them while this one waited for its turn.
                if (kept := _load(file)) is None:
                    kept = self._compute(samples, rate)
                    _save(kept, file)
        except OSError as error:
            log.warning("conditionals are not kept in %s: %s", file.parent, error)
            kept = self._compute(samples, rate)
        return kept

    def _read(self, clip: Path) -> tuple[Samples, int]:
        samples, rate = read_clip(clip)
        if self._member.turbo and len(samples) / rate <= TURBO_LEAST_SECONDS:
            raise VoiceUnusableError(
                f"the reference clip is {len(samples) / rate:.1f} s long; this engine needs more than "
                f"{TURBO_LEAST_SECONDS:g} s"
            )
        return samples, rate

    def _compute(self, samples: Samples, rate: int) -> Kept:
        # Upstream takes a file, and reads fewer formats than voices may have.
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            soundfile.write(file.name, samples, rate, subtype="FLOAT")
            self._model.prepare_conditionals(file.name)
        return _taken(self._model.conds)


def fresh(kept: Kept, member: Member) -> Any:
    """The upstream object for one utterance: upstream changes it while it works."""
    parts: dict[str, dict[str, Tensor | None]] = {"t3": {}, "gen": {"prompt_feat_len": None}}
    for name, tensor in kept.items():
        part, _, key = name.partition(".")
        parts[part][key] = tensor.clone()
    return member.module.Conditionals(T3Cond(**parts["t3"]), parts["gen"])


def shortened(voice: dict[str, Tensor], seconds: int) -> dict[str, Tensor]:
    """What leads the decoder of sound, upstream's `ref_dict`, with the prompt's last `seconds` only.

    They are what the utterance follows. Whom it is like, the embedding, still comes from all of the prompt, and from
    MAX_PROMPT_SECONDS on the prompt is left as it is.
    """
    if seconds >= MAX_PROMPT_SECONDS:
        return voice
    tokens, frames = voice["prompt_token"], voice["prompt_feat"]
    each = frames.shape[1] // tokens.shape[1]
    kept = min(seconds * TOKENS_PER_SECOND, tokens.shape[1])
    return voice | {
        "prompt_token": tokens[:, -kept:],
        "prompt_token_len": torch.full_like(voice["prompt_token_len"], kept),
        "prompt_feat": frames[:, -kept * each :],
    }


def identity(member: Member, checkpoint: Path) -> str:
    """A name for all that conditionals depend on besides the clip: upstream's version and the encoders' weights."""
    files = ("ve.pt", "s3gen.pt") if member.multilingual else ("ve.safetensors", "s3gen*.safetensors")
    parts = [str(FORMAT), version("chatterbox-tts"), member.upstream.__name__]
    for file in sorted(found for pattern in files for found in checkpoint.glob(pattern)):
        content = file.resolve()
        status = content.stat()
        # In the hub's cache the file behind the link is named by its content; elsewhere its age has to do.
        parts += [file.name, content.name if file.is_symlink() else str(status.st_mtime_ns), str(status.st_size)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _taken(conditionals: Any) -> Kept:
    parts = {"t3": vars(conditionals.t3), "gen": conditionals.gen}
    return {
        f"{part}.{key}": value.detach().clone().contiguous()
        for part, values in parts.items()
        for key, value in values.items()
        # An embedding that upstream works out again from the tokens with every utterance.
        if torch.is_tensor(value) and key != "cond_prompt_speech_emb"
    }


def _load(file: Path) -> Kept | None:
    try:
        kept = load_file(file)
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        log.warning("%s is damaged and will be computed again: %s", file, error)
        return None
    return {name: tensor.clone() for name, tensor in kept.items()}


def _save(kept: Kept, file: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".", delete=False) as aside:
        path = Path(aside.name)
    try:
        save_file(kept, path)
        path.replace(file)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def _only_one(file: Path) -> Iterator[None]:
    """A block that one process at a time is in, for this file: the second then finds what the first computed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = file.with_suffix(".lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        # Whoever comes in between computes once more, and writes the same.
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _stand_in() -> tuple[Samples, int]:
    voice = Hibari(threads=1)
    spoken = voice(STAND_IN_TEXT, seed=0)
    return np.asarray(spoken, dtype=np.float32), 24_000
