"""Imports run downwards only, over every package of the project."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from balancer.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
PACKAGES = ("balancer", "worker", "voices", "scripts")

LAYERS: tuple[tuple[str, ...], ...] = (
    # Commands, each a program of its own; the fault test also has clients of the attack test.
    ("scripts.faults",),
    (
        "scripts.attacks",
        "scripts.benchmarks.backends",
        "scripts.benchmarks.balancer_comparison",
        "scripts.benchmarks.engine",
        "scripts.benchmarks.workers",
        "scripts.clients",
        "scripts.deployment",
        "scripts.clients.programs",
        "scripts.hosts",
    ),
    ("scripts.benchmarks",),
    ("scripts.load",),
    ("scripts.support",),
    ("balancer.cli",),
    ("balancer.capacity",),
    ("balancer.load",),
    ("balancer.launch",),
    ("balancer.host",),
    # The serving process.
    ("balancer.__main__",),
    ("balancer.process",),
    ("balancer.app",),
    ("balancer.http",),
    ("balancer.api.middleware",),
    ("balancer.api",),
    ("balancer.api.models",),
    ("balancer.stores",),
    ("balancer.jobs.redis", "balancer.jobs.sqlite"),
    ("balancer.operations", "balancer.jobs", "balancer.access", "balancer.page"),
    ("balancer.speech",),
    ("balancer.dispatch", "balancer.cache"),
    ("balancer.fleet", "balancer.requests", "balancer.documents"),
    ("balancer.scheduling", "balancer.audio", "balancer.text"),
    ("balancer.text.english", "balancer.text.markup"),
    ("balancer.text.guard", "balancer.text.marks"),
    ("balancer.settings",),
    ("balancer.errors", "balancer.metrics", "balancer.redis"),
    (
        "balancer.cpu_lists",
        "balancer.listening_sockets",
        "balancer.runtime",
        "balancer.time_histogram",
        "balancer.version",
    ),
    # The worker process.
    ("worker.__main__", "worker.check_precision"),
    ("worker.server",),
    ("worker.app",),
    ("worker.runner",),
    ("worker.engines.chatterbox.precision_check",),
    ("worker.engines",),
    ("worker.engines.hibari", "worker.engines.chatterbox.batched"),
    ("worker.engines.chatterbox.stock",),
    ("worker.engines.chatterbox.t3", "worker.engines.chatterbox.s3gen"),
    ("worker.engines.chatterbox.upstream", "worker.engines.chatterbox.layers"),
    (
        "worker.engines.chatterbox.early_pieces",
        "worker.engines.chatterbox.takes",
        "worker.engines.chatterbox.trailing_audio",
        "worker.engines.chatterbox.work_order",
    ),
    ("worker.engines.chatterbox.token_budget", "worker.engines.chatterbox.cooperative"),
    ("worker.engines.chatterbox.kernels",),
    ("worker.engines.chatterbox.kernels.simd",),
    ("worker.engines.chatterbox", "worker.engines.base"),
    ("voices.isolated_inspection", "voices.voice_editor", "voices.watched_registry"),
    ("voices.registry",),
    ("voices.clips", "voices.conditionals_cache"),
    (
        "voices.downmix",
        "voices.file_thread",
        "voices.isolated_process",
        "voices.names",
        "voices.regular_files",
    ),
    ("worker.checkpoints",),
    ("worker.options",),
    ("worker.contract", "worker.cards"),
    ("worker.logs",),
    (
        "worker.cpu_affinity",
        "worker.crash_history",
        "worker.descriptors",
        "worker.engine_failures",
        "worker.log_queue",
        "worker.memory",
        "worker.precision",
        "worker.stage_timer",
        "worker.unix_listener",
        "worker.watchdog",
    ),
)
"""From the top down. A module imports from its own room and from rooms of lower layers; rooms of one layer do not
import each other. A name is a module, or a package with all of its modules and packages that are not named here."""

SHARED_BY_BALANCER = (
    "worker.cards",
    "worker.checkpoints",
    "worker.contract",
    "worker.descriptors",
    "worker.log_queue",
    "worker.logs",
    "worker.options",
    "worker.precision",
)
"""Rooms of the worker that the balancer may import: none of them loads a library of an engine."""

NOT_IN_THE_SERVING_PROCESS = (
    "balancer.cli",
    "balancer.capacity",
    "balancer.load",
    "balancer.launch",
    "balancer.host",
    "typer",
    "rich",
)

NAME_IN_STRING = re.compile(rf"(?P<module>(?:{'|'.join(PACKAGES)})(?:\.\w+)+):(?P<attribute>\w+)")
"""How a string names what is imported later, as balancer/cli/lazy_group.py does: `module:attribute`."""

RANK = {room: rank for rank, layer in enumerate(LAYERS) for room in layer}


@cache
def modules() -> dict[str, Path]:
    """Every module of the project by its full name, packages among them."""
    found = {}
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def room_of(module: str) -> str | None:
    """The room that a module belongs to: the longest name in LAYERS that it starts with."""
    while module not in RANK:
        module, dot, _ = module.rpartition(".")
        if not dot:
            return None
    return module


@cache
def syntax_of(file: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(file.read_text())


def imports_of(file: Path) -> Iterator[str]:
    """Every module that a file imports, in full, also within functions, or names in strings."""
    for node in ast.walk(syntax_of(file)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            for alias in node.names:
                member = f"{node.module}.{alias.name}"
                yield member if member in modules() else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
    yield from (module for module, _ in names_in_strings(file))


def names_in_strings(file: Path) -> Iterator[tuple[str, str]]:
    """The modules and attributes that a file names in strings, to import them later."""
    for node in ast.walk(syntax_of(file)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = NAME_IN_STRING.fullmatch(node.value)
            if found is not None:
                yield found["module"], found["attribute"]


def is_python(file: Path) -> bool:
    """Whether a file is a module or program in Python."""
    first_line = file.read_bytes().partition(b"\n")[0]
    return file.suffix == ".py" or (first_line.startswith(b"#!") and b"python" in first_line)


def test_every_package_has_a_rank() -> None:
    packages = {name for name, file in modules().items() if file.name == "__init__.py"}
    modules_by_package: dict[str, set[str]] = {package: set() for package in packages}
    for name in modules().keys() - packages:
        modules_by_package[name.rpartition(".")[0]].add(name)
    unranked = {
        package: missing
        for package, members in modules_by_package.items()
        if package not in RANK and (missing := members - RANK.keys())
    }
    assert unranked == {}


def test_every_rank_has_a_module() -> None:
    assert RANK.keys() - modules().keys() == set()
    assert len(RANK) == sum(map(len, LAYERS))


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_run_downwards_only(module: str) -> None:
    room = room_of(module)
    for imported in imports_of(modules()[module]):
        if imported.split(".")[0] not in PACKAGES:
            continue
        other = room_of(imported)
        assert room is not None, f"{module} has no rank and imports {imported}"
        assert other is not None, f"{module} imports {imported}, which has no rank"
        assert other == room or RANK[other] > RANK[room], f"{module} ({room}) imports {imported} ({other})"


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_imports_the_tests(package: str) -> None:
    for name, file in modules().items():
        if name.split(".")[0] == package:
            assert not any(module.split(".")[0] == "tests" for module in imports_of(file)), name
            assert "tests/" not in file.read_text(), name


def test_no_test_module_imports_another() -> None:
    for file in (ROOT / "tests").rglob("*.py"):
        for module in imports_of(file):
            assert not module.rpartition(".")[2].startswith("test_") or not module.startswith("tests."), file.name


def test_the_balancer_knows_nothing_of_the_workers_but_what_needs_no_engine() -> None:
    for name, file in modules().items():
        if name.split(".")[0] == "balancer":
            rooms = {str(room_of(module)) for module in imports_of(file) if module.startswith("worker.")}
            assert rooms <= set(SHARED_BY_BALANCER), name


@pytest.mark.parametrize("package", ["worker", "voices"])
def test_nothing_below_imports_the_balancer(package: str) -> None:
    for name, file in modules().items():
        if name.split(".")[0] == package:
            assert not any(module.split(".")[0] == "balancer" for module in imports_of(file)), name


def test_what_strings_name_is_there() -> None:
    assert set(names_in_strings(modules()["balancer.cli.main"])) == {
        tuple(name.split(":")) for name in COMMANDS.values()
    }
    for file in modules().values():
        for module, attribute in names_in_strings(file):
            assert module in modules(), f"{file} names {module}"
            assert hasattr(import_module(module), attribute), f"{file} names {module}:{attribute}"


def test_programs_for_bare_hosts_import_nothing_of_the_project() -> None:
    """They run in the distribution's Python, which has none of it."""
    programs = [file for file in (ROOT / "deploy").rglob("*") if file.is_file() and is_python(file)]
    assert {"host_agent.py", "healthcheck"} <= {file.name for file in programs}
    for file in programs:
        assert {module.split(".")[0] for module in imports_of(file)}.isdisjoint({*PACKAGES, "tests"}), file


def loaded_by(statement: str) -> set[str]:
    """Every module that Python has loaded after a statement."""
    code = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)
    return set(json.loads(done.stdout))


def test_no_engine_or_numerical_runtime_is_loaded_by_the_balancer() -> None:
    heavy = {"torch", "onnxruntime", "hibari", "huggingface_hub", "worker.runner", "worker.engines"}
    assert heavy & loaded_by("import balancer.app.app, balancer.cli.main") == set()


def test_the_serving_process_loads_no_command_line() -> None:
    loaded = loaded_by("import balancer.process")
    assert {name for name in loaded if name.startswith(NOT_IN_THE_SERVING_PROCESS)} == set()


def test_the_serving_process_reads_no_documents_itself() -> None:
    assert {"selectolax", "defusedxml", "balancer.documents.reading"} & loaded_by("import balancer.process") == set()
