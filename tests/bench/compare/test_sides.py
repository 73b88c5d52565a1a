"""Loading two revisions, each in a process of its own, so that the modules of this one stay as they are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kerneldyno.kernels import registry

START = """
import json, sys
from pathlib import Path
BASE, CANDIDATE = map(Path, sys.argv[1:3])
"""


@pytest.fixture
def revisions(tmp_path: Path) -> tuple[Path, Path]:
    one, two = (
        shutil.copytree(registry.KERNELS, tmp_path / name / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("base", "candidate")
    )
    return one, two


def told(program: str, *arguments: Path) -> Any:
    """What a program prints last, as JSON."""
    command = [sys.executable, "-W", "error", "-c", START + program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def change(folder: Path, file: str, old: str, new: str) -> None:
    text = (folder / file).read_text()
    assert text.count(old) == 1, (file, old)
    (folder / file).write_text(text.replace(old, new))


CLASSES = """
from kerneldyno.bench.compare.sides import load_side
from kerneldyno.kernels import registry
one, two, own = load_side(BASE, "kerneldyno_base"), load_side(CANDIDATE, "kerneldyno_candidate"), load_side(None, "")
names = list(own)
alike = [all(getattr(side[name], what) == getattr(own[name], what) for side in (one, two) for name in names)
         for what in ("name", "family", "problem", "summary", "devices", "accepts", "shipped", "source_hash", "operator")]
modules = {name: module for name, module in sys.modules.items() if name.startswith("kerneldyno_base.")}
print(json.dumps({
    "names": [list(one) == names, list(two) == names],
    "alike": alike,
    "classes": all(side[name].problem is own[name].problem for side in (one, two) for name in names),
    "distinct": len({side[name].build_run for side in (one, two, own) for name in names}) == 3 * len(names),
    "shared": sorted(name.partition(".")[2] for name, module in modules.items() if module.__name__.startswith("kerneldyno.kernels.")),
    "files": sorted({str(Path(side[name].source).parents[2].name) for side in (one, two) for name in names}),
    "again": load_side(BASE, "kerneldyno_base") == one,
}))
"""


def test_classes_are_shared_and_implementations_are_not(revisions: tuple[Path, Path]) -> None:
    found = told(CLASSES, *revisions)
    assert found["names"] == [True, True]
    assert found["alike"] == [True] * 9
    assert found["classes"]
    assert found["distinct"]
    operators = [f"{name}.problem" for name in ("attention", "feedforward", "layer")]
    attention = [f"attention.{name}" for name in ("_blocks", "_drawing", "_inputs", "_paging", "_probes", "_symmetry")]
    presets = ["_attention_presets", "_network_presets", "_shapes", "presets"]
    others = ["feedforward._backward", "layer._probes", "layer._tensors"]
    given = ["_given", "_given_config", "_given_digest", "_given_embeddings", "_given_files"]
    registry = ["_gradients", "_sources", "_standin", "contract", "registry"]
    assert found["shared"] == sorted([*operators, *attention, *presets, *others, *given, *registry])
    assert found["files"] == ["base", "candidate"]
    assert found["again"]


def test_a_name_belongs_to_one_folder(revisions: tuple[Path, Path]) -> None:
    program = """
from kerneldyno.bench.compare.sides import SideError, load_side
load_side(BASE, "kerneldyno_side")
sentences = []
for folder, package in ((CANDIDATE, "kerneldyno_side"), (BASE / "attention", "kerneldyno_other")):
    try:
        load_side(folder, package)
    except SideError as error:
        sentences.append(str(error))
