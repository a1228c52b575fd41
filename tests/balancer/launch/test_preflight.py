"""What keeps `chorus serve` from starting, and what it hands on when nothing does."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import pytest

from balancer.cpu_lists import LayoutError, parse_cores
from balancer.host.calibration import Calibration
from balancer.host.calibration_store import save
from balancer.host.cpu_budget import Core, Host
from balancer.host.layout import Layout
from balancer.host.processes import free_port
from balancer.launch import plan, preflight
from balancer.launch import supervisor as supervisor_module
from balancer.launch.plan import choose_layout, with_weights
from balancer.launch.preflight import LaunchError, check
from balancer.launch.supervisor import become_supervisor
from balancer.settings import Settings
from balancer.settings_groups import REPOSITORY
from tests.support.checkpoint_files import write
from tests.support.harness import ROOT, environment
from worker.checkpoints.catalogue import CHECKPOINTS, Checkpoint, DownloadError
from worker.options import WorkerOptions
from worker.precision import Processor

KEY = "0123456789abcdef"
TWO = Layout(((0,), (1,)), 1, 1, ("because",))


@pytest.fixture
def folder(run_dir: Path) -> Path:
    """A place for run directories; none is there yet."""
    return run_dir


def configured(folder: Path, **settings: object) -> Settings:
    return Settings.load({}, **({"run_dir": folder / "run", "port": free_port()} | settings))


def refusal(folder: Path, **settings: object) -> str:
    with pytest.raises(LaunchError) as caught:
        check(configured(folder, **settings))
    return str(caught.value)


# Who can reach it


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_on_this_host_nobody_needs_a_key(folder: Path, host: str) -> None:
    check(configured(folder, host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "speech.example"])
def test_beyond_it_keys_are_needed_and_the_ways_out_are_told(folder: Path, host: str) -> None:
    message = refusal(folder, host=host)
    assert f"refusing to listen on {host} without API keys" in message
    assert "export CHORUS_API_KEYS=$(openssl rand -hex 32)" in message
    assert "--host 127.0.0.1" in message
    assert "--allow-anonymous" in message
    assert not (folder / "run").exists(), "something was done before the refusal"


@pytest.mark.parametrize("settings", [{"api_keys": KEY}, {"allow_anonymous": True}, {"allow_anonymous": "true"}])
def test_with_a_key_or_on_ones_own_word_it_may(folder: Path, settings: dict[str, object]) -> None:
    check(configured(folder, host="0.0.0.0", **settings))


def test_false_is_no_word(folder: Path) -> None:
    assert "refusing" in refusal(folder, host="0.0.0.0", allow_anonymous="false")


# The run directory


def test_the_run_directory_is_made_for_its_owner_alone(folder: Path) -> None:
    settings = configured(folder, run_dir=folder / "a" / "b")
    check(settings)
    assert stat.S_IMODE((folder / "a" / "b").stat().st_mode) == 0o700
    check(settings)  # finding it is as good as making it


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o770, 0o777])
def test_a_run_directory_that_others_may_open(folder: Path, mode: int) -> None:
    (folder / "run").mkdir()
    (folder / "run").chmod(mode)
    message = refusal(folder)
    assert str(folder / "run") in message
    assert "0700" in message
    assert "CHORUS_RUN_DIR" in message


def test_a_run_directory_of_somebody_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "run").mkdir(mode=0o700)
    settings = configured(folder)
    nobody = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: nobody)
    with pytest.raises(LaunchError, match="must be a folder of yours"):
        check(settings)


def test_a_symbolic_link_is_no_run_directory(folder: Path) -> None:
    (folder / "real").mkdir(mode=0o700)
    (folder / "run").symlink_to(folder / "real")
    assert "must be a folder of yours" in refusal(folder)


def test_a_dangling_link_is_none_either(folder: Path) -> None:
    (folder / "run").symlink_to(folder / "nowhere")
    assert "cannot make the run directory" in refusal(folder)


@pytest.mark.parametrize("below", ["run", "run/deeper"])
def test_a_file_is_no_run_directory(folder: Path, below: str) -> None:
    (folder / "run").write_text("")
    message = refusal(folder, run_dir=folder / below)
    assert f"cannot make the run directory {folder / below}: " in message
    assert "CHORUS_RUN_DIR" in message


@pytest.mark.parametrize(("over", "fits"), [(0, True), (1, False)])
def test_the_longest_socket_must_fit(folder: Path, over: int, fits: bool) -> None:
    # The last worker that may be, before its socket takes the place of an earlier one, with the longest process id.
    room = 107 - len("/worker-1023.sock.4194304")
    name = "x" * (room - len(os.fsencode(folder)) - 1 + over)
    settings = configured(folder, run_dir=folder / name)
    assert len(str(settings.server.socket_dir)) == room + over
    if fits:
        check(settings)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(settings.server.socket_dir / "worker-1023.sock.4194304"))
    else:
        with pytest.raises(LaunchError, match=r"too long for sockets: .*; set CHORUS_RUN_DIR"):
            check(settings)


def test_bytes_count_not_characters(folder: Path) -> None:
    assert "too long" in refusal(folder, run_dir=folder / ("é" * 40))


@pytest.fixture
def supervisor(folder: Path) -> Iterator[Path]:
    (folder / "run").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "run" / "supervisor.sock"))
        listener.listen()
        yield folder / "run" / "supervisor.sock"


def test_two_servers_do_not_share_a_run_directory(folder: Path, supervisor: Path) -> None:
    message = refusal(folder)
    assert message.startswith(f"a Chorus runs already with the run directory {supervisor.parent};")
    assert "--port" in message


def test_what_a_dead_server_left_is_in_nobodys_way(folder: Path) -> None:
    (folder / "run").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "run" / "supervisor.sock"))
    check(configured(folder))


# The port


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_port_that_is_taken(folder: Path, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        message = refusal(folder, host=host, port=port)
    assert message == f"cannot listen on {host}:{port}: Address already in use; choose another --port or --host"


def test_a_port_that_was_in_use_a_moment_ago_is_free(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            listener.accept()[0].close()
    check(configured(folder, port=port))


@pytest.mark.parametrize("host", ["192.0.2.1", "..", f"{'a' * 64}.example"])
def test_a_host_that_is_not_here(folder: Path, host: str) -> None:
    message = refusal(folder, host=host, api_keys=KEY)
    assert message.startswith(f"cannot listen on {host}:")
    assert "choose another --port or --host" in message
    assert "None" not in message


def test_a_name_that_nobody_knows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "Name or service not known; choose another" in refusal(folder, host="typo.example", api_keys=KEY)


# The voices


@pytest.fixture
def voices(tmp_path: Path) -> Path:
    (tmp_path / "default").mkdir()
    shutil.copy(REPOSITORY / "voices" / "default" / "voice.toml", tmp_path / "default")
    return tmp_path


def describe(folder: Path, name: str, *lines: str) -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "voice.toml").write_text("\n".join((f'name = "{name}"', *lines)))


def test_voices_elsewhere(folder: Path, voices: Path) -> None:
    check(configured(folder, voices_dir=voices))


def test_no_folder_of_voices(folder: Path, tmp_path: Path) -> None:
    message = refusal(folder, voices_dir=tmp_path / "none")
    assert message == f"there is no folder of voices at {tmp_path / 'none'}; set CHORUS_VOICES_DIR to one"


def test_a_folder_without_the_default_voice(folder: Path, tmp_path: Path) -> None:
    describe(tmp_path, "other", 'engine = "*"')
    message = refusal(folder, voices_dir=tmp_path)
    assert f"the voice `default` is needed in {tmp_path}" in message
    assert "there are: other" in message


def test_a_default_voice_that_is_broken(folder: Path, voices: Path) -> None:
    (voices / "default" / "voice.toml").write_text("name = ")
    message = refusal(folder, voices_dir=voices)
    assert f"the voice `default` is needed in {voices}" in message
    assert str(voices / "default" / "voice.toml") in message


def test_a_default_voice_that_the_engine_cannot_speak(folder: Path, voices: Path) -> None:
    describe(voices, "default", 'engine = "other"')
    assert refusal(folder, voices_dir=voices) == f"engine hibari cannot speak the voice `default` in {voices}"


def test_default_may_be_an_alias(folder: Path, tmp_path: Path) -> None:
    describe(tmp_path, "narrator", 'engine = "*"', 'aliases = ["default"]')
    check(configured(folder, voices_dir=tmp_path))


def test_another_voice_that_is_broken_keeps_nobody_from_starting(folder: Path, voices: Path) -> None:
    describe(voices, "broken")
    check(configured(folder, voices_dir=voices))


# The weights

TURBO = CHECKPOINTS["turbo"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where turbo's weights would lie in the hub's cache, which is empty; its libraries are installed."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(preflight, "missing_extra", lambda _: None)
    return tmp_path / "models--ResembleAI--chatterbox-turbo" / "snapshots" / TURBO.revision


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch, cache: Path) -> list[str | None]:
    """The revisions that were downloaded: a stand-in for the hub."""
    asked: list[str | None] = []

    def download(checkpoint: Checkpoint, *, revision: str | None, announce: Callable[[str], None]) -> Path:
        asked.append(revision)
        return write(checkpoint, cache.with_name(revision or checkpoint.revision))

    monkeypatch.setattr(plan, "download", download)
    return asked


def test_an_engine_without_its_libraries(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "missing_extra", lambda card: f"{card.name} needs something")
    assert refusal(folder, engine="turbo") == "turbo needs something"
    assert not (folder / "run").exists(), "something was done before the refusal"


def test_an_engine_that_comes_with_its_weights(folder: Path, tmp_path: Path) -> None:
    settings = configured(folder)
    assert with_weights(settings) == settings
    message = refusal(folder, model_dir=tmp_path)
    assert message == "engine hibari comes with its weights; unset CHORUS_MODEL_DIR (--model-dir)"


def test_weights_in_the_cache_are_taken_from_there(folder: Path, cache: Path, downloads: list[str | None]) -> None:
    write(TURBO, cache)
    settings = configured(folder, engine="turbo")
    check(settings)
    assert with_weights(settings) == settings.updated(model_dir=cache)
    assert downloads == []


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("revision", [None, "a" * 40])
def test_what_is_missing_is_downloaded_once(
    folder: Path, cache: Path, downloads: list[str | None], partial: bool, revision: str | None
) -> None:
    place = cache.with_name(revision or TURBO.revision)
    if partial:
        write(TURBO, place)
        (place / TURBO.files[0]).unlink()
    settings = configured(folder, engine="turbo", model_revision=revision)
    assert with_weights(settings).engine.model_dir == place
    assert with_weights(settings).engine.model_dir == place
    assert downloads == [revision]


def test_what_is_damaged_is_told(folder: Path, cache: Path, downloads: list[str | None]) -> None:
    write(TURBO, cache)
    (cache / TURBO.files[0]).write_bytes(b"")
    with pytest.raises(LaunchError, match=r"ve.safetensors is empty; run: chorus models download turbo"):
        with_weights(configured(folder, engine="turbo"))
    assert downloads == []


def test_a_folder_of_ones_own_is_the_only_place(
    folder: Path, cache: Path, tmp_path: Path, downloads: list[str | None]
) -> None:
    write(TURBO, cache)
    own = write(TURBO, tmp_path / "own")
    settings = configured(folder, engine="turbo", model_dir=own)
    assert with_weights(settings) == settings
    (own / TURBO.files[0]).unlink()
    with pytest.raises(LaunchError, match=f"turbo's weights in {own} lack ve.safetensors"):
        with_weights(settings)
    with pytest.raises(LaunchError, match="is not there"):
        with_weights(configured(folder, engine="turbo", model_dir=tmp_path / "nowhere"))
    assert downloads == []


def test_weights_of_another_model_under_this_ones_names_are_refused(
    folder: Path, cache: Path, tmp_path: Path, downloads: list[str | None]
) -> None:
    own = write(TURBO, tmp_path / "own")
    original = write(CHECKPOINTS["chatterbox"], tmp_path / "original")
    shutil.copy(original / "t3_cfg.safetensors", own / "t3_turbo_v1.safetensors")
    shutil.copy(original / "s3gen.safetensors", own / "s3gen_meanflow.safetensors")
    with pytest.raises(LaunchError) as caught:
        with_weights(configured(folder, engine="turbo", model_dir=own))
    assert str(caught.value) == (
        f"the weights in {own} are not turbo's: "
        "t3_turbo_v1.safetensors has no tensor tfmr.h.0.attn.c_attn.weight: it is another model's; "
        "s3gen_meanflow.safetensors has no tensor flow.decoder.estimator.time_embed_mixer.weight: "
        "it is another model's; "
        "put them there whole, or unset CHORUS_MODEL_DIR (--model-dir) and run: chorus models download turbo"
    )
    assert downloads == []


def test_a_download_that_fails(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> NoReturn:
        raise DownloadError("no answer from the hub")

    monkeypatch.setattr(plan, "download", download)
    with pytest.raises(LaunchError, match="no answer from the hub"):
        with_weights(configured(folder, engine="turbo"))


def test_the_place_of_the_weights_is_exported(
    folder: Path, cache: Path, downloads: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = with_weights(configured(folder, engine="turbo", cache_dir=folder / "computed"))
    environ = become(settings, TWO, {"CHORUS_MODEL_DIR": "elsewhere"}, monkeypatch).environ
    assert environ["CHORUS_MODEL_DIR"] == str(cache)
    assert environ["CHORUS_CACHE_DIR"] == str(folder / "computed")
    assert Settings.load(environ).engine.model_dir == cache


def test_an_engine_without_weights_gets_no_folder_of_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = become(configured(folder), TWO, {}, monkeypatch).environ
    assert "CHORUS_MODEL_DIR" not in environ
    assert "--model-dir" not in shlex.split(environ["CHORUS_WORKER_ARGV"])
    assert Path(environ["CHORUS_CACHE_DIR"]).is_absolute()
    assert Settings.load(environ).engine.model_dir is None


# The way it is run

ICE_LAKE = Processor("Ice Lake", frozenset({"avx2", "avx512f", "avx512_vnni"}))
OLD = Processor("an old one", frozenset({"avx2"}))


@pytest.fixture
def ice_lake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the tests run on, it counts as one with VNNI and without BF16; turbo's libraries are installed."""
    monkeypatch.setattr(preflight, "detect_processor", lambda: ICE_LAKE)
    monkeypatch.setattr(plan, "detect_processor", lambda: ICE_LAKE)
    monkeypatch.setattr(preflight, "missing_extra", lambda _: None)


