"""In the worker: the kernels of each side of a comparison, under the names by which cases ask for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kerneldyno.kernels import registry

from .sides import read_side

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kerneldyno.kernels.registry import Kernel

    from ..messages import Source

INSTALLED = registry.__package__
PACKAGE = "kerneldyno_{side}"
"""Under this name the kernels of a side live, beside the installed ones."""


def entries(sources: Mapping[str, Source], *, alone: bool = False) -> dict[str, Kernel]:
    """ "base:attention/fused" -> kernel. Raises KernelFileError, with its sentence, for a folder or file that cannot be loaded.

    A module of a revision that does not load is left out: whoever planned knows of it. `alone`: the installed package is
    that of the only side already (`alone.load_alone`).
    """
    found: dict[str, Kernel] = {}
    for side, source in sources.items():
        files = [Path(path) for path in source.load]
        if source.folder is not None and not alone:
            kernels = read_side(Path(source.folder), PACKAGE.format(side=side), load=files, problems=problems(source)).kernels
        else:
            kernels = installed(files, f"{PACKAGE.format(side=side)}.{registry.PLUGIN_PREFIX}")
        found |= {f"{side}:{name}": kernel for name, kernel in kernels.items()}
    return found


def problems(source: Source) -> str:
    """The package that a side takes its problems from: the candidate's, loaded if it is not yet, so that classes are identical."""
    if source.problems is None:
        return INSTALLED
    package = PACKAGE.format(side="candidate")
    read_side(Path(source.problems), package, problems=package)
    return package


def installed(files: list[Path], prefix: str) -> dict[str, Kernel]:
    """The installed kernels, and those of files whose modules get names with this prefix: a module for each side."""
    kernels = registry.load()
    for path in files:
        registry.collect(registry.plugin_module(path, prefix), kernels, path.name)
    return kernels
