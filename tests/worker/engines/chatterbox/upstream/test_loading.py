"""Loading a checkpoint into upstream's classes gives the same audio as upstream's own loading, without its copies."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.stock import TEXT, StockEngine
from tests.support.tiny_models import MODELS, PACK, TinyCheckpoint, tiny_checkpoint_with_mean_flow
from worker.cards import FlowModel
from worker.engines.base import Cancellation, ModelUnavailableError
from worker.engines.chatterbox.upstream import loading, patches
from worker.engines.chatterbox.upstream.loading import VARIANTS, load

assert StockEngine is not None  # imported first: it suppresses upstream's warnings

TINY_TURBO = {"n_layer": 2, "n_embd": 128, "hidden_size": 128, "n_head": 2}
TINY_LLAMA = {"num_hidden_layers": 2, "hidden_size": 256, "intermediate_size": 128}
GUARDED = ("multilingual",)


@pytest.fixture(autouse=True)
def installed() -> None:
    patches.install()
    torch.set_num_threads(1)


def load_muted(engine: str, folder: Path) -> Any:
    with patches.muted():
        return load(engine, folder)


def parts(model: Any) -> list[torch.nn.Module]:
    return [model.t3, model.s3gen, model.ve]


def mapped(folder: Path) -> list[range]:
    """Address ranges at which files of the folder are mapped into this process."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if str(folder) in line:
            first, last = (int(address, 16) for address in line.split()[0].split("-"))
            found.append(range(first, last))
    return found


# Each engine


@pytest.mark.parametrize("engine", [*MODELS, PACK])
def test_every_engine_loads(tiny_checkpoint: TinyCheckpoint, engine: str) -> None:
    folder = tiny_checkpoint(engine)
    model = load_muted(engine, folder)
    assert isinstance(model, VARIANTS[engine].upstream)
    assert model.conds is not None
    ranges = mapped(folder)
    for part in parts(model):
        assert not part.training
        for name, parameter in part.named_parameters():
            assert not parameter.requires_grad, name
            assert any(parameter.data_ptr() in place for place in ranges), f"{name} is a copy"
    backbone = model.t3.tfmr
    layers = backbone.h if VARIANTS[engine].turbo else backbone.layers
    assert len(layers) == (14 if VARIANTS[engine].guarded else 2)
    assert model.t3.hp.is_multilingual == (engine in GUARDED)


def test_nano_is_turbo_with_a_t3_of_its_own(tiny_checkpoint: TinyCheckpoint) -> None:
    model = load_muted("nano", tiny_checkpoint("nano"))
    assert type(model).__name__ == "ChatterboxTurboTTS"
    with pytest.raises(ModelUnavailableError, match="t3_turbo_v1"):
        load_muted("turbo", tiny_checkpoint("nano"))


# The mean flow


def test_a_mean_flow_with_other_encoders_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_checkpoint_with_mean_flow("chatterbox")
    read = loading._read_tensors
    changed = {"speaker_encoder.head.bn1.running_mean": 1.0, "tokenizer.quantizer._codebook.project_down.bias": 1e-3}

    def altered(file: Path) -> dict[str, torch.Tensor]:
        state = read(file)
        own = file.name == "s3gen.safetensors"
        return state | ({name: state[name] + offset for name, offset in changed.items()} if own else {})

    monkeypatch.setattr(loading, "_read_tensors", altered)
    with pytest.raises(ModelUnavailableError) as refused, patches.muted():
        load("chatterbox", folder, FlowModel.MEANFLOW)
    assert str(refused.value) == (
        f"the mean flow in {folder} does not fit chatterbox's weights in {folder}, which have another speech tokenizer "
        f"or speaker encoder: 2 tensors differ, such as {', '.join(changed)}; unset CHORUS_FLOW, or put the "
        f"s3gen_meanflow.safetensors that belongs to these weights into {folder}"
    )