FAMILY = "chatterbox, turbo, nano, multilingual, multilingual-v3"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"slots": 2},
            "engine hibari synthesizes one utterance at a time; unset CHORUS_SLOTS (--slots), or run one of: " + FAMILY,
        ),
        (
            {"precision": "int8"},
            "engine hibari computes in fp32 only; unset CHORUS_PRECISION (--precision), or run one of: " + FAMILY,
        ),
        (
            {"prompt_seconds": 4},
            "engine hibari cannot shorten the prompts of voices; unset CHORUS_PROMPT_SECONDS, or run one of: " + FAMILY,
        ),
        (
            {"engine": "turbo", "runtime": "stock", "slots": 2},
            "engine turbo in the stock runtime synthesizes one utterance at a time; unset CHORUS_SLOTS (--slots), "
            "or choose the batched runtime (CHORUS_RUNTIME, --runtime)",
        ),
        (
            {"engine": "nano", "runtime": "stock", "precision": "int8"},
            "engine nano in the stock runtime computes in fp32 only; unset CHORUS_PRECISION (--precision), "
            "or choose the batched runtime (CHORUS_RUNTIME, --runtime)",
        ),
        (
            {"engine": "chatterbox", "precision": "bf16"},
            "precision bf16 needs a processor with AVX512-BF16 or AMX-BF16 (on Arm: BF16), and this is Ice Lake, with "
            "AVX2, AVX-512, AVX512-VNNI: its products would be emulated, slower than fp32; choose int8 or fp32 "
            "(CHORUS_PRECISION, --precision)",
        ),
    ],
)
@pytest.mark.usefixtures("ice_lake")
def test_what_the_engine_or_the_processor_cannot_do_is_refused(
    folder: Path, settings: dict[str, object], message: str
) -> None:
    assert refusal(folder, **settings) == message
    assert not (folder / "run").exists(), "something was done before the refusal"
    with pytest.raises(LaunchError) as caught:
        choose_layout(configured(folder, **settings))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "settings",
    [
        {"runtime": "stock"},
        {"engine": "turbo", "runtime": "stock", "slots": 1},
        {"engine": "turbo", "slots": 64},
        {"engine": "multilingual", "precision": "int8"},
    ],
)
@pytest.mark.usefixtures("ice_lake")
def test_what_they_can_do_is_not(folder: Path, settings: dict[str, object]) -> None:
    check(configured(folder, **settings))


