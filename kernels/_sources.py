"""The hash that tells whether a kernel is still the one that was measured: of its files, and of the choices that were measured for it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ._tuned import PLACE


def digest(own: Path, folder: Path | None, operator: str, *, tuned: bool) -> str:
    """Changes when the kernel's file, its problem, or a private module that it may use changes; if `tuned`, with what was tuned.

    A layer is made of kernels of the other operators, so theirs count too. `folder` is the kernels folder that the file is of.
    """
    files = {own, *own.parent.glob("_*.py"), own.with_name("problem.py")}
    if folder:
        files |= {*folder.glob("_*.py")}
        if operator == "layer":
            files |= {*folder.glob("attention/*.py"), *folder.glob("feedforward/*.py")}
    if tuned:
        files |= {*_choices(folder or Path(__file__).parent)}
    found = hashlib.sha256()
    for path in sorted(files):
        if path.is_file():
            found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _choices(folder: Path) -> list[Path]:
    """The files that `kerneldyno tune` wrote: those of a kernels folder, unless the environment names others."""
    return sorted(Path(os.environ.get(PLACE) or folder / "tuned").glob("sm_*.json"))
