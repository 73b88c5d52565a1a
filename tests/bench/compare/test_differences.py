from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kerneldyno.bench.compare.differences import Differences, of_kernels
from kerneldyno.bench.compare.sides import read_sides
from kerneldyno.kernels import registry

Change = Callable[[Path], object]


@pytest.fixture
def compared(tmp_path: Path) -> Callable[..., Differences]:
    """What differs after a change of the candidate, and perhaps of the base."""

    def compare(candidate: Change, base: Change = lambda folder: None, load: dict[str, list[Path]] | None = None) -> Differences:
        folders = {}
        for name, change in (("kerneldyno_base", base), ("kerneldyno_candidate", candidate)):
            folders[name] = shutil.copytree(registry.KERNELS, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
            change(folders[name])
        one, two = read_sides(folders, load).values()
        assert (one.broken, two.broken) == ({}, {})
        return of_kernels(one.kernels, two.kernels, one.folder, two.folder)

    return compare


def append(file: str, text: str) -> Change:
    def change(folder: Path) -> None:
        path = folder / file
        path.write_text((path.read_text() if path.exists() else "") + text)

    return change


ALL = tuple(registry.load(declarations_only=True))
SPARSE = {name for name in ALL if name.startswith(("attention/block_sparse_", "attention/sinks_"))}
PRUNED_LAYERS = {name for name in ALL if name.startswith("layer/pruned")}


@pytest.mark.parametrize(
    ("file", "kernels"),
    [
        ("attention/eager.py", {"attention/eager", "layer/eager"}),
        ("attention/_prefill_triton.py", SPARSE | {"attention/fused", "attention/fused_hopper", "attention/int8", "attention/int8_cache",
                                          "layer/fused", "layer/int8"}),
        ("attention/sdpa.py", {name for name in ALL if name.startswith("attention/sdpa")}
         | {"layer/sdpa", "layer/compiled"} | PRUNED_LAYERS),
        ("_pruning.py", PRUNED_LAYERS
         | {name for name in ALL if name.startswith(("attention/pruned", "feedforward/pruned", "feedforward/sparse_24"))}),
        ("layer/_compose.py", {f"layer/{name}" for name in ("compiled", "eager", "fused", "int8", "sdpa")} | PRUNED_LAYERS),
        ("layer/encoder.py", {"layer/torch"}),
        ("feedforward/__init__.py", {name for name in ALL if name.startswith("feedforward/")}
         | {f"layer/{name}" for name in ("compiled", "eager", "fused", "int8", "onnxrt", "onnxrt_fused", "sdpa")} | PRUNED_LAYERS),
    ],
)  # fmt: skip
def test_a_change_counts_for_whoever_imports_it(compared: Callable[..., Differences], file: str, kernels: set[str]) -> None:
    found = compared(append(file, "\nLATER = 1\n"))
    assert found.changed == dict.fromkeys(found.changed, file)
    assert set(found.changed) == kernels
    assert set(found.unchanged) == set(ALL) - kernels
    assert (found.added, found.removed, found.harness) == ((), (), ())


def test_tiles_that_were_tuned_count_for_whoever_is_built_with_them(compared: Callable[..., Differences]) -> None:
    found = compared(append("tuned/sm_90.json", "{}"))
    tuned = ["attention/fused", "attention/fused_hopper", "feedforward/fused", "layer/fused"]
    tuned += [f"feedforward/{name}" for name in ("int8", "int8_smooth", "int8_weights")] + ["layer/int8"]
    assert found.changed == dict.fromkeys(tuned, "tuned/sm_90.json (new)")


def test_comments_docstrings_and_layout_do_not_count(compared: Callable[..., Differences]) -> None:
    def restyle(folder: Path) -> None:
        for path in folder.rglob("*.py"):
            path.write_text("# first\n\n" + path.read_text() + '\n"""Last."""\n')

    found = compared(restyle)
    assert (found.changed, found.harness, set(found.unchanged)) == ({}, (), set(ALL))


def test_the_harness_is_told_apart(compared: Callable[..., Differences]) -> None:
    def change(folder: Path) -> None:
        for file in ("registry.py", "presets.py", "attention/problem.py", "attention/_probes.py"):
            append(file, "\nLATER = 1\n")(folder)

    found = compared(change)
    assert found.changed == {}
    assert found.harness == ("attention/_probes.py", "attention/problem.py", "presets.py", "registry.py")


def test_reasons_begin_with_the_own_file_and_stay_short(compared: Callable[..., Differences]) -> None:
    def change(folder: Path) -> None:
        (folder / "attention" / "_tiles.py").write_text("SIZE = 1\n")
        for file in ("attention/_masks.py", "attention/eager.py", "_identity.py"):
            append(file, "\nfrom . import registry\n" if file == "_identity.py" else "\nfrom . import _tiles\n")(folder)

    found = compared(change)
    assert found.changed["attention/eager"] == "attention/eager.py, _identity.py, attention/_masks.py, 1 more"
    assert found.changed["attention/pruned"] == "_identity.py, attention/_masks.py, attention/_tiles.py (new)"
    assert found.changed["feedforward/eager"] == "_identity.py"


def test_files_of_data_count_for_their_folder(compared: Callable[..., Differences]) -> None:
    found = compared(append("attention/tiles.json", "[1]"), append("attention/tiles.json", "[2]"))
    assert {name for name in ALL if name.startswith("attention/")} < found.changed.keys()
    assert "layer/sdpa" in found.changed  # made of attention
    assert not {name for name in found.changed if name.startswith("feedforward/")}
    assert found.changed["attention/eager"] == "attention/tiles.json"


def test_one_more_one_less_and_one_renamed(compared: Callable[..., Differences]) -> None:
    def change(folder: Path) -> None:
        eager = folder / "feedforward" / "eager.py"
        (folder / "feedforward" / "extra.py").write_text(eager.read_text().replace("def eager(", "def extra("))
        (folder / "feedforward" / "onnxrt.py").unlink()
        (folder / "attention" / "flex.py").rename(folder / "attention" / "bent.py")

    found = compared(change)
    assert found.added == ("feedforward/extra",)
    assert found.removed == ("feedforward/onnxrt",)
    assert found.changed == {"attention/flex": "attention/bent.py (new), attention/flex.py (gone)"}


PLUGIN = """
from kerneldyno.kernels.feedforward.problem import FeedForward
from kerneldyno.kernels.registry import kernel
import part


@kernel(FeedForward)
def mine(problem, setup):
    return lambda inputs: problem.naive(inputs, setup.weights) * part.FACTOR
"""


def test_files_from_outside_are_compared_with_their_neighbours(
    compared: Callable[..., Differences], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, factor in (("kerneldyno_base", 1), ("kerneldyno_candidate", 2)):
        (tmp_path / "loaded" / name).mkdir(parents=True)
        (tmp_path / "loaded" / name / "mine.py").write_text(PLUGIN)
        (tmp_path / "loaded" / name / "part.py").write_text(f"FACTOR = {factor}")
    monkeypatch.syspath_prepend(tmp_path / "loaded" / "kerneldyno_base")
    load = {name: [tmp_path / "loaded" / name / "mine.py"] for name in ("kerneldyno_base", "kerneldyno_candidate")}
    found = compared(lambda folder: None, load=load)
    assert found.changed == {"feedforward/mine": "part.py"}
