"""Imports of upstream's packages without what no engine uses: more than half the CPU time of a worker's start.

Upstream pins the versions of these packages, so what is left out of them here stays what it is.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from traceback import walk_stack
from types import ModuleType
from typing import Any, TypeVar

Decorated = TypeVar("Decorated")

_COMPILER = "torch._dynamo"
_MASKS = f"{_COMPILER}._trace_wrapped_higher_order_op"
_META_KERNELS = "torch._meta_registrations"
_CHECKPOINTS = "torch.utils.checkpoint"
_TRANSFORMERS_IMPORTS = "transformers.utils.import_utils"
_TRANSFORMERS_MODELS = ("auto", "gpt2", "llama")
"""Folders of the models of Transformers that engines use."""
_DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}
"""Distributions whose name is not that of their package, of those that Transformers asks for."""


class _Distributions(dict[str, list[str]]):
    """The distributions of each package, by its name alone.

    What it stands for, `importlib.metadata.packages_distributions`, reads the file list of every distribution.
    """

    def __missing__(self, package: str) -> list[str]:
        return [_DISTRIBUTIONS.get(package, package)]


class _Deferred(ModuleType):
    """A module that is imported when something is first looked up in it that it does not have here."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system asks for its path
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        with _undocumented_scipy():
            return getattr(importlib.import_module(self.__name__), name)


class _MetaKernelsFirst(MetaPathFinder):
    """Has the kernels for tensors without data imported before the modules that import each other in a circle else."""

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname in (_COMPILER, "torch.utils._content_store"):
            sys.meta_path.remove(self)
            importlib.import_module(_META_KERNELS)


@contextmanager
def lean_imports() -> Iterator[None]:
    """Within the block, packages are imported without what engines do not use, or do not use to start and to speak.

    That is scikit-learn, flex attention, torch's compiler, of which functions get nothing but marks, its kernels for
    tensors without data, and its gradient checkpoints, with SymPy behind them; the models of Transformers but two; and
    the signal processing by which clips of voices are read. What asks for one of them after the block gets the real
    one. Nor is SciPy's documentation written anew, or source code read for errors that nobody sees.
    """
    with ExitStack() as stack:
        stack.enter_context(_replaced(importlib.metadata, "packages_distributions", _Distributions))
        stack.enter_context(_replaced(inspect, "stack", _stack_without_source))
        _enter_torch(stack)
        _enter_transformers(stack)
        _enter_signal_processing(stack)
        yield


def _enter_torch(stack: ExitStack) -> None:
    if "torch" not in sys.modules:
        stack.enter_context(_standing_in(ModuleType(_META_KERNELS)))
        sys.meta_path.insert(0, _MetaKernelsFirst())
    import torch.utils  # noqa: PLC0415 - loaded in workers of these engines only

    if _COMPILER not in sys.modules:
        compiler, masks = ModuleType(_COMPILER), ModuleType(_MASKS)
        vars(compiler).update(allow_in_graph=_unmarked, disable=_unmarked)
        vars(masks).update(TransformGetItemToIndex=_transform_get_item_to_index)
        stack.enter_context(_standing_in(compiler, torch))
        stack.enter_context(_standing_in(masks))
    if _CHECKPOINTS not in sys.modules:
        checkpoints = ModuleType(_CHECKPOINTS)
        vars(checkpoints).update(checkpoint=_deferred_function(_CHECKPOINTS, "checkpoint"))
        stack.enter_context(_standing_in(checkpoints, torch.utils))


def _enter_transformers(stack: ExitStack) -> None:
    if _TRANSFORMERS_IMPORTS not in sys.modules:
        stack.enter_context(_changed_on_import(_TRANSFORMERS_IMPORTS, _find_few_models))
    import torch.distributed  # noqa: PLC0415 - loaded in workers of these engines only

    stack.enter_context(_replaced(torch.distributed, "is_available", _never))
    import transformers.utils  # noqa: PLC0415 - as above

    for owner in (transformers.utils, transformers.utils.import_utils):
        for name in ("is_scipy_available", "is_sklearn_available", "is_torch_flex_attn_available"):
            stack.enter_context(_replaced(owner, name, _never))
    import diffusers.utils  # noqa: PLC0415 - as above

    for owner in (diffusers.utils, diffusers.utils.import_utils):
        stack.enter_context(_replaced(owner, "is_transformers_available", _never))


def _enter_signal_processing(stack: ExitStack) -> None:
    import scipy  # noqa: PLC0415 - loaded in workers of these engines only

    stack.enter_context(_undocumented_scipy())
    if "scipy.signal" not in sys.modules:
        signal = _Deferred("scipy.signal")
        vars(signal).update(get_window=get_window)
        vars(signal).update({name: _deferred_function("scipy.signal", name) for name in ("butter", "filtfilt")})
        stack.enter_context(_standing_in(signal, scipy))
    if "onnx" not in sys.modules:
        stack.enter_context(_standing_in(_Deferred("onnx")))
    if "perth" not in sys.modules:
        librosa, resources = ModuleType("librosa"), ModuleType("pkg_resources")
        vars(librosa).update(resample=resample)
        vars(resources).update(resource_filename=resource_filename)
        with _standing_in(librosa), _standing_in(resources):
            import perth  # noqa: F401, PLC0415 - as above


