"""Who may import whom."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = (
    ("app",),
    ("routes", "control"),
    ("jobs", "admission"),
    ("speech", "upkeep"),
    ("cache",),
    ("dispatch",),
    ("attempt",),
    ("scheduler", "fleet"),
    ("connection", "line", "costs", "retries"),
)
"""From the top down; a module imports only from layers below its own. Those not named here stand beside them."""

SHARED = ("worker.contract", "worker.cards", "worker.checkpoints", "worker.logs", "worker.precision")
"""What the balancer may import of the worker: no library of an engine is behind it."""


def imported(file: Path) -> set[str]:
    """Every module that a file imports from this project, in full."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    return {module for module in modules if module.split(".")[0] in ("balancer", "worker", "voices")}


def test_the_balancer_knows_nothing_of_the_workers_but_what_needs_no_engine() -> None:
    for file in (ROOT / "balancer").rglob("*.py"):
        from_worker = {module for module in imported(file) if module.startswith("worker.")}
        assert {module for module in from_worker if not module.startswith(SHARED)} == set(), file.name


@pytest.mark.parametrize("package", ["worker", "voices"])
def test_nothing_below_imports_the_balancer(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        assert not any(module.startswith("balancer") for module in imported(file)), file.name


@pytest.mark.parametrize("layer", range(len(LAYERS)))
def test_imports_run_downwards_only(layer: int) -> None:
    above = {f"balancer.{module}" for upper in LAYERS[:layer] for module in upper}
    for module in LAYERS[layer]:
        path = ROOT / "balancer" / module
        files = path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]
        for file in files:
            assert imported(file) & above == set(), file.name


def test_no_engine_or_numerical_runtime_is_loaded_by_the_balancer() -> None:
    code = "import json, sys, balancer.app, balancer.cli.main; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT).stdout)
    heavy = {"torch", "onnxruntime", "hibari", "huggingface_hub", "worker.runner", "worker.engines"}
    assert heavy & set(modules) == set()
