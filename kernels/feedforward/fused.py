"""Our Triton kernels: the norm, then each matrix with everything that follows it in its epilogue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .._cards import H100, Card
from .._identity import triton_kernels
from ..registry import Device, Run, Setup, Trace, kernel
from . import _fused_code, _fused_tuning
from .problem import EVERYTHING, FeedForward, FeedForwardInputs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._code import Configuration
    from .problem import FeedForwardWeights

WIDEST_NORM = 32768


def refusal(problem: FeedForward, device: Device) -> str | None:
    """A norm holds a whole row in registers; 16-bit tensor cores and asynchronous copies came with sm_80."""
    if problem.norm != "none" and problem.dim > WIDEST_NORM:
        return f"its norm takes rows of up to {WIDEST_NORM} numbers, not {problem.dim}"
    if device.capability is not None and device.capability < (8, 0):
        return f"is written for compute capability 8.0 and newer, not {device.capability[0]}.{device.capability[1]}"
    return None


def ran(problem: FeedForward, setup: Setup, trace: Trace) -> str:
    """The judge of its identity; says which tiles it was built with and who chose them."""
    found = triton_kernels("linear_kernel", alone=True)(problem, setup, trace)
    return f"{found} {form(problem, Card.of(setup.device))}" if trace.device_watched else found


def form(problem: FeedForward, card: Card) -> str:
    """How the work is cut on a card: "128×64×64 w8 s3, default" for W1, and for W2 if that is another."""
    return " and ".join(dict.fromkeys(str(chosen) for chosen in _fused_tuning.chosen(problem, card)))


def device_code(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form in which its kernels may be launched on a card."""
    yield from _fused_code.configurations(capability)
    yield from _fused_tuning.stored(capability)


@kernel(
    FeedForward,
    devices=("cuda",),
    accepts=EVERYTHING,
    requires=("triton",),
    refuses=refusal,
    identified=ran,
    device_code=device_code,
    tuning=_fused_tuning.tasks,
)
def fused(problem: FeedForward, setup: Setup) -> Run:
    """Triton: norm, then W1 (and gate) with bias and activation, then W2 with bias and residual, each one kernel.

    It compiles on its first call, which belongs to the build.
    """
    from . import _fused_triton

    weights: FeedForwardWeights = setup.weights.map(torch.Tensor.contiguous)
    card = Card.of(setup.device) if setup.device.type == "cuda" else H100  # Triton's interpreter runs on a CPU
    first, second = (chosen.value for chosen in _fused_tuning.chosen(problem, card))

    def run(inputs: FeedForwardInputs) -> torch.Tensor:
        x = inputs.x.reshape(-1, problem.dim)
        if x.stride(1) != 1:
            x = x.contiguous()
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call] # Triton launches on the current device
            h = x
            if weights.norm_weight is not None:
                h = _fused_triton.normalize(x, weights.norm_weight, weights.norm_bias, problem.norm_epsilon)
            gate = {"gate": weights.w_gate, "gate_bias": weights.b_gate}
            a = _fused_triton.linear(h, weights.w1, weights.b1, **gate, activation=problem.activation, cut=first)
            y = _fused_triton.linear(a, weights.w2, weights.b2, residual=x if problem.residual else None, cut=second)
        return y.view(inputs.x.shape)

    if setup.calibration is not None:
        run(setup.calibration)
    return run
