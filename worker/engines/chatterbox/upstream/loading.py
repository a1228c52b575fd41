"""From a checkpoint's files to one of the upstream classes.

Differs from upstream's `from_local` in three ways: weights stay on their mapped files, so that all workers of a host
share one copy; shapes are read from the checkpoint, so that Nano loads as Turbo's smaller sister; and whatever is
missing or does not fit is said in one sentence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from chatterbox import mtl_tts, tts, tts_turbo
from chatterbox.models.s3gen import S3Gen
from chatterbox.models.t3 import T3
from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS
from chatterbox.models.t3.modules.t3_config import T3Config
from chatterbox.models.tokenizers import EnTokenizer, MTLTokenizer
from chatterbox.models.voice_encoder import VoiceEncoder
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AutoTokenizer

from worker.engines.base import ModelUnavailableError

State = dict[str, Tensor]

HEAD_WIDTH = 64
"""Width of one attention head in every T3 there is."""

_TURBO_TEXT_TOKENS = 50_276


@dataclass(frozen=True)
class Member:
    """One model of the family: its upstream module and class, and the file of its T3."""

    module: Any
    upstream: Any
    t3_file: str
    guarded: bool = False
    """Whether T3 decodes under upstream's alignment guard against run-on."""

    @property
    def turbo(self) -> bool:
        """Whether it is of Turbo's architecture."""
        return self.module is tts_turbo

    @property
    def multilingual(self) -> bool:
        """Whether it takes a language."""
        return self.module is mtl_tts


MEMBERS = {
    "chatterbox": Member(tts, tts.ChatterboxTTS, "t3_cfg.safetensors"),
    "turbo": Member(tts_turbo, tts_turbo.ChatterboxTurboTTS, "t3_turbo_v1.safetensors"),
    "nano": Member(tts_turbo, tts_turbo.ChatterboxTurboTTS, "t3_nano_v1.safetensors"),
    "multilingual": Member(mtl_tts, mtl_tts.ChatterboxMultilingualTTS, "t3_mtl23ls_v2.safetensors", guarded=True),
    # Upstream took the guard away from V3, which does not need it.
    "multilingual-v3": Member(mtl_tts, mtl_tts.ChatterboxMultilingualTTS, "t3_mtl23ls_v3.safetensors"),
}
"""By engine name."""


class _Unguarded(T3Config):  # type: ignore[misc]
    """Upstream turns its alignment guard on where this says so, and looks at it for nothing else."""

    is_multilingual = False


def load(engine: str, folder: Path) -> Any:
    """The upstream object for `engine` with the weights in `folder`, on the CPU, without gradients.

    Raises ModelUnavailableError where a file cannot be read or does not fit the engine.
    """
    member = MEMBERS[engine]
    with _reported(engine, folder):
        parts = {
            "t3": _t3(member, folder),
            "s3gen": _s3gen(member, folder),
            "ve": _filled(VoiceEncoder, folder / ("ve.pt" if member.multilingual else "ve.safetensors")),
        }
        for part in parts.values():
            part.eval().requires_grad_(False)
        conds = folder / "conds.pt"
        return member.upstream(
            **parts,
            tokenizer=_tokenizer(member, folder),
            device="cpu",
            conds=member.module.Conditionals.load(conds) if conds.exists() else None,
        )


