"""The text of a kernels folder: which module imports which inside it, and what of each matters to its behaviour.

Nothing is imported: everything is read from the syntax tree. Where that cannot tell what is imported, more is taken to be
imported than really is.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import warnings
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path

PACKAGE = "kerneldyno.kernels"
HARNESS = ("registry", "contract", "presets", "_standin")
"""Modules that serve the harness; an operator's problem does too."""
PROBLEM = "problem"
DOCUMENTS = (".md", ".rst", ".pyi", ".pyc")
"""Ends of names of files that change nothing; py.typed is one as well."""
NAMING = ("import_module", "__import__", "run_module")
"""Functions that import the module that their argument names."""
PLACING = ("spec_from_file_location", "run_path", "SourceFileLoader")
"""Functions that import the file that an argument gives the path of."""


class Sources:
    """The modules of one folder by their names in it: "registry", "attention", "attention._fused_triton"."""

    def __init__(self, folder: Path, *, deep: bool = True) -> None:
        """`deep`: a kernels folder; else a folder of files given with --load, which can only name one another absolutely."""
        self.folder = folder
        self.deep = deep
        found = folder.rglob("*.py") if deep else folder.glob("*.py")
        self.paths = {self.name_of(path): path for path in sorted(found) if _is_ours(path.relative_to(folder))}
        self._imports: dict[str, frozenset[str]] = {}
        self._loaders: dict[str, frozenset[str]] = {}

    def name_of(self, path: Path) -> str:
        """The module of a file; a package is called like its folder, the kernels folder itself "__init__"."""
        parts = path.relative_to(self.folder).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)

    def file_of(self, module: str) -> str:
        """As people are told: "attention/fused.py"."""
        return self.paths[module].relative_to(self.folder).as_posix()

    def text(self, module: str) -> str:
        return self.paths[module].read_text(encoding="utf-8", errors="surrogateescape")

    def tree(self, module: str) -> ast.Module | None:
        """None for a file that does not parse. Not to be changed: it is parsed once for all who read the same text."""
        return _parsed(self.text(module))

    def nodes(self, module: str) -> tuple[ast.AST, ...]:
        """Of its tree, those that are `executed`; parents before children."""
        return _executed(self.text(module))

    def digest(self, module: str) -> str:
        """Changes when the code does, not when comments, docstrings or the layout of the text do."""
        return _digest(self.text(module))

    @cached_property
    def operators(self) -> tuple[str, ...]:
        """Folders that hold a problem."""
        return tuple(sorted(name.rpartition(".")[0] for name in self.paths if name.count(".") == 1 and name.endswith(f".{PROBLEM}")))

    @cached_property
    def implementations(self) -> tuple[str, ...]:
        """Modules in which kernels are looked for: public ones of the operators' folders."""
        return tuple(name for name in self.paths if _operator(name) in self.operators and _is_public(name))

    @cached_property
    def harness(self) -> frozenset[str]:
        """Modules that only the harness uses: registry, contract, presets, problems, and what nobody but these imports."""
        roots = {name for name in HARNESS if name in self.paths} | {f"{operator}.{PROBLEM}" for operator in self.operators}
        own = self.closure(self.implementations, stop=roots)
        return frozenset(roots | {name for name in self.closure(roots) - own if not self._is_package(name)})

    @cached_property
    def data(self) -> dict[str, str]:
        """Files that are no modules, such as tuned tables: "attention/tiles.json" -> hash of its content."""
        files = (path for path in sorted(self.folder.rglob("*")) if self.deep and path.is_file() and path.suffix != ".py")
        kept = ((path, path.relative_to(self.folder)) for path in files)
        return {
            short.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path, short in kept
            if _is_ours(short) and path.name != "py.typed" and path.suffix not in DOCUMENTS
        }

    def closure(self, modules: Iterable[str], stop: Iterable[str] = ()) -> frozenset[str]:
        """The modules and everything that they import, directly or not; `stop` are neither counted nor followed."""
        ends = set(stop)
        found: set[str] = set()
        waiting = [name for name in modules if name not in ends]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self.imports(name) - found - ends
        return frozenset(found)

    def imports(self, module: str) -> frozenset[str]:
        """Modules of the folder that this one imports at some time, those that only type checkers see left out."""
        if module not in self._imports:
            self._imports[module] = frozenset(self._found_imports(module) - {module})
        return self._imports[module]

    def _found_imports(self, module: str) -> set[str]:
        found = {*_parents(module), "__init__"}
        loaders = {name: name for name in self.loaders(module)}
        for node in self.nodes(module):
            if isinstance(node, ast.Import):
                found.update(name for alias in node.names if (name := self._inside(alias.name)))
            elif isinstance(node, ast.ImportFrom):
                origin = self._relative(module, node.level, node.module) if node.level else self._inside(node.module or "")
                if origin is not None:
                    found.update([origin, *(f"{origin}.{alias.name}".removeprefix(".") for alias in node.names)])
                    loaders |= {alias.asname or alias.name: alias.name for alias in node.names}
            elif isinstance(node, ast.Call) and (name := self._called(node, module)):
                found.add(name)
        found.update(*map(_parents, set(found)))
        offered = {name for item in [*found & self.paths.keys(), module] for name in self.loaders(item)}
        known = {local for local, name in loaders.items() if name in offered} | offered
        return (found | self._composed(module, known)) & self.paths.keys()

    def loaders(self, module: str) -> frozenset[str]:
        """Functions of a module that import what they are asked for, so that only their calls can tell what that is."""
        if module not in self._loaders:
            tree = self.tree(module) if self._may_compute(module) else None
            functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)] if tree else []
            found = (node.name for node in functions if any(self._is_unreadable(inner, module) for inner in ast.walk(node)))
            self._loaders[module] = frozenset(found)
        return self._loaders[module]

    def _may_compute(self, module: str) -> bool:
        """Whether a look at the syntax tree can find an import of something that is computed."""
        text = self.text(module)
        return any(word in text for word in (*NAMING, *PLACING))

    def _composed(self, module: str, loaders: set[str]) -> set[str]:
        """What is imported by name ("attention/sdpa"), or, where no name can be read, everything in other operators' folders."""
        if not loaders and not self._may_compute(module):
            return set()
        named: dict[int, str] = {}
        for node in self.nodes(module):
            if isinstance(node, ast.Call) and _last_name(node.func) in loaders and node.args:
                asked = str(getattr(node.args[0], "value", ""))
                if "/" in asked and (target := asked.replace("/", ".")) in self.paths:
                    named[id(node.func)] = target
        mentioned = {id(node) for node in self.nodes(module) if isinstance(node, ast.Name | ast.Attribute) and _last_name(node) in loaders}
        tree = self.tree(module)
        outside = () if tree is None else executed(tree, skipping=self.loaders(module))
        if mentioned - named.keys() or any(self._is_unreadable(node, module) for node in outside):
            return {name for name in self.paths if _operator(name) in self.operators and _operator(name) != _operator(module)}
        return set(named.values())

    def _called(self, node: ast.Call, module: str) -> str | None:
        """What a call like import_module(".x", __package__) imports, "" outside the folder; None if that is computed, or no such call."""
        name = getattr(node.args[0], "value", None) if node.args else None
        if _last_name(node.func) not in NAMING or not isinstance(name, str):
            return None
        level = len(name) - len(name.lstrip("."))
        if not level:
            return self._inside(name) or ""
        anchor = _last_name(node.args[1]) if len(node.args) > 1 else ""
        if anchor == "__name__":  # taken for a package, so that one dot leads into it
            return _joined(module, level, name.lstrip("."))
        return self._relative(module, level, name.lstrip(".")) if anchor == "__package__" else None

    def _is_unreadable(self, node: ast.AST, module: str) -> bool:
        """Whether this is a call that imports something that is computed."""
        if not isinstance(node, ast.Call):
            return False
        return _last_name(node.func) in PLACING or (_last_name(node.func) in NAMING and self._called(node, module) is None)

    def _inside(self, name: str) -> str | None:
        """The name in this folder of an absolute import; None where it leads elsewhere."""
        if name == PACKAGE or name.startswith(f"{PACKAGE}."):
            return name.removeprefix(PACKAGE).removeprefix(".")
        return name if not self.deep and name in self.paths else None

    def _relative(self, module: str, level: int, name: str | None) -> str | None:
        package = "" if module == "__init__" else module if self._is_package(module) else module.rpartition(".")[0]
        return _joined(package, level, name)

    def _is_package(self, module: str) -> bool:
        return module in self.paths and self.paths[module].name == "__init__.py"


