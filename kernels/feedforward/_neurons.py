"""How much each hidden neuron, and each number that meets a weight, counts: by the weights alone, or by calibration inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .._pruning import row_norms
from .problem import BLOCK_HIDDEN

TIE = 1e-12
"""Of the largest score: what decides among neurons that added nothing."""

if TYPE_CHECKING:
    from ..registry import Setup
    from .problem import FeedForward, FeedForwardInputs, FeedForwardWeights


def by_weights(problem: FeedForward, setup: Setup) -> torch.Tensor:  # noqa: ARG001
    """float32 [hidden_dim]: the norms of a neuron's row of W1 (and of the gate) and of its column of W2, multiplied."""
    weights: FeedForwardWeights = setup.weights
    scores = row_norms(weights.w1) * row_norms(weights.w2.t())
    return scores if weights.w_gate is None else scores * row_norms(weights.w_gate)


def by_activations(problem: FeedForward, setup: Setup) -> torch.Tensor:
    """float64 [hidden_dim]: the norm of what a neuron adds to the output over the calibration inputs.

    That is the norm of its activations times the norm of its column of W2. As in Wanda (arXiv 2306.11695), which weighs single
    weights by the norm of what they are multiplied with, a forward pass is all it takes. Neurons that were silent throughout, as
    those of a ReLU are over few tokens, rank by their weights.
    """
    _, hidden = operand_norms(problem, setup.weights, setup.calibration or problem.inputs(setup.seed, setup.device))
    added = hidden * torch.linalg.vector_norm(setup.weights.w2.double(), dim=0)
    sizes = by_weights(problem, setup).double()
    scores: torch.Tensor = added + TIE * added.max() * sizes / sizes.max().clamp(min=TIE)
    return scores


def operand_norms(problem: FeedForward, weights: FeedForwardWeights, inputs: FeedForwardInputs) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 [dim] and [hidden_dim]: over the inputs' tokens, the norms of what W1 and W2 are multiplied with."""
    wide = weights.map(torch.Tensor.double)
    squares: list[torch.Tensor] = [torch.zeros((), dtype=torch.float64, device=weights.w1.device)] * 2
    with torch.no_grad():
        for block in torch.split(inputs.x.reshape(-1, problem.dim), max(1, BLOCK_HIDDEN // problem.hidden_dim)):
            met: list[torch.Tensor] = []

            def watched(operand: torch.Tensor, met: list[torch.Tensor] = met) -> torch.Tensor:
                met.append(operand.square().sum(0))
                return operand

            problem.formula(block.double(), wide, rounded=watched)
            squares = [total + found for total, found in zip(squares, met, strict=True)]
    first, second = squares
    return first.sqrt(), second.sqrt()
