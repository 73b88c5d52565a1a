"""torch.compile of the textbook formula, and its max-autotune."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kerneldyno.kernels.attention.compiled import compiled
from kerneldyno.kernels.attention.compiled_tuned import compiled_tuned
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device, Kernel

needs_compiler = pytest.mark.skipif(
    compiled.why_not(Attention(q_len=8), Device("cpu")) is not None, reason="torch.compile needs a C++ compiler on a CPU"
)
quiet = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # raised by inductor's own imports
tuning = pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")  # raised by inductor where it tries products
both = pytest.mark.parametrize("kernel", [compiled, compiled_tuned], ids=lambda kernel: kernel.name)
SIZES: dict[str, Any] = {"batch": 2, "heads": 4, "kv_heads": 2, "q_len": 70, "kv_len": 101, "head_dim": 32, "causal": True, "padding": True}


@needs_compiler
@quiet
def test_right_with_every_mask(judge: Callable[..., torch.Tensor]) -> None:
    judge(compiled, Attention(**SIZES, bias="additive"))


@needs_compiler
@quiet
@tuning
@pytest.mark.slow
@both
@pytest.mark.parametrize(
    "more",
    [
        {"direction": "backward"},
        {"dtype": "bfloat16", "bias": "boolean"},
        {"q_len": 1, "padding": False, "ragged": True, "page_size": 16, "window": 30, "softcap": 5.0},
    ],
)
def test_right(kernel: Kernel, more: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    judge(kernel, Attention(**{**SIZES, **more}))


@needs_compiler
@quiet
def test_everything_is_compiled_in_the_build(build: Callable[..., Any]) -> None:
    from torch._dynamo.utils import counters

    problem = Attention(q_len=5, heads=2, head_dim=8)
    run, _ = build(compiled, problem)
    graphs = counters["stats"]["unique_graphs"]
    for seed in range(2):
        run(problem.inputs(seed))
        with torch.enable_grad():
            run(problem.inputs(seed))
    assert counters["stats"]["unique_graphs"] == graphs


@needs_compiler
@quiet
@tuning
@pytest.mark.slow
def test_products_are_tried_and_no_table_of_them_is_printed(build: Callable[..., Any], capfd: pytest.CaptureFixture[str]) -> None:
    from torch._dynamo.utils import counters

    problem = Attention(heads=2, kv_heads=1, q_len=7, kv_len=256, head_dim=32)
    tried = counters["inductor"]["select_algorithm_autotune"]
    run, _ = build(compiled_tuned, problem)
    assert counters["inductor"]["select_algorithm_autotune"] >= tried + 2
    assert "AUTOTUNE bmm" not in capfd.readouterr().err
    inputs = problem.inputs(1)
    torch.testing.assert_close(run(inputs), problem.reference(inputs).float(), rtol=1e-5, atol=3e-6)


@both
def test_refuses_a_cpu_without_compiler(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    problem = Attention(q_len=8)
    assert kernel.family == "compiled"
    assert "C++ compiler" in (kernel.why_not(problem, Device("cpu")) or "")
    assert kernel.why_not(problem, Device("cuda", capability=(9, 0))) is None
