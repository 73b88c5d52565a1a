"""Half of the heads and half of the hidden neurons, those of the largest weights, in matrices rebuilt smaller."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._identity import fewer_products
from .._pruning import kept_count, row_norms, strongest
from ..registry import Run, Setup, holding, kernel
from ._compose import composed, part, refusal_of
from ._heads import magnitudes, of_heads
from .problem import EVERYTHING, Layer, LayerInputs, LayerWeights

if TYPE_CHECKING:
    import torch

ATTENTION, FEEDFORWARD = part("attention/sdpa"), part("feedforward/eager")


def kept_heads(problem: Layer) -> int:
    """Heads that stay."""
    return max(1, problem.heads // 2)


def pruned_weights(problem: Layer, weights: LayerWeights) -> LayerWeights:
    """The layer without its weakest parts.

    A head counts as much as the norms of its values' rows and of its columns of the output projection, multiplied; a
    neuron as much as its row of W1 and its column of W2.
    """
    heads = strongest(magnitudes(problem, weights), kept_heads(problem))
    neuron_scores = row_norms(weights.w1) * row_norms(weights.w2.t())
    neurons = strongest(neuron_scores, kept_count(len(neuron_scores)))
    return of_heads(problem, weights, heads).replace(
        w1=weights.w1[neurons].contiguous(),
        b1=weights.b1[neurons].contiguous(),
        w2=weights.w2[:, neurons].contiguous(),
    )


def claim(problem: Layer, setup: Setup, inputs: LayerInputs) -> torch.Tensor:
    """The layer of the kept heads and neurons, in float64."""
    return problem.reference(inputs, pruned_weights(problem, setup.weights))


def flops_left(problem: Layer) -> int:
    """Of the products of the heads and neurons that stay; what a mask hides counts too."""
    width = kept_heads(problem) * problem.head_dim
    attention = 4 * problem.tokens * problem.seq_len * width
    return 8 * problem.tokens * problem.dim * width + attention + problem.feedforward_of(kept_count(problem.hidden_dim)).flops()


@kernel(
    Layer,
    accepts=EVERYTHING,
    approximate=True,
    claim=claim,
    refuses=refusal_of(ATTENTION, FEEDFORWARD),
    identified=fewer_products(flops_left),
)
def pruned(problem: Layer, setup: Setup) -> Run:
    """Keeps half of the heads and of the hidden neurons, those with the largest weights, in smaller matrices."""
    weights = pruned_weights(problem, setup.weights)
    return holding(composed(problem, setup, ATTENTION, FEEDFORWARD, weights), *weights.tensors().values())
