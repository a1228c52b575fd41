from __future__ import annotations

import resource
import subprocess
import sys

from balancer.runtime.descriptor_limit import MAX_DESCRIPTORS
from tests.support.harness import ROOT

PROGRAM = "from balancer.runtime.descriptor_limit import raise_descriptor_limit; print(raise_descriptor_limit())"


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    command = ["bash", "-c", 'ulimit -Sn 256; exec "$@"', "bash", sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) == (MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS))