class _Bare(ast.NodeTransformer):
    """Takes out statements without effect: docstrings of functions, classes, modules and attributes."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for field in ("body", "orelse", "finalbody"):
            body = getattr(node, field, None)
            if isinstance(body, list):
                kept = [item for item in body if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))]
                setattr(node, field, kept or ([ast.Pass()] if body and field == "body" else []))
        return node


def executed(tree: ast.AST, skipping: Iterable[str] = ()) -> Iterator[ast.AST]:
    """Every node but what stands under `if TYPE_CHECKING` and in the functions named in `skipping`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and _last_name(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        else:
            waiting += [item for item in ast.iter_child_nodes(node) if not (isinstance(item, ast.FunctionDef) and item.name in skipping)]


@lru_cache(maxsize=1024)
def _parsed(text: str) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of backslashes in old strings
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError):
            return None


@lru_cache(maxsize=256)
def _executed(text: str) -> tuple[ast.AST, ...]:
    tree = _parsed(text)
    return () if tree is None else tuple(executed(tree))


@lru_cache(maxsize=1024)
def _digest(text: str) -> str:
    tree = copy.deepcopy(_parsed(text))
    content = text if tree is None else ast.dump(_Bare().visit(tree))
    return hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()


def _joined(package: str, level: int, name: str | None) -> str | None:
    """`from ..name import …` in `package`, which is "" for the folder itself; None where it leads out of the folder."""
    parts = package.split(".") if package else []
    if level - 1 > len(parts):
        return None
    return ".".join([*parts[: len(parts) - level + 1], *([name] if name else [])])


def _last_name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _operator(module: str) -> str:
    return module.partition(".")[0]


def _is_public(module: str) -> bool:
    _, _, short = module.partition(".")
    return bool(short) and "." not in short and not short.startswith("_") and short != PROBLEM


def _is_ours(path: Path) -> bool:
    """Not a cache, nor hidden."""
    return not any(part == "__pycache__" or part.startswith(".") for part in path.parts)
