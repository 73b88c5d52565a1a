"""Which kernels differ between two revisions, by what they and everything that they import say; nothing is imported.

Comments, docstrings and the layout of the text do not count. What only the harness uses (registry, contract, presets,
problems and their probes) is the candidate's on both sides: a difference there is no kernel's, and is told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .sources import Sources

if TYPE_CHECKING:
    from kerneldyno.kernels.registry import Kernel

MOST_FILES = 3
"""As many are named in a reason."""


@dataclass(frozen=True)
class Differences:
    """Kernels by name; those of `changed` with the files that differ, in a few words."""

    changed: dict[str, str]
    """"attention/fused" -> "attention/fused.py, attention/_fused_triton.py"."""
    unchanged: tuple[str, ...]
    added: tuple[str, ...]
    """Only the candidate has them."""
    removed: tuple[str, ...]
    """Only the base has them."""
    harness: tuple[str, ...]
    """Files that differ and belong to the harness: "registry.py", "attention/problem.py"."""


def of_kernels(
    base_kernels: Mapping[str, Kernel], candidate_kernels: Mapping[str, Kernel], base_folder: Path, candidate_folder: Path
) -> Differences:
    """What differs between the kernels of two folders; those of files given with --load are compared by these files.

    The kernels come from `sides.read_sides` of these very folders: `Kernel.source` says which module defines each.
    """
    base, candidate = Sources(base_folder.resolve()), Sources(candidate_folder.resolve())
    shared = shared_modules(base, candidate)
    changed: dict[str, str] = {}
    unchanged = []
    for name in (name for name in candidate_kernels if name in base_kernels):
        before, now = _contents(base, base_kernels[name], shared), _contents(candidate, candidate_kernels[name], shared)
        if files := _differing(before, now):
            changed[name] = files
        else:
            unchanged.append(name)
    return Differences(
        changed,
        tuple(unchanged),
        tuple(name for name in candidate_kernels if name not in base_kernels),
        tuple(name for name in base_kernels if name not in candidate_kernels),
        _differing_harness(base, candidate),
    )


def shared_modules(base: Sources, candidate: Sources) -> frozenset[str]:
    """Modules that both sides take from the candidate: of the harness in both, or unknown to one of them."""
    either = base.harness | candidate.harness
    own = (base.paths.keys() - base.harness) | (candidate.paths.keys() - candidate.harness)
    return frozenset(either - own)


def _contents(sources: Sources, kernel: Kernel, shared: frozenset[str]) -> dict[str, str]:
    """File -> hash of everything that the kernel's code depends on, its own file first."""
    path = Path(kernel.source).resolve()
    if path.is_relative_to(sources.folder):
        module = sources.name_of(path)
    else:
        sources, module, shared = Sources(path.parent, deep=False), path.stem, frozenset()
    modules = sources.closure([module], stop=shared)
    found = {sources.file_of(name): sources.digest(name) for name in sorted(modules, key=lambda name: (name != module, name))}
    # a folder of data is of the operator, or of the private module, that it is called after
    folders = {"", *(name.partition(".")[0].removeprefix("_") for name in modules)}
    return found | {file: digest for file, digest in sources.data.items() if file.rpartition("/")[0].partition("/")[0] in folders}


def _differing(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The files that are not the same, for people; "" when all are."""
    files = [name for name in [*now, *(name for name in before if name not in now)] if before.get(name) != now.get(name)]
    told = [f"{name} (new)" if name not in before else f"{name} (gone)" if name not in now else name for name in files]
    more = [f"{len(told) - MOST_FILES} more"] if len(told) > MOST_FILES else []
    return ", ".join([*told[:MOST_FILES], *more])


def _differing_harness(base: Sources, candidate: Sources) -> tuple[str, ...]:
    def contents(sources: Sources) -> dict[str, str]:
        return {sources.file_of(name): sources.digest(name) for name in base.harness | candidate.harness if name in sources.paths}

    before, now = contents(base), contents(candidate)
    return tuple(sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)))
