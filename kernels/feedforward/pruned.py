"""Half of the hidden neurons, those of the largest weights, in matrices rebuilt smaller."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .._identity import fewer_products
from .._pruning import kept_count, row_norms, strongest
from ..registry import Run, Setup, holding, kernel
from .problem import EVERYTHING, FeedForward, FeedForwardInputs, FeedForwardWeights

if TYPE_CHECKING:
    import torch


def kept_neurons(weights: FeedForwardWeights) -> torch.Tensor:
    """Indices of the neurons that stay: the norms of their rows of W1 (and the gate) and column of W2 multiply to the most."""
    scores = row_norms(weights.w1) * row_norms(weights.w2.t())
    if weights.w_gate is not None:
        scores = scores * row_norms(weights.w_gate)
    return strongest(scores, kept_count(len(scores)))


def pruned_weights(weights: FeedForwardWeights) -> FeedForwardWeights:
    """The network of the neurons that stay."""
    kept = kept_neurons(weights)
    rows = {name: tensor[kept].contiguous() for name, tensor in weights.tensors().items() if name in ("w1", "b1", "w_gate", "b_gate")}
    return weights.replace(w2=weights.w2[:, kept].contiguous(), **rows)


def claim(problem: FeedForward, setup: Setup, inputs: FeedForwardInputs) -> torch.Tensor:
    """The network of the kept neurons, in float64."""
    return problem.reference(inputs, pruned_weights(setup.weights))


def flops_left(problem: FeedForward) -> int:
    """Of the products of the neurons that stay."""
    return replace(problem, hidden_dim=kept_count(problem.hidden_dim)).flops()


@kernel(FeedForward, accepts=EVERYTHING, approximate=True, claim=claim, identified=fewer_products(flops_left))
def pruned(problem: FeedForward, setup: Setup) -> Run:
    """Keeps the half of the hidden neurons with the largest weights: the plain formula on smaller matrices."""
    weights = pruned_weights(setup.weights)

    def run(inputs: FeedForwardInputs) -> torch.Tensor:
        return problem.naive(inputs, weights)

    return holding(run, *weights.tensors().values())
