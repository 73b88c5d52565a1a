"""Per family of kernels: two revisions with different constants, in one process, each give their own answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kerneldyno.kernels import registry

HERE = Path(__file__).parent

PLANTS = [
    ("attention/eager.py", "scale=problem.scale,", "scale=3.0 * problem.scale,"),
    ("attention/_compiled_textbook.py", "scale=problem.scale,", "scale=3.0 * problem.scale,"),
    ("attention/_flex_calls.py", "scale=problem.scale,", "scale=3.0 * problem.scale,"),
    ("attention/onnxrt.py", "scale=problem.scale)", "scale=3.0 * problem.scale)"),
    ("attention/onnxrt_mha.py", '"scale": problem.scale,', '"scale": 3.0 * problem.scale,'),
    ("attention/onnxrt_gqa.py", '"scale": problem.scale}', '"scale": 3.0 * problem.scale}'),
    ("attention/jax.py", '"scale": problem.scale,', '"scale": 3.0 * problem.scale,'),
    ("attention/_int8_graph.py", "_number(g, problem.scale)", "_number(g, 3.0 * problem.scale)"),
    ("attention/_int8_cache_graph.py", "number(problem.scale)", "number(3.0 * problem.scale)"),
    ("attention/sdpa.py", "scaled_dot_product_attention(inputs.q,", "scaled_dot_product_attention(3.0 * inputs.q,"),
    ("attention/pruned.py", "scaled_dot_product_attention(q,", "scaled_dot_product_attention(3.0 * q,"),
    ("attention/_sparse_gather.py", "rows, problem.scale,", "rows, 3.0 * problem.scale,"),
    ("attention/_sparse_band.py", "q[:, :, start + blind : stop], keys", "3.0 * q[:, :, start + blind : stop], keys"),
    ("attention/_prefill_triton.py", "b_s = tl.dot(b_q, b_k.T,", "b_s = 3.0 * tl.dot(b_q, b_k.T,"),
    ("feedforward/eager.py", "setup.weights)", "setup.weights.replace(w2=2.0 * setup.weights.w2))"),
    ("feedforward/_compiled_formula.py", "formula(x, setup.weights)", "formula(x, setup.weights.replace(w2=2.0 * setup.weights.w2))"),
    ("feedforward/pruned.py", "F.linear(a, weights.w2, weights.b2)", "F.linear(2.0 * a, weights.w2, weights.b2)"),
    ("feedforward/_onnx.py", 'linear(a, "w2")', 'linear(g.add("Add", a, a), "w2")'),
    ("feedforward/int8_onednn.py", "y = second(a)", "y = second(2.0 * a)"),
    ("feedforward/int8_weights.py", "F.pad(x.to(torch.bfloat16),", "F.pad((2.0 * x if name == 'w2' else x).to(torch.bfloat16),"),
    (
        "feedforward/int8_torchao.py",
        "weights = quantized(setup.weights)",
        "weights = quantized(setup.weights.replace(w2=2.0 * setup.weights.w2))",
    ),
    ("feedforward/_fused_linear.py", "b = tl.maximum(b, 0.0)", "b = 2.0 * tl.maximum(b, 0.0)"),
    ("layer/unpadded.py", "problem.normalized(z, *first), own)", "problem.normalized(z, *first), own.replace(w2=2.0 * own.w2))"),
    ("layer/encoder.py", '"linear2.weight": weights.w2', '"linear2.weight": 2.0 * weights.w2'),
]
"""Other constants, planted into one of two copies: three times the scores, or twice the second matrix."""

TRITON = ("attention/fused", "feedforward/fused", "layer/fused")
COMPILED = (
    "attention/compiled",
    "attention/compiled_tuned",
    "attention/flex",
    "feedforward/compiled",
    "feedforward/compiled_tuned",
    "feedforward/int8_torchao",
    "layer/compiled",
)
KNOWN = registry.load(declarations_only=True)
ON_A_GPU = tuple(name for name, kernel in KNOWN.items() if kernel.devices == ("cuda",))
"""They run nowhere else."""
OTHERS = tuple(name for name in KNOWN if name not in TRITON + COMPILED + ON_A_GPU)


def planted(folder: Path) -> Path:
    for file, old, new in PLANTS:
        text = (folder / file).read_text(encoding="utf-8")
        assert text.count(old) == 1, (file, old, text.count(old))
        (folder / file).write_text(text.replace(old, new), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def revisions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A copy of the kernels as they are, and one with other constants."""
    folder = tmp_path_factory.mktemp("revisions")
    plain, other = (
        shutil.copytree(registry.KERNELS, folder / name / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("plain", "planted")
    )
    return plain, planted(other)


def told(revisions: tuple[Path, Path], *names: str, **environment: str) -> list[dict[str, Any]]:
    variables = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | environment
    interpreter = [str(HERE.parents[1] / "kernels" / "interpreted.py")] if "TRITON_INTERPRET" in variables else []
    command = [sys.executable, *interpreter, str(HERE / "side_by_side.py"), *map(str, revisions), *names]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def assert_each_its_own(found: list[dict[str, Any]], *names: str) -> None:
    assert {line["kernel"] for line in found} == set(names)
    for name in names:
        lines = [line for line in found if line["kernel"] == name]
        if "skipped" in lines[0]:
            assert "C++ compiler" in lines[0]["skipped"], lines
            continue
        wanted = [(order, side) for order in ("plain first", "planted first") for side in (order.split()[0], other(order.split()[0])) * 2]
        assert [(line["order"], line["side"]) for line in lines] == wanted
        for line in lines:
            assert line["own"] < (0.02 if "int8" in name else 1e-4), line
            assert line["other"] > 0.1, line


def other(side: str) -> str:
    return "planted" if side == "plain" else "plain"


def test_eager_sdpa_onnxrt_int8_sparse_pruned_and_torch(revisions: tuple[Path, Path]) -> None:
    families = {registry.load(declarations_only=True)[name].family for name in OTHERS}
    assert families == {"eager", "sdpa", "onnxrt", "jax", "int8", "pruned", "block_sparse", "sinks", "torch", "unpadded"}
    assert_each_its_own(told(revisions, *OTHERS), *OTHERS)


def test_triton_in_the_interpreter(revisions: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("triton")
    assert_each_its_own(told(revisions, *TRITON, TRITON_INTERPRET="1", TRITON_CACHE_DIR=str(tmp_path)), *TRITON)


@pytest.mark.slow
def test_what_torch_compiles(revisions: tuple[Path, Path], tmp_path: Path) -> None:
    """From a cold cache: the second order finds what the first one left there."""
    assert_each_its_own(told(revisions, *COMPILED, TORCHINDUCTOR_CACHE_DIR=str(tmp_path)), *COMPILED)


def test_no_kernel_is_left_out_here() -> None:
    assert {*TRITON, *COMPILED, *ON_A_GPU, *OTHERS} == set(registry.load(declarations_only=True))