@contextmanager
def _replaced(owner: ModuleType, name: str, value: object) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextmanager
def _standing_in(module: ModuleType, package: ModuleType | None = None) -> Iterator[None]:
    """A block in which imports find `module`, as does who looks for it in its `package`."""
    name = module.__name__.rpartition(".")[2]
    sys.modules[module.__name__] = module
    if package is not None:
        vars(package)[name] = module
    try:
        yield
    finally:
        # One that is deferred may have made place for the real one.
        if sys.modules.get(module.__name__) is module:
            del sys.modules[module.__name__]
        if package is not None and vars(package).get(name) is module:
            del vars(package)[name]


@contextmanager
def _undocumented_scipy() -> Iterator[None]:
    """A block in which SciPy's functions are imported without notes on array libraries in their documentation."""
    import scipy._lib._array_api  # noqa: PLC0415 - loaded in workers of these engines only

    with _replaced(scipy._lib._array_api, "xp_capabilities", _unmarked):
        yield


@contextmanager
def _changed_on_import(name: str, change: Callable[[ModuleType], None]) -> Iterator[None]:
    """A block in which the module `name` is changed right after its own code has run, before who imports it goes on."""
    finder = _ChangingFinder(name, change)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _ChangingFinder(MetaPathFinder):
    def __init__(self, name: str, change: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._change = change

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name or (spec := PathFinder.find_spec(fullname, path, target)) is None:
            return None
        loader: Any = spec.loader
        execute = loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            self._change(module)

        loader.exec_module = execute_and_change
        return spec


def _find_few_models(imports: ModuleType) -> None:
    """Have Transformers read the source files of a few models instead of all, twice, for the names of their classes."""
    read: Callable[[str], dict[str, Any]] = vars(imports)["create_import_structure_from_path"]

    def read_few(path: str | Path) -> dict[str, Any]:
        folder = Path(path).parent if Path(path).name == "__init__.py" else Path(path)
        if folder.name != "models":
            return read(str(path))
        return {name: read(str(folder / name)) for name in _TRANSFORMERS_MODELS}

    vars(imports).update(create_import_structure_from_path=read_few)


def _deferred_function(module: str, name: str) -> Callable[..., Any]:
    """A function that imports the function of that name of `module` when it is called."""

    def call(*arguments: Any, **options: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*arguments, **options)

    return call


def get_window(window: str, length: int, fftbins: bool = True) -> Any:
    """SciPy's function of that name; computes a periodic Hann window, which S3Gen needs, by itself."""
    if (window, fftbins) != ("hann", True):
        return _deferred_function("scipy.signal", "get_window")(window, length, fftbins)
    import numpy as np  # noqa: PLC0415 - not before a worker's threads are limited

    return 0.5 + 0.5 * np.cos(np.linspace(-np.pi, np.pi, length + 1)[:-1])


def resample(samples: Any, *, orig_sr: int, target_sr: int, **options: Any) -> Any:
    """The function of that name of librosa; resamples mono audio by librosa's default method by itself.

    That is what the watermark needs. For its sake, a worker's first utterance would load librosa, which compiles.
    """
    import numpy as np  # noqa: PLC0415 - not before a worker's threads are limited
    import soxr  # type: ignore[import-untyped]  # noqa: PLC0415 - as above

    if options or samples.ndim != 1 or orig_sr == target_sr or not np.isfinite(samples).all():
        return _deferred_function("librosa", "resample")(samples, orig_sr=orig_sr, target_sr=target_sr, **options)
    length = int(np.ceil(len(samples) * (float(target_sr) / orig_sr)))
    resampled = soxr.resample(samples, orig_sr, target_sr, quality="soxr_hq")[:length]
    return np.pad(resampled, (0, length - len(resampled))).astype(samples.dtype, copy=False)


def resource_filename(package: str, name: str) -> str:
    """The path of a file of an installed package, as of `pkg_resources`."""
    file = sys.modules[package].__file__
    assert file is not None  # noqa: S101 - a package that is just being imported from its files
    return str(Path(file).with_name(name))


def _stack_without_source(_context: int = 1) -> list[inspect.FrameInfo]:
    """The calling frames as of `inspect.stack`, without their source, for which it looks at every module each time."""
    return [
        inspect.FrameInfo(frame, frame.f_code.co_filename, line, frame.f_code.co_name, None, None)
        for frame, line in walk_stack(sys._getframe(1))
    ]


def _never() -> bool:
    return False


def _unmarked(
    function: Decorated | None = None, *_: object, **__: object
) -> Decorated | Callable[[Decorated], Decorated]:
    """A decorator, with or without arguments, that leaves a function as it is."""
    return (lambda decorated: decorated) if function is None else function


def _transform_get_item_to_index() -> Any:
    """The context manager of that name of the real compiler."""
    from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex  # noqa: PLC0415 - see above

    return TransformGetItemToIndex()
