"""Two commits as contestants: their kernels side by side, those that differ, and what cannot share a process."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kerneldyno.kernels.registry import Kernel, KernelFileError

from ..comparison import Side
from ..launch import Options
from ..messages import Source
from ..plan import select
from . import differences, revisions, sides
from .contestants import Contestants
from .loading import PACKAGE

WORKTREE = "worktree"
"""Names the files as they are now."""
SHORT = 12
"""Characters of a commit's hash that tell people which one it is."""
BASE, CANDIDATE = PACKAGE.format(side="base"), PACKAGE.format(side="candidate")


@dataclass(frozen=True)
class _Revision:
    """One commit's kernels, written to a folder of their own."""

    side: Side
    folder: Path
    load: tuple[Path, ...]
    """Its files of --load; those that it does not have are left out."""

    def source(self, problems: Path) -> Source:
        """For the workers; `problems` is the folder of the revision whose problems both sides take."""
        return Source(folder=str(self.folder), load=tuple(str(path) for path in self.load), problems=str(problems))


def two_commits(base: str, candidate: str, options: Options, scratch: Path, *, everything: bool = False) -> Contestants:
    """The kernels of two commits that differ, or all of them, limited to what the options name.

    Both are written to `scratch`, so that edits made while it measures stay out. Raises UsageError for what git does not
    know, KernelFileError for a revision that holds no kernels, and for a new file that does not load.
    """
    root = revisions.project_root()
    old, new = (_written(root, name, options.load, scratch / side) for name, side in ((base, "base"), (candidate, "candidate")))
    read = sides.read_sides({CANDIDATE: new.folder, BASE: old.folder}, {CANDIDATE: new.load, BASE: old.load})
    one, other = read[BASE], read[CANDIDATE]
    _require_new_files(other, old, new)
    found = differences.of_kernels(one.kernels, other.kernels, old.folder, new.folder)
    lost_in_base, lost_in_candidate = one.lost(other), other.lost(one)
    names = _chosen({**one.kernels, **other.kernels}, options)
    compared = [name for name in names if everything or name in found.changed or name in (*found.added, *found.removed)]
    apart = sides.adjacent(one, other)
    apart |= {name: f"the base's file does not load beside the candidate's harness: {why}" for name, why in lost_in_base.items()}
    return Contestants(
        form="commits",
        base=old.side,
        candidate=new.side,
        # what only the base itself can load is planned by what the candidate declares
        base_kernels={**{name: other.kernels[name] for name in lost_in_base}, **one.kernels},
        candidate_kernels=other.kernels,
        pairs=tuple((name, name) for name in compared),
        sources={side: one.source(new.folder) for side, one in (("base", old), ("candidate", new), ("copy", old))},
        changed={name: why for name, why in found.changed.items() if name in names},
        left_out=tuple(name for name in names if name not in compared),
        same=frozenset(found.unchanged),
        broken=lost_in_candidate,
        adjacent=apart,
        warnings=_warnings(found.harness),
    )


def _written(root: Path, name: str, load: tuple[Path, ...], scratch: Path) -> _Revision:
    if name == WORKTREE:
        commit, dirty = revisions.describe(root)
        folder = revisions.worktree(root, scratch)
        copied = tuple(_copied(path, scratch / f"load-{number}") for number, path in enumerate(load))
        return _Revision(Side(label=name, commit=f"{commit}-dirty" if dirty else commit), folder, copied)
    commit = revisions.resolve(root, name)
    folder = revisions.extract(root, commit, scratch)
    files = []
    for number, path in enumerate(load):
        repository = revisions.repository_of(path)
        own = commit if repository == root.resolve() else revisions.resolve(repository, name)
        if (file := revisions.extract_file(repository, own, path, scratch / f"load-{number}")) is not None:
            files.append(file)
    label = name[:SHORT] if name == commit else name
    return _Revision(Side(label=label, commit=commit), folder, tuple(files))


def _copied(path: Path, folder: Path) -> Path:
    """A copy of a file of --load, and of the modules beside it. Raises KernelFileError when there is no such file."""
    if not path.is_file():
        raise KernelFileError(f"--load {path.name}: there is no such file: give the path of a Python file")
    folder.mkdir(parents=True)
    for module in {path, *path.parent.glob("*.py")}:
        shutil.copy(module, folder)
    return folder / path.name


def _require_new_files(side: sides.Side, old: _Revision, new: _Revision) -> None:
    """A file of --load that does not load, and one that only the candidate has: no kernel is known whose verdict could say so."""
    given = {path.name for path in new.load}
    for file, why in side.broken.items():
        if file in given or not (old.folder / file).exists():
            raise KernelFileError(why)


def _chosen(kernels: Mapping[str, Kernel], options: Options) -> list[str]:
    """The kernels that the options name, of either side. Raises UsageError for a name that neither has."""
    return [kernel.name for kernel in select(kernels, options.kernels, options.operators)]


def _warnings(harness: tuple[str, ...]) -> tuple[str, ...]:
    if not harness:
        return ()
    files = ", ".join(harness)
    mathematics = "what kernels compute through a problem's own formula is the candidate's on both sides"
    return (f"{files} differ, too, and are the candidate's for both sides: {mathematics}, so a change there shows nowhere",)
