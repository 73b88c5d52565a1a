"""8-bit integer products by oneDNN, as PyTorch's own quantization has them run on a CPU."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from .._identity import integer_operator
from .._int8 import exact_levels, rounded_per_tensor
from ..registry import Run, Setup, kernel
from ._int8_network import claimed, keeping, matrices
from .problem import EVERYTHING, FeedForward, FeedForwardInputs, activate

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._int8 import Int8Weight

    Linear = Callable[[torch.Tensor], torch.Tensor]

FUSED = {"relu": ("relu", ""), "gelu": ("gelu", "none"), "gelu_tanh": ("gelu", "tanh"), "none": ("none", "")}
"""What oneDNN applies to a product before it is written: its name and algorithm."""


def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """uint8 with zero point 128 times int8 -> int32, by the operator that is timed."""
    count = right.shape[1]
    packed = torch.ops.onednn.qlinear_prepack(right.t().contiguous(), list(left.shape))
    ones, zeros = torch.ones(count), torch.zeros(count, dtype=torch.int64)
    found: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
        left, 1.0, 128, packed, ones, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return found.to(torch.int32)


def claim(problem: FeedForward, setup: Setup, inputs: FeedForwardInputs) -> torch.Tensor:
    """The network in float64 on rounded weights, with one scale for all activations that meet a matrix."""
    return claimed(problem, setup.weights, inputs, exact_levels(product), rounded_per_tensor)


def in_8_bit(x: torch.Tensor, scale: float, zero: int) -> torch.Tensor:
    """uint8: one pass over x and one over the result, where plain operators take four."""
    return torch.quantize_per_tensor(x, scale, zero, torch.quint8).int_repr()


def linear(tokens: int, matrix: Int8Weight, bias: torch.Tensor | None, activation: str = "none") -> Linear:
    """x [tokens, in] float32 -> act(x weightᵀ + bias): x is quantized with one scale, anew in every call."""
    outputs, inputs = matrix.values.shape
    packed = torch.ops.onednn.qlinear_prepack(matrix.values, [tokens, inputs])
    zeros = torch.zeros(outputs, dtype=torch.int64)
    fused = FUSED.get(activation, FUSED["none"])

    def apply(x: torch.Tensor) -> torch.Tensor:
        low, high = (float(end) for end in x.aminmax())
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / 255 or 1.0
        zero = round(-low / scale)
        values = in_8_bit(x, scale, zero)
        found: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            values, scale, zero, packed, matrix.scales, zeros, bias, 1.0, 0, torch.float32, fused[0], [], fused[1]
        )
        return found if activation in FUSED else activate(activation, found)

    return apply


@kernel(
    FeedForward,
    family="int8",
    devices=("cpu",),
    accepts=EVERYTHING,
    approximate=True,
    claim=claim,
    identified=integer_operator("onednn::qlinear_pointwise", lambda problem: 3 if problem.gated else 2),
)
def int8_onednn(problem: FeedForward, setup: Setup) -> Run:
    """oneDNN's integer products (u8 × s8) of matrices packed ahead of time, activation fused, one scale per tensor.

    All but the integers is float32. Weights have 7 bit where products would saturate.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        raise RuntimeError("this PyTorch was built without oneDNN")
    with warnings.catch_warnings():  # PyTorch says once in a process that such tensors will go some day
        warnings.simplefilter("ignore")
        in_8_bit(torch.zeros(1), 1.0, 0)
    integers = matrices(setup.weights, exact_levels(product))
    weights = setup.weights.map(torch.Tensor.float)
    first = linear(problem.tokens, integers.w1, weights.b1, "none" if problem.gated else problem.activation)
    second = linear(problem.tokens, integers.w2, weights.b2)
    gate = None if integers.w_gate is None else linear(problem.tokens, integers.w_gate, weights.b_gate, problem.activation)

    def run(inputs: FeedForwardInputs) -> torch.Tensor:
        x = inputs.x.reshape(-1, problem.dim).float()
        h = problem.normalize(x, weights).contiguous()
        a = first(h) if gate is None else first(h).mul_(gate(h))
        y = second(a)
        y = y.add_(x) if problem.residual else y
        return y.to(inputs.x.dtype).view(inputs.x.shape)

    return keeping(run, integers, weights)
