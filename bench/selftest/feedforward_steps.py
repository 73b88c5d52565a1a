"""Feed-forward networks in float32, step by step: a planted mistake replaces one of the steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812

from kerneldyno.kernels.feedforward.problem import activate

if TYPE_CHECKING:
    from kerneldyno.kernels.feedforward.problem import FeedForward, FeedForwardInputs, FeedForwardWeights
    from kerneldyno.kernels.registry import Run, Setup


def whole(_: FeedForward, weights: FeedForwardWeights) -> FeedForwardWeights:
    """The weights themselves."""
    return weights


def as_given(x: torch.Tensor) -> torch.Tensor:
    """The tensor itself."""
    return x


def normalized(problem: FeedForward, x: torch.Tensor, weights: FeedForwardWeights) -> torch.Tensor:
    """The norm that the problem asks for."""
    return norm(problem.norm, x, weights, problem.norm_epsilon)


def norm(kind: str, x: torch.Tensor, weights: FeedForwardWeights, epsilon: float) -> torch.Tensor:
    """LayerNorm, RMSNorm or none."""
    if kind == "none":
        return x
    if kind == "layernorm":
        return F.layer_norm(x, x.shape[-1:], weights.norm_weight, weights.norm_bias, epsilon)
    return F.rms_norm(x, x.shape[-1:], weights.norm_weight, epsilon)


def combined(problem: FeedForward, up: torch.Tensor, gate: torch.Tensor | None) -> torch.Tensor:
    """Activation, and the product with the gate."""
    return activate(problem.activation, up) if gate is None else activate(problem.activation, gate) * up


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x weightᵀ + bias"""
    return F.linear(x, weight, bias)


def with_residual(problem: FeedForward, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """y, and x where the problem says so."""
    return x + y if problem.residual else y


@dataclass(frozen=True)
class Steps:
    """The steps in order; all of them right unless replaced."""

    inputs: Callable[[torch.Tensor], torch.Tensor] = as_given
    weights: Callable[[FeedForward, FeedForwardWeights], FeedForwardWeights] = whole
    normalized: Callable[[FeedForward, torch.Tensor, FeedForwardWeights], torch.Tensor] = normalized
    linear: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor] = linear
    combined: Callable[[FeedForward, torch.Tensor, torch.Tensor | None], torch.Tensor] = combined
    with_residual: Callable[[FeedForward, torch.Tensor, torch.Tensor], torch.Tensor] = with_residual
    output: Callable[[torch.Tensor], torch.Tensor] = as_given

    def build(self, problem: FeedForward, setup: Setup) -> Run:
        """What a kernel's build function does."""
        dtype = getattr(torch, problem.dtype)

        def run(inputs: FeedForwardInputs) -> torch.Tensor:
            weights = self.weights(problem, setup.weights.map(torch.Tensor.float))
            x = self.inputs(inputs.x).float()
            h = self.normalized(problem, x, weights)
            up = self.linear(h, weights.w1, weights.b1)
            gate = None if weights.w_gate is None else self.linear(h, weights.w_gate, weights.b_gate)
            y = self.linear(self.combined(problem, up, gate), weights.w2, weights.b2)
            return self.output(self.with_residual(problem, x, y)).to(dtype)

        return run
