"""PyTorch's attention: every backend of the CPU is right, and what each backend refuses is said in a sentence."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from kerneldyno.kernels.attention import sdpa as module
from kerneldyno.kernels.attention._masks import blind, sdpa_arguments
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.attention.sdpa import (
    BACKENDS,
    CUTLASS,
    ran_efficient,
    sdpa,
    sdpa_cudnn,
    sdpa_efficient,
    sdpa_flash,
    sdpa_math,
    ungrouped,
)
from kerneldyno.kernels.registry import Device, Kernel, NotAsNamed, Setup, Trace

ON_CPU = pytest.mark.parametrize("kernel", [sdpa, sdpa_flash, sdpa_math], ids=lambda kernel: kernel.name)
HOPPER = Device("cuda", capability=(9, 0))
AMPERE = Device("cuda", capability=(8, 0))
ADA = Device("cuda", capability=(8, 9))
BLACKWELL = Device("cuda", capability=(10, 0))
GPU = torch.device("cuda")
TURING = Device("cuda", capability=(7, 5))


@ON_CPU
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_right(kernel: Kernel, case: dict[str, Any], dtype: str, judge: Callable[..., torch.Tensor]) -> None:
    problem = Attention(**case, dtype=dtype)
    if problem.features <= kernel.accepts:
        assert kernel.why_not(problem, Device("cpu")) is None
    judge(kernel, problem)


@ON_CPU
def test_gradients_are_right(kernel: Kernel, backward_case: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    judge(kernel, Attention(**backward_case))


@ON_CPU
def test_awkward_lengths(kernel: Kernel, awkward: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    judge(kernel, Attention(**awkward))
    judge(kernel, Attention(**awkward, dtype="bfloat16"))


@ON_CPU
def test_strides(kernel: Kernel, judge_strides: Callable[..., None]) -> None:
    judge_strides(kernel)


def test_a_forced_backend_is_the_one_that_runs(build: Callable[..., Any]) -> None:
    problem = Attention(q_len=8, heads=2, causal=True)
    for kernel, name in ((sdpa_flash, "flash_attention_for_cpu"), (sdpa_math, "attention_math")):
        run, _ = build(kernel, problem)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            run(problem.inputs(0))
        assert any(name in event.name for event in seen.events()), name


def test_a_backend_that_cannot_serve_raises_and_does_not_fall_back(build: Callable[..., Any]) -> None:
    run, _ = build(sdpa_efficient, Attention(q_len=8))
    with pytest.raises(RuntimeError, match="No viable backend"):
        run(Attention(q_len=8).inputs(0))


def test_forcing_leaves_the_choice_of_others_alone(build: Callable[..., Any]) -> None:
    def enabled() -> list[bool]:
        return [getattr(torch._C, f"_get_{name}_sdp_enabled")() for name in BACKENDS]

    inputs = Attention(q_len=8).inputs(0)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):  # some on, some off
        before = enabled()
        assert set(before) == {True, False}
        build(sdpa_flash, Attention(q_len=8))[0](inputs)
        assert enabled() == before
        with pytest.raises(RuntimeError):
            build(sdpa_efficient, Attention(q_len=8))[0](inputs)
        assert enabled() == before


def test_forcing_costs_next_to_nothing(build: Callable[..., Any]) -> None:
    """It is timed with the call: torch's own way to force a backend takes 40 µs, as long as a small attention."""
    problem = Attention(heads=1, q_len=1, head_dim=16)
    inputs = problem.inputs(0)

    def least(run: Callable[..., Any]) -> float:
        return min(timeit.repeat(lambda: run(inputs), number=50, repeat=40)) / 50

    assert least(build(sdpa_flash, problem)[0]) < least(build(sdpa, problem)[0]) + 20e-6


