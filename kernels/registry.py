"""What a kernel is, the decorator that declares one, and the loader that finds them all.

No torch is imported here at run time, so that listing and planning stay cheap. Registration changes nothing
global: the decorator only constructs a Kernel, and `load` looks through the modules for them.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ._gradients import Gradients, differentiated, leaves
from ._sources import digest
from ._standin import standing_in
from .contract import (
    AWKWARD,
    DIRECTIONS,
    DTYPES,
    ITEM_BYTES,
    OPERATORS,
    SHORT_DTYPES,
    Device,
    Inputs,
    NotAsNamed,
    Probe,
    Problem,
    Run,
    Setup,
    Tensors,
    Trace,
    Weights,
    holding,
    kind_of,
)

if TYPE_CHECKING:
    import torch

    from ._cards import Card
    from ._code import Configuration
    from ._tuning import Task

__all__ = [
    "AWKWARD", "DIRECTIONS", "DTYPES", "ITEM_BYTES", "OPERATORS", "SHORT_DTYPES", "Device", "Gradients", "Inputs", "Kernel",
    "KernelFileError", "NotAsNamed", "Probe", "Problem", "Run", "Setup", "Tensors", "Trace", "Weights", "collect",
    "declarations", "differentiated", "holding", "kernel", "kind_of", "leaves", "load", "plugin_module",
]  # fmt: skip

KERNELS = Path(__file__).parent
HEAVY = ("torch", "triton", "onnx", "onnxruntime", "torchao", "jax")
PLUGIN_PREFIX = "kerneldyno_plugin_"
"""Modules of files given from outside are named so."""


class KernelFileError(Exception):
    """A kernel file cannot be used; the message says which, why and what to do."""


@dataclass(frozen=True)
class Kernel:
    """One implementation of one operator: what it takes, and how to build it."""

    name: str
    """"attention/fused": operator and implementation."""
    family: str
    """What it has in common with its namesakes in other operators: eager, sdpa, compiled, fused, onnxrt, …"""
    problem: type[Problem]
    build_run: Callable[[Any, Setup], Run]
    summary: str
    devices: tuple[str, ...]
    dtypes: tuple[str, ...]
    accepts: frozenset[str]
    directions: tuple[str, ...]
    gradients: str
    """"autograd": the harness differentiates `run`; "kernel": `run` returns Gradients itself."""
    requires: tuple[str, ...]
    """Import names that must be installed; "cuda:triton" there only."""
    approximate: bool
    own_allocator: tuple[str, ...]
    """Kinds of devices on which its runtime caches memory outside torch: it is built again with `Setup.arena` off to count memory."""
    claim: Callable[[Any, Setup, Any], torch.Tensor] | None
    prepare: Callable[[Any, Setup, Any], Any] | None
    refuses: Callable[[Any, Device], str | None] | None
    identified: Callable[[Any, Setup, Trace], str] | None
    """(problem, setup, trace) -> what ran, in a few words; raises NotAsNamed when that is not what the name says."""
    device_code: Callable[[tuple[int, int]], Iterable[Configuration]] | None
    """(compute capability) -> every form in which its own Triton kernels may be launched there: what `kerneldyno codegen` compiles."""
    tuning: Callable[[Any, Card], Iterable[Task]] | None
    """(problem, card) -> what there is to choose of the kernels that it would launch: what `kerneldyno tune` measures."""
    source: str = field(compare=False, default="")
    """The file that defines it; a hash of it goes into the resume key, its path nowhere."""

    @property
    def operator(self) -> str:
        return self.problem.operator

    @property
    def folder(self) -> Path | None:
        """The kernels folder that defines it, of whichever revision; None for a file given with --load."""
        folder = Path(self.source).parent.parent
        return folder if (folder / "registry.py").is_file() else None

    @property
    def shipped(self) -> bool:
        """Whether it came with kerneldyno; the others are from files given with --load."""
        return self.folder is not None

    @property
    def source_hash(self) -> str:
        """Changes when its files do, or the choices that were tuned for it; see `_sources.digest`."""
        return digest(Path(self.source), self.folder, self.operator, tuned=self.tuning is not None or self.operator == "layer")

    def build(self, problem: Problem, setup: Setup) -> Run:
        """Do everything that happens once (allocate, quantize, prune, export, compile); return what is timed.

        In direction "backward" the result returns `Gradients`: one timed call is a forward and a backward pass.
        """
        if problem.direction == "backward" and self.gradients == "autograd":
            setup = replace(setup, weights=leaves(setup.weights))
            return differentiated(self.build_run(problem, setup), setup.weights)
        return self.build_run(problem, setup)

    def needs(self, kind: str) -> tuple[str, ...]:
        """Import names that must be installed for this kind of device."""
        return tuple(name.removeprefix(f"{kind}:") for name in self.requires if name.partition(":")[0] == kind or ":" not in name)

    def missing(self, device: Device) -> str | None:
        """Why this kernel cannot run on this machine at all, in a sentence; None when it can."""
        if device.kind not in self.devices:
            return f"runs on {' and '.join(self.devices)} only, not on {device.kind}"
        for name in self.needs(device.kind):
            if importlib.util.find_spec(name) is None:
                return f"needs the Python package {name}, which is not installed"
        return None

    def why_not(self, problem: Problem, device: Device) -> str | None:
        """Why this kernel does not take this problem on this device, in a sentence; None when it does."""
        if sentence := self.missing(device):
            return sentence
        if problem.dtype not in self.dtypes:
            return f"takes {', '.join(self.dtypes)}, not {problem.dtype}"
        if problem.direction not in self.directions:
            return f"has no {problem.direction} direction"
        if lacking := sorted(problem.features - self.accepts):
            return f"does not take {', '.join(lacking)}"
        return self.refuses(problem, device) if self.refuses else None


def kernel(
    problem: type[Problem],
    *,
    name: str | None = None,
    family: str | None = None,
    devices: Sequence[str] = ("cpu", "cuda"),
    dtypes: Sequence[str] = DTYPES,
    accepts: Iterable[str] = (),
    directions: Sequence[str] = ("forward",),
    gradients: str = "autograd",
    requires: Sequence[str] = (),
    approximate: bool = False,
    own_allocator: bool | Sequence[str] = False,
    claim: Callable[[Any, Setup, Any], torch.Tensor] | None = None,
    prepare: Callable[[Any, Setup, Any], Any] | None = None,
    refuses: Callable[[Any, Device], str | None] | None = None,
    identified: Callable[[Any, Setup, Trace], str] | None = None,
    device_code: Callable[[tuple[int, int]], Iterable[Configuration]] | None = None,
    tuning: Callable[[Any, Card], Iterable[Task]] | None = None,
) -> Callable[[Callable[[Any, Setup], Run]], Kernel]:
    """Declare the decorated `build(problem, setup) -> run` to be a kernel for `problem`.

    `name` and `family` default to the function's and its module's name. Raises KernelFileError when the declaration
    contradicts itself: an approximate kernel must state, with `claim`, what it claims to compute.
    """

    def declare(build: Callable[[Any, Setup], Run]) -> Kernel:
        short = name or build.__name__
        if approximate and claim is None:
            raise KernelFileError(
                f"kernel {short!r} is approximate but has no claim: give claim=f(problem, setup, inputs), "
                "the float64 result of the approximation"
            )
        _require_known(short, gradients=(gradients,), device=devices, dtype=dtypes, direction=directions)
        return Kernel(
            name=f"{problem.operator}/{short}",
            family=family or build.__module__.rpartition(".")[2],
            problem=problem,
            build_run=build,
            summary=(inspect.getdoc(build) or "").split("\n\n")[0].replace("\n", " "),
            devices=tuple(devices),
            dtypes=tuple(dtypes),
            accepts=frozenset(accepts),
            directions=tuple(directions),
            gradients=gradients,
            requires=tuple(requires),
            approximate=approximate,
            own_allocator=(tuple(devices) if own_allocator else ()) if isinstance(own_allocator, bool) else tuple(own_allocator),
            claim=claim,
            prepare=prepare,
            refuses=refuses,
            identified=identified,
            device_code=device_code,
            tuning=tuning,
            source=inspect.getsourcefile(build) or "",
        )

    return declare


def _require_known(name: str, **given: Sequence[str]) -> None:
    """Raise KernelFileError for a word in a declaration that means nothing."""
    known = {"gradients": ("autograd", "kernel"), "device": ("cpu", "cuda"), "dtype": DTYPES, "direction": DIRECTIONS}
    for what, values in given.items():
        for value in values:
            if value not in known[what]:
                raise KernelFileError(f"kernel {name!r}: {what} {value!r} is unknown: choose from {', '.join(known[what])}")


def load(extra: Sequence[Path] = (), *, declarations_only: bool = False) -> dict[str, Kernel]:
    """Import every kernel module and the files of `extra`; return the kernels by name, shipped ones first.

    With `declarations_only`, within `declarations`: what kernels declare is read in milliseconds, but none can be built.

    Raises KernelFileError for a file that is missing, does not parse, raises, defines no kernel, or defines a name
    that exists.
    """
    if declarations_only:
        with declarations():
            return load(extra)
    kernels: dict[str, Kernel] = {}
    for module in _shipped_modules():
        collect(module, kernels, module.__name__)
    for path in extra:
        before = len(kernels)
        collect(plugin_module(path), kernels, path.name)
        if len(kernels) == before:
            raise KernelFileError(f"--load {path.name}: the file defines no kernel: decorate a build function with @kernel(…)")
    return kernels


def declarations(*packages: str) -> AbstractContextManager[None]:
    """Inside, torch and the optional backends are empty stand-ins; on leaving, what was imported of us and of `packages` is forgotten."""
    return standing_in(*HEAVY, forgetting=(f"{__package__}.", PLUGIN_PREFIX, *packages))


def _shipped_modules() -> Iterable[ModuleType]:
    """Modules of the operator folders, in the order of OPERATORS; private ones hold no kernels."""
    for operator in OPERATORS:
        package = importlib.import_module(f".{operator}", __package__)
        names = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
        for name in names:
            if not name.startswith("_") and name != "problem":
                yield importlib.import_module(f".{operator}.{name}", __package__)


def collect(module: ModuleType, kernels: dict[str, Kernel], origin: str) -> None:
    """Add the kernels of `module` to `kernels`; raise KernelFileError, which names `origin`, for a name that exists."""
    for item in vars(module).values():
        if isinstance(item, Kernel):
            if kernels.get(item.name, item) is not item:
                raise KernelFileError(f"{origin}: a kernel named {item.name!r} exists already: choose another name")
            kernels[item.name] = item


def plugin_module(path: Path, prefix: str = PLUGIN_PREFIX) -> ModuleType:
    """The module of a file given from outside, under a name of its own."""
    if not path.is_file():
        raise KernelFileError(f"--load {path.name}: there is no such file: give the path of a Python file")
    name = f"{prefix}{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise KernelFileError(f"--load {path.name}: not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except KernelFileError as error:
        raise KernelFileError(f"--load {path.name}: {error}") from error
    except SyntaxError as error:
        raise KernelFileError(f"--load {path.name}: does not parse: {error.msg} (line {error.lineno})") from error
    except (Exception, SystemExit) as error:
        said = (str(error) or "no message").splitlines()[0]
        raise KernelFileError(f"--load {path.name}: raised {type(error).__name__} on import: {said}") from error
    return module
