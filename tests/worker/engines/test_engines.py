"""Loading an engine by name: what is missing is said with its mend, before anything heavy is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import ROOT, environment
from tests.support.shared_folder import with_kernels
from tests.support.tiny_models import TinyCheckpoint
from worker.cards import Runtime
from worker.checkpoints.catalogue import CHECKPOINTS
from worker.engines import load
from worker.engines.base import ModelUnavailableError
from worker.options import EngineOptions
from worker.precision import Precision

LOADED = """if True:
    import json, os, sys
    from worker.engines import load
    from worker.options import EngineOptions
    engine = load(EngineOptions.from_argv(sys.argv[1:]))
    unused = ("sklearn", "sympy", "torch._dynamo", "torch._meta_registrations", "torch.utils.checkpoint")
    unused += ("librosa.core.audio", "scipy.optimize", "scipy.signal", "scipy.stats", "transformers.models.clip")
    unused = [name for name in unused if name in sys.modules]
    import transformers.masking_utils
    with transformers.masking_utils.TransformGetItemToIndex():
        compiler = sys.modules["torch._dynamo"].__file__
    meta_kernels = sys.modules["torch._meta_registrations"].__file__
    import huggingface_hub.constants, torch, transformers.modeling_utils
    weight = torch.ones(1, requires_grad=True)
    transformers.modeling_utils.checkpoint(torch.square, weight, use_reentrant=False).backward()
    print(json.dumps({
        "engine": engine.card.name,
        "class": type(engine).__name__,
        "slots": engine.slots,
        "offline": huggingface_hub.constants.HF_HUB_OFFLINE,
        "variable": os.environ["HF_HUB_OFFLINE"],
        "threads": torch.get_num_threads(),
        "others": torch.get_num_interop_threads(),
        "hibari": any(name.startswith("worker.engines.hibari") for name in sys.modules),
        "unused": unused,
        "compiler": compiler is not None,
        "meta_kernels": meta_kernels is not None,
        "gradient": weight.grad.item(),
    }))
"""


def refusal(engine: str, model_dir: Path | None, cache_dir: Path) -> str:
    with pytest.raises(ModelUnavailableError) as refused:
        load(EngineOptions(engine, cache_dir, model_dir))
    return str(refused.value)


@pytest.mark.parametrize(
    ("changed", "kind", "slots"),
    [
        ({}, "BatchedEngine", 1),
        ({"slots": 3, "precision": Precision.INT8}, "BatchedEngine", 3),
        ({"runtime": Runtime.STOCK}, "StockEngine", 1),
    ],
)
def test_the_engine_and_nothing_from_the_network(
    tiny_checkpoint: TinyCheckpoint, tmp_path: Path, changed: dict[str, Any], kind: str, slots: int
) -> None:
    options = EngineOptions("turbo", with_kernels(tmp_path / "cache"), tiny_checkpoint("turbo"), **changed)
    variables = environment() | {"PYTHONWARNINGS": "ignore"}
    variables.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *options.argv()],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "engine": "turbo",
        "class": kind,
        "slots": slots,
        "offline": True,
        "variable": "1",
        "threads": 1,
        "others": 1,
        "hibari": False,
        "unused": [],
        "compiler": True,
        "meta_kernels": True,
        "gradient": 2.0,
    }


@pytest.mark.parametrize(
    ("engine", "changed", "expected"),
    [
        ("hibari", {"slots": 2}, "engine hibari synthesizes one utterance at a time; unset CHORUS_SLOTS (--slots), or"),
        ("hibari", {"precision": Precision.BF16}, "engine hibari computes in fp32 only; unset CHORUS_PRECISION"),
        ("nano", {"runtime": Runtime.STOCK, "slots": 2}, "engine nano in the stock runtime synthesizes one utterance"),
        ("nano", {"runtime": Runtime.STOCK, "precision": Precision.INT8}, "engine nano in the stock runtime computes"),
    ],
)
def test_unsupported_options_are_refused(tmp_path: Path, engine: str, changed: dict[str, Any], expected: str) -> None:
    with pytest.raises(ModelUnavailableError) as refused:
        load(EngineOptions(engine, tmp_path, tmp_path, **changed))
    assert str(refused.value).startswith(expected)


@pytest.mark.parametrize("engine", CHECKPOINTS)
def test_a_missing_extra(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chatterbox", None)
    assert refusal(engine, None, tmp_path) == (
        f"engine {engine} needs the extra `chatterbox`, which is not installed; "
        f"run: scripts/serve --engine {engine}, or: pip install -e '.[chatterbox]'"
    )


@pytest.mark.parametrize("engine", CHECKPOINTS)
def test_missing_weights(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    said = refusal(engine, None, tmp_path)
    assert said == f"{engine}'s weights are not on this host; run: chorus models download {engine}"


def test_a_folder_without_all_files(tiny_checkpoint: TinyCheckpoint, tmp_path: Path) -> None:
    for name in ("ve.safetensors", "merges.txt"):
        os.link(tiny_checkpoint("turbo") / name, tmp_path / name)
    said = refusal("turbo", tmp_path, tmp_path)
    assert said.startswith(f"turbo's weights in {tmp_path} lack t3_turbo_v1.safetensors, s3gen_meanflow.safetensors, ")
    assert said.endswith("run: chorus models download turbo")


def test_a_file_that_was_cut_off(tiny_checkpoint: TinyCheckpoint, tmp_path: Path) -> None:
    for file in tiny_checkpoint("turbo").iterdir():
        os.link(file, tmp_path / file.name)
    content = (tmp_path / "ve.safetensors").read_bytes()
    (tmp_path / "ve.safetensors").unlink()
    (tmp_path / "ve.safetensors").write_bytes(content[:-1])
    said = refusal("turbo", tmp_path, tmp_path)
    assert said.startswith(f"turbo's weights in {tmp_path} are damaged: ve.safetensors ")
    assert said.endswith("run: chorus models download turbo")


def test_no_folder(tmp_path: Path) -> None:
    assert f"{tmp_path / 'absent'}, does not exist" in refusal("nano", tmp_path / "absent", tmp_path)


def test_a_refusal_imports_nothing_heavy(tmp_path: Path) -> None:
    code = """if True:
        import sys
        from pathlib import Path
        from worker.engines import ModelUnavailableError, load
        from worker.options import EngineOptions
        try:
            load(EngineOptions("turbo", Path(sys.argv[1]), Path(sys.argv[1])))
        except ModelUnavailableError:
            print("torch" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
