"""The confinement of a process, tried in processes of their own: it cannot be taken back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.harness import ROOT
from worker.cpu_affinity import THREAD_VARIABLES, WAITING

ALLOWED = sorted(os.sched_getaffinity(0))
BEYOND = ALLOWED[-1] + 1


def run(*lines: str) -> subprocess.CompletedProcess[str]:
    code = "\n".join(("import os, sys", "from worker.cpu_affinity import AffinityError, confine", *lines))
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def output(*lines: str) -> str:
    done = run(*lines)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def refusal(*lines: str) -> str:
    return output("try:", *(f"    {line}" for line in lines), "except AffinityError as error:", "    print(error)")


@pytest.mark.parametrize("cpus", [ALLOWED[:1], ALLOWED[-1:], ALLOWED])
def test_the_affinity_is_set(cpus: list[int]) -> None:
    assert output(f"confine({cpus}, 1)", "print(sorted(os.sched_getaffinity(0)))") == str(cpus)


def test_threads_started_afterwards_inherit_it() -> None:
    assert output(
        f"confine([{ALLOWED[0]}], 1)",
        "import threading",
        "thread = threading.Thread(target=lambda: print(os.sched_getaffinity(threading.get_native_id())))",
        "thread.start()",
        "thread.join()",
    ) == str({ALLOWED[0]})


def test_the_limits_of_the_numerical_libraries() -> None:
    assert output(
        "os.environ['OMP_NUM_THREADS'] = '64'",
        f"confine({ALLOWED}, 3)",
        f"print({{os.environ[name] for name in {THREAD_VARIABLES}}})",
        f"print(os.environ.items() >= {WAITING}.items())",
    ) == ("{'3'}\nTrue")
    assert {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"} <= set(THREAD_VARIABLES)


def test_numpy_keeps_to_them() -> None:
    threads = "print(len(os.listdir('/proc/self/task')))"
    assert output(f"confine({ALLOWED}, 1)", "import numpy", threads) == "1"


def test_too_late_once_numpy_is_loaded() -> None:
    assert refusal("import numpy", f"confine([{ALLOWED[0]}], 1)") == "too late to limit threads: numpy loaded already"


def test_too_late_changes_nothing() -> None:
    assert output(
        "import numpy",
        "before = os.sched_getaffinity(0), dict(os.environ)",
        "try:",
        f"    confine([{ALLOWED[0]}], 1)",
        "except AffinityError:",
        "    print((os.sched_getaffinity(0), dict(os.environ)) == before)",
    ) == ("True")


@pytest.mark.parametrize("cpus", [[BEYOND], [ALLOWED[0], BEYOND], [100_000], [-1]])
def test_cpus_that_are_not_there(cpus: list[int]) -> None:
    allowed = ",".join(map(str, ALLOWED))
    wanted = ",".join(map(str, cpus))
    assert refusal(f"confine({cpus}, 1)") == f"cannot run on CPUs {wanted}: allowed here are {allowed}"


@pytest.mark.skipif(len(ALLOWED) < 2, reason="needs a CPU to be kept from")
def test_cpus_outside_the_mask_given_to_this_process() -> None:
    first, last = ALLOWED[0], ALLOWED[-1]
    assert refusal(f"os.sched_setaffinity(0, [{first}])", f"confine([{last}], 1)") == (
        f"cannot run on CPUs {last}: allowed here are {first}"
    )


def test_no_cpu_at_all() -> None:
    assert "cannot run on CPUs" in refusal("confine([], 1)")
