"""The choice of the index for PyTorch, with servers on loopback as its index, and a stub in place of pip."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.machine import Machine

CPU_PAIR = "torch==2.6.0+cpu\\ntorchaudio==2.6.0+cpu\\n"
PYPI_PAIR = "torch==2.6.0\\ntorchaudio==2.6.0\\n"
BROKEN = "WARNING: Retrying (Retry(total=0)) after connection broken by 'ReadTimeoutError()'"
REFUSED = "ERROR: HTTP error 403 while getting https://index/torch-2.6.0+cpu.whl"
CUT = "ERROR: Wheel 'torch' located at /tmp/torch-2.6.0+cpu.whl is invalid."
CHANGED = "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE."


@contextmanager
def serving(pages: dict[str, int]) -> Iterator[str]:
    """An index on loopback that answers these statuses for its pages and 404 for others; gives its URL."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(pages.get(self.path, 404))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/cpu"
        server.shutdown()
        thread.join()


@pytest.fixture
def online(machine: Machine) -> Machine:
    """A machine whose Python really fetches pages."""
    machine.urllib = sys.executable
    return machine


@pytest.fixture
def index(online: Machine) -> Iterator[str]:
    """An index of CPU builds that answers."""
    with serving({"/cpu/torch/": 200, "/cpu/torchaudio/": 200}) as online.index:
        yield online.index


class TestChoice:
    def test_the_index_of_cpu_builds_if_it_answers(self, machine: Machine, index: str) -> None:
        installed = machine.ensure("chatterbox")
        assert installed.returncode == 0
        assert installed.stderr.splitlines() == [
            "Creating .venv",
            "Installing Chorus (first run only; two to five minutes)",
            f"PyTorch comes from its index of CPU builds, {index}: about 1 GB.",
        ]
        assert machine.recorded_calls() == ["venv", f"from {index} .[chatterbox]"]

    def test_only_for_the_extra_that_needs_it(self, machine: Machine, index: str) -> None:
        assert "PyTorch" not in machine.ensure("test").stderr
        assert machine.recorded_calls() == ["venv", ".[test]"]
        updated = machine.ensure("chatterbox")
        assert "Updating .venv (pyproject.toml or the required extras changed; two to five minutes)" in updated.stderr
        assert machine.recorded_calls() == [f"from {index} .[chatterbox,test]"]

    @pytest.mark.parametrize("missing", ["torch", "torchaudio"])
    def test_pypi_if_the_index_lacks_a_package(self, online: Machine, missing: str) -> None:
        pages = {"/cpu/torch/": 200, "/cpu/torchaudio/": 200} | {f"/cpu/{missing}/": 403}
        with serving(pages) as online.index:
            said = online.ensure("chatterbox").stderr.splitlines()[-1]
        assert (
            said
            == f"PyTorch comes from PyPI, with the libraries of CUDA, as {online.index} does not answer: about 5 GB."
        )
        assert online.recorded_calls() == ["venv", ".[chatterbox]"]

    def test_pypi_if_the_connection_is_refused(self, online: Machine) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        online.index = f"http://127.0.0.1:{port}/cpu"
        assert online.ensure("chatterbox").returncode == 0
        assert online.recorded_calls() == ["venv", ".[chatterbox]"]

    def test_pypi_if_the_index_does_not_answer(self, online: Machine) -> None:
        online.probe_seconds = 0.2
        with socket.create_server(("127.0.0.1", 0)) as server:
            online.index = f"http://127.0.0.1:{server.getsockname()[1]}/cpu"
            assert online.ensure("chatterbox").returncode == 0
        assert online.recorded_calls() == ["venv", ".[chatterbox]"]

    def test_through_a_proxy(self, online: Machine) -> None:
        online.index = "http://index.invalid/cpu"
        with serving({f"{online.index}/torch/": 200, f"{online.index}/torchaudio/": 200}) as proxy:
            online.ensure("chatterbox", http_proxy=proxy.removesuffix("/cpu"))
        assert online.recorded_calls() == ["venv", f"from {online.index} .[chatterbox]"]

    def test_pypi_for_another_architecture(self, machine: Machine, index: str) -> None:
        said = machine.ensure("chatterbox", HOSTTYPE="aarch64").stderr
        assert "PyTorch comes from PyPI, whose builds for aarch64 are without CUDA: about 1 GB.\n" in said
        assert machine.recorded_calls() == ["venv", ".[chatterbox]"]

    @pytest.mark.parametrize("sign", ["driver", "tool"])
    def test_pypi_for_a_gpu(self, machine: Machine, index: str, sign: str) -> None:
        if sign == "driver":
            machine.driver.touch()
        else:
            machine.program(
                "nvidia-smi", "#!/usr/bin/env bash\n[[ $1 == -L ]] && echo 'GPU 0: NVIDIA L4 (UUID: GPU-1)'\n"
            )
        said = machine.ensure("chatterbox").stderr
        assert "PyTorch comes from PyPI, with the libraries of CUDA for the GPU of this machine: about 5 GB.\n" in said
        assert machine.recorded_calls() == ["venv", ".[chatterbox]"]

    def test_a_tool_that_finds_no_gpu(self, machine: Machine, index: str) -> None:
        machine.program("nvidia-smi", "#!/usr/bin/env bash\necho 'No devices found.'\nexit 6\n")
        machine.ensure("chatterbox")
        assert machine.recorded_calls() == ["venv", f"from {index} .[chatterbox]"]


