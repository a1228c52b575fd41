"""Writes a checkpoint of random weights with the file layout of a Chatterbox model.

The upstream classes initialise the weights, so that whatever loads a trained checkpoint loads these. A full-size
checkpoint needs the same arithmetic as a trained one; a tiny one (few layers of each kind, a narrow flow and vocoder)
is fast enough for tests. The audio is noise.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from tokenizers import Tokenizer, models, pre_tokenizers

from scripts.support.console import run_command
from worker.cards import CARDS, LANGUAGES
from worker.checkpoints.catalogue import CHECKPOINTS
from worker.engines.chatterbox.upstream.lean_imports import lean_imports

with lean_imports():
    import torch
    from chatterbox.models.s3gen import S3Gen
    from chatterbox.models.t3 import T3
    from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS
    from chatterbox.models.t3.modules.t3_config import T3Config
    from chatterbox.models.voice_encoder import VoiceEncoder
    from safetensors.torch import save_file
    from torch import Tensor, nn

    from worker.engines.chatterbox.upstream.loading import VARIANTS, s3gen_shape, t3_width

TINY_LAYERS = 2
TINY_TOKENIZER_LAYERS = 1
"""Layers of a tiny checkpoint's speech tokenizer: at its full width, 1280, each has a quarter of all weights."""
ALIGNED_LAYERS = 14
"""Layers of a tiny Multilingual with an alignment guard, which reads attention heads of layers 9, 12 and 13."""
TINY_LLAMA_WIDTH = 256
VOCODER_CHANNELS = 512
TINY_VOCODER_CHANNELS = 128
"""Its stages then have 64, 32 and 16 channels; int8 needs multiples of 16."""
ESTIMATOR_CHANNELS = 256
TINY_ESTIMATOR_CHANNELS = 64
TINY_PROMPT_TOKENS = 15
"""Length of the built-in voice of a tiny checkpoint, 25 tokens per second; the work of S3Gen grows with it."""
FULL_PROMPT_TOKENS = 250

LOGIT_SCALE = 5
"""Factor on the weights of the speech head: it raises the standard deviation of the logits from about 0.6 to 3."""

TAGS = CARDS["turbo"].tags
"""Turbo's paralinguistic tags, one token each, after the 50,257 tokens of GPT-2."""

_GPT2_TOKENS = 50_257
_SPEAKER_WIDTH = 256
_X_VECTOR_WIDTH = 192
_MEL_BANDS = 80
_SPEECH_TOKENS = 6561


def main(
    engine: Annotated[str, typer.Argument(help=f"One of {', '.join(CHECKPOINTS)}.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write; it is created if it does not exist.")],
    tiny: Annotated[bool, typer.Option("--tiny", help="Few layers of each kind instead of the full size.")] = False,
    voice: Annotated[bool, typer.Option(help="Include a built-in voice (conds.pt).")] = True,
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
) -> None:
    """Write a checkpoint of random weights."""
    if engine not in CHECKPOINTS:
        raise typer.BadParameter(f"there is no checkpoint of {engine!r}; there are: {', '.join(CHECKPOINTS)}")
    write_checkpoint(engine, folder, tiny=tiny, voice=voice, seed=seed)
    typer.echo(f"{folder}: {sum(file.stat().st_size for file in folder.iterdir()) / 2**30:.2f} GiB")