print(json.dumps(sentences))
"""
    assert told(program, *revisions) == [
        "the name kerneldyno_side is taken by another folder in this process: choose another name",
        "attention/ holds no kernels: give the kernels folder of a revision",
    ]


DECLARATIONS = """
from kerneldyno.bench.compare.sides import load_side, read_sides
from kerneldyno.kernels import registry
before = set(sys.modules)
one, two = read_sides({"kerneldyno_candidate": CANDIDATE, "kerneldyno_base": BASE}).values()
single = load_side(BASE, "kerneldyno_base", declarations_only=True)
found = {
    "count": [len(one.kernels), len(two.kernels), len(single)],
    "classes": all(one.kernels[name].problem is two.kernels[name].problem for name in one.kernels),
    "of": sorted({kernel.problem.__module__ for kernel in two.kernels.values()}),
    "field": one.kernels["attention/sdpa"].problem(q_len=4).novel,
    "left": sorted(name for name in set(sys.modules) - before if name.startswith(("kerneldyno", "torch", "triton", "onnx"))),
}
import torch
real = load_side(BASE, "kerneldyno_base")
found["real"] = real["attention/sdpa"].build_run.__globals__["F"].__name__
print(json.dumps(found))
"""


def test_declarations_are_read_without_torch_and_forgotten(revisions: tuple[Path, Path]) -> None:
    """Both have the candidate's problems, even where the installed package has others."""
    change(revisions[1], "attention/problem.py", "    causal: bool = False\n", "    causal: bool = False\n    novel: int = 7\n")
    found = told(DECLARATIONS, *revisions)
    count = len(registry.load(declarations_only=True))
    assert found["count"] == [count, count, count]
    assert found["classes"]
    assert found["of"] == [f"kerneldyno_candidate.{name}.problem" for name in ("attention", "feedforward", "layer")]
    assert found["field"] == 7
    assert found["left"] == []
    assert found["real"] == "torch.nn.functional"


BROKEN = """
from kerneldyno.bench.compare.sides import SideError, load_side, read_side
from kerneldyno.kernels import registry
base, candidate = read_side(BASE, "kerneldyno_base"), read_side(CANDIDATE, "kerneldyno_candidate")
try:
    load_side(CANDIDATE, "kerneldyno_third")
except SideError as error:
    raised = str(error)
lacking = sorted(set(base.kernels) - set(candidate.kernels))
print(json.dumps({"broken": candidate.broken, "lost": candidate.lost(base), "lacking": lacking, "raised": raised, "base": base.broken}))
"""


def test_a_module_that_does_not_load_costs_its_kernels_only(revisions: tuple[Path, Path]) -> None:
    candidate = revisions[1]
    change(candidate, "attention/flex.py", "return through_flex(", "return = through_flex(")
    change(candidate, "attention/eager.py", "import Run, Setup, kernel", "import Run, Setup, kernel, no_such_name")
    (candidate / "feedforward" / "pruned.py").unlink()
    (candidate / "feedforward" / "second.py").write_text((candidate / "feedforward" / "eager.py").read_text())
    found = told(BROKEN, *revisions)
    eager = "ImportError: cannot import name 'no_such_name' from 'kerneldyno.kernels.registry'"
    assert found["broken"]["attention/flex.py"] == "attention/flex.py does not parse: invalid syntax (line 24)"
    assert found["broken"]["attention/eager.py"] == f"attention/eager.py cannot be loaded: {eager}"
    assert found["broken"]["layer/eager.py"] == f"layer/eager.py cannot be loaded: {eager}"
    assert found["broken"]["feedforward/second.py"].startswith("feedforward/second.py: a kernel named 'feedforward/eager' exists already")
    assert len(found["broken"]) == 4
    pruned = [name for name in registry.load(declarations_only=True) if name.startswith("feedforward/pruned")]
    assert found["lacking"] == ["attention/eager", "attention/flex", *sorted(pruned), "layer/eager"]
    assert {name: found["broken"][f"{name}.py"] for name in ("attention/eager", "attention/flex", "layer/eager")} == found["lost"]
    assert found["raised"] == found["broken"]["attention/eager.py"]
    assert found["base"] == {}


