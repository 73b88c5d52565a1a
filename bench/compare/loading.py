"""In the worker: the kernels of each side of a comparison, under the names by which cases ask for them."""

from __future__ import annotations

import pkgutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from kerneldyno.kernels import registry

from .sides import read_side

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kerneldyno.kernels.registry import Kernel, Problem, Run, Setup

    from ..messages import Source
    from ..records import Case

INSTALLED = registry.__package__
PACKAGE = "kerneldyno_{side}"
"""Under this name the kernels of a side live, beside the installed ones."""


def entries(sources: Mapping[str, Source], cases: Sequence[Case], *, alone: bool = False) -> dict[str, Kernel]:
    """ "base:attention/fused" -> kernel, for all that the cases ask for.

    One that its side does not define here, say because its file fails with the torch that is installed, is there with a
    build that says so: it costs its own cases only. Raises KernelFileError for a folder or file of --load that cannot be
    loaded. `alone`: the installed package is that of the only side already (`alone.load_alone`).
    """
    found: dict[str, Kernel] = {}
    broken: dict[str, str] = {}
    shared: dict[Source, dict[str, Kernel]] = {}
    for side, source in sources.items():
        if source.folder is not None and not alone:
            loaded = read_side(Path(source.folder), PACKAGE.format(side=side), load=_files(source), problems=problems(source))
            kernels = loaded.kernels
            broken[side] = "; ".join(loaded.broken.values())
        elif alone:
            kernels, why = _taken_over(_files(source))
            broken[side] = "; ".join(why)
        else:  # one revision on all sides: a file that is executed twice would register everything twice
            if source not in shared:
                shared[source] = registry.load(_files(source))
            kernels = shared[source]
        found |= {f"{side}:{name}": kernel for name, kernel in kernels.items()}
    lost = [case for case in cases if case.entry not in found]
    return found | {case.entry: _lost(case, found, broken.get(case.side, "")) for case in lost}


def problems(source: Source) -> str:
    """The package that a side takes its problems from: the candidate's, loaded if it is not yet, so that classes are identical."""
    if source.problems is None:
        return INSTALLED
    package = PACKAGE.format(side="candidate")
    read_side(Path(source.problems), package, problems=package)
    return package


def _taken_over(files: list[Path]) -> tuple[dict[str, Kernel], list[str]]:
    """The kernels of the only side, which is installed, so to speak; and what of it does not load."""
    kernels: dict[str, Kernel] = {}
    broken = []
    for operator in registry.OPERATORS:
        package = import_module(f"{INSTALLED}.{operator}")
        for name in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
            if not name.startswith("_") and name != "problem":
                try:
                    registry.collect(import_module(f"{INSTALLED}.{operator}.{name}"), kernels, name)
                except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a file of some revision does
                    broken.append(f"{operator}/{name}.py raised {type(error).__name__}: {error}")
    for path in files:
        registry.collect(registry.plugin_module(path), kernels, path.name)
    return kernels, broken


def _files(source: Source) -> list[Path]:
    return [Path(path) for path in source.load]


def _lost(case: Case, found: Mapping[str, Kernel], why: str) -> Kernel:
    """In the place of a kernel that did not load: like any other of its operator, but its build raises."""
    like = next((kernel for kernel in found.values() if kernel.operator == case.operator), None)
    sentence = f"{case.kernel} is not defined when the {case.side}'s files are loaded here{': ' if why else ''}{why}"
    if like is None:
        raise registry.KernelFileError(sentence)

    def build(problem: Problem, setup: Setup) -> Run:  # noqa: ARG001 - as builds are called
        raise registry.KernelFileError(sentence)

    return replace(like, name=case.kernel, build_run=build, approximate=False, claim=None, prepare=None, identified=None)
