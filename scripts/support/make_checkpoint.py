"""Writes a checkpoint of random weights in the file layout of one of the Chatterbox models.

The upstream classes make the weights, so whatever loads a trained checkpoint loads these: a full-size one costs the
same arithmetic, a tiny one (two layers of everything that repeats) is quick enough for tests. None of them speaks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from chatterbox.models.s3gen import S3Gen
from chatterbox.models.t3 import T3
from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS
from chatterbox.models.t3.modules.t3_config import T3Config
from chatterbox.models.voice_encoder import VoiceEncoder
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

from worker.cards import LANGUAGES
from worker.checkpoints.catalogue import CHECKPOINTS

TINY_LAYERS = 2
ALIGNED_LAYERS = 14
"""Multilingual's guard against run-on looks at attention heads of layers 9, 12 and 13: a tiny one keeps so many."""
TINY_PROMPT_TOKENS = 25
"""Length of a tiny checkpoint's own voice, 25 tokens a second: the decoder's work grows with it."""
FULL_PROMPT_TOKENS = 250

FAVOUR = 5
"""Factor on the weights that score speech tokens: scores then spread by about 3 where they spread by 0.6."""

TAGS = (
    "[angry]", "[fear]", "[surprised]", "[whispering]", "[advertisement]", "[dramatic]", "[narration]", "[crying]",
    "[happy]", "[sarcastic]", "[clear throat]", "[sigh]", "[shush]", "[cough]", "[groan]", "[sniff]", "[gasp]",
    "[chuckle]", "[laugh]",
)  # fmt: skip
"""Turbo's paralinguistic tags: one token each, after GPT-2's own 50,257."""

_GPT2_TOKENS = 50_257
_SPEAKER_WIDTH = 256
_X_VECTOR_WIDTH = 192
_MEL_BANDS = 80
_SPEECH_TOKENS = 6561


def main(
    engine: Annotated[str, typer.Argument(help=f"One of {', '.join(CHECKPOINTS)}.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write; made if it is not there.")],
    tiny: Annotated[bool, typer.Option("--tiny", help="Two layers of each kind instead of the full size.")] = False,
    voice: Annotated[bool, typer.Option(help="With a voice of its own (conds.pt).")] = True,
    seed: Annotated[int, typer.Option(help="Another seed makes other weights.")] = 0,
) -> None:
    """Write a checkpoint of random weights."""
    if engine not in CHECKPOINTS:
        raise typer.BadParameter(f"there is no checkpoint of {engine!r}; there are: {', '.join(CHECKPOINTS)}")
    make(engine, folder, tiny=tiny, voice=voice, seed=seed)
    typer.echo(f"{folder}: {sum(file.stat().st_size for file in folder.iterdir()) / 2**30:.2f} GiB")


def make(engine: str, folder: Path, *, tiny: bool, voice: bool = True, seed: int = 0) -> None:
    """Write the files of `engine`'s checkpoint into `folder`."""
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
        _write_grapheme_tokenizer(folder / "grapheme_mtl_merged_expanded_v1.json", size=2454, extra=_multilingual())
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
            yield file, _s3gen(meanflow=_is_turbo(engine), tiny=tiny).state_dict()


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
        shape = {"n_layer": layers, "n_embd": width, "hidden_size": width, "n_head": heads}
        backbone = "GPT2_medium"
    else:
        hp = T3Config.english_only() if engine == "chatterbox" else T3Config.multilingual()
        layers = TINY_LAYERS if engine == "chatterbox" else ALIGNED_LAYERS
        # The width is upstream's: parts of this model have it written down.
        shape = {"num_hidden_layers": layers, "intermediate_size": 128} if tiny else {}
        backbone = "Llama_520M"
    hp.llama_config_name = "made here"
    LLAMA_CONFIGS[hp.llama_config_name] = LLAMA_CONFIGS[backbone] | shape
    model = T3(hp)
    with torch.no_grad():
        # Clear favourites among the tokens that have a sound; the others, the stop among them, are never drawn. A
        # trained model knows by itself which to draw, and here lengths are then a matter of budgets alone.
        model.speech_head.weight.mul_(FAVOUR)
        model.speech_head.weight[_SPEECH_TOKENS:] = 0
    return model


def _s3gen(*, meanflow: bool, tiny: bool) -> nn.Module:
    model = S3Gen(meanflow=meanflow)
    if tiny:
        estimator = model.flow.decoder.estimator
        repeated = [model.tokenizer.encoder.blocks, model.flow.encoder.encoders, model.flow.encoder.up_encoders]
        repeated += [
            block[1] for part in (estimator.down_blocks, estimator.mid_blocks, estimator.up_blocks) for block in part
        ]
        for modules in (*repeated, estimator.mid_blocks):
            del modules[TINY_LAYERS:]
    return model


def _write_gpt2_tokenizer(folder: Path) -> None:
    """GPT-2's vocabulary in size and kind: bytes, fillers, the end of text, then the tags."""
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
    """One token a character, with upstream's special tokens where its models expect them."""
    # Start and stop are the numbers that T3's configuration has.
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


def _multilingual() -> Iterator[str]:
    yield from (f"[{language}]" for language in LANGUAGES)
    yield from (f"[cj_{letter}]" for letter in "abcdefghijklmnopqrstuvwxyz.0123456789")


def _write_voice(file: Path, tokens: int, *, turbo: bool) -> None:
    """conds.pt as upstream's `Conditionals.save` writes it: a voice that nobody has."""
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
    typer.run(main)
