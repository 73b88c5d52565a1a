"""Half of the heads and half of the hidden neurons, those of the largest weights, in matrices rebuilt smaller."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._identity import fewer_products
from .._pruning import kept_count, row_norms, strongest
from ..registry import Run, Setup, holding, kernel
from ._compose import composed, part, refusal_of
from ._heads import attention_flops, magnitudes, of_groups
from .problem import EVERYTHING, Layer, LayerInputs, LayerWeights

if TYPE_CHECKING:
    import torch

ATTENTION, FEEDFORWARD = part("attention/sdpa"), part("feedforward/eager")


def kept_groups(problem: Layer) -> int:
    """Groups of heads that stay, each with a key-value head."""
    return max(1, problem.kv_heads // 2)


def pruned_weights(problem: Layer, weights: LayerWeights) -> LayerWeights:
    """The layer without its weakest parts.

    A group of heads counts as much as the norms of its values' rows and of its columns of the output projection, multiplied; a
    neuron as much as its rows of W1 and of the gate and its column of W2.
    """
    groups = strongest(magnitudes(problem, weights), kept_groups(problem))
    scores = row_norms(weights.w1) * row_norms(weights.w2.t())
    if weights.w_gate is not None:
        scores = scores * row_norms(weights.w_gate)
    neurons = strongest(scores, kept_count(len(scores)))
    rows = {name: tensor[neurons] for name, tensor in weights.tensors().items() if name in ("w1", "b1", "w_gate", "b_gate")}
    return of_groups(problem, weights, groups).replace(w2=weights.w2[:, neurons].contiguous(), **rows)


def claim(problem: Layer, setup: Setup, inputs: LayerInputs) -> torch.Tensor:
    """The layer of the kept heads and neurons, in float64."""
    return problem.reference(inputs, pruned_weights(problem, setup.weights))


def flops_left(problem: Layer) -> int:
    """Of the products of the heads and neurons that stay; what a mask hides counts too."""
    network = problem.feedforward_of(kept_count(problem.hidden_dim)).flops()
    return attention_flops(problem, kept_groups(problem)) + network


@kernel(
    Layer,
    accepts=EVERYTHING,
    approximate=True,
    claim=claim,
    refuses=refusal_of(ATTENTION, FEEDFORWARD),
    identified=fewer_products(flops_left),
)
def pruned(problem: Layer, setup: Setup) -> Run:
    """Keeps half of the heads (in whole groups, at least one) and of the hidden neurons, those with the largest weights."""
    weights = pruned_weights(problem, setup.weights)
    return holding(composed(problem, setup, ATTENTION, FEEDFORWARD, weights), *weights.tensors().values())