@pytest.mark.parametrize(
    ("kernel", "changes", "device", "sentence"),
    [
        (sdpa_flash, {}, HOPPER, None),
        (sdpa_flash, {"causal": True}, HOPPER, None),
        (sdpa_flash, {"q_len": 1, "kv_len": 512, "causal": True}, HOPPER, None),
        (sdpa_flash, {"kv_len": 512, "causal": True}, HOPPER, None),
        (sdpa_flash, {"kv_len": 100, "causal": True}, HOPPER, "takes no mask on cuda"),
        (sdpa_flash, {"window": 9, "causal": True}, HOPPER, "takes no mask on cuda"),
        (sdpa_flash, {"ragged": True, "q_len": 1, "kv_len": 9}, HOPPER, "takes no mask on cuda"),
        (sdpa_flash, {"softcap": 9.0}, HOPPER, "does not take softcap"),
        (sdpa_flash, {"page_size": 16}, HOPPER, "does not take paged"),
        (sdpa_flash, {"head_dim": 200, "direction": "backward"}, ADA, "no backward direction for head_dim from 193 to 224"),
        (sdpa_flash, {"head_dim": 256, "direction": "backward"}, ADA, None),
        (sdpa_flash, {"head_dim": 200, "direction": "backward"}, HOPPER, None),
        (sdpa, {"page_size": 16, "ragged": True, "window": 9}, HOPPER, None),
        (sdpa_flash, {"padding": True}, HOPPER, "takes no mask on cuda"),
        (sdpa_flash, {"bias": "boolean"}, HOPPER, "takes no mask on cuda"),
        (sdpa_flash, {"dtype": "float32"}, HOPPER, "not float32"),
        (sdpa_flash, {"head_dim": 264}, HOPPER, "up to 256, not 264"),
        (sdpa_flash, {}, TURING, "compute capability 8.0"),
        (sdpa_efficient, {"padding": True, "dtype": "float32"}, HOPPER, None),
        (sdpa_efficient, {"kv_heads": 2, "window": 9}, HOPPER, None),
        (sdpa_efficient, {}, TURING, "takes bfloat16 on GPUs of compute capability 8.0"),
        (sdpa_efficient, {"dtype": "float16"}, TURING, None),
        (sdpa_efficient, {"head_dim": 20}, HOPPER, "multiples of 8 for bfloat16, not 20"),
        (sdpa_efficient, {}, Device("cpu"), "runs on cuda only, not on cpu"),
        (sdpa_cudnn, {"kv_heads": 2, "padding": True}, HOPPER, None),
        (sdpa_cudnn, {"dtype": "float32"}, HOPPER, "takes bfloat16, float16, not float32"),
        (sdpa_cudnn, {"head_dim": 256, "causal": True}, HOPPER, None),
        (sdpa_cudnn, {"head_dim": 256}, BLACKWELL, None),
        (sdpa_cudnn, {"head_dim": 264}, HOPPER, "up to 256, not 264"),
        (sdpa_cudnn, {"head_dim": 136}, AMPERE, "up to 128, not 136"),
        (sdpa_cudnn, {"head_dim": 12}, HOPPER, "multiples of 8 up to 256, not 12"),
        (sdpa_cudnn, {"q_len": 7, "kv_len": 1}, HOPPER, "a single key"),
        (sdpa_cudnn, {}, TURING, "compute capability 8.0"),
        (sdpa_math, {"dtype": "float32", "head_dim": 500}, HOPPER, None),
    ],
)
def test_refusals(kernel: Kernel, changes: dict[str, Any], device: Device, sentence: str | None) -> None:
    found = kernel.why_not(Attention(**{"q_len": 256, "dtype": "bfloat16", **changes}), device)
    assert found is None if sentence is None else sentence in (found or "")


def grouped(case: dict[str, Any], kernel: Kernel) -> Attention:
    problem = Attention(**{**case, "kv_heads": case.get("kv_heads", 2)})
    if not problem.features <= kernel.accepts:
        pytest.skip(f"{kernel.name} does not take {problem.label}")
    return problem


def test_groups_without_a_backend_that_shares(case: dict[str, Any]) -> None:
    """A matter of views and masks: the CPU's backends tell whether it is right."""
    problem = grouped(case, sdpa_efficient)
    inputs = problem.inputs(1)
    mask = sdpa_arguments(problem, torch.device("cpu"))(inputs)["attn_mask"]
    found = ungrouped(problem, inputs, mask, clear=blind(problem))
    right = problem.reference(inputs)
    assert found.shape == right.shape
    assert (found - right).abs().max() < 1e-5


@pytest.mark.parametrize("q_len", [1, 70])
def test_groups_are_not_copied(q_len: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Attention(batch=2, heads=6, kv_heads=2, q_len=q_len, kv_len=90, padding=True)
    inputs, real = problem.inputs(1), F.scaled_dot_product_attention
    asked: list[torch.Tensor] = []

    def one_to_one(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **given: Any) -> torch.Tensor:
        assert not given.get("enable_gqa")
        assert q.shape[:2] == k.shape[:2] == v.shape[:2]
        asked.extend((q, k, v))
        return real(q, k, v, **given)

    monkeypatch.setattr(F, "scaled_dot_product_attention", one_to_one)
    ungrouped(problem, inputs, sdpa_arguments(problem, torch.device("cpu"))(inputs)["attn_mask"])
    for given, tensor in zip(asked, (inputs.q, inputs.k, inputs.v), strict=True):
        assert given.data_ptr() == tensor.data_ptr()


def test_causal_at_the_end_needs_no_mask_on_a_gpu() -> None:
    """Only where a backend knows it; torch's stand-in for the mask means what ours does."""
    problem = Attention(heads=4, kv_heads=2, q_len=5, kv_len=12, causal=True)
    inputs = problem.inputs(1)
    for backend in ("flash", "mem_efficient"):
        given = module._arguments(problem, GPU, backend)(inputs)
        assert type(given["attn_mask"]).__name__ == "CausalBias"
        found = F.scaled_dot_product_attention(inputs.q, inputs.k, inputs.v, **given)
        assert (found - problem.reference(inputs)).abs().max() < 1e-5
    ends = module._arguments(problem, GPU, "mem_efficient")(inputs)["attn_mask"]
    assert (ungrouped(problem, inputs, ends) - problem.reference(inputs)).abs().max() < 1e-5
    for other in (Attention(q_len=12, kv_len=5, causal=True), Attention(q_len=5, kv_len=12, causal=True, window=3)):
        assert type(module._arguments(other, torch.device("cpu"), "mem_efficient")(other.inputs(1))["attn_mask"]) is torch.Tensor
        assert not module.aligned(other)


def test_the_efficient_kernel_may_be_called_directly() -> None:
    def judged(*operators: str) -> str:
        return ran_efficient(None, Setup(GPU), Trace(dict.fromkeys(operators, 1)))

    assert judged(CUTLASS) == "SDPA backend efficient"
    assert judged("aten::_scaled_dot_product_efficient_attention", CUTLASS) == "SDPA backend efficient"
    with pytest.raises(NotAsNamed, match="backend math, not on efficient"):
        judged("aten::_scaled_dot_product_attention_math", CUTLASS)
    with pytest.raises(NotAsNamed, match="no backend"):
        judged("aten::linear")