def test_an_operator_in_one_revision_only(revisions: tuple[Path, Path]) -> None:
    base, candidate = revisions
    shutil.copytree(base / "feedforward", base / "older")
    change(base, "older/problem.py", 'operator: ClassVar[str] = "feedforward"', 'operator: ClassVar[str] = "older"')
    shutil.rmtree(candidate / "layer")
    program = """
from kerneldyno.bench.compare.sides import read_sides
one, two = read_sides({"kerneldyno_candidate": CANDIDATE, "kerneldyno_base": BASE}).values()
print(json.dumps([sorted({name.partition("/")[0] for name in side.kernels}) for side in (two, one)] + [one.broken, two.broken]))
"""
    assert told(program, base, candidate) == [["attention", "feedforward", "layer", "older"], ["attention", "feedforward"], {}, {}]


OPERATOR = """
import torch
from ..registry import kernel
from .problem import FeedForward

@torch.library.custom_op("mine::same", mutates_args=())
def times(x: torch.Tensor) -> torch.Tensor:
    return x * FACTOR

@kernel(FeedForward)
def mine(problem, setup):
    return lambda inputs: torch.ops.mine.same(inputs.x)
"""
ANSWERS = """
import torch
from kerneldyno.bench.compare import registrations
from kerneldyno.bench.compare.sides import adjacent, read_side, read_sides
told = [adjacent(*read_sides({"kerneldyno_candidate": CANDIDATE, "kerneldyno_base": BASE}).values())]
if REGARDLESS:
    registrations.reasons = lambda sources: {}
sides = [read_side(BASE, "kerneldyno_base"), read_side(CANDIDATE, "kerneldyno_candidate")]
told.append([side.left_out for side in sides])
inputs = torch.ones(1)
class Inputs: x = inputs
told.append([float(side.kernels[name].build_run(None, None)(Inputs)) for side in sides for name in side.kernels if name.endswith("/mine")])
print(json.dumps(told))
"""


def test_operators_of_one_name_are_kept_apart_since_the_later_one_silently_wins(revisions: tuple[Path, Path]) -> None:
    for folder, factor in zip(revisions, (2, 3), strict=True):
        (folder / "feedforward" / "mine.py").write_text(OPERATOR.replace("FACTOR", str(factor)))
    reason = "feedforward/mine.py registers 'mine::same' with torch.library.custom_op, which is global to a process"
    found = told(ANSWERS.replace("REGARDLESS", "False"), *revisions)
    assert found == [{"feedforward/mine": reason}, [{"feedforward/mine.py": reason}] * 2, []]
    # loaded regardless, the base answers with the candidate's factor
    assert told(ANSWERS.replace("REGARDLESS", "True"), *revisions)[2] == [3.0, 3.0]


def test_operators_named_after_their_module_live_side_by_side(revisions: tuple[Path, Path]) -> None:
    for folder, factor in zip(revisions, (2, 3), strict=True):
        text = OPERATOR.replace("FACTOR", str(factor)).replace('"mine::same"', '__name__.replace(".", "_") + "::same"')
        (folder / "feedforward" / "mine.py").write_text(text.replace("torch.ops.mine.same(", "times("))
    assert told(ANSWERS.replace("REGARDLESS", "False"), *revisions) == [{}, [{}, {}], [2.0, 3.0]]


PLUGIN = """
from kerneldyno.kernels.feedforward.problem import FeedForward
from kerneldyno.kernels.registry import kernel

@kernel(FeedForward)
def mine(problem, setup):
    return lambda inputs: inputs.x * FACTOR
"""


def test_files_from_outside_in_two_revisions(revisions: tuple[Path, Path]) -> None:
    for folder, factor in zip(revisions, (2, 3), strict=True):
        (folder.parent / "mine.py").write_text(PLUGIN.replace("FACTOR", str(factor)))
        (folder.parent / "bad.py").write_text("1 / 0")
    program = """
from kerneldyno.bench.compare.sides import read_side
sides = [read_side(BASE, "kerneldyno_base", load=[BASE.parent / "mine.py", BASE.parent / "bad.py"]),
         read_side(CANDIDATE, "kerneldyno_candidate", load=[CANDIDATE.parent / "mine.py"])]
class Inputs: x = 1
kernels = [side.kernels["feedforward/mine"] for side in sides]
answers = [kernel.build_run(None, None)(Inputs) for kernel in kernels]
print(json.dumps([answers, [kernel.family for kernel in kernels], [kernel.shipped for kernel in kernels], sides[0].broken]))
"""
    broken = {"bad.py": "--load bad.py: raised ZeroDivisionError on import: division by zero"}
    assert told(program, *revisions) == [[2, 3], ["kerneldyno_plugin_mine"] * 2, [False, False], broken]


