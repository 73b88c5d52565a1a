"""Global state that a kernel must leave alone: torch's settings, random numbers, the environment, and our own instruments.

What was changed is put back, so that a kernel does not harm its neighbours, and named.
"""

from __future__ import annotations

import builtins
import functools
import gc
import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import overrides
from torch.utils import _python_dispatch as dispatch

OURS = ("kerneldyno.bench.", "kerneldyno.kernels.contract", "kerneldyno.kernels.registry")
"""Modules whose functions decide what is measured and what is right; beside them every operator's `problem`."""
_OVERRIDES: Any = overrides  # parts of it have no types
BUILTINS = (
    "float",
    "int",
    "bool",
    "abs",
    "max",
    "min",
    "sum",
    "all",
    "any",
    "len",
    "zip",
    "sorted",
    "range",
    "isinstance",
    "getattr",
    "type",
)
CLOCKS = ("perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time", "thread_time", "time", "time_ns", "sleep")
FUNCTIONAL = ("scaled_dot_product_attention", "softmax", "linear", "layer_norm", "rms_norm", "relu", "gelu", "silu", "pad")
MATHEMATICS = ("softmax", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "exp", "relu", "sigmoid", "tanh", "sqrt", "sum", "mean")
TORCH = ("equal", "allclose", "isfinite", "where", "randn", "zeros_like", "empty", "tensor", "abs", "max")
TENSOR = ("clone", "copy_", "double", "abs", "max", "square", "mean", "sub", "__sub__", "__eq__", "data_ptr", "equal", "untyped_storage")
EVENT = ("record", "query", "synchronize", "elapsed_time")
CUDA = ("synchronize", "Event", "current_stream", "max_memory_allocated", "memory_allocated", "reset_peak_memory_stats")
PRECISION = (
    "fp32_precision", "cuda.matmul.fp32_precision", "cudnn.fp32_precision", "cudnn.conv.fp32_precision", "cudnn.rnn.fp32_precision",
    "mkldnn.fp32_precision", "mkldnn.matmul.fp32_precision", "mkldnn.conv.fp32_precision", "mkldnn.rnn.fp32_precision",
    "cuda.matmul.allow_fp16_reduced_precision_reduction", "cuda.matmul.allow_bf16_reduced_precision_reduction",
    "cuda.matmul.allow_fp16_accumulation",
)  # fmt: skip
"""Fields of torch.backends."""
BACKENDS = ("flash", "mem_efficient", "cudnn", "math", "overrideable")


@dataclass(frozen=True)
class Setting:
    """One piece of global state: how it is called, read and put back."""

    name: str
    get: Callable[[], Any]
    write: Callable[[Any], object]

    def read(self) -> Any:
        """Its value; where torch cannot tell, since new and old switches contradict each other, what it says of that."""
        try:
            return self.get()
        except RuntimeError as error:
            return str(error)