def write_checkpoint(engine: str, folder: Path, *, tiny: bool, voice: bool = True, seed: int = 0) -> None:
    """Write all files of a checkpoint of `engine` into `folder`, which is created if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    for file, state in _weights(engine, tiny=tiny):
        tensors = {name: tensor.contiguous() for name, tensor in state.items()}
        if file.endswith(".pt"):
            torch.save(tensors, folder / file)
        else:
            save_file(tensors, folder / file)
    if "vocab.json" in CHECKPOINTS[engine].files:
        _write_gpt2_tokenizer(folder)
    elif "tokenizer.json" in CHECKPOINTS[engine].files:
        _write_grapheme_tokenizer(folder / "tokenizer.json", size=704, extra=())
    else:
        _write_grapheme_tokenizer(
            folder / "grapheme_mtl_merged_expanded_v1.json", size=2454, extra=_multilingual_tokens()
        )
        (folder / "Cangjie5_TC.json").write_text(json.dumps(["中\tl", "文\tyk", "你\tonf", "好\tvnd"]))
    if voice:
        _write_voice(folder / "conds.pt", TINY_PROMPT_TOKENS if tiny else FULL_PROMPT_TOKENS, turbo=_is_turbo(engine))


def _is_turbo(engine: str) -> bool:
    return engine in ("turbo", "nano")


def _weights(engine: str, *, tiny: bool) -> Iterator[tuple[str, dict[str, Tensor]]]:
    for file in CHECKPOINTS[engine].files:
        if file.startswith("ve."):
            yield file, VoiceEncoder().state_dict()
        elif file.startswith("t3_"):
            yield file, _t3(engine, tiny=tiny).state_dict()
        elif file.startswith("s3gen"):
            model = _s3gen(meanflow=_is_turbo(engine), tiny=tiny)
            # The files of S3Gen V3 lack what upstream's constructor computes.
            left_out = model.ignore_state_dict_missing if file.startswith("s3gen_v3") else ()
            yield file, {name: tensor for name, tensor in model.state_dict().items() if name not in left_out}


def _t3(engine: str, *, tiny: bool) -> nn.Module:
    if _is_turbo(engine):
        hp = T3Config(text_tokens_dict_size=_GPT2_TOKENS + len(TAGS))
        hp.speech_tokens_dict_size = 6563
        hp.input_pos_emb = None
        hp.speech_cond_prompt_len = 375
        hp.use_perceiver_resampler = False
        hp.emotion_adv = False
        layers, width, heads = (24, 1024, 16) if engine == "turbo" else (12, 768, 12)
        if tiny:
            layers, width, heads = TINY_LAYERS, 128, 2
        overrides = {"n_layer": layers, "n_embd": width, "hidden_size": width, "n_head": heads}
        backbone = "GPT2_medium"
    else:
        hp = T3Config.english_only() if engine == "chatterbox" else T3Config.multilingual()
        layers = ALIGNED_LAYERS if VARIANTS[engine].guarded else TINY_LAYERS
        # The heads stay, as the alignment guard reads the last of them.
        shape = {"num_hidden_layers": layers, "hidden_size": TINY_LLAMA_WIDTH, "intermediate_size": 128}
        overrides = shape if tiny else {}
        backbone = "Llama_520M"
    hp.llama_config_name = "random weights"
    LLAMA_CONFIGS[hp.llama_config_name] = LLAMA_CONFIGS[backbone] | overrides
    with t3_width(hp.n_channels):
        model = T3(hp)
    with torch.no_grad():
        # The logits of the special tokens, the stop token among them, are 0, far below those of the likely speech
        # tokens: none of them is drawn, so that the token budget alone determines the length of an utterance.
        model.speech_head.weight.mul_(LOGIT_SCALE)
        model.speech_head.weight[_SPEECH_TOKENS:] = 0
    return model


def _s3gen(*, meanflow: bool, tiny: bool) -> nn.Module:
    vocoder, estimator = VOCODER_CHANNELS, ESTIMATOR_CHANNELS
    if tiny:
        vocoder, estimator = TINY_VOCODER_CHANNELS, TINY_ESTIMATOR_CHANNELS
    layers, blocks = (TINY_TOKENIZER_LAYERS, TINY_LAYERS) if tiny else (None, None)
    with s3gen_shape(vocoder=vocoder, estimator=estimator, layers=layers, blocks=blocks):
        model = S3Gen(meanflow=meanflow)
    if tiny:
        repeating = model.flow.decoder.estimator
        repeated = [model.flow.encoder.encoders, model.flow.encoder.up_encoders]
        repeated += [
            block[1] for part in (repeating.down_blocks, repeating.mid_blocks, repeating.up_blocks) for block in part
        ]
        for modules in repeated:
            del modules[TINY_LAYERS:]
    return model


def _write_gpt2_tokenizer(folder: Path) -> None:
    """A vocabulary of GPT-2's size: bytes, fillers, the end-of-text token, then the tags."""
    words = sorted(pre_tokenizers.ByteLevel.alphabet())
    words += [f"filler{number}" for number in range(_GPT2_TOKENS - 1 - len(words))] + ["<|endoftext|>"]
    tags = {tag: _GPT2_TOKENS + number for number, tag in enumerate(TAGS)}
    end = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    contents: dict[str, Any] = {
        "vocab.json": {word: number for number, word in enumerate(words)},
        "added_tokens.json": tags,
        "special_tokens_map.json": end,
        "tokenizer_config.json": {
            **end,
            "tokenizer_class": "GPT2Tokenizer",
            "model_max_length": 1024,
            "add_prefix_space": False,
            "added_tokens_decoder": {
                str(number): {
                    "content": tag,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": True,
                    "single_word": False,
                    "special": False,
                }
                for tag, number in tags.items()
            },
        },
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n")


def _write_grapheme_tokenizer(file: Path, *, size: int, extra: Iterable[str]) -> None:
    """A tokenizer with one token per character, and upstream's special tokens where its models expect them."""
    # The ids of the start and stop tokens are those of T3's configuration.
    words = ["[STOP]", "[UNK]", "[SPACE]", "[PAD]", "[SEP]", "[CLS]", "[MASK]"]
    letters = [
        chr(code) for block in ((33, 127), (0xA1, 0x180), (0x300, 0x370), (0x370, 0x500)) for code in range(*block)
    ]
    words += [*extra, *letters]
    vocabulary = {word: number + (number >= 255) for number, word in enumerate(words[: size - 1])}
    vocabulary["[START]"] = 255
    for number in sorted(set(range(size)) - set(vocabulary.values())):
        vocabulary[f"filler{number}"] = number
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="[UNK]"))  # noqa: S106 - no password
    tokenizer.add_special_tokens([word for word in vocabulary if len(word) > 1 and word[0] == "["])
    tokenizer.save(str(file))


