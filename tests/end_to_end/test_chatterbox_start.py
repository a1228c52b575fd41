"""How the Chatterbox engines start, each from the hub's cache without a network, and what is said where they cannot."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from balancer.host.processes import free_port
from scripts.support.recogniser import audio_seconds
from tests.end_to_end.conftest import CHORUS, MODEL_TIMEOUT, Home, post_tts, start_model, synthesize
from tests.support.checkpoint_files import write
from tests.support.harness import ROOT, environment, start_balancer, wait_until
from tests.support.real_worker import start_worker, worker_options
from tests.support.tiny_models import TinyCheckpoint
from worker.checkpoints.catalogue import CHECKPOINTS
from worker.contract import Phase

TURBO = CHECKPOINTS["turbo"]
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
DOWNLOAD = "chorus models download turbo"


@pytest.fixture
def partial_weights(tmp_path: Path) -> Path:
    folder = write(TURBO, tmp_path / "partial")
    (folder / "merges.txt").unlink()
    return folder


@pytest.fixture
def damaged_weights(tmp_path: Path) -> Path:
    folder = write(TURBO, tmp_path / "damaged")
    content = (folder / "ve.safetensors").read_bytes()
    (folder / "ve.safetensors").write_bytes(content[: len(content) // 2])
    return folder


@pytest.fixture
def without_extra(tmp_path: Path) -> dict[str, str]:
    """What makes a process one in which the package of these engines is not installed."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text('import sys\nsys.modules["chatterbox"] = None\n')
    return {"PYTHONPATH": str(tmp_path / "site")}


def refusal(variables: dict[str, str], *options: object, code: int = os.EX_CONFIG) -> str:
    """The one line that `chorus serve --engine turbo` ends with."""
    command = [str(CHORUS), "serve", "--engine", "turbo", "--port", str(free_port()), *map(str, options)]
    ended = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=ROOT, env=environment() | variables
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    return ended.stderr.strip()


def test_without_the_extra_it_says_what_to_install(without_extra: dict[str, str]) -> None:
    assert refusal(without_extra) == (
        "chorus: engine turbo needs the extra `chatterbox`, which is not installed; "
        "run: scripts/serve --engine turbo, or: pip install -e '.[chatterbox]'"
    )


