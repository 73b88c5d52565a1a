"""FlexAttention: the compiled kernel is right where a CPU runs it, and is told the right things for both kinds of device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kerneldyno.kernels.attention import _flex_calls
from kerneldyno.kernels.attention._flex_calls import SPLIT_KEYS, kernel_options
from kerneldyno.kernels.attention._flex_layout import Layout
from kerneldyno.kernels.attention.flex import flex
from kerneldyno.kernels.attention.flex_tuned import flex_tuned
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device, Setup

CPU, HOPPER = Device("cpu"), Device("cuda", capability=(9, 0))
needs_compiler = pytest.mark.skipif(flex.why_not(Attention(q_len=8), CPU) is not None, reason="FlexAttention needs a C++ compiler on a CPU")
quiet = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # raised by inductor's own imports


@needs_compiler
@quiet
@pytest.mark.slow
def test_right(case: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    judge(flex, Attention(**case))


@needs_compiler
@quiet
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    "more",
    [
        {"q_len": 130, "kv_len": 60, "causal": True, "kv_heads": 1},
        {"q_len": 1, "kv_len": 600, "kv_heads": 2, "ragged": True, "page_size": 24},
        {"q_len": 129, "window": 40, "softcap": 5.0, "bias": "additive"},
    ],
)
def test_right_in_16_bits(dtype: str, more: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    judge(flex, Attention(**{"batch": 2, "heads": 4, "head_dim": 32, "dtype": dtype, **more}))


@needs_compiler
@quiet
def test_right_for_other_lengths_and_tables_without_compiling_again(build: Callable[..., Any]) -> None:
    from torch._dynamo.utils import counters

    sizes: dict[str, Any] = {"batch": 2, "heads": 4, "kv_heads": 2, "q_len": 2, "kv_len": 301, "head_dim": 32}
    problem = Attention(**sizes, causal=True, ragged=True, page_size=64)
    run, _ = build(flex, problem)
    graphs = counters["stats"]["unique_graphs"]
    for seed in range(3):
        inputs = problem.inputs(seed)
        assert inputs.lengths is not None
        inputs = inputs.replace(lengths=inputs.lengths - seed * 40)
        torch.testing.assert_close(run(inputs), problem.reference(inputs).float(), rtol=1e-5, atol=3e-6)
    assert counters["stats"]["unique_graphs"] == graphs


@needs_compiler
@quiet
@pytest.mark.parametrize("shape", [(2, 1, 70, 90), pytest.param((1, 4, 1, 90), marks=pytest.mark.slow)])
def test_bias_may_differ_between_batch_rows_and_be_broadcast(shape: tuple[int, ...]) -> None:
    problem = Attention(batch=2, heads=4, q_len=70, kv_len=90, head_dim=16, bias="additive")
    inputs = problem.inputs(1).replace(bias=torch.randn(shape))
    run = flex.build(problem, Setup(torch.device("cpu"), calibration=problem.inputs(2).replace(bias=torch.randn(shape))))
    torch.testing.assert_close(run(inputs), problem.reference(inputs).float(), rtol=1e-5, atol=3e-6)


@needs_compiler
@quiet
@pytest.mark.slow
def test_a_cpu_splits_the_keys_of_few_heads_among_threads(monkeypatch: pytest.MonkeyPatch, build: Callable[..., Any]) -> None:
    from torch._inductor.utils import run_and_get_code

    problem = Attention(batch=1, heads=4, kv_heads=1, q_len=1, kv_len=1030, head_dim=32, softcap=3.0)
    inputs = problem.inputs(1)
    for threads, parts in ((2, True), (1, False)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        (run, _), (code, *_) = run_and_get_code(build, flex, problem)
        assert ("num_partitions" in code) == parts
        torch.testing.assert_close(run(inputs), problem.reference(inputs).float(), rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize(
    ("fields", "split"),
    [
        ({}, True),
        ({"causal": True, "window": 200}, True),
        ({"ragged": True}, False),
        ({"bias": "boolean"}, False),
        ({"bias": "additive"}, False),
        ({"page_size": 16}, False),
        ({"q_len": 2}, False),
        ({"kv_heads": 8}, False),
    ],
)
def test_keys_are_split_on_a_cpu_only_where_that_is_right_and_pays(fields: dict[str, Any], split: bool) -> None:
    layout = Layout(Attention(**{"q_len": 1, "kv_len": 4096, "heads": 8, "kv_heads": 1, **fields}), threads=8)
    assert layout.split == split
    assert layout.packed == (not split and layout.problem.kv_heads == 1)
    assert kernel_options(layout) == {"PARTITION_SIZE": SPLIT_KEYS if split else 1}
    assert SPLIT_KEYS % layout.kv_block == 0 or not split


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"q_len": 1}, {"BACKEND": "TRITON_DECODE"}),
        ({"q_len": 16, "heads": 28, "kv_heads": 4}, {"BACKEND": "TRITON_DECODE"}),  # a group of 7, which it does not pack itself
        ({"q_len": 16, "heads": 32, "kv_heads": 4}, {"BACKEND": "TRITON_DECODE"}),  # 128 rows of a group, which it does
        ({"q_len": 100, "kv_heads": 4}, {"FORCE_USE_FLEX_ATTENTION": True}),  # 200 rows of a group
        ({"q_len": 127}, {"BACKEND": "TRITON_DECODE"}),
        ({"q_len": 128}, {}),
        ({"q_len": 1, "page_size": 16}, {"BACKEND": "TRITON_DECODE", "BLOCK_N": 16}),
        ({"q_len": 200, "page_size": 96}, {"BLOCK_N": 32}),
        ({"q_len": 1, "page_size": 256}, {"BACKEND": "TRITON_DECODE"}),
        ({"q_len": 1, "direction": "backward"}, {}),
    ],
)
def test_options_on_a_gpu(fields: dict[str, Any], options: dict[str, Any]) -> None:
    assert kernel_options(Layout(Attention(**{"heads": 8, "kv_len": 1000, **fields}), threads=0)) == options


def test_older_torch_does_not_decode_with_small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_flex_calls.torch, "__version__", "2.10.0+cu128")
    for page_size, option in ((16, "FORCE_USE_FLEX_ATTENTION"), (64, "BACKEND")):
        assert option in kernel_options(Layout(Attention(q_len=1, kv_len=1000, page_size=page_size), threads=0))


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "backward" in (flex.why_not(Attention(q_len=8, direction="backward"), CPU) or "")
    assert "cuda only" in (flex_tuned.why_not(Attention(q_len=8), CPU) or "")
    assert flex.why_not(Attention(q_len=8, page_size=7), CPU) is None
    for kernel in (flex, flex_tuned):
        assert kernel.family == "flex"
        assert kernel.why_not(Attention(q_len=8, direction="backward", dtype="float16"), HOPPER) is None
        assert "head_dim from 16 on a GPU, not 8" in (kernel.why_not(Attention(q_len=8, head_dim=8), HOPPER) or "")
        assert "multiple of 16 tokens on a GPU, not 24" in (kernel.why_not(Attention(q_len=8, page_size=24), HOPPER) or "")
    with monkeypatch.context() as change:
        change.setattr("platform.machine", lambda: "aarch64")
        assert "not aarch64" in (flex.why_not(Attention(q_len=8), CPU) or "")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert "C++ compiler" in (flex.why_not(Attention(q_len=8), CPU) or "")