def test_a_mean_flow_that_is_not_there_or_not_one(
    tiny_checkpoint: TinyCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ModelUnavailableError, match="meanflow's weights are not on this host; run: chorus models down"):
        loading._mean_flow("chatterbox", tiny_checkpoint("chatterbox"))
    for file in tiny_checkpoint("chatterbox").iterdir():
        os.link(file, tmp_path / file.name)
    os.link(tmp_path / "s3gen.safetensors", tmp_path / "s3gen_meanflow.safetensors")
    with (
        pytest.raises(ModelUnavailableError, match=r"does not load as meanflow: .*lacks .*time_embed_mixer\.weight"),
        patches.muted(),
    ):
        loading._mean_flow("chatterbox", tmp_path)


# Equality with upstream's own loading


@pytest.mark.parametrize("engine", ["turbo", "chatterbox"])
def test_the_same_speech_as_from_upstreams_own_loading(
    tiny_checkpoint: TinyCheckpoint, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    with patches.muted():
        from scripts.support import make_checkpoint

    module = VARIANTS[engine].module
    # The full size is fixed in upstream's code.
    tiny_s3gen = lambda meanflow=False: make_checkpoint._s3gen(meanflow=meanflow, tiny=True)  # noqa: E731
    monkeypatch.setattr(module, "S3Gen", tiny_s3gen)
    for name, shape in (("GPT2_medium", TINY_TURBO), ("Llama_520M", TINY_LLAMA)):
        monkeypatch.setitem(loading.LLAMA_CONFIGS, name, loading.LLAMA_CONFIGS[name] | shape)

    def generate(model: Any) -> torch.Tensor:
        torch.manual_seed(5)
        with (
            patches.muted(),
            patches.limited_decoding(patches.DecodeLimit(Cancellation(), budget=6)),
            torch.inference_mode(),
        ):
            samples: torch.Tensor = model.generate(TEXT)
        return samples

    with patches.muted(), loading.t3_width(256):
        upstream = VARIANTS[engine].upstream.from_local(tiny_checkpoint(engine), "cpu")
    own = load_muted(engine, tiny_checkpoint(engine))
    for one, other in zip(parts(upstream), parts(own), strict=True):
        tensors = other.state_dict()
        assert one.state_dict().keys() == tensors.keys()
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in one.state_dict().items())
    # In the mapped file, weights are aligned differently than in upstream's copy, so sums are rounded in another order.
    torch.testing.assert_close(generate(own), generate(upstream), rtol=0, atol=1e-6)
    for part in parts(own):
        for parameter in part.parameters():
            parameter.data = parameter.data.clone()
    assert torch.equal(generate(own), generate(upstream))
    if engine != "chatterbox":
        return
    # Upstream's class with Turbo's S3Gen in place of its own.
    folder = tiny_checkpoint_with_mean_flow(engine)
    with patches.muted():
        upstream.s3gen = module.S3Gen(meanflow=True)
        upstream.s3gen.load_state_dict(load_file(folder / "s3gen_meanflow.safetensors"))
        own = load(engine, folder, FlowModel.MEANFLOW)
    upstream.s3gen.eval()
    expected = generate(upstream)
    torch.testing.assert_close(generate(own), expected, rtol=0, atol=1e-6)
    patches.set_flow_steps(own, 1)
    assert (generate(own) - expected).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("engine", "backbone", "shape"),
    [
        ("turbo", "GPT2_medium", {}),
        ("nano", "GPT2_medium", {"n_layer": 12, "n_embd": 768, "hidden_size": 768, "n_head": 12}),
        ("chatterbox", "Llama_520M", {}),
        ("multilingual", "Llama_520M", {}),
        ("multilingual-v3", "Llama_520M", {}),
        (PACK, "Llama_520M", {}),
    ],
)
def test_the_full_shape_is_read_from_the_checkpoint(
    monkeypatch: pytest.MonkeyPatch, engine: str, backbone: str, shape: dict[str, int]
) -> None:
    variant = VARIANTS[engine]
    hp = loading.T3Config.multilingual() if variant.multilingual else loading.T3Config.english_only()
    if variant.turbo:
        hp = loading.T3Config(text_tokens_dict_size=50_276)
        hp.speech_tokens_dict_size = 6563
        hp.input_pos_emb = None
        hp.speech_cond_prompt_len = 375
        hp.use_perceiver_resampler = False
        hp.emotion_adv = False
    hp.llama_config_name = "expected"
    monkeypatch.setitem(loading.LLAMA_CONFIGS, "expected", loading.LLAMA_CONFIGS[backbone] | shape)
    with torch.device("meta"):
        expected = loading.T3(hp)
    monkeypatch.setattr(loading, "_read_tensors", lambda _: expected.state_dict())
    with torch.device("meta"):
        loaded = loading._t3(variant, Path())
    assert loaded.cfg.to_dict() == expected.cfg.to_dict()
    assert vars(loaded.hp) == vars(hp) | {"llama_config_name": variant.t3_file}
    assert loaded.hp.is_multilingual == (engine in GUARDED)
    lacking = {"tfmr.wte.weight"} if variant.turbo else set()
    assert expected.state_dict().keys() - loaded.state_dict().keys() == lacking


