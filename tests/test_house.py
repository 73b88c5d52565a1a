"""The borders of the house: packaging, who imports whom, names, sizes. Looks at the files that are there."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("bench", "kernels", "reports")
OPERATORS = ("attention", "feedforward", "layer")

FORBIDDEN_NAMES = {"utils", "common", "base", "config", "helpers"}
MOST_LINES = 300
LONGER: dict[str, int] = {}
MOST_FUNCTION_LINES = 60

PLAIN = ("records", "manifest", "comparison", "verdict", "entries", "stats", "journal", "explanation", "variants", "crossings")
FOR_REPORTS = {f"kerneldyno.bench.{name}" for name in PLAIN}
DECIDING = {f"kerneldyno.bench.compare.{name}" for name in ("decide", "pairs", "quantities", "verdicts", "outcome", "stored")}
READING = {f"kerneldyno.bench.compare.{name}" for name in ("sources", "registrations", "alone")}
PLANNING = {f"kerneldyno.bench.compare.{name}" for name in ("revisions", "differences", "sides", "cells", "commits", "contest", "command")}
RUNNING = {
    f"kerneldyno.bench.{name}"
    for name in ("plan", "run", "refine", "pace", "environment", "__main__", "export", "onekernel", "pytest_plugin")
}
TUNING = {f"kerneldyno.bench.tune.{name}" for name in ("command", "contestants", "goals", "prune", "decide", "book", "folder", "telling")}
TORCH_FREE = RUNNING | FOR_REPORTS | DECIDING | READING | PLANNING | TUNING
KERNEL_FREE = FOR_REPORTS | DECIDING | READING
OPTIONAL = {"triton", "onnx", "onnxruntime", "torchao", "jax"}


class Import(NamedTuple):
    """One imported module, and where the import stands."""

    target: str
    """Absolute; `from x import y` gives both x and x.y."""
    relative: bool
    at_import: bool
    """Whether it happens when the module is imported: outside functions and `if TYPE_CHECKING`."""
    line: int


def paths(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


SOURCES = {".".join(("kerneldyno", *path.relative_to(ROOT).with_suffix("").parts)): path for folder in FOLDERS for path in paths(folder)}


def modules(*folders: str) -> list[str]:
    """The modules of some of the three folders."""
    return [name for name in SOURCES if name.split(".")[1] in folders]


def place(name: str) -> str:
    return str(SOURCES[name].relative_to(ROOT))


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(SOURCES[name].read_text(encoding="utf-8"))


@cache
def imports(name: str) -> tuple[Import, ...]:
    """Every import statement of a module."""
    found: list[Import] = []
    package = name.split(".")[: None if SOURCES[name].name == "__init__.py" else -1]
    if SOURCES[name].name == "__init__.py":
        package = package[:-1]  # the name ends in .__init__

    def visit(node: ast.AST, at_import: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, False, at_import, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*start, *([node.module] if node.module else [])])
            names = [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
            found.extend(Import(target, node.level > 0, at_import, node.lineno) for target in names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                visit(child, False)
            for child in node.orelse:
                visit(child, at_import)
        else:
            inside = at_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                visit(child, inside)

    visit(tree(name), True)
    return tuple(found)


def within(target: str, *packages: str) -> bool:
    """Whether a module is one of `packages` or lies in one."""
    return any(target == package or target.startswith(package + ".") for package in packages)


def loaded_with(name: str, seen: set[str] | None = None) -> dict[str, str]:
    """Everything that importing a module imports, ours followed further: target -> who imports it."""
    seen = set() if seen is None else seen
    seen.add(name)
    found: dict[str, str] = {}
    for item in imports(name):
        if item.at_import:
            found.setdefault(item.target, name)
            if item.target in SOURCES and item.target not in seen:
                found = {**loaded_with(item.target, seen), **found}
    return found


def loads(name: str, *packages: str) -> list[str]:
    """What of `packages` is loaded when a module is imported, and by whom, for people."""
    return [f"{place(name)} loads {target} through {place(by)}" for target, by in loaded_with(name).items() if within(target, *packages)]


def offences(names: list[str], *packages: str) -> list[str]:
    """Imports of `packages` anywhere in these modules, for people."""
    found = [(name, item) for name in names for item in imports(name) if within(item.target, *packages)]
    return [f"{place(name)}:{item.line} imports {item.target}" for name, item in found]


# ---------------------------------------------------------------- packaging


@cache
def project() -> dict:  # type: ignore[type-arg]
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_three_folders_are_namespaces() -> None:
    """With an __init__.py, a folder named kernels would hide the PyPI package of that name from everybody run here."""
    for folder in FOLDERS:
        assert not (ROOT / folder / "__init__.py").exists(), folder


def test_every_folder_with_modules_is_packaged_and_no_other() -> None:
    on_disk = {".".join(name.split(".")[:-1]) for name in SOURCES}
    assert set(project()["tool"]["setuptools"]["packages"]) == on_disk
    for package in on_disk:
        folder = ROOT / Path(*package.split(".")[1:])
        assert (folder / "__init__.py").exists() == (package.count(".") > 1), folder


def test_type_checkers_are_told_that_all_three_are_typed() -> None:
    for folder in FOLDERS:
        assert (ROOT / folder / "py.typed").is_file(), folder


def test_the_installed_version_is_the_one_that_is_declared() -> None:
    assert importlib.metadata.version("kerneldyno") == project()["project"]["version"]


def test_tests_have_no_packages() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_the_wheel_holds_every_module_and_every_file_that_belongs_to_one(tmp_path: Path) -> None:
    """An editable install hides what is missing: only the wheel tells."""
    wanted = project()["build-system"]["requires"]
    assert wanted == ["setuptools>=77"]
    if not _has_setuptools(77):
        if os.environ.get("CI"):
            pytest.fail("CI must build the wheel: install setuptools>=77")
        pytest.skip("needs setuptools>=77 in this environment to build the wheel")
    source = tmp_path / "source"
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("kerneldyno-*.whl")
    packed = {name.removeprefix("kerneldyno/") for name in zipfile.ZipFile(wheel).namelist() if name.startswith("kerneldyno/")}
    patterns = ("*.py", "py.typed", "*.c", "*.j2", "*.css", "*.js", "tuned/*.json")
    here = {str(path.relative_to(source)) for folder in FOLDERS for pattern in patterns for path in (source / folder).rglob(pattern)}
    assert packed == here


def _has_setuptools(major: int) -> bool:
    try:
        return int(importlib.metadata.version("setuptools").split(".")[0]) >= major
    except importlib.metadata.PackageNotFoundError:
        return False


# ---------------------------------------------------------------- who may import whom


def test_reports_know_only_records_stats_and_journal() -> None:
    reports = modules("reports")
    assert offences(reports, "torch", "triton", "kerneldyno.kernels") == []
    ours = offences(reports, "kerneldyno.bench")
    assert [line for line in ours if not line.endswith(" kerneldyno.bench") and not within(line.split()[-1], *FOR_REPORTS)] == []


def test_kernels_know_neither_bench_nor_reports() -> None:
    assert offences(modules("kernels"), "kerneldyno.bench", "kerneldyno.reports", "bench", "reports") == []


def test_imports_inside_kernels_are_relative() -> None:
    """So that two revisions of the folder can be loaded under two names."""
    absolute = [
        f"{place(name)}:{item.line} imports {item.target}"
        for name in modules("kernels")
        for item in imports(name)
        if within(item.target, "kerneldyno", *FOLDERS) and not item.relative
    ]
    assert absolute == []


def is_implementation(name: str) -> bool:
    """Whether a module holds kernels: public, in an operator's folder, and not its problem."""
    parts = name.split(".")
    return len(parts) == 4 and parts[1] == "kernels" and parts[2] in OPERATORS and parts[3] != "problem" and not parts[3].startswith("_")


