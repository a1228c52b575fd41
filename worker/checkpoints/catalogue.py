"""The engines' checkpoints: their files, where this host has them, and which command fetches or repairs them.

`chorus serve` looks for them before it starts anything, each worker again when it loads; `chorus models` lists and
verifies them. Nothing here uses the network: `balancer.launch.download` does.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from worker.cards import CARDS, LANGUAGE_PACKS, Choice, EngineCard, LanguagePack
from worker.checkpoints.integrity import Advance, DamagedFileError, check_content, check_structure, check_tensors

COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class Part:
    """Files of one revision of a repository of the hub."""

    repository: str
    revision: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Checkpoint:
    """The weights and tokenizer of one engine, or the mean flow, as files of a repository of the hub."""

    engine: str
    """The engine's name; for the mean flow its own."""
    repository: str
    revision: str
    """The commit of the repository that this version of Chorus was made with, or a branch if it is not known."""
    files: tuple[str, ...]
    optional: tuple[str, ...] = ("conds.pt",)
    """Files that may be missing: the voice that comes with the model."""
    tensors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By file: tensors that only this engine's weights have, and without which it cannot load."""
    borrowed: Part | None = None
    """The files that another repository has instead: a download links them into the folder of this one."""

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that the engine has a choice of, as ISO 639-1 codes."""
        choice = CARDS[self.engine].parameter("language")
        return choice.choices if isinstance(choice, Choice) else ()

    @property
    def segments_chinese(self) -> bool:
        """Whether the engine needs a segmenter for Chinese, whose model is not in the repository."""
        return "zh" in self.languages

    @property
    def own(self) -> Part:
        """All files that are in this repository."""
        borrowed = () if self.borrowed is None else self.borrowed.files
        names = tuple(name for name in (*self.files, *self.optional) if name not in borrowed)
        return Part(self.repository, self.revision, names)


_ORIGINAL = ("ResembleAI/chatterbox", "5bb1f6ee58e50c3b8d408bc82a6d3740c2db6e18")
_TURBO = ("ResembleAI/chatterbox-turbo", "749d1c1a46eb10492095d68fbcf55691ccf137cd")
_GPT2_TOKENIZER = (
    "vocab.json", "merges.txt", "added_tokens.json", "tokenizer_config.json", "special_tokens_map.json",
)  # fmt: skip
_GPT2 = ("text_emb.weight", "speech_emb.weight", "tfmr.h.0.attn.c_attn.weight")
_LLAMA = ("text_emb.weight", "speech_emb.weight", "tfmr.layers.0.mlp.gate_proj.weight")
_MEANFLOW = {"s3gen_meanflow.safetensors": ("flow.decoder.estimator.time_embed_mixer.weight",)}
_MANY_LANGUAGES = ("grapheme_mtl_merged_expanded_v1.json", "Cangjie5_TC.json")
_PACK_REVISIONS = {
    "es-mx-latam": "27e595bf2fe7be0533ca299d9afafcde08b7cca7",
    "es-es": "7262b364e3222ba9446c9289e7485eadc47ed902",
    "pt-br": "b3952f18bc2eaa72b9bd7c17d2c4653bcad4770d",
    "hi": "82ca71273cc2a9ab19efdf8315f865c1a5af0ee7",
}
"""Commits of the language packs that have been looked at; the others follow the branch `main`, as upstream does."""


def _pack(pack: LanguagePack) -> Checkpoint:
    """The checkpoint of a language pack: T3, S3Gen and tokenizer of its own, the rest is the Original's."""
    return Checkpoint(
        pack.engine,
        f"ResembleAI/Chatterbox-Multilingual-{pack.name}",
        _PACK_REVISIONS.get(pack.name, "main"),
        ("ve.pt", pack.t3_file, pack.s3gen_file, *_MANY_LANGUAGES),
        tensors={pack.t3_file: _LLAMA},
        borrowed=Part(*_ORIGINAL, ("ve.pt", "Cangjie5_TC.json", "conds.pt")),
    )


