"""Imports of upstream's packages without what no engine uses: a quarter of the CPU time of a worker's start."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any, TypeVar

Decorated = TypeVar("Decorated")

_COMPILER = "torch._dynamo"
_MASKS = f"{_COMPILER}._trace_wrapped_higher_order_op"
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
    """Within the block, packages are imported without scikit-learn, flex attention and torch's compiler.

    They only decorate functions with the compiler's marks, which say nothing where nothing is compiled. What asks for
    the compiler after the block gets the real one.
    """
    import torch  # noqa: PLC0415 - loaded in workers of these engines only

    with ExitStack() as stack:
        stack.enter_context(_replaced(importlib.metadata, "packages_distributions", _Distributions))
        if _COMPILER not in sys.modules:
            compiler, masks = ModuleType(_COMPILER), ModuleType(_MASKS)
            vars(compiler).update(allow_in_graph=_unmarked, disable=_unmarked)
            vars(masks).update(TransformGetItemToIndex=_transform_get_item_to_index)
            for module in (compiler, masks):
                sys.modules[module.__name__] = module
                stack.callback(sys.modules.pop, module.__name__)
            # `import torch._dynamo` finds the module there, and its users look for it here.
            vars(torch)["_dynamo"] = compiler
            stack.callback(vars(torch).pop, "_dynamo")
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


def _never() -> bool:
    return False


def _unmarked(function: Decorated | None = None, *_: object) -> Decorated | Callable[[Decorated], Decorated]:
    """A decorator, with or without arguments, that leaves a function as it is."""
    return (lambda decorated: decorated) if function is None else function


def _transform_get_item_to_index() -> Any:
    """The context manager of that name of the real compiler."""
    from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex  # noqa: PLC0415 - see above

    return TransformGetItemToIndex()
