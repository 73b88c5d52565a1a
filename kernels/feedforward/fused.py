"""Our Triton kernels: the norm, then each matrix with everything that follows it in its epilogue; and the backward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .._cards import H100, Card
from .._identity import triton_kernels
from ..registry import Device, Gradients, Run, Setup, Trace, holding, kernel
from . import _fused_backward_code, _fused_code, _fused_tuning
from .problem import EVERYTHING, FeedForward, FeedForwardInputs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._code import Configuration
    from .problem import FeedForwardWeights

WIDEST_NORM = 32768


def refusal(problem: FeedForward, device: Device) -> str | None:
    """A norm holds a whole row in registers; 16-bit tensor cores and asynchronous copies came with sm_80."""
    backward = problem.direction == "backward"
    widest = _fused_backward_code.WIDEST if backward else WIDEST_NORM
    if problem.norm != "none" and problem.dim > widest:
        return f"its norm{' with gradients' * backward} takes rows of up to {widest} numbers, not {problem.dim}"
    if device.capability is not None and device.capability < (8, 0):
        return f"is written for compute capability 8.0 and newer, not {device.capability[0]}.{device.capability[1]}"
    return None


def device_kernels(problem: FeedForward, card: Card) -> tuple[str, ...]:
    """Names of its kernels that run on a card."""
    split = [share < linear.inputs for linear, share in _fused_tuning.shares(problem, card)]
    names = (
        ["linear_kernel"] * (not all(split))
        + ["linear_split_kernel", "linear_sum_kernel"] * any(split)
        + ["norm_kernel"] * (problem.norm != "none")
    )
    if problem.direction == "backward":
        names += ["activation_gradient_kernel"] + ["norm_gradient_kernel"] * (problem.norm != "none")
    return tuple(names)


def ran(problem: FeedForward, setup: Setup, trace: Trace) -> str:
    """The judge of its identity; says which tiles it was built with and who chose them."""
    card = Card.of(setup.device) if setup.device.type == "cuda" else H100
    judge = triton_kernels(*device_kernels(problem, card), alone=problem.direction == "forward")
    found = judge(problem, setup, trace)
    return f"{found} {form(problem, card)}" if trace.device_watched else found


def form(problem: FeedForward, card: Card) -> str:
    """How the work is cut on a card: "128×64×64 w8 s3, default" for W1, and for W2 if that is another."""
    words = []
    for chosen, (linear, share) in zip(_fused_tuning.chosen(problem, card), _fused_tuning.shares(problem, card), strict=True):
        words.append(f"{chosen}{f', {-(-linear.inputs // share)} splits' if share < linear.inputs else ''}")
    return " and ".join(dict.fromkeys(words))


def device_code(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form in which its kernels may be launched on a card."""
    yield from _fused_code.configurations(capability)
    yield from _fused_backward_code.configurations(capability)
    yield from _fused_tuning.stored(capability)


@kernel(
    FeedForward,
    devices=("cuda",),
    accepts=EVERYTHING,
    directions=("forward", "backward"),
    gradients="kernel",
    requires=("triton",),
    refuses=refusal,
    identified=ran,
    device_code=device_code,
    tuning=_fused_tuning.tasks,
)
def fused(problem: FeedForward, setup: Setup) -> Run:
    """Triton: norm, then W1 (and gate) with bias and activation, then W2 with bias and residual, each one kernel.

    A gate's matrix is interleaved with W1 in the build. Up to 64 tokens are shared out by inputs as well, to two kernels then. Backward,
    the matrix products of the gradients are PyTorch's, between kernels of our own for activation, gate, biases and norm. It compiles on
    its first call, which belongs to the build.
    """
    from . import _fused_triton
    from ._fused_gradients import forward_backward

    backward = problem.direction == "backward"
    weights: FeedForwardWeights = setup.weights.map(torch.Tensor.contiguous)
    card = Card.of(setup.device) if setup.device.type == "cuda" else H100  # Triton's interpreter runs on a CPU
    first, second = (chosen.value for chosen in _fused_tuning.chosen(problem, card))
    w1, b1 = weights.w1, weights.b1
    if weights.w_gate is not None:
        w1 = _fused_triton.interleaved(weights.w1, weights.w_gate)
        b1 = None if weights.b1 is None or weights.b_gate is None else _fused_triton.interleaved(weights.b1, weights.b_gate)
        weights = weights if backward else weights.replace(w1=w1, b1=b1, w_gate=None, b_gate=None)

    def run(inputs: FeedForwardInputs) -> torch.Tensor | Gradients:
        with torch.cuda.device_of(inputs.x):  # type: ignore[no-untyped-call] # Triton launches on the current device
            if backward:
                return forward_backward(problem, weights, (w1, b1), inputs, (first, second))
            x = inputs.x.reshape(-1, problem.dim)
            x = x if x.stride(1) == 1 else x.contiguous()
            h = x
            if weights.norm_weight is not None:
                h = _fused_triton.normalize(x, weights.norm_weight, weights.norm_bias, problem.norm_epsilon)
            a = _fused_triton.linear(h, w1, b1, gated=problem.gated, activation=problem.activation, cut=first)
            y = _fused_triton.linear(a, weights.w2, weights.b2, residual=x if problem.residual else None, cut=second)
        return y.view(inputs.x.shape)

    if setup.calibration is not None:
        run(setup.calibration)
    both = [w1, *([] if b1 is None else [b1])] if backward and problem.gated else []
    return holding(run, *weights.tensors().values(), *both)