CHECKPOINTS: dict[str, Checkpoint] = {
    checkpoint.engine: checkpoint
    for checkpoint in (
        Checkpoint(
            "chatterbox",
            *_ORIGINAL,
            ("ve.safetensors", "t3_cfg.safetensors", "s3gen.safetensors", "tokenizer.json"),
            tensors={"t3_cfg.safetensors": _LLAMA},
        ),
        Checkpoint(
            "turbo",
            *_TURBO,
            ("ve.safetensors", "t3_turbo_v1.safetensors", "s3gen_meanflow.safetensors", *_GPT2_TOKENIZER),
            tensors={"t3_turbo_v1.safetensors": _GPT2, **_MEANFLOW},
        ),
        Checkpoint(
            "nano",
            "ResembleAI/chatterbox-nano",
            "71ccd1d0081b430592cea481f4307e764e07bc64",
            ("ve.safetensors", "t3_nano_v1.safetensors", "s3gen_meanflow.safetensors", *_GPT2_TOKENIZER),
            tensors={"t3_nano_v1.safetensors": _GPT2, **_MEANFLOW},
        ),
        Checkpoint(
            "multilingual",
            *_ORIGINAL,
            ("ve.pt", "t3_mtl23ls_v2.safetensors", "s3gen.pt", *_MANY_LANGUAGES),
            tensors={"t3_mtl23ls_v2.safetensors": _LLAMA},
        ),
        Checkpoint(
            "multilingual-v3",
            *_ORIGINAL,
            ("ve.pt", "t3_mtl23ls_v3.safetensors", "s3gen.pt", *_MANY_LANGUAGES),
            tensors={"t3_mtl23ls_v3.safetensors": _LLAMA},
        ),
        *map(_pack, LANGUAGE_PACKS),
    )
}
"""By engine; the weights of an engine that is not listed are part of its Python package."""

MEANFLOW = Checkpoint("meanflow", *_TURBO, tuple(_MEANFLOW), optional=(), tensors=_MEANFLOW)
"""Turbo's S3Gen, for `CHORUS_FLOW=meanflow` behind another engine's tokens."""

DOWNLOADS = CHECKPOINTS | {MEANFLOW.engine: MEANFLOW}
"""All that can be downloaded, by name."""


SEGMENTER = "spacy_ontonotes"
"""The model of spacy-pkuseg that segments Chinese text for Multilingual; it lies in that package's folder."""


class CheckpointError(Exception):
    """An engine has no weights to load; the message says what is wrong and what to run.

    CheckpointError
    ├── MissingCheckpointError       no file of the checkpoint is there
    │   └── PartialCheckpointError   some files are missing
    ├── DamagedCheckpointError       a file has the wrong content, or cannot be read
    └── DownloadError                the download from the hub failed
    """

    state: ClassVar[str] = "unavailable"
    """The state in one word, for tables."""

    def __init__(self, message: str, folder: Path | None = None) -> None:
        super().__init__(message)
        self.folder = folder
        """The folder of the checkpoint, if there is one."""


class MissingCheckpointError(CheckpointError):
    """No file of the checkpoint is there."""

    state = "missing"


class PartialCheckpointError(MissingCheckpointError):
    """Some files of the checkpoint are missing."""

    state = "partial"


class DamagedCheckpointError(CheckpointError):
    """A file of the checkpoint has the wrong content, or cannot be read."""

    state = "damaged"


class DownloadError(CheckpointError):
    """The download from the hub failed."""


class FileState(StrEnum):
    """The state of a file of a checkpoint."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    MISSING = "missing"


@dataclass(frozen=True)
class FileReport:
    """The result of reading one file of a checkpoint in full."""

    name: str
    state: FileState
    size: int
    """Bytes; 0 for a file that is missing or cannot be read."""
    detail: str
    """The reference that the content was compared with, or its fault."""


def missing_extra(card: EngineCard) -> str | None:
    """The command that installs the engine's libraries; None if they are installed."""
    # The extra is named after the module it brings. find_spec does not import it, which would take seconds.
    if card.extra is None or importlib.util.find_spec(card.extra) is not None:
        return None
    return f"engine {card.name} needs the extra `{card.extra}`, which is not installed; {how_to_install(card.name)}"


def how_to_install(engine: str) -> str:
    """The command that installs the libraries of an engine with a checkpoint."""
    return f"run: scripts/serve --engine {engine}, or: pip install -e '.[chatterbox]'"


def how_to_repair(checkpoint: Checkpoint, folder: Path) -> str:
    """The command or action that completes the checkpoint in a folder."""
    if _in_cache(checkpoint, folder):
        return _fetch(checkpoint, folder.name)
    return f"put them there whole, or unset CHORUS_MODEL_DIR (--model-dir) and {_fetch(checkpoint, None)}"


def hub_cache() -> Path:
    """The folder of the hub's cache, by the same variables as huggingface_hub, which need not be installed."""
    variables = os.environ
    user = variables.get("XDG_CACHE_HOME") or "~/.cache"
    home = variables.get("HF_HOME") or f"{user}/huggingface"
    folder = variables.get("HF_HUB_CACHE") or variables.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    return Path(os.path.expandvars(folder)).expanduser().absolute()


def locate(checkpoint: Checkpoint, *, revision: str | None = None) -> Path | None:
    """The folder of a revision in the hub's cache, or None if it is not there. Does not use the network.

    Raises DamagedCheckpointError if the cache cannot be read.
    """
    commit = revision or checkpoint.revision
    repository = _repository(checkpoint)
    with _readable(repository):
        if not COMMIT.fullmatch(commit):  # a branch or tag: the cache knows the last commit that it pointed to
            try:
                commit = (repository / "refs" / commit).read_bytes().decode(errors="replace").strip()
            except FileNotFoundError:
                return None
        folder = repository / "snapshots" / commit
        return folder if COMMIT.fullmatch(commit) and folder.is_dir() else None


