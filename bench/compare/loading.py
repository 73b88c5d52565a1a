"""In the worker: the kernels of each side of a comparison, under the names by which cases ask for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kerneldyno.kernels.registry import Kernel

    from ..messages import Source

PACKAGE = "kerneldyno_{side}"
"""Under this name the kernels of a side live, beside the installed ones."""


def entries(sources: Mapping[str, Source]) -> dict[str, Kernel]:
    """ "base:attention/fused" -> kernel. Raises KernelFileError, with its sentence, for what cannot be loaded."""
    found: dict[str, Kernel] = {}
    for side, source in sources.items():
        found |= {f"{side}:{name}": kernel for name, kernel in kernels_of(side, source).items()}
    return found


def kernels_of(side: str, source: Source, *, declarations_only: bool = False) -> dict[str, Kernel]:
    """The kernels of one side by name; with `declarations_only` as `registry.load` says."""
    from kerneldyno.kernels import registry

    from .sides import load_side

    files = [Path(path) for path in source.load]
    if source.folder is None:
        return registry.load(files, declarations_only=declarations_only, side=side)
    return load_side(Path(source.folder), PACKAGE.format(side=side), extra=files, declarations_only=declarations_only)


def take_over(sources: Mapping[str, Source]) -> None:
    """Let the installed package's kernels, registry and problems come from the only side's folder. Before they are imported."""
    from .sides import load_alone

    (source,) = sources.values()
    if source.folder is not None:
        load_alone(Path(source.folder))