# Checkpoints that do not load


Spoil = Callable[[Path], None]


def cut(file: Path) -> None:
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[: len(content) // 2])


def garbage(file: Path) -> None:
    file.unlink()
    file.write_bytes(b"<!DOCTYPE html> no such page")


def empty(file: Path) -> None:
    file.unlink()
    file.touch()


def no_object(file: Path) -> None:
    file.unlink()
    file.write_text("[1, 2]")


def remove(file: Path) -> None:
    file.unlink()


def without_a_tensor(file: Path) -> None:
    state = load_file(file)
    del state["lstm.weight_ih_l0"]
    file.unlink()
    save_file(state, file)


def with_a_tensor_more(file: Path) -> None:
    state = load_file(file) | {"surplus": torch.zeros(1)}
    file.unlink()
    save_file(state, file)


def of_another_shape(file: Path) -> None:
    state = load_file(file)
    state["proj.weight"] = state["proj.weight"][:, :7].contiguous()
    file.unlink()
    save_file(state, file)


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


def malicious(file: Path) -> None:
    file.unlink()
    torch.save({"t3": {}, "gen": Malicious()}, file)


def malicious_in_the_old_format(file: Path) -> None:
    file.unlink()
    torch.save({"t3": {}, "gen": Malicious()}, file, _use_new_zipfile_serialization=False)


def another_object(file: Path) -> None:
    file.unlink()
    torch.save({"t3": {"surplus": torch.zeros(1)}, "gen": {}}, file)


def linked(folder: Path, checkpoint: Path) -> Path:
    """A folder with links to the checkpoint's files."""
    folder.mkdir()
    for file in checkpoint.iterdir():
        (folder / file.name).symlink_to(file)
    return folder


def refusal(engine: str, folder: Path) -> str:
    with pytest.raises(ModelUnavailableError) as refused:
        load_muted(engine, folder)
    message = str(refused.value)
    assert message.startswith(f"the checkpoint in {folder} does not load as {engine}: ")
    assert message.endswith(f"; `chorus models verify {engine}` checks its files")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("file", "spoil", "said"),
    [
        ("t3_turbo_v1.safetensors", cut, ""),
        ("t3_turbo_v1.safetensors", remove, "No such file"),
        ("s3gen_meanflow.safetensors", garbage, ""),
        ("ve.safetensors", empty, ""),
        ("ve.safetensors", cut, ""),
        ("ve.safetensors", without_a_tensor, "VoiceEncoder lacks lstm.weight_ih_l0"),
        ("ve.safetensors", with_a_tensor_more, "VoiceEncoder has surplus"),
        ("ve.safetensors", of_another_shape, "VoiceEncoder"),
        ("vocab.json", no_object, ""),
        ("vocab.json", remove, ""),
        ("conds.pt", garbage, ""),
        ("conds.pt", empty, ""),
        ("conds.pt", cut, ""),
        ("conds.pt", another_object, ""),
    ],
)
def test_a_damaged_file(tiny_checkpoint: TinyCheckpoint, tmp_path: Path, file: str, spoil: Spoil, said: str) -> None:
    folder = linked(tmp_path / "spoilt", tiny_checkpoint("turbo"))
    spoil(folder / file)
    assert said in refusal("turbo", folder)


