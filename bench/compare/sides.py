"""Loading the kernels of two revisions side by side: each folder under a package name of its own, with one harness for both.

A second revision shares `registry`, `contract` and the like with the installed package and the problems with the
candidate, so that their classes are identical; implementations and what they are made of come from its own folder.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path

from kerneldyno.kernels import registry
from kerneldyno.kernels.registry import Kernel, KernelFileError

from . import registrations
from .sources import PACKAGE, PROBLEM, Sources


class SideError(KernelFileError):
    """A revision of the kernels cannot be loaded; the message says which module, why, and what to do."""


@dataclass(frozen=True)
class Side:
    """One revision's kernels, and what of it could not be loaded."""

    package: str
    """The name under which it is loaded: "kerneldyno_base"."""
    folder: Path
    kernels: dict[str, Kernel]
    broken: dict[str, str] = field(default_factory=dict)
    """File ("attention/fused.py", "mine.py") -> why it does not load, in a sentence."""
    left_out: dict[str, str] = field(default_factory=dict)
    """File -> why it must not share a process with another revision: not loaded, unless only to read declarations."""

    def lost(self, other: Side) -> dict[str, str]:
        """Kernels of the other side that this one would define as well if their files loaded -> why they do not."""
        files = {name: _file_of(kernel, other.folder) for name, kernel in other.kernels.items() if name not in self.kernels}
        return {name: self.broken[file] for name, file in files.items() if file in self.broken}


def load_side(
    folder: Path | None, package: str, *, load: Sequence[Path] = (), problems: str = PACKAGE, declarations_only: bool = False
) -> dict[str, Kernel]:
    """The kernels of `read_side`, or of the installed package where no folder is given.

    Raises SideError for the first module that does not load.
    """
    if folder is None:
        return registry.load(load, declarations_only=declarations_only)
    side = read_side(folder, package, load=load, problems=problems, declarations_only=declarations_only)
    for sentence in side.broken.values():
        raise SideError(sentence)
    return side.kernels


def read_side(folder: Path, package: str, *, load: Sequence[Path] = (), problems: str = PACKAGE, declarations_only: bool = False) -> Side:
    """Load a kernels folder and the files of `load` under the name `package`; what does not load is told in `Side.broken`.

    `problems` is the package whose problems this side shares: that of a side loaded before, or its own name, to bring its
    own for another side to share. A package that is loaded already is not read again. With `declarations_only` no torch is
    needed, and nothing can be built; to read two sides so, use `read_sides`.

    Raises SideError when the name is taken by another folder, or the folder holds no operator.
    """
    if declarations_only:
        with registry.declarations(package):
            return _read(folder.resolve(), package, load, problems, alone=True)
    return _read(folder.resolve(), package, load, problems, alone=False)


def read_sides(folders: Mapping[str, Path], load: Mapping[str, Sequence[Path]] | None = None) -> dict[str, Side]:
    """Read what several sides declare, by their package names, without torch; all share the problems of the first."""
    first = next(iter(folders))
    with registry.declarations(*folders):
        return {
            package: _read(folder.resolve(), package, (load or {}).get(package, ()), first, alone=True)
            for package, folder in folders.items()
        }


def adjacent(*sides: Side) -> dict[str, str]:
    """Kernels of these sides that cannot share a process with another revision -> why, in a sentence."""
    return {
        name: side.left_out[file]
        for side in sides
        for name, kernel in side.kernels.items()
        if (file := _file_of(kernel, side.folder)) in side.left_out
    }


def _file_of(kernel: Kernel, folder: Path) -> str:
    path = Path(kernel.source).resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _read(folder: Path, package: str, load: Sequence[Path], problems: str, *, alone: bool) -> Side:
    sources = Sources(folder)
    if not sources.operators:
        raise SideError(f"{folder.name}/ holds no kernels: give the kernels folder of a revision")
    _prepare(sources, package, problems)
    kernels: dict[str, Kernel] = {}
    side = Side(package, folder, kernels)
    side.left_out.update({sources.file_of(name): why for name, why in registrations.reasons(sources).items()})
    for operator, name in _modules(sources, package, side.broken):
        file = f"{operator}/{name}.py"
        if alone or file not in side.left_out:
            try:
                registry.collect(importlib.import_module(f"{package}.{operator}.{name}"), kernels, file)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a file of the user's does
                side.broken[file] = _sentence(file, error)
    for path in load:
        if why := registrations.reason_of_file(path):
            side.left_out[path.name] = why
        if alone or path.name not in side.left_out:
            try:
                registry.collect(registry.plugin_module(path, f"{package}.{registry.PLUGIN_PREFIX}"), kernels, path.name)
            except KernelFileError as error:
                side.broken[path.name] = str(error)
    return side


def _prepare(sources: Sources, package: str, problems: str) -> None:
    """Put the package in its place, and the shared modules where its imports will find them."""
    existing = sys.modules.get(package)
    if existing is not None:
        if list(getattr(existing, "__path__", [])) != [str(sources.folder)]:
            raise SideError(f"the name {package} is taken by another folder in this process: choose another name")
        return
    importlib.invalidate_caches()  # the folder may be younger than what the import system remembers of it
    spec = ModuleSpec(package, None, is_package=True)
    spec.submodule_search_locations = [str(sources.folder)]
    sys.modules[package] = module = importlib.util.module_from_spec(spec)
    for name in _shared(sources, package, problems):
        operator, _, short = name.rpartition(".")
        origin = problems if operator and problems != package else PACKAGE
        sys.modules[f"{package}.{name}"] = shared = importlib.import_module(f"{origin}.{name}")
        if not operator:
            setattr(module, short, shared)


def _shared(sources: Sources, package: str, problems: str) -> list[str]:
    """Modules that a side takes from elsewhere: the harness, and, unless it brings its own, the problems."""
    installed = Sources(registry.KERNELS)
    giver = installed if problems == PACKAGE else Sources(Path(str(sys.modules[problems].__path__[0]))) if problems != package else None
    plain = [name for name in installed.harness if "." not in name and name not in sources.paths.keys() - sources.harness]
    if giver is None:
        return plain
    return plain + [name for name in giver.harness & sources.harness if "." in name]


def _modules(sources: Sources, package: str, broken: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(operator, short name) of what may define kernels, in the registry's order of operators; private modules hold none."""
    known = [name for name in registry.OPERATORS if name in sources.operators]
    for operator in [*known, *(name for name in sources.operators if name not in known)]:
        try:
            folder = importlib.import_module(f"{package}.{operator}")
            problem = importlib.import_module(f"{package}.{operator}.{PROBLEM}")
        except (Exception, SystemExit) as error:  # noqa: BLE001
            files = [sources.file_of(name) for name in sources.implementations if name.startswith(f"{operator}.")]
            broken.update({file: _sentence(file, error) for file in files})
            continue
        setattr(folder, PROBLEM, problem)  # a shared one is not set there by its import
        names = sorted(info.name for info in pkgutil.iter_modules(folder.__path__))
        yield from ((operator, name) for name in names if not name.startswith("_") and name != PROBLEM)


def _sentence(file: str, error: BaseException) -> str:
    if isinstance(error, KernelFileError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"{file} does not parse: {error.msg} (line {error.lineno})"
    said = (str(error) or "no message").splitlines()[0].removesuffix(f" ({getattr(error, 'path', None)})")  # where it lies is private
    return f"{file} cannot be loaded: {type(error).__name__}: {said}"
