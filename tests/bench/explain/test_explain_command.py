from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import save_file

from kerneldyno.bench.explain import command, given
from kerneldyno.bench.explanation import Explanation
from kerneldyno.bench.models import ModelError, chosen
from kerneldyno.bench.plan import UsageError

SMALL = {"seq_len": [64], "heads": [2], "head_dim": [16]}


def asked(**fields) -> command.Asked:
    return command.Asked(**{"device": "cpu", "axes": SMALL, **fields})


def test_kernels_are_compared_with_the_exact_maps_and_the_others_say_why_not() -> None:
    said: list[str] = []
    found = command.explain(asked(kernels=("int8", "pruned", "block_sparse_25", "sdpa")), say=said.append)
    by_name = {kernel.kernel.partition("/")[2]: kernel for kernel in found.kernels}
    assert "leave too little to choose among" in by_name["block_sparse_25"].reason
    assert sorted(head.total for head in by_name["pruned"].heads) == pytest.approx([0, 1], abs=1e-5)
    assert all(0 < head.moved_mean < 0.05 for head in by_name["int8"].heads)
    assert all(head.moved_worst < 1e-5 for head in by_name["sdpa"].heads)
    assert max(kernel.unexplained for kernel in found.kernels) < 1e-4
    assert (found.heads, found.query_cell, len(found.exact[0])) == ((0, 1), 1, 64)
    assert found.label == "1×2×64×16 structured fp32"
    assert "attention/int8" in said
    assert msgspec.json.decode(msgspec.json.encode(found), type=Explanation) == found


def test_queries_and_keys_of_a_models_layer(small_models: Path) -> None:
    model = chosen(small_models / "llama-small", None, None, ("1",))
    found = command.explain(asked(model=model, axes={"seq_len": [24]}, kernels=("int8",), heads=("3", "0")))
    assert found.label.endswith("causal fp32 llama-small layer 1")
    assert (found.heads, found.group) == ((3, 0), 2)
    upper = torch.tensor(found.exact[0]).triu(1)
    assert not upper.any()
    several = chosen(small_models / "llama-small", None, None, ("0", "1"))
    with pytest.raises(UsageError, match="name one with --layer"):
        command.explain(asked(model=several, axes={}))


def test_queries_keys_and_values_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "qkv.safetensors"
    q, k = torch.randn(1, 4, 20, 16), torch.randn(1, 2, 30, 16)
    save_file({"q": q, "k": k, "v": torch.randn(1, 2, 30, 16)}, path)
    found = command.explain(asked(inputs=path, axes={"causal": [False]}, kernels=("pruned", "sdpa"), heads=("2",)))
    right = (q[0, 2].double() @ k[0, 1].double().mT / 4).softmax(-1)
    assert torch.allclose(torch.tensor(found.exact[2], dtype=torch.float64), right, rtol=0.01, atol=1e-3)
    assert any("calibration" in note for note in found.notes)
    with pytest.raises(UsageError, match="--set seq_len does not go with --inputs"):
        command.explain(asked(inputs=path))


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"q": (1, 2, 4, 8)}, "holds no tensor 'k'"),
        ({"q": (2, 4, 8), "k": (1, 2, 4, 8), "v": (1, 2, 4, 8)}, "they must be"),
        ({"q": (1, 2, 4, 8), "k": (1, 2, 4, 8), "v": (1, 2, 5, 8)}, "k and v alike"),
        ({"q": (1, 2, 4, 8), "k": (1, 2, 4, 16), "v": (1, 2, 4, 16)}, "differ in batch or head_dim"),
    ],
)
def test_a_file_that_makes_no_problem(tmp_path: Path, tensors: dict, sentence: str) -> None:
    path = tmp_path / "x.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, path)
    with pytest.raises(UsageError, match=sentence):
        given.fields_of(path)


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"q": torch.zeros(1, 2, 4, 8), "k": torch.full((1, 2, 4, 8), torch.nan), "v": torch.zeros(1, 2, 4, 8)}, path)
    with pytest.raises(ModelError, match="k holds numbers that are not finite in float32"):
        command.explain(asked(inputs=path, axes={}))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"axes": {"seq_len": [64, 128]}}, "one problem, not at 2"),
        ({"axes": {"seq_len": [8192]}}, "8192 keys are too many for a map"),
        ({"axes": {"direction": ["backward"]}}, "looks at the forward pass"),
        ({"axes": {"dim": [8]}}, "--set 'dim' is not a field of attention"),
        ({"heads": ("2",)}, "--heads 2: there are 2 heads: give numbers from 0 to 1"),
        ({"heads": ("x",)}, "--heads x"),
        ({"threads": 0}, "--threads 0 is impossible here"),
        ({"seed": 10**20}, "--seed 100000000000000000000 is impossible here"),
        ({"kernels": ("nobody",)}, "matches no kernel"),
    ],
)
def test_what_cannot_be_explained_is_refused_in_a_sentence(fields: dict, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        command.explain(asked(**fields))


FAILING = '''
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import kernel


@kernel(Attention, approximate=True, claim=lambda problem, setup, inputs: problem.reference(inputs))
def broken(problem, setup):
    """Raises."""
    def run(inputs):
        raise RuntimeError("no such luck")
    return run
'''


def test_the_command_writes_a_page_and_numbers_and_tells_of_failures(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(FAILING)
    shape = ("--seq-len", "48", "--set", "heads=2", "--set", "head_dim=16", "--device", "cpu")
    words = [sys.executable, "-m", "kerneldyno.bench", "explain", "attention", *shape, "--json", "numbers.json"]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*words, *more], check=False, capture_output=True, text=True, cwd=tmp_path, timeout=300)

    done = run("--kernels", "int8")
    assert done.returncode == 0, done.stderr
    assert "attention/int8: moves" in done.stdout
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["exact"] == {}
    assert numbers["kernels"][0]["heads"][0]["moved_mean"] > 0
    assert "1×2×48×16 structured fp32" in (tmp_path / "explain.html").read_text()
    failed = run("--kernels", "broken", "--load", "own.py")
    assert failed.returncode == 5
    assert "raised RuntimeError: no such luck" in failed.stdout
    layer = subprocess.run([*words[:4], "layer"], check=False, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert layer.returncode == 2
    assert "only attention has maps" in layer.stderr