class TestSecondAttempt:
    @pytest.mark.parametrize("said", [BROKEN, REFUSED, CUT, CHANGED])
    def test_without_the_index_when_a_download_fails(self, machine: Machine, index: str, said: str) -> None:
        installed = machine.ensure("chatterbox", STUB_INDEX_SAYS=said)
        assert installed.returncode == 0
        assert installed.stderr.splitlines()[-1] == (
            "A download failed. PyTorch comes from PyPI this time, with the libraries of CUDA: about 5 GB."
        )
        assert machine.recorded_calls() == ["venv", f"from {index} .[chatterbox]", ".[chatterbox]"]
        assert machine.ensure("chatterbox").stderr == ""

    def test_there_is_no_third_attempt(self, machine: Machine, index: str) -> None:
        failed = machine.ensure("chatterbox", STUB_INDEX_SAYS=BROKEN, STUB_PIP_SAYS=BROKEN, STUB_PIP_EXIT="3")
        assert failed.returncode == 3
        assert "The network is needed once" in failed.stderr
        assert machine.recorded_calls() == ["venv", f"from {index} .[chatterbox]", ".[chatterbox]"]

    @pytest.mark.parametrize(
        "said",
        ["OSError: [Errno 28] No space left on device", f"{BROKEN}\\nInstalling collected packages: torch"],
    )
    def test_no_second_attempt_after_another_failure(self, machine: Machine, index: str, said: str) -> None:
        assert machine.ensure("chatterbox", STUB_INDEX_SAYS=said).returncode == 1
        assert machine.recorded_calls() == ["venv", f"from {index} .[chatterbox]"]

    def test_no_second_attempt_if_the_first_was_from_pypi(self, machine: Machine) -> None:
        assert machine.ensure("chatterbox", STUB_PIP_SAYS=BROKEN, STUB_PIP_EXIT="1").returncode == 1
        assert machine.recorded_calls() == ["venv", ".[chatterbox]"]


class TestAlreadyThere:
    @pytest.mark.parametrize("pair", [CPU_PAIR, PYPI_PAIR])
    def test_an_installed_pair_is_kept(self, machine: Machine, index: str, pair: str) -> None:
        said = machine.ensure("chatterbox", STUB_INSTALLED=f"numpy==1.26.4\\n{pair}torchtyping==1.0\\n").stderr
        assert said.splitlines()[-1] == "Installing Chorus (first run only; about a minute)"
        assert machine.recorded_calls() == ["venv", f"from {index} .[chatterbox]"]

    @pytest.mark.parametrize(
        "installed",
        [
            "torch==2.6.0\\n",
            "torch==2.6.0+cpu\\n",
            "torchaudio==2.6.0\\n",
            "torch==2.6.0\\ntorchaudio==2.6.0+cpu\\n",
            "torch==2.6.0+cpu\\ntorchaudio==2.6.0\\n",
        ],
    )
    def test_a_package_without_its_counterpart_is_uninstalled(
        self, machine: Machine, index: str, installed: str
    ) -> None:
        said = machine.ensure("chatterbox", STUB_INSTALLED=installed).stderr
        assert said.endswith(": about 1 GB.\n")
        assert machine.recorded_calls() == ["venv", "without torch torchaudio", f"from {index} .[chatterbox]"]

    def test_the_base_install_keeps_it(self, machine: Machine) -> None:
        machine.ensure(STUB_INSTALLED="torch==2.6.0\\n")
        assert machine.recorded_calls() == ["venv", "."]


class TestSpace:
    @pytest.fixture
    def little(self, machine: Machine) -> None:
        (machine.programs / "df").unlink()
        machine.program("df", "#!/usr/bin/env bash\nprintf 'Avail\\n  120\\n'\n")

    @pytest.mark.usefixtures("little")
    def test_of_cpu_builds(self, machine: Machine, index: str) -> None:
        assert "the install may need 3000 MB" in machine.ensure("chatterbox").stderr

    @pytest.mark.usefixtures("little")
    def test_of_those_with_cuda(self, machine: Machine) -> None:
        assert "the install may need 10000 MB" in machine.ensure("chatterbox").stderr

    @pytest.mark.usefixtures("little", "index")
    def test_of_the_second_attempt(self, machine: Machine) -> None:
        said = machine.ensure("chatterbox", STUB_INDEX_SAYS=BROKEN).stderr
        assert said.index("may need 3000 MB") < said.index("A download failed") < said.index("may need 10000 MB")

    @pytest.mark.usefixtures("little")
    def test_of_a_pair_that_is_there(self, machine: Machine) -> None:
        said = machine.ensure("chatterbox", STUB_INSTALLED=PYPI_PAIR).stderr
        assert "the install may need 1000 MB" in said

    @pytest.mark.usefixtures("little")
    def test_of_the_base(self, machine: Machine) -> None:
        assert "the install may need 1000 MB" in machine.ensure("test").stderr


class TestLibraries:
    def test_torch_is_imported_with_its_extra(self, machine: Machine) -> None:
        said = "OSError: libgomp.so.1: cannot open shared object file: No such file or directory"
        failed = machine.ensure("chatterbox", STUB_IMPORT="torchaudio", STUB_IMPORT_SAYS=said)
        assert failed.returncode == 1
        assert "    sudo apt-get install -y libgomp1\n" in failed.stderr

    def test_torch_is_not_imported_without_its_extra(self, machine: Machine) -> None:
        assert machine.ensure(STUB_IMPORT="torchaudio", STUB_IMPORT_SAYS="ImportError: libodd.so.1").returncode == 0
