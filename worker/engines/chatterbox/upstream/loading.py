"""Loads a checkpoint's files into one of the upstream classes.

This differs from upstream's `from_local` in three ways. Weights are memory-mapped, so all workers of a host share one
copy. Shapes are read from the checkpoint, so Nano loads as a smaller Turbo. And one sentence says what is missing or
does not fit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import chatterbox.models.s3gen.s3gen as _s3gen_module
import chatterbox.models.t3.modules.cond_enc as _conditioning_module
import s3tokenizer.model_v2 as _tokenizer_module  # type: ignore[import-untyped]
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

from worker.cards import LANGUAGE_PACKS, FlowModel
from worker.checkpoints.catalogue import MEANFLOW, CheckpointError, find_meanflow
from worker.engines.base import ModelUnavailableError
from worker.engines.chatterbox.upstream.encoders import differing_tensors

StateDict = dict[str, Tensor]

HEAD_WIDTH = 64
"""Width of an attention head, the same in every T3."""

VOCODER_WIDTH = "mel2wav.conv_pre.bias"
"""A tensor of S3Gen with as many numbers as its vocoder has channels."""

ESTIMATOR_WIDTH = "flow.decoder.estimator.final_block.block.0.bias"
"""A tensor of S3Gen with as many numbers as its flow's estimator has channels."""

_TURBO_TEXT_TOKENS = 50_276


@dataclass(frozen=True)
class ModelVariant:
    """One model of the family: its upstream module and class, and the files of T3 and S3Gen."""

    module: Any
    upstream: Any
    t3_file: str
    s3gen_file: str
    guarded: bool = False
    """Whether T3 decodes with upstream's alignment guard against run-on."""
    drops_last_token: bool = False
    """Whether the audio ends before the last speech token's, which is noise: T3 draws it as its attention decays."""

    @property
    def ve_file(self) -> str:
        """The file of its voice encoder."""
        return "ve.pt" if self.multilingual else "ve.safetensors"

    @property
    def turbo(self) -> bool:
        """Whether the model has Turbo's architecture."""
        return self.module is tts_turbo

    @property
    def multilingual(self) -> bool:
        """Whether the model takes a language."""
        return self.module is mtl_tts


_Multilingual = partial(ModelVariant, mtl_tts, mtl_tts.ChatterboxMultilingualTTS)
_Turbo = partial(ModelVariant, tts_turbo, tts_turbo.ChatterboxTurboTTS, s3gen_file="s3gen_meanflow.safetensors")
# Upstream's master has no guard for V3, which does not need it, and drops V3's last token.
_V3 = partial(_Multilingual, drops_last_token=True)

VARIANTS = {
    "chatterbox": ModelVariant(tts, tts.ChatterboxTTS, "t3_cfg.safetensors", "s3gen.safetensors"),
    "turbo": _Turbo("t3_turbo_v1.safetensors"),
    "nano": _Turbo("t3_nano_v1.safetensors"),
    "multilingual": _Multilingual("t3_mtl23ls_v2.safetensors", "s3gen.pt", guarded=True),
    "multilingual-v3": _V3("t3_mtl23ls_v3.safetensors", "s3gen.pt"),
    **{pack.engine: _V3(pack.t3_file, pack.s3gen_file) for pack in LANGUAGE_PACKS},
}
"""The models by engine name."""


class _UnguardedConfig(T3Config):  # type: ignore[misc]
    """A configuration without the alignment guard; upstream uses `is_multilingual` for nothing else."""

    is_multilingual = False


def load(engine: str, folder: Path, flow: FlowModel = FlowModel.UPSTREAM) -> Any:
    """The upstream object for `engine` with the weights in `folder`, on the CPU, without gradients.

    With the mean flow, its S3Gen is Turbo's. Raises ModelUnavailableError where a file is missing, cannot be read or
    does not fit the engine.
    """
    variant = VARIANTS[engine]
    with _load_errors(engine, folder):
        # What is small comes first: whether it fits is known before the time for the large files is spent.
        tokenizer = _tokenizer(variant, folder)
        conds = folder / "conds.pt"
        built_in_voice = variant.module.Conditionals.load(conds) if conds.exists() else None
        parts = {
            "ve": _load_module(VoiceEncoder, folder / variant.ve_file),
            "t3": _t3(variant, folder),
            "s3gen": _s3gen(variant, folder) if flow is FlowModel.UPSTREAM else _mean_flow(engine, folder),
        }
        for part in parts.values():
            part.eval().requires_grad_(False)
        with _no_initialisation():  # of the watermarker's model, whose weights come with it
            return variant.upstream(**parts, tokenizer=tokenizer, device="cpu", conds=built_in_voice)


