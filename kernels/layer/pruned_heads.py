"""Structured pruning of heads alone: a share of them stays, in matrices rebuilt smaller, and the network stays whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._identity import fewer_products
from .._pruning import some_of, strongest
from ..registry import Device, Kernel, Run, Setup, holding, kernel
from ._compose import composed, part, refusal_of
from ._heads import contributions, magnitudes, of_heads
from .problem import EVERYTHING, Layer, LayerInputs, LayerWeights

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    Score = Callable[[Layer, Setup], torch.Tensor]
    """What heads are chosen by, [heads]."""

ATTENTION, FEEDFORWARD = part("attention/sdpa"), part("feedforward/eager")


def by_weights(problem: Layer, setup: Setup) -> torch.Tensor:
    """float32 [heads]: how large each head's weights are."""
    return magnitudes(problem, setup.weights)


def by_activations(problem: Layer, setup: Setup) -> torch.Tensor:
    """float64 [heads]: how much each head adds over the calibration inputs."""
    return contributions(problem, setup.weights, setup.calibration)


def kept_weights(problem: Layer, setup: Setup, share: float, score: Score = by_weights) -> LayerWeights:
    """The layer of the heads that stay."""
    heads = strongest(score(problem, setup), some_of(problem.heads, share))
    return of_heads(problem, setup.weights, heads)


def flops_left(share: float) -> Callable[[Layer], int]:
    """Of the products of the heads that stay, and of the network; what a mask hides counts too."""

    def left(problem: Layer) -> int:
        width = some_of(problem.heads, share) * problem.head_dim
        attention = 4 * problem.tokens * problem.seq_len * width
        return 8 * problem.tokens * problem.dim * width + attention + problem.feedforward.flops()

    return left


def refuses(problem: Layer, device: Device) -> str | None:
    """With one head, there is none to leave out."""
    if problem.heads == 1:
        return "has a single head: there is none to leave out"
    return refusal_of(ATTENTION, FEEDFORWARD)(problem, device)


def keeping(name: str, share: float, score: Score, summary: str) -> Kernel:
    """The kernel that keeps this share of the heads, those with the largest scores."""

    def claim(problem: Layer, setup: Setup, inputs: LayerInputs) -> torch.Tensor:
        return problem.reference(inputs, kept_weights(problem, setup, share, score))

    def build(problem: Layer, setup: Setup) -> Run:
        weights = kept_weights(problem, setup, share, score)
        return holding(composed(problem, setup, ATTENTION, FEEDFORWARD, weights), *weights.tensors().values())

    build.__doc__ = summary
    return kernel(
        Layer,
        name=name,
        family="pruned",
        accepts=EVERYTHING,
        approximate=True,
        claim=claim,
        refuses=refuses,
        identified=fewer_products(flops_left(share), lambda problem: f"{some_of(problem.heads, share)} of {problem.heads} heads"),
    )(build)


LARGEST = "of the heads, those with the largest weights, in smaller matrices; the feed-forward network stays whole."
pruned_heads_75 = keeping("pruned_heads_75", 0.75, by_weights, f"Keeps three quarters {LARGEST}")
pruned_heads_50 = keeping("pruned_heads_50", 0.5, by_weights, f"Keeps half {LARGEST}")
pruned_heads_25 = keeping("pruned_heads_25", 0.25, by_weights, f"Keeps a quarter {LARGEST}")
pruned_heads_50_activations = keeping(
    "pruned_heads_50_activations",
    0.5,
    by_activations,
    "Keeps the half of the heads that adds most to the output over the calibration inputs; the feed-forward network stays whole.",
)
