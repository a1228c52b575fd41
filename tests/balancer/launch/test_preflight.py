"""What keeps `chorus serve` from starting."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from balancer.host.processes import free_port
from balancer.launch import preflight
from balancer.launch.plan import choose_layout
from balancer.launch.preflight import LaunchError, TransientLaunchError, check
from balancer.runtime.repository import REPOSITORY
from tests.support.harness import ROOT, environment
from tests.support.launch import settings_in
from worker.cards import CARDS
from worker.precision import Processor

KEY = "0123456789abcdef"


def refusal(folder: Path, **settings: object) -> str:
    with pytest.raises(LaunchError) as caught:
        check(settings_in(folder, **settings))
    return str(caught.value)


# Exposure


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_on_loopback_no_key_is_needed(folder: Path, host: str) -> None:
    check(settings_in(folder, host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "speech.example"])
def test_beyond_loopback_keys_are_needed_and_the_alternatives_are_named(folder: Path, host: str) -> None:
    message = refusal(folder, host=host)
    assert f"refusing to listen on {host} without API keys" in message
    assert "export CHORUS_API_KEYS=$(openssl rand -hex 32)" in message
    assert "--host 127.0.0.1" in message
    assert "--allow-anonymous" in message
    assert not (folder / "run").exists(), "the run directory was created before the refusal"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("content", ["{", '{"keys": [{"name": "shop", "digest": "0"}]}'])
def test_a_keys_file_with_a_fault_is_refused_with_the_reason(folder: Path, host: str, content: str) -> None:
    settings = settings_in(folder, host=host)
    settings.keys_path.parent.mkdir(parents=True, exist_ok=True)
    settings.keys_path.write_text(content)
    message = refusal(folder, host=host)
    assert str(settings.keys_path) in message
    assert "mend the file" in message


@pytest.mark.parametrize("setting", ["data_dir", "cache_dir"])
@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_folder_that_is_a_file_is_refused(folder: Path, setting: str, below: str) -> None:
    (folder / "file").touch()
    message = refusal(folder, **{setting: folder / "file" / below})
    assert f"{folder / 'file'} is not a folder" in message
    assert f"CHORUS_{setting.upper()}" in message


@pytest.mark.parametrize("settings", [{"api_keys": KEY}, {"allow_anonymous": True}, {"allow_anonymous": "true"}])
def test_with_a_key_or_with_leave_it_listens_beyond_loopback(folder: Path, settings: dict[str, object]) -> None:
    check(settings_in(folder, host="0.0.0.0", **settings))


def test_false_is_no_leave(folder: Path) -> None:
    assert "refusing" in refusal(folder, host="0.0.0.0", allow_anonymous="false")


# The run directory


def test_the_run_directory_is_made_for_its_owner_alone(folder: Path) -> None:
    settings = settings_in(folder, run_dir=folder / "a" / "b")
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
    settings = settings_in(folder)
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
    assert "cannot create the run directory" in refusal(folder)


@pytest.mark.parametrize("below", ["run", "run/deeper"])
def test_a_file_is_no_run_directory(folder: Path, below: str) -> None:
    (folder / "run").write_text("")
    message = refusal(folder, run_dir=folder / below)
    assert f"cannot create the run directory {folder / below}: " in message
    assert "CHORUS_RUN_DIR" in message


@pytest.mark.parametrize(("over", "fits"), [(0, True), (1, False)])
def test_the_longest_socket_must_fit(folder: Path, over: int, fits: bool) -> None:
    # The last worker that may be, before its socket takes the place of an earlier one, with the longest process id.
    room = 107 - len("/worker-1023.sock.4194304")
    name = "x" * (room - len(os.fsencode(folder)) - 1 + over)
    settings = settings_in(folder, run_dir=folder / name)
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
    assert message.startswith(f"a Chorus already runs with the run directory {supervisor.parent};")
    assert "--port" in message


def test_the_socket_of_a_dead_server_does_no_harm(folder: Path) -> None:
    (folder / "run").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "run" / "supervisor.sock"))
    check(settings_in(folder))


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
    check(settings_in(folder, port=port))


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
    check(settings_in(folder, voices_dir=voices))


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
    assert "default/voice.toml" in message


def test_a_default_voice_that_the_engine_cannot_speak(folder: Path, voices: Path) -> None:
    describe(voices, "default", 'engine = "other"')
    assert refusal(folder, voices_dir=voices) == f"engine hibari does not support the voice `default` in {voices}"


def test_default_may_be_an_alias(folder: Path, tmp_path: Path) -> None:
    describe(tmp_path, "narrator", 'engine = "*"', 'aliases = ["default"]')
    check(settings_in(folder, voices_dir=tmp_path))


def test_another_voice_may_be_broken(folder: Path, voices: Path) -> None:
    describe(voices, "broken")
    check(settings_in(folder, voices_dir=voices))


def test_a_balancer_started_by_hand_needs_keys_as_well(folder: Path) -> None:
    environ = environment(host="0.0.0.0", port=free_port(), run_dir=folder)
    balancer = subprocess.run(
        [sys.executable, "-m", "balancer"], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert balancer.returncode == os.EX_CONFIG, "which supervisord does not start again"
    assert "refusing to listen on 0.0.0.0 without API keys" in balancer.stderr


# The engine and the processor


def test_an_engine_without_its_libraries(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "missing_extra", lambda card: f"{card.name} needs something")
    assert refusal(folder, engine="turbo") == "turbo needs something"
    assert not (folder / "run").exists(), "the run directory was created before the refusal"


FAMILY = ", ".join(name for name, card in CARDS.items() if card.batched is not None)


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
def test_unsupported_settings_of_the_engine_are_refused(
    folder: Path, settings: dict[str, object], message: str
) -> None:
    assert refusal(folder, **settings) == message
    assert not (folder / "run").exists(), "the run directory was created before the refusal"
    with pytest.raises(LaunchError) as caught:
        choose_layout(settings_in(folder, **settings))
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
def test_supported_ones_are_not(folder: Path, settings: dict[str, object]) -> None:
    check(settings_in(folder, **settings))


def test_an_old_processor_supports_fp32_only(folder: Path, ice_lake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "detect_processor", lambda: Processor("an old one", frozenset()))
    check(settings_in(folder, engine="turbo"))
    assert "choose fp32 (CHORUS_PRECISION" in refusal(folder, engine="turbo", precision="int8")


@pytest.mark.parametrize(("host", "kind"), [("192.0.2.1", TransientLaunchError), (f"{'a' * 64}.example", LaunchError)])
def test_what_is_no_host_name_is_not_tried_again_and_an_address_that_may_come_is(
    folder: Path, host: str, kind: type[LaunchError]
) -> None:
    with pytest.raises(LaunchError) as refused:
        check(settings_in(folder, host=host, allow_anonymous="true"))
    assert type(refused.value) is kind
