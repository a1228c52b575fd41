"""Imports of upstream's packages without what no engine uses: a third of the CPU time of a worker's start."""

from __future__ import annotations

import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from traceback import walk_stack
from types import ModuleType
from typing import Any, TypeVar

Decorated = TypeVar("Decorated")

_COMPILER = "torch._dynamo"
_MASKS = f"{_COMPILER}._trace_wrapped_higher_order_op"
_CHECKPOINTS = "torch.utils.checkpoint"
_DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}
"""Distributions whose name is not that of their package, of those that Transformers asks for."""


class _Distributions(dict[str, list[str]]):
    """The distributions of each package, by its name alone.

    What it stands for, `importlib.metadata.packages_distributions`, reads the file list of every distribution.
    """

    def __missing__(self, package: str) -> list[str]:
        return [_DISTRIBUTIONS.get(package, package)]


@contextmanager
def lean_imports() -> Iterator[None]:
    """Within the block, packages are imported without what only training and compilation need.

    That is scikit-learn, flex attention, torch's compiler, of which functions get nothing but marks, and its gradient
    checkpoints, with SymPy behind them. What asks for one of the latter two after the block gets the real one. Nor is
    SciPy's documentation written anew, or source code read for errors that nobody sees.
    """
    import scipy._lib._array_api  # noqa: PLC0415 - loaded in workers of these engines only
    import torch.utils  # noqa: PLC0415 - as above

    with ExitStack() as stack:
        stack.enter_context(_replaced(importlib.metadata, "packages_distributions", _Distributions))
        stack.enter_context(_replaced(inspect, "stack", _stack_without_source))
        stack.enter_context(_replaced(scipy._lib._array_api, "xp_capabilities", _unmarked))
        if _COMPILER not in sys.modules:
            compiler, masks = ModuleType(_COMPILER), ModuleType(_MASKS)
            vars(compiler).update(allow_in_graph=_unmarked, disable=_unmarked)
            vars(masks).update(TransformGetItemToIndex=_transform_get_item_to_index)
            stack.enter_context(_standing_in(compiler, torch))
            stack.enter_context(_standing_in(masks))
        if _CHECKPOINTS not in sys.modules:
            checkpoints = ModuleType(_CHECKPOINTS)
            vars(checkpoints).update(checkpoint=_checkpoint)
            stack.enter_context(_standing_in(checkpoints, torch.utils))
        import transformers.utils  # noqa: PLC0415 - as above

        for owner in (transformers.utils, transformers.utils.import_utils):
            for name in ("is_sklearn_available", "is_torch_flex_attn_available"):
                stack.enter_context(_replaced(owner, name, _never))
        yield


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
    sys.modules[module.__name__] = module
    if package is not None:
        vars(package)[module.__name__.rpartition(".")[2]] = module
    try:
        yield
    finally:
        del sys.modules[module.__name__]
        if package is not None:
            del vars(package)[module.__name__.rpartition(".")[2]]


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


def _checkpoint(*arguments: Any, **options: Any) -> Any:
    """The function of that name of the real gradient checkpoints."""
    from torch.utils.checkpoint import checkpoint  # noqa: PLC0415 - see above

    return checkpoint(*arguments, **options)