ALONE = """
from kerneldyno.bench.compare.alone import load_alone
load_alone(BASE)
from kerneldyno.kernels import registry
kernels = registry.load()
problem = kernels["feedforward/mine"].problem
try:
    import kerneldyno.kernels.presets
except ModuleNotFoundError as error:
    missing = str(error)
sources = {Path(kernel.source).parents[2].name for kernel in kernels.values()}
ours = {Path(module.__file__).parents[1].name for name, module in sys.modules.items() if name.startswith("kerneldyno.kernels._")}
print(json.dumps([registry.MARK, problem(seq_len=1).novel, sorted(sources), sorted(ours), missing]))
"""


def test_alone_everything_is_the_folder_s(revisions: tuple[Path, Path]) -> None:
    base = revisions[0]
    (base / "feedforward" / "mine.py").write_text(OPERATOR.replace("FACTOR", "2"))
    change(base, "feedforward/problem.py", "    batch: int = 1\n", "    batch: int = 1\n    novel: int = 7\n")
    with (base / "registry.py").open("a") as file:
        file.write("\nMARK = 5\n")
    (base / "presets.py").unlink()  # what the revision lacks is not taken from the installed package
    assert told(ALONE, *revisions) == [5, 7, ["base"], ["base"], "No module named 'kerneldyno.kernels.presets' in this revision"]


def test_alone_is_only_possible_before_everything_else(revisions: tuple[Path, Path]) -> None:
    program = """
from kerneldyno.bench.compare.alone import load_alone
sentences = []
for folder in (BASE / "attention", BASE, BASE):
    try:
        load_alone(folder)
    except RuntimeError as error:
        sentences.append(str(error))
    import kerneldyno.kernels.contract
print(json.dumps(sentences))
"""
    late = "kerneldyno.kernels.contract is imported already: load a revision alone before anything else"
    assert told(program, *revisions) == ["attention/ holds no registry.py: give the kernels folder of a revision", late, late]


GAIN = """
import triton
import triton.language as tl

GAIN = tl.constexpr(FACTOR)


@triton.jit
def gain_kernel(p_x, BT: tl.constexpr):
    o = tl.arange(0, BT)
    tl.store(p_x + o, tl.load(p_x + o) * GAIN)
"""
COMPILED = """
import importlib, os
from kerneldyno.bench.compare.sides import load_side
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
found = []
for number, (folder, mark) in enumerate(((BASE, "base"), (CANDIDATE, "candidate"), (CANDIDATE, "candidate"), (BASE, "base"))):
    load_side(folder, f"kerneldyno_{mark}_{number}")
    kernel = importlib.import_module(f"kerneldyno_{mark}_{number}.feedforward._gain_triton").gain_kernel
    source = ASTSource(kernel, {"p_x": "*fp32", "BT": "constexpr"}, {(1,): 128})
    text = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ttir"]
    found.append([mark, [value for value in ("2.000000e+00", "3.000000e+00") if value in text]])
print(json.dumps([found, len(list(Path(os.environ["TRITON_CACHE_DIR"]).rglob("*.cubin")))]))
"""


def test_triton_s_cache_on_disk_tells_constants_of_modules_apart(
    revisions: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels of the same text, in the same cache: twice compiled, twice found there."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    for folder, factor in zip(revisions, (2.0, 3.0), strict=True):
        (folder / "feedforward" / "_gain_triton.py").write_text(GAIN.replace("FACTOR", str(factor)))
    base, candidate = ["base", ["2.000000e+00"]], ["candidate", ["3.000000e+00"]]
    assert told(COMPILED, *revisions) == [[base, candidate, candidate, base], 2]