def test_without_weights_and_network_it_says_what_it_needed(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    message = refusal({"HF_HUB_CACHE": str(tmp_path), "HF_ENDPOINT": nowhere, "NO_PROXY": "127.0.0.1"}, code=1)
    assert message.startswith("chorus: cannot download turbo's weights (ResembleAI/chatterbox-turbo at revision ")
    assert "is this host online?" in message


def test_a_hub_that_is_switched_off_is_no_riddle(tmp_path: Path) -> None:
    message = refusal({"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}, code=1)
    assert message.startswith("chorus: ")
    assert "HF_HUB_OFFLINE" in message


def test_weights_that_lack_a_file_are_refused_at_once(partial_weights: Path) -> None:
    message = refusal({}, "--model-dir", partial_weights)
    assert message.startswith(f"chorus: turbo's weights in {partial_weights} lack merges.txt; ")
    assert message.endswith(DOWNLOAD)


def test_damaged_weights_are_refused_at_once(damaged_weights: Path) -> None:
    message = refusal({}, "--model-dir", damaged_weights)
    assert message.startswith(f"chorus: turbo's weights in {damaged_weights} are damaged: ve.safetensors has ")
    assert message.endswith(DOWNLOAD)


@pytest.mark.parametrize("runtime", ["batched", "stock"])
def test_weights_of_another_engine_are_refused_at_once(
    tmp_path: Path, tiny_checkpoint: TinyCheckpoint, runtime: str
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for file in tiny_checkpoint("turbo").iterdir():
        os.link(file, folder / file.name)
    (folder / "t3_turbo_v1.safetensors").unlink()
    os.link(tiny_checkpoint("chatterbox") / "t3_cfg.safetensors", folder / "t3_turbo_v1.safetensors")
    message = refusal({}, "--model-dir", folder, "--runtime", runtime)
    assert message.startswith(
        f"chorus: the weights in {folder} are not turbo's: t3_turbo_v1.safetensors has no tensor tfmr.h.0.attn"
    )
    assert message.endswith(DOWNLOAD)


@pytest.mark.parametrize("slots", [64, 48])
def test_a_refusal_for_lack_of_memory_has_the_numbers(
    tmp_path: Path, tiny_checkpoint: TinyCheckpoint, slots: int
) -> None:
    message = refusal({}, "--model-dir", tiny_checkpoint("turbo"), "--slots", slots, "--workers", "1000")
    assert message.startswith(f"chorus: 1000 workers of {slots} slots would need ")
    assert " per slot, " in message
    assert " available, " in message
    assert "request at most " in message or "free memory or run a smaller engine" in message


@pytest.mark.parametrize("fault", ["partial", "damaged", "other", "no extra"])
def test_a_worker_that_cannot_load_says_why_to_whoever_asks(
    run_dir: Path, tmp_path: Path, fault: str, request: pytest.FixtureRequest
) -> None:
    variables: dict[str, Any] = {}
    model_dir = tmp_path / "model"
    match fault:
        case "partial" | "damaged":
            model_dir = request.getfixturevalue(f"{fault}_weights")
            expected = f"turbo's weights in {model_dir} "
        case "other":
            write(TURBO, model_dir)  # whole files, of nothing that this engine could be made of
            expected = f"the checkpoint in {model_dir} does not load as turbo: "
        case _:
            variables = request.getfixturevalue("without_extra")
            expected = "engine turbo needs the extra `chatterbox`"
    with (
        start_worker(worker_options(run_dir, "turbo", model_dir=model_dir), **variables) as worker,
        start_balancer(run_dir, ready=0, engine="turbo", recovery_seconds=0) as url,
    ):
        wait_until(lambda: worker.state().phase is Phase.FAILED, timeout=MODEL_TIMEOUT)
        wait_until(lambda: httpx.get(f"{url}/health").json()["workers"][0]["phase"] == "failed")
        ready = httpx.get(f"{url}/ready")
        assert ready.status_code == 503
        reason = ready.json()["reason"]
        assert reason.startswith(f"no worker can load its model: {expected}")
        assert "; run: " in reason or "chorus models" in reason
        health = httpx.get(f"{url}/health")
        assert health.status_code == 503
        assert health.json()["workers"][0]["reason"] == reason.removeprefix("no worker can load its model: ")
        answer = httpx.post(f"{url}/tts", json={"text": "Hi."})
        assert answer.status_code == 503
        assert expected in answer.json()["error"]["message"]


@pytest.fixture
def no_network() -> Iterator[dict[str, str]]:
    """What sends every connection beyond this host to a socket that notices it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield {"HF_ENDPOINT": address, "NO_PROXY": "", "no_proxy": ""} | dict.fromkeys(PROXIES, address)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def hub_cache(engine: str, weights: Path, hub: Path) -> Path:
    """The hub's cache as its library lays it out: links, in a folder for the revision, to blobs."""
    checkpoint = CHECKPOINTS[engine]
    repository = hub / f"models--{checkpoint.repository.replace('/', '--')}"
    snapshot = repository / "snapshots" / checkpoint.revision
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for file in weights.iterdir():
        blob = hashlib.sha256(file.name.encode()).hexdigest()  # a start does not read gigabytes to compare checksums
        os.link(file, repository / "blobs" / blob)
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", blob))
    return snapshot


@pytest.mark.parametrize("engine", ["turbo", "chatterbox", "nano", "multilingual", "multilingual-v3"])
def test_each_engine_starts_from_the_hubs_cache_without_a_network_and_speaks(
    engine: str, tiny_checkpoint: TinyCheckpoint, home: Home, tmp_path: Path, no_network: dict[str, str]
) -> None:
    snapshot = hub_cache(engine, tiny_checkpoint(engine), tmp_path / "hub")
    variables = no_network | {"HF_HUB_CACHE": str(tmp_path / "hub")}
    # Turbo's worker has the threads of this host. The layers of the others are too small for more than one: with two,
    # Multilingual takes twice the processor time.
    threads = () if engine == "turbo" else ("--threads", "1")
    with start_model(engine, home, *threads, variables=variables, runtime="stock") as chorus:
        assert chorus.workers()[0]["model"] == f"{engine} from {snapshot}"
        assert httpx.get(f"{chorus.url}/v1/models").json()["data"][0]["id"] == engine
        if engine.startswith("multilingual"):
            assert audio_seconds(synthesize(chorus, "Oui.", language="fr")) > 2
            answer = post_tts(chorus, "Hi.", language="xx")
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "language")
        if engine == "multilingual-v3":
            return
        audio = tmp_path / "hi.wav"
        command = [str(CHORUS), "say", "Hi.", "--url", chorus.url, "--seed", "7", "-o", str(audio)]
        subprocess.run(command, check=True, cwd=ROOT, env=environment(), capture_output=True)
        assert audio_seconds(audio.read_bytes()) > 2
