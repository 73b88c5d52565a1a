"""The network on our Triton kernels: tokens in 8 bit behind the norm, integer products, hidden activations in 8 bit, integer products."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .._int8 import LEVELS, exact_levels
from . import _int8_tiles as cuts

if TYPE_CHECKING:
    from .._cards import Card
    from ..registry import Device, Run
    from ._int8_network import Matrices
    from .problem import FeedForward, FeedForwardInputs, FeedForwardWeights

KERNELS = ("quantize_kernel", "linear_int8_kernel")


def refusal(problem: FeedForward, device: Device) -> str | None:
    """A row is quantized in registers; 8-bit tensor cores and asynchronous copies came with sm_80."""
    widest = max(problem.dim, problem.hidden_dim)
    if widest > cuts.WIDEST:
        return f"quantizes rows of up to {cuts.WIDEST} numbers on cuda, not {widest}"
    return too_old(device)


def too_old(device: Device) -> str | None:
    """Cards that Triton kernels of 8-bit weights are not written for, in a sentence."""
    if device.capability is not None and device.capability < (8, 0):
        return f"is written for compute capability 8.0 and newer on cuda, not {device.capability[0]}.{device.capability[1]}"
    return None


def levels(device: torch.device) -> int:
    """Of weights: all 127, when our own products on this device are seen to be exact with them. Raises RuntimeError when they are not."""
    return exact_levels(lambda left, right: _product(left.to(device), right.to(device)).cpu(), (LEVELS,))


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """uint8 with zero point 128 times int8, by the kernel that is timed; float32 holds such sums exactly."""
    from .._int8 import Int8Weight
    from . import _int8_launch as ours

    ones = torch.ones(max(len(left), right.shape[1]), device=left.device)
    values = (left.int() - 128).to(torch.int8)
    values = torch.nn.functional.pad(values, (0, cuts.row_bytes(values.shape[1]) - values.shape[1])).contiguous()
    matrix = ours.padded(Int8Weight(right.t(), ones[: right.shape[1]]))
    return ours.linear_int8(values, ones[: len(left)], matrix, out_dtype=torch.float32).to(torch.int32)


def launched(problem: FeedForward, weights: FeedForwardWeights, integers: Matrices, card: Card) -> Run:
    """inputs -> output; `integers` are `_int8_launch.padded`. In Triton's interpreter on a CPU."""
    from . import _int8_launch as ours
    from . import _int8_tuning

    first, second = (chosen.value for chosen in _int8_tuning.chosen(problem, card))
    w1, w2, gate = integers.w1, integers.w2, integers.w_gate

    def run(inputs: FeedForwardInputs) -> torch.Tensor:
        x = inputs.x.reshape(-1, problem.dim)
        if x.stride(1) != 1:
            x = x.contiguous()
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call] # Triton launches on the current device
            given = ours.quantize_rows(x, norm_weight=weights.norm_weight, norm_bias=weights.norm_bias, epsilon=problem.norm_epsilon)
            a = ours.linear_int8(
                *given, w1, weights.b1, gate=gate, gate_bias=weights.b_gate, activation=problem.activation, cut=first, out_dtype=x.dtype
            )
            residual = x if problem.residual else None
            y = ours.linear_int8(*ours.quantize_rows(a), w2, weights.b2, residual=residual, cut=second, out_dtype=x.dtype)
        return y.view(inputs.x.shape)

    return run