def _multilingual_tokens() -> Iterator[str]:
    yield from (f"[{language}]" for language in LANGUAGES)
    yield from (f"[cj_{letter}]" for letter in "abcdefghijklmnopqrstuvwxyz.0123456789")


def _write_voice(file: Path, tokens: int, *, turbo: bool) -> None:
    """Write random conditionals as upstream's `Conditionals.save` does."""
    draw = np.random.default_rng(0)
    speaker = torch.from_numpy(draw.normal(size=(1, _SPEAKER_WIDTH)).astype(np.float32))
    t3 = {
        "speaker_emb": speaker / speaker.norm(),
        "clap_emb": None,
        "cond_prompt_speech_tokens": torch.from_numpy(draw.integers(_SPEECH_TOKENS, size=(1, 375 if turbo else 150))),
        "cond_prompt_speech_emb": None,
        "emotion_adv": 0.5 * torch.ones(1, 1, 1),
    }
    gen = {
        "prompt_token": torch.from_numpy(draw.integers(_SPEECH_TOKENS, size=(1, tokens))),
        "prompt_token_len": torch.tensor([tokens]),
        "prompt_feat": torch.from_numpy(draw.normal(-4, 2, size=(1, 2 * tokens, _MEL_BANDS)).astype(np.float32)),
        "prompt_feat_len": None,
        "embedding": torch.from_numpy(draw.normal(size=(1, _X_VECTOR_WIDTH)).astype(np.float32)),
    }
    torch.save({"t3": t3, "gen": gen}, file)


if __name__ == "__main__":
    run_command(main, "scripts/make_checkpoint")