def find(checkpoint: Checkpoint, *, model_dir: Path | None, revision: str | None) -> Path:
    """The folder that holds every required file: `model_dir` if given, else `revision` in the hub's cache.

    Checks the structure of the files only, in milliseconds, without the network. Raises MissingCheckpointError,
    PartialCheckpointError or DamagedCheckpointError.
    """
    engine = checkpoint.engine
    folder = model_dir or locate(checkpoint, revision=revision)
    if folder is None:
        raise MissingCheckpointError(_absent(checkpoint, revision))
    repair = how_to_repair(checkpoint, folder)
    with _readable(folder):
        if not folder.is_dir():
            fault = "is not a folder" if folder.exists() else "does not exist"
            raise MissingCheckpointError(f"the folder of {engine}'s weights, {folder}, {fault}; {repair}")
    missing, damaged = _faults(checkpoint, folder)
    if damaged:
        faults = "; ".join(f"{name} {fault}" for name, fault in damaged.items())
        raise DamagedCheckpointError(f"{engine}'s weights in {folder} are damaged: {faults}; {repair}", folder)
    if missing == checkpoint.files:
        if _in_cache(checkpoint, folder):
            raise MissingCheckpointError(_absent(checkpoint, revision))
        raise MissingCheckpointError(f"none of {engine}'s weights are in {folder}: {', '.join(missing)}; {repair}")
    if missing:
        raise PartialCheckpointError(f"{engine}'s weights in {folder} lack {', '.join(missing)}; {repair}", folder)
    return folder


def find_meanflow(folder: Path) -> Path:
    """The folder of the mean flow for an engine whose files lie in `folder`: that one, or the one in the hub's cache.

    Raises MissingCheckpointError or DamagedCheckpointError, as `find` does.
    """
    beside = any((folder / name).exists() for name in MEANFLOW.files)
    return find(MEANFLOW, model_dir=folder if beside else None, revision=None)


def check_fit(checkpoint: Checkpoint, folder: Path) -> None:
    """Raise DamagedCheckpointError if a file in `folder` (from `find`) holds another model's weights."""
    faults = []
    for name, tensors in checkpoint.tensors.items():
        try:
            check_tensors(folder / name, tensors)
        except DamagedFileError as error:
            faults.append(f"{name} {error}")
    if faults:
        raise DamagedCheckpointError(
            f"the weights in {folder} are not {checkpoint.engine}'s: {'; '.join(faults)}; "
            f"{how_to_repair(checkpoint, folder)}",
            folder,
        )


def verify(checkpoint: Checkpoint, folder: Path, advance: Advance = lambda _: None) -> Iterator[FileReport]:
    """Read every file in full, at some seconds per gigabyte; `advance` is called with the number of bytes read."""
    for name in (*checkpoint.files, *checkpoint.optional):
        path = folder / name
        try:
            detail, state = check_content(path, advance), FileState.WHOLE
        except DamagedFileError as error:
            detail, state = str(error), FileState.DAMAGED
        except FileNotFoundError:
            if name not in checkpoint.optional:
                yield FileReport(name, FileState.MISSING, 0, "is missing")
            continue
        yield FileReport(name, state, _size(path), detail)


def size_on_disk(checkpoint: Checkpoint, folder: Path) -> int:
    """Total size of the files that are there, in bytes."""
    return sum(_size(folder / name) for name in (*checkpoint.files, *checkpoint.optional))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _repository(checkpoint: Checkpoint) -> Path:
    return hub_cache() / f"models--{checkpoint.repository.replace('/', '--')}"


def _in_cache(checkpoint: Checkpoint, folder: Path) -> bool:
    return _repository(checkpoint) in folder.parents


def _faults(checkpoint: Checkpoint, folder: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """The required files that are missing, and the fault of each damaged file by name."""
    missing, damaged = [], {}
    for name in (*checkpoint.files, *checkpoint.optional):
        try:
            check_structure(folder / name)
        except FileNotFoundError:
            if name not in checkpoint.optional:
                missing.append(name)
        except DamagedFileError as error:
            damaged[name] = str(error)
    return tuple(missing), damaged


def _absent(checkpoint: Checkpoint, revision: str | None) -> str:
    of = f" of revision {revision}" if revision else ""
    return f"{checkpoint.engine}'s weights{of} are not on this host; {_fetch(checkpoint, revision)}"


def _fetch(checkpoint: Checkpoint, revision: str | None) -> str:
    option = f" --revision {revision}" if revision not in (None, checkpoint.revision) else ""
    return f"run: chorus models download {checkpoint.engine}{option}"


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DamagedCheckpointError(f"cannot look into {folder}: {error.strerror}") from error