def test_an_implementation_imports_no_other() -> None:
    """Nor through a private module beside it. The layer is composed of the other operators."""
    bound = [name for name in modules("kernels") if name.split(".")[2] in OPERATORS and name.split(".")[2] != "layer"]
    others = [item for item in SOURCES if is_implementation(item)]
    assert [line for name in bound for line in offences([name], *(other for other in others if other != name))] == []


def test_optional_backends_are_imported_when_a_kernel_is_built() -> None:
    """A private module may need one as a whole; then nobody imports that module before building."""
    public = [name for name in modules("kernels") if not name.split(".")[-1].startswith("_")]
    assert [line for name in public for line in loads(name, *OPTIONAL)] == []


def test_planning_and_reading_load_no_torch() -> None:
    assert [line for name in sorted(TORCH_FREE & SOURCES.keys()) for line in loads(name, "torch")] == []
    assert [line for name in sorted(KERNEL_FREE & SOURCES.keys()) for line in loads(name, "kerneldyno.kernels")] == []


def test_reports_open_where_there_is_no_torch(tmp_path: Path) -> None:
    """The real thing: with torch and our kernels out of reach, everything that a report needs is imported."""
    names = sorted(FOR_REPORTS | {name for name in SOURCES if within(name, "kerneldyno.reports")})
    program = "\n".join(
        [
            "import importlib, sys",
            "for blocked in ('torch', 'triton', 'onnxruntime', 'torchao', 'kerneldyno.kernels'): sys.modules[blocked] = None",
            f"for name in {names}: importlib.import_module(name)",
        ]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


# ---------------------------------------------------------------- names and sizes


def test_every_module_says_what_lives_there() -> None:
    silent = []
    for name in modules(*FOLDERS):
        first = (ast.get_docstring(tree(name)) or "").split("\n")[0].rstrip()
        empty = SOURCES[name].name == "__init__.py" and not tree(name).body
        if not empty and not first.endswith((".", ":", "?", "!")):
            silent.append(f"{place(name)} must begin with a sentence in a docstring, not with {first!r}")
    assert silent == []


def test_modules_are_named_after_nouns_of_their_own() -> None:
    assert [place(name) for name in modules(*FOLDERS) if FORBIDDEN_NAMES & set(name.split("."))] == []


def test_every_file_can_be_read_in_one_go() -> None:
    lines = {place(name): len(SOURCES[name].read_text(encoding="utf-8").splitlines()) for name in modules(*FOLDERS)}
    allowed = {name: LONGER.get(name, MOST_LINES) for name in lines if not name.endswith(("_triton.py", "_gluon.py"))}
    assert [f"{name} has {lines[name]} lines: split it" for name, most in allowed.items() if lines[name] > most] == []
    assert [f"{name} is short now: take it off LONGER" for name in LONGER if lines.get(name, 0) <= MOST_LINES] == []


def test_every_function_fits_a_screen() -> None:
    long = [
        f"{place(name)}:{node.lineno} {node.name} has {length} lines: split it"
        for name in modules(*FOLDERS)
        if not name.endswith(("_triton", "_gluon"))
        for node in ast.walk(tree(name))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (length := (node.end_lineno or 0) - node.lineno + 1) > MOST_FUNCTION_LINES
    ]
    assert long == []


# ---------------------------------------------------------------- the tests of these tests


PROBE = """
import a.b
from typing import TYPE_CHECKING
from . import sibling
from ..registry import Run
if TYPE_CHECKING:
    import typed
else:
    import untyped
try:
    import tried
except ImportError:
    pass
class C:
    import member
def f():
    import late
"""


def test_the_eye_that_looks_for_imports_sees_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    monkeypatch.setitem(SOURCES, "kerneldyno.kernels.attention.probe", tmp_path / "probe.py")
    found = {item.target: item for item in imports("kerneldyno.kernels.attention.probe")}
    early = {target for target, item in found.items() if item.at_import}
    assert {"a.b", "typing", "untyped", "tried", "member"} <= early
    assert not {"typed", "late"} & early
    assert {"typed", "late"} <= found.keys()
    assert found["kerneldyno.kernels.attention.sibling"].relative
    assert found["kerneldyno.kernels.registry"].relative
    assert not found["a.b"].relative


def test_what_is_imported_through_others_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = {"probe_1": "from . import probe_2", "probe_2": "from .probe_1 import x\nfrom .probe_3 import y", "probe_3": "import torch.nn"}
    for name, text in chain.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setitem(SOURCES, f"kerneldyno.bench.{name}", tmp_path / f"{name}.py")
    assert loaded_with("kerneldyno.bench.probe_1")["torch.nn"] == "kerneldyno.bench.probe_3"
