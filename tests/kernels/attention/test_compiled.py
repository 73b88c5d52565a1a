"""torch.compile of the textbook formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kerneldyno.kernels.attention.compiled import compiled
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device

needs_compiler = pytest.mark.skipif(
    compiled.why_not(Attention(q_len=8), Device("cpu")) is not None, reason="torch.compile needs a C++ compiler on a CPU"
)
SIZES: dict[str, Any] = {"batch": 2, "heads": 4, "kv_heads": 2, "q_len": 70, "kv_len": 101, "head_dim": 32, "causal": True, "padding": True}


@needs_compiler
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # raised by inductor's own imports
def test_right_with_every_mask(judge: Callable[..., torch.Tensor]) -> None:
    judge(compiled, Attention(**SIZES, bias="additive"))


@needs_compiler
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # raised by inductor's own imports
@pytest.mark.slow
@pytest.mark.parametrize("more", [{"direction": "backward"}, {"dtype": "bfloat16", "bias": "boolean"}])
def test_right(more: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    judge(compiled, Attention(**SIZES, **more))


@needs_compiler
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # raised by inductor's own imports
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


def test_refuses_a_cpu_without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    problem = Attention(q_len=8)
    assert "C++ compiler" in (compiled.why_not(problem, Device("cpu")) or "")
    assert compiled.why_not(problem, Device("cuda", capability=(9, 0))) is None