@pytest.mark.parametrize("spoil", [malicious, malicious_in_the_old_format])
def test_a_voice_file_cannot_execute_code(
    tiny_checkpoint: TinyCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Spoil
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = linked(tmp_path / "spoilt", tiny_checkpoint("turbo"))
    spoil(folder / "conds.pt")
    refusal("turbo", folder)
    assert not Path("executed").exists()
    with patches.muted():
        torch.load(folder / "conds.pt", weights_only=False)
    assert Path("executed").exists(), "the file would have had no effect anyway"


@pytest.mark.parametrize("content", ['{"version": "1.0"}', "[]", "{"])
def test_a_damaged_tokenizer(tiny_checkpoint: TinyCheckpoint, tmp_path: Path, content: str) -> None:
    folder = linked(tmp_path / "spoilt", tiny_checkpoint("chatterbox"))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").write_text(content)
    refusal("chatterbox", folder)


def test_a_tokenizer_without_its_start_token(tiny_checkpoint: TinyCheckpoint, tmp_path: Path) -> None:
    folder = linked(tmp_path / "spoilt", tiny_checkpoint("chatterbox"))
    content = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").write_text(re.sub(r"\[START\]", "[BEGIN]", content))
    refusal("chatterbox", folder)


@pytest.mark.parametrize(
    ("engine", "other", "files"),
    [
        ("turbo", "chatterbox", {"t3_turbo_v1.safetensors": "t3_cfg.safetensors"}),
        ("turbo", "chatterbox", {"s3gen_meanflow.safetensors": "s3gen.safetensors"}),
        ("chatterbox", "turbo", {"t3_cfg.safetensors": "t3_turbo_v1.safetensors"}),
        ("multilingual", "turbo", {"t3_mtl23ls_v2.safetensors": "t3_turbo_v1.safetensors"}),
    ],
)
def test_a_file_of_another_engine(
    tiny_checkpoint: TinyCheckpoint, tmp_path: Path, engine: str, other: str, files: dict[str, str]
) -> None:
    folder = linked(tmp_path / "mixed", tiny_checkpoint(engine))
    for name, file in files.items():
        (folder / name).unlink()
        (folder / name).symlink_to(tiny_checkpoint(other) / file)
    refusal(engine, folder)


def test_an_original_s3gen_may_lack_and_exceed_tensors(tiny_checkpoint: TinyCheckpoint, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("chatterbox")
    complete = load_muted("chatterbox", checkpoint).s3gen.state_dict()
    folder = linked(tmp_path / "older", checkpoint)
    state = load_file(checkpoint / "s3gen.safetensors")
    for name in ("tokenizer._mel_filters", "tokenizer.window"):
        del state[name]
    state["surplus"] = torch.zeros(1)
    (folder / "s3gen.safetensors").unlink()
    save_file(state, folder / "s3gen.safetensors")
    loaded = load_muted("chatterbox", folder).s3gen.state_dict()
    assert loaded.keys() == complete.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in complete.items())


def test_weights_of_half_precision_are_converted(tiny_checkpoint: TinyCheckpoint, tmp_path: Path) -> None:
    folder = linked(tmp_path / "half", tiny_checkpoint("turbo"))
    state = load_file(folder / "ve.safetensors")
    (folder / "ve.safetensors").unlink()
    save_file({name: tensor.half() for name, tensor in state.items()}, folder / "ve.safetensors")
    encoder = load_muted("turbo", folder).ve
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert torch.equal(encoder.proj.weight, state["proj.weight"].half().float())


def test_a_checkpoint_without_a_voice_of_its_own(tiny_checkpoint: TinyCheckpoint, tmp_path: Path) -> None:
    folder = linked(tmp_path / "mute", tiny_checkpoint("turbo"))
    (folder / "conds.pt").unlink()
    assert load_muted("turbo", folder).conds is None
