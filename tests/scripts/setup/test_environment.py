"""The shell functions that create and update .venv, run by bash with a stub in place of python3."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.machine import PYTHON, Machine


class TestStamp:
    def test_the_first_run_prints_a_line_for_each_of_its_two_steps(self, machine: Machine) -> None:
        first = machine.ensure()
        assert first.returncode == 0
        assert first.stderr.splitlines() == [
            "Creating .venv",
            "Installing Chorus (first run only; about a minute)",
        ]
        assert first.stdout == ""
        assert machine.recorded_calls() == ["venv", "."]

    def test_the_second_run_does_and_prints_nothing(self, machine: Machine) -> None:
        machine.ensure()
        machine.recorded_calls()
        second = machine.ensure()
        assert (second.returncode, second.stderr, machine.recorded_calls()) == (0, "", [])

    def test_changed_dependencies_are_installed(self, machine: Machine) -> None:
        machine.ensure("test")
        machine.recorded_calls()
        (machine.repository / "pyproject.toml").write_text("dependencies = ['numpy']\n")
        assert machine.ensure().stderr.startswith("Updating .venv")
        assert machine.recorded_calls() == [".[test]"]

    def test_another_build_of_the_interpreter_installs_again(self, machine: Machine) -> None:
        machine.ensure()
        machine.recorded_calls()
        assert machine.ensure(STUB_BUILD="3.11.9").returncode == 0
        assert machine.recorded_calls() == ["."]

    def test_extras_accumulate(self, machine: Machine) -> None:
        machine.ensure()
        machine.ensure("test")
        machine.ensure()
        machine.ensure("chatterbox")
        machine.ensure("test")
        machine.ensure("chatterbox", "test")
        assert machine.recorded_calls() == ["venv", ".", ".[test]", ".[chatterbox,test]"]

    def test_an_extra_is_not_one_whose_name_contains_it(self, machine: Machine) -> None:
        machine.ensure("tests")
        machine.ensure("test")
        assert machine.recorded_calls() == ["venv", ".[tests]", ".[test,tests]"]


def test_bytecode_is_kept_also_where_the_environment_forbids_it(machine: Machine) -> None:
    told = machine.run("env", PYTHONDONTWRITEBYTECODE="1")
    assert "STUB_CALLS=" in told.stdout
    assert "PYTHONDONTWRITEBYTECODE" not in told.stdout


class TestInterrupted:
    def test_a_failed_install_leaves_no_stamp_and_exits_with_its_code(self, machine: Machine) -> None:
        failed = machine.ensure(STUB_PIP_EXIT="7", STUB_PIP_SAYS="ERROR: the last line")
        assert failed.returncode == 7
        assert "ERROR: the last line" in failed.stderr
        assert not (machine.venv / ".stamp").exists()

    def test_a_failed_update_removes_the_stamp(self, machine: Machine) -> None:
        machine.ensure()
        assert machine.ensure("test", STUB_PIP_EXIT="1").returncode == 1
        assert not (machine.venv / ".stamp").exists()
        machine.recorded_calls()
        assert machine.ensure().returncode == 0
        assert machine.recorded_calls() == ["."]

    def test_an_install_that_fails_before_it_changes_files_needs_no_new_venv(self, machine: Machine) -> None:
        machine.ensure(STUB_PIP_EXIT="1", STUB_PIP_SAYS="Collecting numpy")
        machine.recorded_calls()
        machine.ensure()
        assert machine.recorded_calls() == ["."]

    def test_an_install_that_fails_half_way_needs_a_new_venv(self, machine: Machine) -> None:
        machine.ensure(STUB_PIP_EXIT="1", STUB_PIP_SAYS="Installing collected packages: numpy")
        machine.recorded_calls()
        again = machine.ensure()
        assert again.stderr.splitlines()[0] == "Rebuilding .venv: the last install into it was interrupted"
        assert machine.recorded_calls() == ["venv", "."]

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_a_killed_install_needs_a_new_venv(self, machine: Machine, gate: Path, number: int) -> None:
        with machine.start(STUB_GATE=str(gate)) as process:
            assert gate.read_text() == "ready\n"
            os.killpg(process.pid, number)
            assert process.wait(timeout=30) != 0
        assert not (machine.venv / ".stamp").exists()
        machine.recorded_calls()
        assert machine.ensure().stderr.startswith("Rebuilding .venv")
        assert machine.recorded_calls() == ["venv", "."]

    def test_a_concurrent_install_waits(self, machine: Machine, gate: Path) -> None:
        with machine.start(STUB_GATE=str(gate)) as first:
            assert gate.read_text() == "ready\n"
            with machine.start() as second:
                assert second.stderr
                assert second.stderr.readline() == "Waiting for another install into .venv\n"
                gate.write_text("go on\n")
                assert first.wait(timeout=30) == 0
                assert second.wait(timeout=30) == 0
        assert machine.recorded_calls() == ["venv", "."]


class TestUv:
    def test_it_installs_where_it_is_to_be_had(self, machine: Machine) -> None:
        assert machine.ensure("test", STUB_NO_UV="0").returncode == 0
        assert machine.recorded_calls() == ["venv", "uv --editable .[test]"]
        assert (machine.venv / ".stamp").exists()

    def test_it_takes_packages_from_pips_index_within_its_constraints(self, machine: Machine) -> None:
        config = (
            "global.index-url='https://mirror/simple'\\n"
            ":env:.extra-index-url='file:///copies'\\n"
            "global.timeout='180'\\n"
            "install.constraint='/etc/limits.txt'\\n"
        )
        machine.ensure(STUB_NO_UV="0", STUB_PIP_CONFIG=config)
        assert machine.recorded_calls()[-1] == (
            "uv --index-url https://mirror/simple --constraint /etc/limits.txt --editable ."
        )

    def test_pip_installs_what_it_cannot(self, machine: Machine) -> None:
        assert machine.ensure(STUB_NO_UV="0", STUB_UV_EXIT="2").returncode == 0
        assert machine.recorded_calls() == ["venv", "uv --editable .", "."]

    def test_pip_explains_what_neither_can(self, machine: Machine) -> None:
        failed = machine.ensure(STUB_NO_UV="0", STUB_UV_EXIT="2", STUB_PIP_EXIT="7", STUB_PIP_SAYS="ERROR: no such")
        assert failed.returncode == 7
        assert "ERROR: no such" in failed.stderr


class TestUnusable:
    def test_a_moved_repository(self, machine: Machine) -> None:
        machine.ensure("test")
        machine.recorded_calls()
        old = machine.venv
        machine.repository = machine.repository.rename(machine.repository.with_name("elsewhere"))
        moved = machine.ensure("test")
        assert moved.stderr.splitlines()[0] == f"Rebuilding .venv: it was made for {old}"
        assert machine.recorded_calls() == ["venv", ".[test]"]

    @pytest.mark.parametrize(
        "breakage",
        [
            lambda python: python.unlink(),
            lambda python: python.write_text("#!/no/such/interpreter\n"),
        ],
    )
    def test_a_broken_interpreter(self, machine: Machine, breakage: Callable[[Path], object]) -> None:
        machine.ensure()
        machine.recorded_calls()
        breakage(machine.venv / "bin" / "python")
        again = machine.ensure()
        assert again.returncode == 0
        assert again.stderr.splitlines()[0] == "Rebuilding .venv: its Python does not work"
        assert machine.recorded_calls() == ["venv", "."]

    def test_a_venv_made_by_hand_is_kept(self, machine: Machine) -> None:
        machine.venv.mkdir()
        machine.run("make_venv")
        (machine.venv / ".unfinished").unlink()
        machine.recorded_calls()
        assert machine.ensure("test").returncode == 0
        assert machine.recorded_calls() == [".[test]"]


class TestSystem:
    def test_no_python(self, machine: Machine) -> None:
        (machine.programs / "python3").unlink()
        missing = machine.ensure()
        assert missing.returncode == 1
        assert "    sudo apt-get install -y python3 python3-venv\n" in missing.stderr

    def test_an_old_python(self, machine: Machine) -> None:
        old = machine.ensure(STUB_VERSION="3.9")
        assert old.returncode == 1
        assert "python3 here is 3.9" in old.stderr
        assert machine.recorded_calls() == []

    def test_an_old_python_where_a_newer_package_exists(self, machine: Machine) -> None:
        machine.program("apt-cache", '#!/usr/bin/env bash\n[[ $2 == python3.11-venv ]] && echo "Package: $2"\n')
        old = machine.ensure(STUB_VERSION="3.10")
        assert "    sudo apt-get install -y python3.11 python3.11-venv\n" in old.stderr

    def test_a_newer_python_beside_an_old_one(self, machine: Machine) -> None:
        machine.program("python3.12", PYTHON.replace("STUB_VERSION:-3.11", "STUB_NEWER:-3.12"))
        assert machine.ensure(STUB_VERSION="3.9").returncode == 0
        assert "python3.12 -m venv" in (machine.venv / "pyvenv.cfg").read_text()

    def test_no_venv_module(self, machine: Machine) -> None:
        bare = machine.ensure(STUB_VENV_EXIT="1")
        assert bare.returncode == 1
        assert bare.stderr.endswith("    sudo apt-get install -y python3-venv\n")

    def test_no_venv_module_of_a_versioned_python(self, machine: Machine) -> None:
        (machine.programs / "python3").unlink()
        machine.program("python3.12")
        bare = machine.ensure(STUB_VERSION="3.12", STUB_VENV_EXIT="1")
        assert bare.stderr.endswith("    sudo apt-get install -y python3.12-venv\n")

    def test_root_needs_no_sudo(self, machine: Machine) -> None:
        machine.program("id", "#!/usr/bin/env bash\necho 0\n")
        assert machine.run("apt_line", "python3").stdout == "    apt-get install -y python3\n"

    def test_package_lists_never_fetched(self, machine: Machine) -> None:
        (machine.lists / "bookworm_Packages").unlink()
        line = machine.run("apt_line", "python3").stdout
        assert line == "    sudo apt-get update && sudo apt-get install -y python3\n"

    def test_no_network(self, machine: Machine) -> None:
        noise = "\\n".join(f"Collecting package-{n}" for n in range(200))
        retry = "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError()'"
        failed = machine.ensure(STUB_PIP_EXIT="1", STUB_PIP_SAYS=f"{noise}\\n{retry}\\nERROR: No matching distribution")
        assert "pip install --editable '.' failed" in failed.stderr
        assert "The network is needed once" in failed.stderr
        assert "ERROR: No matching distribution" in failed.stderr
        assert len(failed.stderr.splitlines()) < 20

    def test_a_full_disk(self, machine: Machine) -> None:
        failed = machine.ensure(STUB_PIP_EXIT="1", STUB_PIP_SAYS="OSError: [Errno 28] No space left on device")
        assert "The disk is full" in failed.stderr

    def test_little_disk_space_is_reported_first(self, machine: Machine) -> None:
        (machine.programs / "df").unlink()
        machine.program("df", "#!/usr/bin/env bash\nprintf 'Avail\\n  120\\n'\n")
        assert "Only 120 MB are free" in machine.ensure().stderr


class TestLibraries:
    def test_a_missing_library_is_reported_as_its_package(self, machine: Machine) -> None:
        said = "ImportError: libgomp.so.1: cannot open shared object file: No such file or directory"
        failed = machine.ensure(STUB_IMPORT_SAYS=said)
        assert failed.returncode == 1
        assert "    sudo apt-get install -y libgomp1\n" in failed.stderr
        assert not (machine.venv / ".stamp").exists()
        machine.recorded_calls()
        assert machine.ensure().returncode == 0
        assert machine.recorded_calls() == ["."]

    def test_the_package_of_an_unknown_library_can_be_searched(self, machine: Machine) -> None:
        failed = machine.ensure(
            STUB_IMPORT_SAYS="ImportError: libodd-2.0.so.7: cannot open shared object file: No such"
        )
        assert failed.returncode == 1
        assert "apt-file search libodd-2.0.so.7" in failed.stderr

    def test_another_failure_to_load_is_shown(self, machine: Machine) -> None:
        failed = machine.ensure(STUB_IMPORT_SAYS="RuntimeError: this processor lacks AVX2")
        assert failed.returncode == 1
        assert "numpy was installed but does not load:\nRuntimeError: this processor lacks AVX2" in failed.stderr

    def test_a_module_that_is_no_longer_a_dependency_may_be_missing(self, machine: Machine) -> None:
        assert machine.ensure(STUB_IMPORT_SAYS="ModuleNotFoundError: No module named 'numpy'").returncode == 0

    @pytest.mark.parametrize(
        ("library", "package"),
        [
            ("libgomp.so.1", "libgomp1"),
            ("libstdc++.so.6", "libstdc++6"),
            ("libgcc_s.so.1", "libgcc-s1"),
            ("libatomic.so.1", "libatomic1"),
            ("libz.so.1", "zlib1g"),
        ],
    )
    def test_names(self, machine: Machine, library: str, package: str) -> None:
        said = f"OSError: {library}: cannot open shared object file: No such file or directory"
        assert machine.run("missing_library", said).stdout.strip() == library
        assert machine.run("package_of", library).stdout.strip() == package


def test_what_is_said_is_json_where_the_log_is(machine: Machine) -> None:
    messages = ['a "b" \\c', "two\nlines\tand a tab"]
    said = machine.run("say", *messages, CHORUS_LOG_FORMAT="json", SAY_LEVEL="warning")
    lines = [json.loads(line) for line in said.stderr.splitlines()]
    assert [line["message"] for line in lines] == ['a "b" \\c', "two\nlines and a tab"]
    assert {(line["process"], line["level"]) for line in lines} == {("setup", "warning")}
    assert all(line["time"].endswith("+00:00") for line in lines)
