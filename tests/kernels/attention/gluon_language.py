"""What a Hopper kernel in Gluon imports, for the machine of `gluon_machine`: tensors are torch's, numbers are Python's."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from gluon_machine import Machine, Misuse


class Shared:
    """A buffer, or a view of it: changed in place."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def index(self, at: int) -> Any:
        if not 0 <= at < len(self.values):
            raise Misuse(f"place {at} of a ring of {len(self.values)}")
        return Shared(self.values[at])

    def reshape(self, shape: list[int]) -> Shared:
        return Shared(self.values.view(shape))

    def permute(self, order: tuple[int, ...]) -> Shared:
        return Shared(self.values.permute(order))

    def store(self, values: torch.Tensor) -> None:
        assert values.dtype == self.values.dtype, (values.dtype, self.values.dtype)
        self.values.copy_(values)


class Barrier:
    """An mbarrier (PTX ISA, section "mbarrier"): passed when `count` have arrived and all bytes that are expected have come."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = self.pending = self.bytes = self.phase = 0

    def arrive(self, expected: int = 0) -> None:
        if self.pending == 0:
            raise Misuse(f"{self.name} has more arrivals than it counts")
        self.pending -= 1
        self.bytes += expected
        self._pass()

    def came(self, size: int) -> None:
        self.bytes -= size
        self._pass()

    def _pass(self) -> None:
        if self.pending == 0 and self.bytes == 0:
            self.phase ^= 1
            self.pending = self.count


class Bars:
    """A ring of barriers."""

    def __init__(self, places: int, name: str) -> None:
        self.bars = [Barrier(f"{name}[{place}]") for place in range(places)]

    def index(self, at: int) -> Barrier:
        if not 0 <= at < len(self.bars):
            raise Misuse(f"place {at} of a ring of {len(self.bars)}")
        return self.bars[at]


class Product:
    """An asynchronous product: its operands are read when it takes place."""

    def __init__(self, a: Any, b: Shared, acc: torch.Tensor, use_acc: bool) -> None:
        self._a, self._b, self._acc, self._use_acc = a, b, acc, use_acc
        self.result: torch.Tensor | None = None

    def take_place(self) -> None:
        a = self._a.values if isinstance(self._a, Shared) else self._a
        assert a.dtype == self._b.values.dtype, (a.dtype, self._b.values.dtype)
        assert a.shape[0] % 64 == 0, a.shape
        found = a.float() @ self._b.values.float()
        assert found.shape == self._acc.shape, (found.shape, self._acc.shape)
        self.result = found + self._acc if self._use_acc else found


class Pointer:
    """Into the elements of a tensor, in the order in which they lie."""

    def __init__(self, tensor: torch.Tensor, offset: Any = 0) -> None:
        self.flat, self.offset = tensor.view(-1), offset

    def __add__(self, more: Any) -> Pointer:
        return Pointer(self.flat, self.offset + more)


class Descriptor:
    """A tensor map: blocks of a tensor, 0 where they stick out, and nothing stored there."""

    def __init__(self, given: Any) -> None:
        self.tensor = given.base.as_strided(list(given.shape), list(given.strides))
        self.block = list(given.block_shape)
        self.dtype, self.layout = given.base.dtype, given.layout

    def _parts(self, at: list[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """(within the tensor, within the block)"""
        ends = [max(min(start + size, whole), start) for start, size, whole in zip(at, self.block, self.tensor.shape, strict=True)]
        ends = [end if start < whole else start for start, end, whole in zip(at, ends, self.tensor.shape, strict=True)]
        if any(start < 0 for start in at):
            raise Misuse(f"a block at {at}")
        inside = tuple(slice(start, end) for start, end in zip(at, ends, strict=True))
        return inside, tuple(slice(0, end - start) for start, end in zip(at, ends, strict=True))

    def load(self, at: list[int]) -> torch.Tensor:
        found = torch.zeros(self.block, dtype=self.dtype)
        inside, part = self._parts(at)
        found[part] = self.tensor[inside]
        return found

    def store(self, at: list[int], values: torch.Tensor) -> None:
        inside, part = self._parts(at)
        self.tensor[inside] = values.view(self.block)[part]


class Kernel:
    """Stands in for a Gluon kernel: kernel[grid](*args, **constants), launch options passed over."""

    OPTIONS = ("num_warps", "num_stages", "maxnreg", "num_ctas")

    def __init__(self, path: Path, name: str, *, package: str, seed: int = 0, changed: tuple[str, str] | None = None) -> None:
        """`changed`: a piece of the source, and what stands there instead: a fault that somebody planted."""
        self.path, self.name, self.package, self.seed, self.changed = path, name, package, seed, changed
        self.launches: list[dict[str, Any]] = []

    def __getitem__(self, grid: tuple[int]) -> Callable[..., None]:
        def launch(*args: Any, **constants: Any) -> None:
            self.launches.append({"grid": grid, **constants})
            machine = Machine(self.seed, grid[0])
            with simulated(machine):
                function = getattr(self._module(), self.name)
                given = [_argument(arg) for arg in args]
                fixed = {name: value for name, value in constants.items() if name not in self.OPTIONS}
                for machine.program in range(grid[0]):
                    function(*given, **fixed)

        return launch

    def _module(self) -> ModuleType:
        name = f"{self.package}.simulated_{self.path.stem}"
        spec = importlib.util.spec_from_loader(name, loader=None)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        module.__dict__["__package__"] = self.package
        source = self.path.read_text(encoding="utf-8")
        if self.changed is not None:
            assert source.count(self.changed[0]) >= 1, self.changed[0]
            source = source.replace(*self.changed)
        exec(compile(source, str(self.path), "exec"), module.__dict__)
        return module


def _argument(arg: Any) -> Any:
    if hasattr(arg, "block_shape"):
        return Descriptor(arg)
    return Pointer(arg) if isinstance(arg, torch.Tensor) else arg


@contextmanager
def simulated(machine: Machine) -> Iterator[None]:
    """Within, `triton.experimental.gluon` and what a Hopper kernel imports of it are of this machine."""
    hopper = _module("triton.experimental.gluon.language.nvidia.hopper", **_hopper(machine))
    language = _module("triton.experimental.gluon.language", **_language(machine))
    gluon = _module(
        "triton.experimental.gluon",
        jit=lambda function=None, **_: function if function is not None else (lambda one: one),
        constexpr_function=lambda function: function,
        language=language,
    )
    nvidia = _module("triton.experimental.gluon.language.nvidia", hopper=hopper)
    modules = {module.__name__: module for module in (gluon, language, nvidia, hopper)}
    modules["triton.experimental"] = _module("triton.experimental", gluon=gluon)
    with mock.patch.dict(sys.modules, modules):
        yield


def _module(name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name)
    module.__path__ = []  # type: ignore[attr-defined] # it counts as a package
    vars(module).update(contents)
    return module


def _language(machine: Machine) -> dict[str, Any]:
    def allocate_shared_memory(dtype: torch.dtype, shape: list[int], layout: Any) -> Any:
        if dtype == torch.int64:
            machine.rings += 1
            return Bars(shape[0], f"barrier {machine.rings}")
        return Shared(torch.full(shape, torch.nan, dtype=dtype))  # what nobody has written is anything

    def load(pointer: Pointer) -> Any:
        return pointer.flat[pointer.offset].item()

    def store(pointer: Pointer, values: torch.Tensor, mask: torch.Tensor) -> None:
        mask = mask.expand(values.shape)
        offsets = pointer.offset.expand(values.shape)[mask]
        if len(offsets) and not 0 <= int(offsets.min()) <= int(offsets.max()) < len(pointer.flat):
            raise Misuse("a store outside of its tensor")
        pointer.flat[offsets] = values[mask]

    def least(a: Any, b: Any) -> Any:
        return min(a, b)

    def most(a: Any, b: Any) -> Any:
        return torch.maximum(a, b) if isinstance(a, torch.Tensor) else max(a, b)

    def where(condition: torch.Tensor, a: Any, b: Any) -> torch.Tensor:
        like = a if isinstance(a, torch.Tensor) else b
        a, b = (torch.as_tensor(value, dtype=like.dtype) for value in (a, b))
        return torch.where(condition, a, b)

    def warp_specialize(functions: list[tuple[Any, tuple[Any, ...]]], warps: list[int], registers: list[int]) -> None:
        assert len(functions) - 1 == len(warps) == len(registers)
        machine.fork(functions)

    layouts = ("SliceLayout", "DotOperandLayout", "NVMMADistributedLayout", "NVMMASharedLayout", "BlockedLayout")
    return {
        **dict.fromkeys(layouts, lambda *_, **__: None),
        "constexpr": object, "static_range": range, "int64": torch.int64, "float32": torch.float32,
        "program_id": lambda axis: machine.program, "num_programs": lambda axis: machine.programs, "cdiv": lambda a, b: -(-a // b),
        "arange": lambda start, end, layout=None: torch.arange(start, end),
        "zeros": lambda shape, dtype, layout=None: torch.zeros(shape, dtype=dtype),
        "full": lambda shape, value, dtype, layout=None: torch.full(shape, value, dtype=dtype),
        "max": lambda x, axis: x.amax(axis), "sum": lambda x, axis: x.sum(axis), "exp2": torch.exp2, "log2": torch.log2,
        "minimum": least, "maximum": most, "where": where, "convert_layout": lambda x, layout: x,
        "allocate_shared_memory": allocate_shared_memory, "load": load, "store": store, "warp_specialize": warp_specialize,
    }  # fmt: skip


def _hopper(machine: Machine) -> dict[str, Any]:
    return {
        "fence_async_shared": lambda: None, "mbarrier": SimpleNamespace(**_barriers(machine)), "tma": SimpleNamespace(**_copies(machine)),
        **_products(machine),
    }  # fmt: skip


def _barriers(machine: Machine) -> dict[str, Any]:
    def wait(bar: Barrier, phase: int, pred: bool = True) -> None:
        if pred:
            machine.switch(lambda: bar.phase != phase & 1, f"{bar.name} to pass its round of parity {phase & 1}")

    def init(bar: Barrier, count: int) -> None:
        bar.count = bar.pending = count

    def arrive(bar: Barrier, *, count: int = 1, pred: bool = True) -> None:
        assert count == 1
        if pred:
            bar.arrive()

    return {"wait": wait, "init": init, "arrive": arrive, "expect": lambda bar, size: bar.arrive(size), "MBarrierLayout": lambda: None}


def _copies(machine: Machine) -> dict[str, Any]:
    def begin_load(t: Descriptor, at: list[int], bar: Barrier, result: Shared) -> None:
        def came() -> None:
            values = t.load(at)
            result.values.copy_(values)
            bar.came(values.numel() * values.element_size())

        machine.copy(came)

    def begin_store(t: Descriptor, at: list[int], source: Shared) -> None:
        me = machine.partition

        def stored() -> None:
            t.store(at, source.values)
            me.stores -= 1

        me.stores += 1
        machine.copy(stored)

    def store_wait(pendings: int) -> None:
        me = machine.partition
        machine.switch(lambda: me.stores <= pendings, "stores")

    return {"async_copy_global_to_shared": begin_load, "async_copy_shared_to_global": begin_store, "store_wait": store_wait}


def _products(machine: Machine) -> dict[str, Any]:
    def warpgroup_mma(a: Any, b: Shared, acc: torch.Tensor, *, use_acc: bool = True, is_async: bool = False) -> Product:
        assert is_async
        if isinstance(acc, Product) or isinstance(a, Product):
            raise Misuse("a product of what is not there yet")
        found = Product(a, b, acc, use_acc)
        machine.partition.products.append(found)
        if machine.random.random() < 0.5:
            machine.partition.finish(0)
        return found

    def warpgroup_mma_wait(outstanding: int, deps: tuple[Any, ...]) -> Any:
        me = machine.partition
        machine.switch(lambda: True, "nothing")
        me.finish(outstanding)
        known = tuple(dep.result if isinstance(dep, Product) else dep for dep in deps)
        if any(isinstance(dep, Product) and dep in me.products for dep in deps):
            raise Misuse("a product is read before it has been waited for")
        return known[0] if len(known) == 1 else known

    return {"warpgroup_mma": warpgroup_mma, "warpgroup_mma_wait": warpgroup_mma_wait}
