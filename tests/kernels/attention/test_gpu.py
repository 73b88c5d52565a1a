"""Every attention kernel on a GPU, where there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kerneldyno.kernels import registry
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("default"),
]
KERNELS = (
    "eager",
    "sdpa",
    "sdpa_flash",
    "sdpa_efficient",
    "sdpa_cudnn",
    "sdpa_math",
    "fused",
    "onnxrt",
    "onnxrt_mha",
    "onnxrt_gqa",
    "jax",
    "pruned",
    "pruned_75",
    "flash_attn2",
    "flash_attn3",
    "cudnn",
)
SLOW_TO_BUILD = ("compiled", "compiled_tuned", "flex", "flex_tuned")


def judge_on_gpu(name: str, problem: Attention, judge: Callable[..., torch.Tensor]) -> None:
    kernel = registry.load()[f"attention/{name}"]
    reason = kernel.why_not(problem, Device("cuda", capability=torch.cuda.get_device_capability()))
    if reason:
        pytest.skip(reason)
    judge(kernel, problem, device="cuda")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", KERNELS)
def test_right(name: str, dtype: str, case: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    judge_on_gpu(name, Attention(**case, dtype=dtype), judge)


@pytest.mark.parametrize("name", KERNELS)
def test_gradients_are_right(name: str, backward_case: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    judge_on_gpu(name, Attention(**backward_case, dtype="bfloat16"), judge)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_TO_BUILD)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_compiled_ones(name: str, direction: str, judge: Callable[..., torch.Tensor]) -> None:
    sizes: dict[str, Any] = {
        "batch": 2,
        "heads": 4,
        "kv_heads": 2,
        "q_len": 129,
        "kv_len": 300,
        "head_dim": 64,
        "causal": True,
        "padding": True,
    }
    judge_on_gpu(name, Attention(**sizes, dtype="bfloat16", direction=direction), judge)


@pytest.mark.parametrize("head_dim", [16, 64, 80, 96, 112, 128, 192, 256])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fused_head_sizes(head_dim: int, dtype: str, judge: Callable[..., torch.Tensor]) -> None:
    for q_len in (1, 127, 1000):
        judge_on_gpu("fused", Attention(heads=4, kv_heads=2, q_len=q_len, kv_len=1000, head_dim=head_dim, causal=True, dtype=dtype), judge)