def s3gen_path(engine: str, folder: Path, flow: FlowModel) -> Path:
    """The file of the S3Gen with which an engine runs a flow. Raises ModelUnavailableError if there is no mean flow."""
    if flow is FlowModel.UPSTREAM:
        return folder / VARIANTS[engine].s3gen_file
    (name,) = MEANFLOW.files
    try:
        return find_meanflow(folder) / name
    except CheckpointError as error:
        raise ModelUnavailableError(str(error)) from error


@contextmanager
def _load_errors(engine: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except ModelUnavailableError:
        raise
    except Exception as error:  # the tokenizers' library raises plain Exceptions, upstream asserts
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelUnavailableError(
            f"the checkpoint in {folder} does not load as {engine}: {reason}; "
            f"`chorus models verify {engine}` checks its files"
        ) from error


def _t3(variant: ModelVariant, folder: Path) -> nn.Module:
    state = _read_tensors(folder / variant.t3_file)
    configuration = T3Config if variant.guarded else _UnguardedConfig
    hp = configuration(text_tokens_dict_size=len(state["text_emb.weight"]))
    hp.speech_tokens_dict_size = len(state["speech_emb.weight"])
    width = state["speech_emb.weight"].shape[1]
    if variant.turbo:
        hp.input_pos_emb = None
        hp.speech_cond_prompt_len = 375
        hp.use_perceiver_resampler = False
        hp.emotion_adv = False
        shape = {"n_layer": _depths(state)["tfmr.h"], "n_embd": width, "n_head": width // HEAD_WIDTH}
        backbone = LLAMA_CONFIGS["GPT2_medium"] | shape
    else:
        inner = state["tfmr.layers.0.mlp.gate_proj.weight"].shape[0]
        shape = {"num_hidden_layers": _depths(state)["tfmr.layers"], "intermediate_size": inner}
        backbone = LLAMA_CONFIGS["Llama_520M"] | shape
    # T3 finds its backbone's shape by name in upstream's table.
    hp.llama_config_name = variant.t3_file
    LLAMA_CONFIGS[variant.t3_file] = backbone | {"hidden_size": width}
    with _no_initialisation(), t3_width(width):
        model = T3(hp)
    _assign_weights(model, state)
    if variant.turbo:
        del model.tfmr.wte  # T3 has text embeddings of its own
    return model


def _s3gen(variant: ModelVariant, folder: Path) -> nn.Module:
    # Like upstream, accept an Original's file without the tensors that the constructor computes, and with others.
    strict = variant.turbo or variant.multilingual
    return _build_s3gen(_read_tensors(folder / variant.s3gen_file), meanflow=variant.turbo, strict=strict)


def _mean_flow(engine: str, folder: Path) -> nn.Module:
    """Turbo's S3Gen for the tokens of an engine whose files lie in `folder`."""
    file = s3gen_path(engine, folder, FlowModel.MEANFLOW)
    with _load_errors(MEANFLOW.engine, file.parent):
        state = _read_tensors(file)
        model = _build_s3gen(state, meanflow=True, strict=True)
    own = _read_tensors(folder / VARIANTS[engine].s3gen_file)
    if differing := differing_tensors(own, state, ignored=model.ignore_state_dict_missing):
        raise ModelUnavailableError(
            f"the mean flow in {file.parent} does not fit {engine}'s weights in {folder}, which have another speech "
            f"tokenizer or speaker encoder: {len(differing)} tensors differ, such as {', '.join(differing[:3])}; "
            f"unset CHORUS_FLOW, or put the {file.name} that belongs to these weights into {folder}"
        )
    return model


def _build_s3gen(state: StateDict, *, meanflow: bool, strict: bool) -> nn.Module:
    depths = _depths(state)
    with (
        _no_initialisation(),
        s3gen_shape(
            vocoder=len(state[VOCODER_WIDTH]),
            estimator=len(state[ESTIMATOR_WIDTH]),
            layers=depths.get("tokenizer.encoder.blocks"),
            blocks=depths.get("flow.decoder.estimator.mid_blocks"),
        ),
    ):
        model = S3Gen(meanflow=meanflow)
    _trim_layers(model, depths)
    _assign_weights(model, state, optional=model.ignore_state_dict_missing, strict=strict)
    return model


def _tokenizer(variant: ModelVariant, folder: Path) -> Any:
    if variant.multilingual:
        return MTLTokenizer(str(folder / "grapheme_mtl_merged_expanded_v1.json"))
    if not variant.turbo:
        return EnTokenizer(str(folder / "tokenizer.json"))
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if len(tokenizer) != _TURBO_TEXT_TOKENS:
        raise ValueError(f"the tokenizer has {len(tokenizer)} tokens instead of {_TURBO_TEXT_TOKENS}")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _load_module(build: Callable[[], nn.Module], file: Path) -> nn.Module:
    with _no_initialisation():
        model = build()
    _assign_weights(model, _read_tensors(file))
    return model


def _read_tensors(file: Path) -> StateDict:
    """The tensors of a file, memory-mapped: pages are read when they are used, and processes share them."""
    with file.open("rb") as opened:
        # Sequential read-ahead is far faster than page faults, and happens once for all workers.
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
    if file.suffix == ".pt":
        state: StateDict = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    else:
        state = load_file(file)
    return state


def _assign_weights(model: nn.Module, state: StateDict, *, optional: Iterable[str] = (), strict: bool = True) -> None:
    """Assign the tensors to the model without copying, unless their precision differs.

    Raises ValueError where a tensor is missing or, if `strict`, unexpected; those named in `optional` may be missing.
    """
    own = model.state_dict()
    state = {name: value.to(own[name].dtype) if name in own else value for name, value in state.items()}
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    absent = set(missing).difference(optional)
    if absent or (unexpected and strict):
        fault = f"lacks {min(absent)}" if absent else f"has {min(unexpected)}, which it should not"
        raise ValueError(f"{type(model).__name__} {fault}")


@contextmanager
def t3_width(width: int) -> Iterator[None]:
    """A block in which all of a new T3 has this width: for one part of it upstream's constructor has a fixed one."""
    resampler = _conditioning_module.Perceiver
    _conditioning_module.Perceiver = partial(resampler, pre_attention_query_size=width, embedding_dim=width)
    try:
        yield
    finally:
        _conditioning_module.Perceiver = resampler


@contextmanager
def s3gen_shape(
    *, vocoder: int, estimator: int, layers: int | None = None, blocks: int | None = None
) -> Iterator[None]:
    """A block in which the parts of a new S3Gen have another shape than the fixed one of upstream's constructor.

    `vocoder` and `estimator` are their channels, `layers` those of the speech tokenizer, `blocks` those in the middle
    of the estimator, as many as upstream's if None.
    """
    generator, decoder = _s3gen_module.HiFTGenerator, _s3gen_module.ConditionalDecoder
    encoder = _tokenizer_module.AudioEncoderV2
    shape = {"channels": [estimator]} | ({} if blocks is None else {"num_mid_blocks": blocks})

    def narrow_decoder(**arguments: Any) -> nn.Module:
        return decoder(**arguments | shape)

    def shallow_encoder(mels: int, width: int, heads: int, depth: int, *others: Any) -> nn.Module:
        return encoder(mels, width, heads, depth if layers is None else layers, *others)

    _s3gen_module.HiFTGenerator = partial(generator, base_channels=vocoder)
    _s3gen_module.ConditionalDecoder = narrow_decoder
    _tokenizer_module.AudioEncoderV2 = shallow_encoder
    try:
        yield
    finally:
        _s3gen_module.HiFTGenerator, _s3gen_module.ConditionalDecoder = generator, decoder
        _tokenizer_module.AudioEncoderV2 = encoder


def _trim_layers(model: nn.Module, depths: Mapping[str, int]) -> None:
    """Shorten lists of layers to the depths of a checkpoint: upstream's constructor has fixed ones for S3Gen."""
    for name, layers in model.named_modules():
        if isinstance(layers, nn.ModuleList):
            depth = depths.get(name, 0)
            # A last entry without parameters, such as a dropout, has no tensors and stays.
            while len(layers) > depth > 0 and any(True for _ in layers[-1].parameters()):
                del layers[-1]


def _depths(state: StateDict) -> dict[str, int]:
    """The number of entries of each list of layers in `state`, by the list's name."""
    depths: dict[str, int] = {}
    for key in state:
        parts = key.split(".")
        for place, part in enumerate(parts):
            if part.isdecimal():
                name = ".".join(parts[:place])
                depths[name] = max(depths.get(name, 0), 1 + int(part))
    return depths


@contextmanager
def _no_initialisation() -> Iterator[None]:
    """A block in which new parameters get no random values, which would take seconds and touch all their memory."""
    with _SkipRandomInit():
        yield


class _SkipRandomInit(TorchFunctionMode):  # type: ignore[misc]
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