def test_an_old_processor_speaks_in_fp32(folder: Path, ice_lake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "detect_processor", lambda: OLD)
    check(configured(folder, engine="turbo"))
    assert "choose fp32 (CHORUS_PRECISION" in refusal(folder, engine="turbo", precision="int8")


# The layout


def test_a_layout_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def impossible(*_: object, **__: object) -> NoReturn:
        raise LayoutError("memory holds no worker")

    monkeypatch.setattr(plan, "plan_layout", impossible)
    with pytest.raises(LaunchError, match="memory holds no worker"):
        choose_layout(Settings())


@pytest.fixture
def roomy(ice_lake: None, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Whatever the tests run on, it counts as a host of two cores with memory for all."""
    host = Host((Core((0,), 0), Core((1,), 0)), frozenset({0, 1}), None, 256 * 2**30)
    monkeypatch.setattr(plan, "detect_topology", lambda: host)
    return host


def calibrated(settings: Settings, host: Host) -> None:
    """Keep a calibration for these settings on that host: three slots are the fastest."""
    shape = {"threads": 1, "workers": 2, "utterances": 4, "seconds": 10, "answer_seconds": 5, "worker_bytes": 1}
    measurements = [shape | {"slots": slots, "audio_seconds": audio} for slots, audio in ((1, 4), (3, 9), (8, 6))]
    held_for = plan.calibration_conditions(settings, host, plan.weights_fingerprint(settings))
    made = {"conditions": held_for, "measured_at": datetime.now(UTC), "measurements": measurements}
    save(Calibration.model_validate(made), settings.storage.cache_dir)


def test_a_calibration_of_the_same_conditions_is_gone_by(folder: Path, roomy: Host, tmp_path: Path) -> None:
    weights = write(TURBO, tmp_path / "weights")
    settings = configured(folder, engine="turbo", model_dir=weights, cache_dir=folder / "cache")
    assert choose_layout(settings).slots == 8
    calibrated(settings, roomy)
    chosen = choose_layout(settings)
    assert chosen.slots == 3
    assert (
        "3 slots per worker, from this host's calibration: 2 workers of 1 thread and 3 slots: 0.9 audio"
        in chosen.reasons[1]
    )
    assert choose_layout(settings.updated(slots=5)).slots == 5
    assert choose_layout(settings.updated(cores="0")).slots == 3


@pytest.mark.parametrize("other", ["weights", "processor", "cores", "quota"])
def test_a_calibration_of_other_conditions_is_left_aside_and_that_is_said(
    folder: Path, roomy: Host, tmp_path: Path, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = write(TURBO, tmp_path / "weights")
    settings = configured(folder, engine="turbo", model_dir=weights, cache_dir=folder / "cache")
    calibrated(settings, roomy)
    match other:
        case "weights":
            (weights / "conds.pt").unlink()
        case "processor":
            monkeypatch.setattr(plan, "detect_processor", lambda: replace(ICE_LAKE, name="Sky Lake"))
        case "cores":
            monkeypatch.setattr(plan, "detect_topology", lambda: replace(roomy, allowed=frozenset({0})))
        case "quota":
            monkeypatch.setattr(plan, "detect_topology", lambda: replace(roomy, quota=1.5))
    chosen = choose_layout(settings)
    assert chosen.slots == 8
    assert f"No calibration matches this host, which differs in {other}; run `chorus calibrate`." in chosen.reasons


@pytest.mark.parametrize("other", [{"runtime": "stock"}, {"precision": "int8"}, {"engine": "nano"}])
def test_a_calibration_of_another_way_to_run_says_nothing(
    folder: Path, roomy: Host, tmp_path: Path, other: dict[str, str]
) -> None:
    settings = configured(folder, engine="turbo", cache_dir=folder / "cache")
    calibrated(settings, roomy)
    chosen = choose_layout(Settings.load({}, **({"engine": "turbo", "cache_dir": folder / "cache"} | other)))
    assert not [
        reason for reason in chosen.reasons if "calibration matches" in reason or "host's calibration" in reason
    ]


def test_the_settings_reach_the_layout() -> None:
    layout = choose_layout(Settings.load({}, cores="0"))
    assert layout.workers == ((0,),)
    one = choose_layout(Settings.load({}, workers=1, threads=1))
    assert (len(one.workers), one.threads) == (1, 1)


# What is handed on


class Became(Exception):  # noqa: N818 - not an error: the end of this process as it was
    def __init__(self, program: str, arguments: list[str], environ: dict[str, str]) -> None:
        super().__init__(program)
        self.arguments, self.environ = arguments, environ


def become(settings: Settings, layout: Layout, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Became:
    def execve(program: str, arguments: list[str], environ: dict[str, str]) -> NoReturn:
        raise Became(program, arguments, environ)

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(supervisor_module, "_pipe_output", lambda: None)
    with pytest.raises(Became) as caught:
        become_supervisor(settings, layout, environ)
    return caught.value


@pytest.mark.parametrize(
    ("layout", "cores"),
    [
        (TWO, "0;1"),
        (Layout(((0, 1, 4),), 2, 1, ()), "0-1,4"),
        (Layout(((0, 1), (2, 3)), 2, 8, ()), "0-1;2-3"),
    ],
)
def test_the_layout_is_exported(folder: Path, layout: Layout, cores: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = become(configured(folder), layout, {}, monkeypatch).environ
    options = WorkerOptions.from_argv(["--index", "0", *shlex.split(environ["CHORUS_WORKER_ARGV"])])
    assert (options.layout, options.engine.threads, options.engine.slots) == (
        layout.workers,
        layout.threads,
        layout.slots,
    )
    assert environ["CHORUS_CORES"] == cores
    assert environ["CHORUS_WORKERS"] == str(len(layout.workers))
    assert environ["CHORUS_SLOTS"] == str(layout.slots)
    assert parse_cores(environ["CHORUS_CORES"]) == layout.workers


def test_the_balancer_reads_the_same_settings_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = configured(folder, api_keys=f"{KEY},{KEY}2", queue_limit=7, log_level="debug", host="::1")
    environ = become(settings, TWO, {"PATH": "/bin", "CHORUS_URL": "http://x"}, monkeypatch).environ
    assert environ["PATH"] == "/bin"
    assert environ["CHORUS_UID"] == str(os.getuid())
    assert Path(environ["CHORUS_PYTHON"]).is_file()
    expected = settings.updated(workers=2, cores="0;1", slots=1)
    assert Settings.load(environ) == expected


def test_the_command_line_goes_before_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = configured(folder, port=6001)
    assert become(settings, TWO, {"CHORUS_PORT": "6002"}, monkeypatch).environ["CHORUS_PORT"] == "6001"


def test_every_variable_that_supervisord_needs_is_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    became = become(configured(folder), TWO, {}, monkeypatch)
    config = Path(became.arguments[became.arguments.index("-c") + 1])
    wanted = {part.partition(")")[0] for part in config.read_text().split("%(ENV_")[1:]}
    assert wanted
    assert wanted <= became.environ.keys()


def test_folders_are_exported_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    settings = Settings.load({"CHORUS_RUN_DIR": "run", "CHORUS_VOICES_DIR": "voices"})
    environ = become(settings, TWO, {}, monkeypatch).environ
    assert environ["CHORUS_RUN_DIR"] == str(folder / "run")
    assert environ["CHORUS_VOICES_DIR"] == str(folder / "voices")


def test_sockets_of_an_earlier_layout_are_cleared_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = configured(folder)
    check(settings)
    for name in ("worker-0.sock", "worker-9.sock", "other.sock"):
        (settings.server.socket_dir / name).touch()
    become(settings, TWO, {}, monkeypatch)
    assert [path.name for path in settings.server.socket_dir.iterdir()] == ["other.sock"]


def test_a_balancer_started_by_hand_keeps_to_itself_as_well(folder: Path) -> None:
    environ = environment(host="0.0.0.0", port=free_port(), run_dir=folder)
    balancer = subprocess.run(
        [sys.executable, "-m", "balancer"], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert balancer.returncode == 1
    assert "refusing to listen on 0.0.0.0 without API keys" in balancer.stderr
