"""Who meets whom in a comparison: the kernels of two sides, where each comes from, and what of them differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kerneldyno.kernels import registry
from kerneldyno.kernels.registry import Kernel

from ..comparison import Form, Side
from ..messages import Source
from ..plan import UsageError, select


@dataclass(frozen=True)
class Contestants:
    """Two sides with their kernels."""

    form: Form
    base: Side
    candidate: Side
    base_kernels: Mapping[str, Kernel]
    candidate_kernels: Mapping[str, Kernel]
    pairs: tuple[tuple[str, str], ...]
    """Names of (base's kernel, candidate's kernel); in a comparison of commits they are equal and one side may lack it."""
    sources: Mapping[str, Source]
    """Side ("base", "candidate", "copy") -> where its kernels are loaded from."""
    changed: Mapping[str, str] = field(default_factory=dict)
    """Kernel -> what of it differs."""
    left_out: tuple[str, ...] = ()
    """Kernels that are not compared, since nothing that they are made of differs."""
    same: frozenset[str] = frozenset()
    """Kernels that are compared although nothing of them differs."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """Kernel -> why the candidate's file does not load."""
    adjacent: Mapping[str, str] = field(default_factory=dict)
    """Kernel -> why its two revisions cannot live in one process."""
    warnings: tuple[str, ...] = ()

    @property
    def operators(self) -> set[str]:
        """Of the kernels that are compared."""
        return {name.partition("/")[0] for pair in self.pairs for name in pair}


def two_kernels(base: str, candidate: str, load: tuple[str, ...]) -> Contestants:
    """Two kernels of the installed revision. Raises UsageError for a name that is none, or two that cannot meet."""
    source = Source(load=load)
    kernels = registry.load([Path(path) for path in load], declarations_only=True)
    one, other = (_single(kernels, name) for name in (base, candidate))
    if one.operator != other.operator:
        raise UsageError(
            f"--kernels {base} {candidate}: {one.operator} and {other.operator} do different things: compare kernels of one operator"
        )
    if one.name == other.name:
        raise UsageError(f"--kernels {base} {candidate}: both are {one.name}: name two different kernels, or give --base REV")
    return Contestants(
        form="kernels",
        base=Side(label=one.name),
        candidate=Side(label=other.name),
        base_kernels=kernels,
        candidate_kernels=kernels,
        pairs=((one.name, other.name),),
        sources=dict.fromkeys(("base", "candidate", "copy"), source),
    )


def _single(kernels: Mapping[str, Kernel], name: str) -> Kernel:
    found = select(kernels, [name])
    if len(found) > 1:
        raise UsageError(f"--kernels {name!r} matches {', '.join(kernel.name for kernel in found)}: name exactly one kernel for each side")
    return found[0]
