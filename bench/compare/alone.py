"""One revision by itself in a process: the installed package's kernels are replaced before anybody imports them.

For kernels that cannot share a process with another revision. It imports nothing of ours, so that it can come first.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

PACKAGE = "kerneldyno.kernels"


def load_alone(folder: Path) -> None:
    """Make `kerneldyno.kernels` be this folder in this process, its registry and its problems included.

    Modules that the folder lacks are not found, rather than taken from the installed package. Raises RuntimeError when
    something of the installed package has been imported already, or the folder holds no registry.
    """
    loaded = sorted(name for name in sys.modules if name.startswith(f"{PACKAGE}."))
    if loaded:
        raise RuntimeError(f"{loaded[0]} is imported already: load a revision alone before anything else")
    if not (folder / "registry.py").is_file():
        raise RuntimeError(f"{folder.name}/ holds no registry.py: give the kernels folder of a revision")
    spec = ModuleSpec(PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(folder.resolve())]
    sys.modules[PACKAGE] = module = importlib.util.module_from_spec(spec)
    importlib.import_module("kerneldyno").kernels = module  # type: ignore[attr-defined]
    sys.meta_path.insert(0, _OnlyThere())
    importlib.invalidate_caches()


class _OnlyThere:
    """Looks for the package's modules in its folder and nowhere else: an editable install would offer the working tree's."""

    @staticmethod
    def find_spec(fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """As the import system asks; raises ModuleNotFoundError for a module of ours that the folder lacks."""
        if not fullname.startswith(f"{PACKAGE}."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {fullname!r} in this revision", name=fullname)
        return spec
