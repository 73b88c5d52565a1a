"""Empty stand-ins for heavy modules, so that what kernels declare can be read without importing torch."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class _Anything:
    """Answers every attribute, call, index and operator that an import may meet with itself."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # used as a decorator, it leaves the function as it is
        return args[0] if len(args) == 1 and callable(args[0]) and not kwargs else self

    def __getitem__(self, key: Any) -> Any:
        return self

    def __or__(self, other: Any) -> Any:
        return self

    __ror__ = __or__

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return ()  # class Block(torch.nn.Module) becomes a plain class


_ANYTHING = _Anything()


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _ANYTHING


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def find_spec(self, fullname: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] in self.names:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


@contextmanager
def standing_in(*names: str, forgetting: Sequence[str] = ()) -> Iterator[None]:
    """Inside, importing one of `names` or a submodule gives an empty stand-in, unless it is loaded already.

    On leaving, the stand-ins are forgotten, and so is every module imported meanwhile that holds one or whose name
    starts with one of `forgetting`: a module may hold a stand-in by way of another. Nobody builds with them by
    mistake, since a later import starts afresh and gets the real thing.
    """
    absent = [name for name in names if name not in sys.modules]
    before = set(sys.modules)
    finder = _Finder(absent)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - before:
            if name.startswith(tuple(forgetting)) or _is_touched(sys.modules[name]):
                _forget(name)


def _is_touched(module: ModuleType) -> bool:
    return isinstance(module, _StandIn) or any(isinstance(item, _StandIn | _Anything) for item in vars(module).values())


def _forget(name: str) -> None:
    """Also as an attribute of its package, where `from package import module` would still find it."""
    module = sys.modules.pop(name)
    package, _, short = name.rpartition(".")
    parent = sys.modules.get(package)
    if parent is not None and vars(parent).get(short) is module:
        delattr(parent, short)
