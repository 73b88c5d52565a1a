"""PyTorch's attention: every backend of the CPU is right, and what each backend refuses is said in a sentence."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

import pytest
import torch

from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.attention.sdpa import BACKENDS, sdpa, sdpa_cudnn, sdpa_efficient, sdpa_flash, sdpa_math
from kerneldyno.kernels.registry import Device, Kernel

ON_CPU = pytest.mark.parametrize("kernel", [sdpa, sdpa_flash, sdpa_math], ids=lambda kernel: kernel.name)
HOPPER = Device("cuda", capability=(9, 0))
TURING = Device("cuda", capability=(7, 5))


@ON_CPU
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_right(kernel: Kernel, case: dict[str, Any], dtype: str, judge: Callable[..., torch.Tensor]) -> None:
    problem = Attention(**case, dtype=dtype)
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
        (sdpa_flash, {"kv_len": 512, "causal": True}, HOPPER, "takes no mask on cuda"),
        (sdpa_flash, {"padding": True}, HOPPER, "takes no mask on cuda"),
        (sdpa_flash, {"bias": "boolean"}, HOPPER, "takes no mask on cuda"),
        (sdpa_flash, {"dtype": "float32"}, HOPPER, "not float32"),
        (sdpa_flash, {"head_dim": 264}, HOPPER, "up to 256, not 264"),
        (sdpa_flash, {}, TURING, "compute capability 8.0"),
        (sdpa_efficient, {"padding": True, "dtype": "float32"}, HOPPER, None),
        (sdpa_efficient, {"kv_heads": 2}, HOPPER, "no grouped-query heads"),
        (sdpa_efficient, {"head_dim": 20}, HOPPER, "multiples of 8 for bfloat16, not 20"),
        (sdpa_efficient, {}, Device("cpu"), "runs on cuda only, not on cpu"),
        (sdpa_cudnn, {"kv_heads": 2, "padding": True}, HOPPER, None),
        (sdpa_cudnn, {"dtype": "float32"}, HOPPER, "takes bfloat16, float16, not float32"),
        (sdpa_cudnn, {"head_dim": 136}, HOPPER, "up to 128, not 136"),
        (sdpa_cudnn, {"head_dim": 12}, HOPPER, "multiples of 8 up to 128, not 12"),
        (sdpa_cudnn, {"q_len": 7, "kv_len": 1}, HOPPER, "a single key"),
        (sdpa_cudnn, {}, TURING, "compute capability 8.0"),
        (sdpa_math, {"dtype": "float32", "head_dim": 500}, HOPPER, None),
    ],
)
def test_refusals(kernel: Kernel, changes: dict[str, Any], device: Device, sentence: str | None) -> None:
    found = kernel.why_not(Attention(**{"q_len": 256, "dtype": "bfloat16", **changes}), device)
    assert found is None if sentence is None else sentence in (found or "")
