"""Structured pruning of heads alone: a share of them stays, in matrices rebuilt smaller, and the network stays whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._identity import fewer_products
from .._pruning import some_of, strongest
from ..registry import Device, Kernel, Run, Setup, holding, kernel
from ._compose import composed, part, refusal_of
from ._heads import attention_flops, contributions, magnitudes, of_groups
from .problem import EVERYTHING, Layer, LayerInputs, LayerWeights

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    Score = Callable[[Layer, Setup], torch.Tensor]
    """What groups of heads are chosen by, [kv_heads]."""

ATTENTION, FEEDFORWARD = part("attention/sdpa"), part("feedforward/eager")


def by_weights(problem: Layer, setup: Setup) -> torch.Tensor:
    """float32 [kv_heads]: how large the weights of each group are."""
    return magnitudes(problem, setup.weights)


def by_activations(problem: Layer, setup: Setup) -> torch.Tensor:
    """float64 [kv_heads]: how much each group adds over the calibration inputs."""
    return contributions(problem, setup.weights, setup.calibration)


def kept_weights(problem: Layer, setup: Setup, share: float, score: Score = by_weights) -> LayerWeights:
    """The layer of the heads that stay."""
    groups = strongest(score(problem, setup), some_of(problem.kv_heads, share))
    return of_groups(problem, setup.weights, groups)


def kept_heads(problem: Layer, share: float) -> int:
    """Query heads that stay, in whole groups."""
    return some_of(problem.kv_heads, share) * problem.heads // problem.kv_heads


def flops_left(share: float) -> Callable[[Layer], int]:
    """Of the products of the heads that stay, and of the network; what a mask hides counts too."""

    def left(problem: Layer) -> int:
        return attention_flops(problem, some_of(problem.kv_heads, share)) + problem.feedforward.flops()

    return left


def refuses(problem: Layer, device: Device) -> str | None:
    """With one head, or one group that shares a key-value head, there is none to leave out."""
    if problem.kv_heads == 1:
        return f"has a single {'head' if problem.heads == 1 else 'group of heads'}: there is none to leave out"
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
        identified=fewer_products(
            flops_left(share),
            lambda problem: f"{some_of(problem.kv_heads, share) * problem.heads // problem.kv_heads} of {problem.heads} heads",
        ),
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
