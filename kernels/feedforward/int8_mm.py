"""8-bit integer products by torch._int_mm on a GPU, with everything around them in PyTorch's own operators."""

from __future__ import annotations

import torch

from .._identity import integer_products
from .._int8 import int8_linear, rounded_per_token, weight_levels
from ..registry import Device, Run, Setup, kernel
from ._int8_network import Matrices, claimed, keeping, matrices, stored_in
from .problem import EVERYTHING, FeedForward, FeedForwardInputs, FeedForwardWeights, activate


def claim(problem: FeedForward, setup: Setup, inputs: FeedForwardInputs) -> torch.Tensor:
    """The network in float64 on rounded weights, with a scale for each token of what the problem's dtype holds."""
    return claimed(problem, setup.weights, inputs, weight_levels(setup.device), stored_in(inputs.x.dtype, rounded_per_token))


def refusal(problem: FeedForward, device: Device) -> str | None:
    """torch._int_mm on CUDA takes multiples of 8."""
    if device.kind == "cuda" and (problem.dim % 8 or problem.hidden_dim % 8):
        return f"integer products by torch need sizes that are multiples of 8, not dim {problem.dim} and hidden_dim {problem.hidden_dim}"
    return None


@kernel(
    FeedForward,
    family="int8",
    devices=("cuda",),
    accepts=EVERYTHING,
    approximate=True,
    claim=claim,
    refuses=refusal,
    identified=integer_products(lambda problem: 3 if problem.gated else 2),
)
def int8_mm(problem: FeedForward, setup: Setup) -> Run:
    """8-bit weights and activations (a scale per token) multiplied by torch._int_mm, the rest in plain operators."""
    integers = matrices(setup.weights, weight_levels(setup.device))
    return keeping(multiplied(problem, setup.weights, integers), integers, setup.weights)


def multiplied(problem: FeedForward, weights: FeedForwardWeights, integers: Matrices) -> Run:
    """The run; on a CPU as well."""

    def run(inputs: FeedForwardInputs) -> torch.Tensor:
        h = problem.normalize(inputs.x, weights)
        up = int8_linear(h, integers.w1, weights.b1)
        if integers.w_gate is None:
            a = activate(problem.activation, up)
        else:
            a = activate(problem.activation, int8_linear(h, integers.w_gate, weights.b_gate)) * up
        y = int8_linear(a, integers.w2, weights.b2)
        return inputs.x + y if problem.residual else y

    return run