@functools.cache
def _settings() -> list[Setting]:
    """Everything that is watched."""
    core = torch._C  # noqa: SLF001 - not all of these have a public name
    found = [  # the new switches of precision first: while they contradict the old one, torch refuses to read that
        *(_field(name) for name in PRECISION),
        Setting("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
        Setting("the default device", torch.get_default_device, _set_default_device),
        Setting("the thread count", torch.get_num_threads, torch.set_num_threads),
        Setting("gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
        Setting("the float32 matmul precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        Setting("deterministic mode", torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
        Setting("cuDNN's benchmark mode", lambda: torch.backends.cudnn.benchmark, _set_cudnn_benchmark),
        Setting("autocast on the CPU", lambda: torch.is_autocast_enabled("cpu"), lambda on: torch.set_autocast_enabled("cpu", on)),
        Setting("autocast on CUDA", lambda: torch.is_autocast_enabled("cuda"), lambda on: torch.set_autocast_enabled("cuda", on)),
        Setting("the treatment of denormal numbers", _keeps_denormals, lambda keeps: torch.set_flush_denormal(not keeps)),
        Setting("the random state", lambda: torch.get_rng_state().numpy().tobytes(), _set_rng),
        Setting("Python's random state", random.getstate, random.setstate),
        Setting("numpy's random state", _numpy_state, _set_numpy_state),
        Setting("the environment", lambda: dict(os.environ), _set_environment),
        Setting("the working directory", os.getcwd, os.chdir),
        Setting("garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
        Setting("the tracing function", sys.gettrace, sys.settrace),
        Setting("the profiling function", sys.getprofile, sys.setprofile),
        Setting("the priority of the process", lambda: os.getpriority(os.PRIO_PROCESS, 0), _set_priority),
        Setting("oneDNN", core._get_mkldnn_enabled, core._set_mkldnn_enabled),  # noqa: SLF001 - the public name reads only
        Setting("torch's dispatch modes", lambda: len(dispatch._get_current_dispatch_mode_stack()), _pop_dispatch_modes),  # noqa: SLF001 - as above
        Setting("torch's function modes", lambda: len(_function_modes()), _pop_function_modes),
        Setting("torch's own operators (torch.library)", _overridden, lambda _: None),
        Setting("the processors it may run on", lambda: os.sched_getaffinity(0), lambda cpus: os.sched_setaffinity(0, cpus)),
    ]
    found += [
        Setting(f"SDPA's {name} backend", getattr(core, f"_get_{name}_sdp_enabled"), getattr(core, f"_set_sdp_use_{name}"))
        for name in BACKENDS
    ]
    if torch.cuda.is_available():
        found.append(Setting("the current CUDA device", torch.cuda.current_device, torch.cuda.set_device))
        found.append(Setting("CUDA's random state", lambda: torch.cuda.get_rng_state().numpy().tobytes(), _set_cuda_rng))
        found.append(Setting("the current stream", torch.cuda.current_stream, torch.cuda.set_stream))
    return found


DRAWN_IN_BUILDS = ("the random state", "Python's random state", "numpy's random state", "CUDA's random state", "the environment")
"""A build may draw random numbers, and compilers note where their caches lie; it is put back without a word."""


@dataclass(frozen=True)
class Snapshot:
    """Global state at one moment."""

    values: dict[str, Any]

    @classmethod
    def now(cls) -> Snapshot:
        """Look at everything."""
        return cls({setting.name: setting.read() for setting in _settings()})

    def restore(self, *, silent: tuple[str, ...] = ()) -> list[str]:
        """Put back what has changed since; the names of it, but for those that need not be spoken of."""
        changed: dict[str, None] = {}
        for _ in range(2):  # some settings move others when they are put back
            for setting in _settings():
                before = self.values[setting.name]
                if setting.read() != before:
                    setting.write(before)
                    changed[setting.name] = None
        return [name for name in changed if name not in silent]


class Instruments:
    """The functions that time and judge, as they were when this was made."""

    def __init__(self) -> None:
        self._functions = [(owner, name, found) for owner, name, found in _functions()]

    def restore(self) -> list[str]:
        """Put back those that were replaced; their names."""
        changed = []
        for owner, name, original in self._functions:
            if vars(owner).get(name, _absent(owner, name)) is not original:
                setattr(owner, name, original)
                changed.append(f"{getattr(owner, '__name__', owner)}.{name}")
        return changed


def _functions() -> list[tuple[Any, str, Any]]:
    """(owner, name, function) of everything that must not be replaced."""
    found: list[tuple[Any, str, Any]] = []
    tensor = torch._C.TensorBase  # noqa: SLF001 - where most methods live; a subclass attribute would shadow them
    for owner, names in (
        (builtins, BUILTINS),
        (time, CLOCKS),
        (torch, (*TORCH, *MATHEMATICS)),
        (torch.nn.functional, FUNCTIONAL),
        (torch.Tensor, TENSOR),
        (torch.cuda, CUDA),
        (torch.cuda.Event, EVENT),
    ):
        found += [(owner, name, vars(owner)[name]) for name in names if name in vars(owner)]
    found += [(torch.Tensor, name, getattr(tensor, name)) for name in TENSOR if name not in vars(torch.Tensor)]
    for module_name, module in sorted(sys.modules.items()):
        if module_name.startswith(OURS) or _is_problem(module_name):
            found += _of_module(module)
    return found


def _of_module(module: ModuleType) -> list[tuple[Any, str, Any]]:
    found: list[tuple[Any, str, Any]] = []
    for name, value in vars(module).items():
        if isinstance(value, FunctionType):
            found.append((module, name, value))
        elif isinstance(value, type) and value.__module__ == module.__name__:
            found += [
                (value, inner, item) for inner, item in vars(value).items() if isinstance(item, FunctionType | property | classmethod)
            ]
    return found


def _is_problem(module: str) -> bool:
    return module.startswith("kerneldyno.kernels.") and module.endswith((".problem", "._textbook", "._probes", "._symmetry"))


def _absent(owner: Any, name: str) -> Any:
    """What is found under a name that the owner itself does not define."""
    return getattr(torch._C.TensorBase, name, None) if owner is torch.Tensor else None  # noqa: SLF001 - as above


def _set_default_device(device: torch.device) -> None:
    torch.set_default_device(None if device == torch.device("cpu") else device)


def _overridden() -> frozenset[str]:
    """Implementations of torch's operators that were put in by somebody else's library; they cannot be taken out again."""
    return frozenset(name for name in torch.library._impls if name.startswith("aten/") and name.endswith(("CPU", "CUDA")))  # noqa: SLF001


def _field(name: str) -> Setting:
    """A field of torch.backends; one that this version of torch lacks never changes."""
    path, _, last = name.rpartition(".")

    def owner() -> Any:
        found: Any = torch.backends
        for word in filter(None, path.split(".")):
            found = getattr(found, word, None)
        return found

    def write(value: Any) -> None:
        if hasattr(owner(), last):
            setattr(owner(), last, value)

    return Setting(f"torch.backends.{name}", lambda: getattr(owner(), last, None), write)


def _set_priority(nice: int) -> None:
    with suppress(PermissionError):  # who has lowered it may not be allowed to raise it
        os.setpriority(os.PRIO_PROCESS, 0, nice)


def _pop_dispatch_modes(count: int) -> None:
    while len(dispatch._get_current_dispatch_mode_stack()) > count:  # noqa: SLF001 - there is no public name
        dispatch._pop_mode()  # noqa: SLF001 - as above


def _pop_function_modes(count: int) -> None:
    while len(_function_modes()) > count:
        _OVERRIDES._pop_mode()  # noqa: SLF001 - there is no public name


def _function_modes() -> list[Any]:
    return list(_OVERRIDES._get_current_function_mode_stack())  # noqa: SLF001 - as above


def _set_cudnn_benchmark(on: bool) -> None:
    torch.backends.cudnn.benchmark = on


def _keeps_denormals() -> bool:
    return bool((torch.tensor([1e-310], dtype=torch.float64) * 1.0 != 0).item())


def _set_rng(state: bytes) -> None:
    torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))


def _set_cuda_rng(state: bytes) -> None:
    torch.cuda.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))


def _numpy_state() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - the global state is what is watched
    return name, np.asarray(keys).tobytes(), *rest


def _set_numpy_state(state: tuple[Any, ...]) -> None:
    name, keys, *rest = state
    np.random.set_state((name, np.frombuffer(keys, dtype=np.uint32), *rest))  # noqa: NPY002 - as above


def _set_environment(wanted: dict[str, str]) -> None:
    for name in set(os.environ) - set(wanted):
        del os.environ[name]
    os.environ.update(wanted)
