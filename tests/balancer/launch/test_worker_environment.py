from __future__ import annotations

import pytest

from balancer.launch.worker_environment import unset_arguments


@pytest.mark.parametrize(
    "name",
    [
        "CHORUS_REDIS_URL",
        "CHORUS_API_KEYS",
        "CHORUS_WEBHOOK_SECRET",
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "DATABASE_URL",
        "PYTHON_KEYRING_PASSWORD",
        "MKL_API_KEY",
        "SSH_AUTH_SOCK",
        "http_proxy",
    ],
)
def test_secrets_and_what_workers_do_not_read_is_taken_from_them(name: str) -> None:
    assert unset_arguments(["PATH", name]) == ["-u", name]


@pytest.mark.parametrize(
    "name",
    ["PATH", "HOME", "LC_ALL", "TZ", "HF_HOME", "HF_HUB_OFFLINE", "PYTHONPATH", "LD_LIBRARY_PATH", "OMP_NESTED"],
)
def test_what_the_interpreter_and_the_libraries_read_is_kept(name: str) -> None:
    assert unset_arguments([name]) == []
