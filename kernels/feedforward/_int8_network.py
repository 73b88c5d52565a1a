"""The network's matrices in 8 bit, and what kernels that multiply with them claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .._int8 import Int8Weight, quantized
from ..registry import Run, holding

if TYPE_CHECKING:
    from collections.abc import Callable

    from .problem import FeedForward, FeedForwardInputs, FeedForwardWeights

    Rounded = Callable[[torch.Tensor], torch.Tensor]

NAMES = ("w1", "w2", "w_gate")


@dataclass(frozen=True)
class Matrices:
    """The network's matrices in 8 bit."""

    w1: Int8Weight
    w2: Int8Weight
    w_gate: Int8Weight | None

    def dequantized(self, weights: FeedForwardWeights) -> FeedForwardWeights:
        """Float64 weights with what these matrices stand for."""
        gate = None if self.w_gate is None else self.w_gate.dequantized()
        return weights.map(torch.Tensor.double).replace(w1=self.w1.dequantized(), w2=self.w2.dequantized(), w_gate=gate)

    def map(self, change: Callable[[Int8Weight], Int8Weight]) -> Matrices:
        """A copy with `change` applied to every matrix."""
        return Matrices(change(self.w1), change(self.w2), None if self.w_gate is None else change(self.w_gate))

    def tensors(self) -> list[torch.Tensor]:
        """All that is kept of them."""
        return [tensor for m in (self.w1, self.w2, self.w_gate) if m is not None for tensor in (m.values, m.scales)]


def matrices(weights: FeedForwardWeights, levels: int | None = None) -> Matrices:
    """The network's matrices, quantized to so many levels on either side of 0; None: to all there are."""
    gate = None if weights.w_gate is None else quantized(weights.w_gate, levels)
    return Matrices(quantized(weights.w1, levels), quantized(weights.w2, levels), gate)


def claimed(
    problem: FeedForward,
    weights: FeedForwardWeights,
    inputs: FeedForwardInputs,
    levels: int | None,
    rounded: Rounded,
    hidden: Rounded | None = None,
) -> torch.Tensor:
    """The network in float64 on weights rounded to so many levels.

    `rounded` is what the kernel does to activations; `hidden` what it does to those behind W1, if that is something else.
    """
    steps = iter((rounded, hidden or rounded))

    def each(x: torch.Tensor) -> torch.Tensor:
        return next(steps)(x)

    return problem.formula(inputs.x.double(), matrices(weights, levels).dequantized(weights), each)


def stored_in(dtype: torch.dtype, rounded: Rounded) -> Rounded:
    """`rounded` of activations that were stored in that dtype before."""
    return lambda x: rounded(x.to(dtype).to(x.dtype))


def others(weights: FeedForwardWeights) -> list[torch.Tensor]:
    """What a kernel keeps beside the matrices."""
    return [tensor for name, tensor in weights.tensors().items() if name not in NAMES]


def keeping(run: Run, integers: Matrices, weights: FeedForwardWeights) -> Run:
    """`run`, which keeps the matrices in 8 bit alive, and the other weights as they are."""
    return holding(run, *integers.tensors(), *others(weights))