@contextmanager
def _reported(engine: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of every kind there is: the tokenizers' library raises plain ones, upstream asserts
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelUnavailableError(
            f"the checkpoint in {folder} does not load as {engine}: {reason}; "
            f"`chorus models verify {engine}` looks through its files"
        ) from error


def _t3(member: Member, folder: Path) -> nn.Module:
    state = _read(folder / member.t3_file)
    configuration = T3Config if member.guarded else _Unguarded
    hp = configuration(text_tokens_dict_size=len(state["text_emb.weight"]))
    hp.speech_tokens_dict_size = len(state["speech_emb.weight"])
    width = state["speech_emb.weight"].shape[1]
    if member.turbo:
        hp.input_pos_emb = None
        hp.speech_cond_prompt_len = 375
        hp.use_perceiver_resampler = False
        hp.emotion_adv = False
        shape = {"n_layer": _depth(state, "tfmr.h"), "n_embd": width, "n_head": width // HEAD_WIDTH}
        backbone = LLAMA_CONFIGS["GPT2_medium"] | shape
    else:
        inner = state["tfmr.layers.0.mlp.gate_proj.weight"].shape[0]
        shape = {"num_hidden_layers": _depth(state, "tfmr.layers"), "intermediate_size": inner}
        backbone = LLAMA_CONFIGS["Llama_520M"] | shape
    # T3 takes its backbone's shape by name from upstream's table.
    hp.llama_config_name = member.t3_file
    LLAMA_CONFIGS[member.t3_file] = backbone | {"hidden_size": width}
    with _left_as_allocated():
        model = T3(hp)
    _fill(model, state)
    if member.turbo:
        del model.tfmr.wte  # text comes in as embeddings of T3's own
    return model


def _s3gen(member: Member, folder: Path) -> nn.Module:
    name = "s3gen.pt" if member.multilingual else "s3gen_meanflow.safetensors" if member.turbo else "s3gen.safetensors"
    state = _read(folder / name)
    with _left_as_allocated():
        model = S3Gen(meanflow=member.turbo)
    _trim(model, state)
    # Upstream is as lenient with the Original's file: it lacks what the constructor computes, and may have more.
    _fill(model, state, optional=model.ignore_state_dict_missing, strict=member.turbo or member.multilingual)
    return model


def _tokenizer(member: Member, folder: Path) -> Any:
    if member.multilingual:
        return MTLTokenizer(str(folder / "grapheme_mtl_merged_expanded_v1.json"))
    if not member.turbo:
        return EnTokenizer(str(folder / "tokenizer.json"))
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if len(tokenizer) != _TURBO_TEXT_TOKENS:
        raise ValueError(f"the tokenizer has {len(tokenizer)} tokens instead of {_TURBO_TEXT_TOKENS}")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _filled(build: Callable[[], nn.Module], file: Path) -> nn.Module:
    with _left_as_allocated():
        model = build()
    _fill(model, _read(file))
    return model


def _read(file: Path) -> State:
    """The tensors of a file, mapped: pages come from disk when they are used, and are shared by all who use them."""
    with file.open("rb") as opened:
        # Reading ahead in order is far quicker than by page faults, and done once for all workers.
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
    if file.suffix == ".pt":
        state: State = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    else:
        state = load_file(file)
    return state


def _fill(model: nn.Module, state: State, *, optional: Iterable[str] = (), strict: bool = True) -> None:
    """Give the model the state's own tensors; those of another precision are converted, and then no longer shared."""
    own = model.state_dict()
    state = {name: value.to(own[name].dtype) if name in own else value for name, value in state.items()}
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    absent = set(missing).difference(optional)
    if absent or (unexpected and strict):
        fault = f"lacks {min(absent)}" if absent else f"has {min(unexpected)}, which it should not"
        raise ValueError(f"{type(model).__name__} {fault}")


def _trim(model: nn.Module, state: State) -> None:
    """Shorten the lists of layers to what the state has: upstream writes S3Gen's depth down in its constructor."""
    for name, layers in model.named_modules():
        if isinstance(layers, nn.ModuleList):
            depth = _depth(state, name)
            # A last entry without weights, such as a dropout, is not a layer that the state lacks.
            while len(layers) > depth > 0 and any(True for _ in layers[-1].parameters()):
                del layers[-1]


def _depth(state: State, name: str) -> int:
    number = re.compile(re.escape(name) + r"\.(\d+)\.")
    return 1 + max((int(match[1]) for key in state if (match := number.match(key))), default=-1)


@contextmanager
def _left_as_allocated() -> Iterator[None]:
    """A block in which new parameters get no random values, which takes seconds and touches all their memory."""
    with _NoRandomInit():
        yield


class _NoRandomInit(TorchFunctionMode):  # type: ignore[misc]
    _SKIPPED = frozenset(
        {
            "uniform_",
            "normal_",
            "trunc_normal_",
            "kaiming_uniform_",
            "kaiming_normal_",
            "xavier_uniform_",
            "xavier_normal_",
        }
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in self._SKIPPED:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))
