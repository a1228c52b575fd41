"""The shell functions that make and keep .venv, run by bash against a python3 that only pretends."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.machine import PYTHON, Machine


class TestStamp:
    def test_the_first_run_makes_and_installs_in_a_line_each(self, machine: Machine) -> None:
        first = machine.ensure()
        assert first.returncode == 0
        assert first.stderr.splitlines() == [
            "Creating .venv",
            "Installing Chorus (first run only; about a minute)",
        ]
        assert first.stdout == ""
        assert machine.done() == ["venv", "."]

    def test_nothing_is_done_and_said_again(self, machine: Machine) -> None:
        machine.ensure()
        machine.done()
        second = machine.ensure()
        assert (second.returncode, second.stderr, machine.done()) == (0, "", [])

    def test_changed_dependencies_are_installed(self, machine: Machine) -> None:
        machine.ensure("test")
        machine.done()
        (machine.repository / "pyproject.toml").write_text("dependencies = ['numpy']\n")
        assert machine.ensure().stderr.startswith("Updating .venv")
        assert machine.done() == [".[test]"]

    def test_another_build_of_the_interpreter_is_installed_for(self, machine: Machine) -> None:
        machine.ensure()
        machine.done()
        assert machine.ensure(STUB_BUILD="3.11.9").returncode == 0
        assert machine.done() == ["."]

    def test_extras_accumulate(self, machine: Machine) -> None:
        machine.ensure()
        machine.ensure("test")
        machine.ensure()
        machine.ensure("chatterbox")
        machine.ensure("test")
        machine.ensure("chatterbox", "test")
        assert machine.done() == ["venv", ".", ".[test]", ".[chatterbox,test]"]

    def test_one_extra_is_not_another_whose_name_holds_it(self, machine: Machine) -> None:
        machine.ensure("tests")
        machine.ensure("test")
        assert machine.done() == ["venv", ".[tests]", ".[test,tests]"]


class TestInterrupted:
    def test_a_failed_install_leaves_no_stamp_and_gives_its_exit_code(self, machine: Machine) -> None:
        failed = machine.ensure(STUB_PIP_EXIT="7", STUB_PIP_SAYS="ERROR: the last line")
        assert failed.returncode == 7
        assert "ERROR: the last line" in failed.stderr
        assert not (machine.venv / ".stamp").exists()

    def test_an_update_that_fails_takes_the_stamp_away(self, machine: Machine) -> None:
        machine.ensure()
        assert machine.ensure("test", STUB_PIP_EXIT="1").returncode == 1
        assert not (machine.venv / ".stamp").exists()
        machine.done()
        assert machine.ensure().returncode == 0
        assert machine.done() == ["."]

    def test_what_failed_before_it_changed_anything_is_not_made_anew(self, machine: Machine) -> None:
        machine.ensure(STUB_PIP_EXIT="1", STUB_PIP_SAYS="Collecting numpy")
        machine.done()
        machine.ensure()
        assert machine.done() == ["."]

    def test_what_failed_half_way_is_made_anew(self, machine: Machine) -> None:
        machine.ensure(STUB_PIP_EXIT="1", STUB_PIP_SAYS="Installing collected packages: numpy")
        machine.done()
        again = machine.ensure()
        assert again.stderr.splitlines()[0] == "Rebuilding .venv: the last install into it was cut short"
        assert machine.done() == ["venv", "."]

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_a_killed_install_is_made_anew(self, machine: Machine, gate: Path, number: int) -> None:
        with machine.start(STUB_GATE=str(gate)) as process:
            assert gate.read_text() == "ready\n"
            os.killpg(process.pid, number)
            assert process.wait(timeout=30) != 0
        assert not (machine.venv / ".stamp").exists()
        machine.done()
        assert machine.ensure().stderr.startswith("Rebuilding .venv")
        assert machine.done() == ["venv", "."]

    def test_two_at_once_take_turns(self, machine: Machine, gate: Path) -> None:
        with machine.start(STUB_GATE=str(gate)) as first:
            assert gate.read_text() == "ready\n"
            with machine.start() as second:
                assert second.stderr
                assert second.stderr.readline() == "Waiting for another install into .venv\n"
                gate.write_text("go on\n")
                assert first.wait(timeout=30) == 0
                assert second.wait(timeout=30) == 0
        assert machine.done() == ["venv", "."]


class TestUnusable:
    def test_a_moved_repository(self, machine: Machine) -> None:
        machine.ensure("test")
        machine.done()
        old = machine.venv
        machine.repository = machine.repository.rename(machine.repository.with_name("elsewhere"))
        moved = machine.ensure("test")
        assert moved.stderr.splitlines()[0] == f"Rebuilding .venv: it was made for {old}"
        assert machine.done() == ["venv", ".[test]"]

    @pytest.mark.parametrize(
        "breakage",
        [
            lambda python: python.unlink(),
            lambda python: python.write_text("#!/no/such/interpreter\n"),
        ],
    )
    def test_a_broken_interpreter(self, machine: Machine, breakage: Callable[[Path], object]) -> None:
        machine.ensure()
        machine.done()
        breakage(machine.venv / "bin" / "python")
        again = machine.ensure()
        assert again.returncode == 0
        assert again.stderr.splitlines()[0] == "Rebuilding .venv: its Python does not work any more"
        assert machine.done() == ["venv", "."]

    def test_one_made_by_hand_is_kept(self, machine: Machine) -> None:
        machine.venv.mkdir()
        machine.run("make_venv")
        (machine.venv / ".unfinished").unlink()
        machine.done()
        assert machine.ensure("test").returncode == 0
        assert machine.done() == [".[test]"]


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
        assert machine.done() == []

    def test_an_old_python_where_a_newer_package_exists(self, machine: Machine) -> None:
        machine.program("apt-cache", '#!/usr/bin/env bash\n[[ $2 == python3.11-venv ]] && echo "Package: $2"\n')
        old = machine.ensure(STUB_VERSION="3.10")
        assert "    sudo apt-get install -y python3.11 python3.11-venv\n" in old.stderr

    def test_a_newer_one_beside_the_old(self, machine: Machine) -> None:
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

    def test_little_space_is_told_before(self, machine: Machine) -> None:
        (machine.programs / "df").unlink()
        machine.program("df", "#!/usr/bin/env bash\nprintf 'Avail\\n  120\\n'\n")
        assert "Only 120 MB are free here" in machine.ensure().stderr


class TestLibraries:
    def test_a_missing_library_is_told_as_its_package(self, machine: Machine) -> None:
        said = "ImportError: libgomp.so.1: cannot open shared object file: No such file or directory"
        failed = machine.ensure(STUB_IMPORT_SAYS=said)
        assert failed.returncode == 1
        assert "    sudo apt-get install -y libgomp1\n" in failed.stderr
        assert not (machine.venv / ".stamp").exists()
        machine.done()
        assert machine.ensure().returncode == 0
        assert machine.done() == ["."]

    def test_an_unknown_library_is_searched_for(self, machine: Machine) -> None:
        failed = machine.ensure(
            STUB_IMPORT_SAYS="ImportError: libodd-2.0.so.7: cannot open shared object file: No such"
        )
        assert failed.returncode == 1
        assert "apt-file search libodd-2.0.so.7" in failed.stderr

    def test_another_failure_to_load_is_shown(self, machine: Machine) -> None:
        failed = machine.ensure(STUB_IMPORT_SAYS="RuntimeError: this processor lacks AVX2")
        assert failed.returncode == 1
        assert "numpy was installed but does not load:\nRuntimeError: this processor lacks AVX2" in failed.stderr

    def test_what_is_no_longer_a_dependency_is_not_missed(self, machine: Machine) -> None:
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
