"""Our Triton kernels: the norm, then each matrix with everything that follows it in its epilogue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .._identity import triton_kernels
from ..registry import Device, Run, Setup, kernel
from . import _fused_code
from .problem import EVERYTHING, NORMS, FeedForward, FeedForwardInputs

if TYPE_CHECKING:
    from .problem import FeedForwardWeights

WIDEST_NORM = 32768


def refusal(problem: FeedForward, device: Device) -> str | None:
    """A norm holds a whole row in registers; 16-bit tensor cores and asynchronous copies came with sm_80."""
    if problem.norm != "none" and problem.dim > WIDEST_NORM:
        return f"its norm takes rows of up to {WIDEST_NORM} numbers, not {problem.dim}"
    if device.capability is not None and device.capability < (8, 0):
        return f"is written for compute capability 8.0 and newer, not {device.capability[0]}.{device.capability[1]}"
    return None


@kernel(
    FeedForward,
    devices=("cuda",),
    accepts=EVERYTHING,
    requires=("triton",),
    refuses=refusal,
    identified=triton_kernels("linear_kernel", alone=True),
    device_code=_fused_code.configurations,
)
def fused(problem: FeedForward, setup: Setup) -> Run:
    """Triton: norm, then W1 (and gate) with bias and activation, then W2 with bias and residual, each one kernel.

    It compiles on its first call, which belongs to the build.
    """
    from . import _fused_triton

    weights: FeedForwardWeights = setup.weights.map(torch.Tensor.contiguous)

    def run(inputs: FeedForwardInputs) -> torch.Tensor:
        x = inputs.x.reshape(-1, problem.dim)
        if x.stride(1) != 1:
            x = x.contiguous()
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call] # Triton launches on the current device
            h = x
            if weights.norm_weight is not None:
                h = _fused_triton.normalize(x, weights.norm_weight, weights.norm_bias, NORMS[problem.norm])
            a = _fused_triton.linear(
                h, weights.w1, weights.b1, gate=weights.w_gate, gate_bias=weights.b_gate, activation=problem.activation
            )
            y = _fused_triton.linear(a, weights.w2, weights.b2, residual=x if problem.residual else None)
        return y.view(inputs.x.shape)

    if setup.calibration is not None:
        run(setup.calibration)
    return run
