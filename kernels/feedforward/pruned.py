"""Structured pruning: a share of the hidden neurons stays, in matrices rebuilt smaller."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812

from .._identity import fewer_products
from .._pruning import kept_count, strongest
from ..registry import Kernel, Run, Setup, holding, kernel
from ._neurons import by_activations, by_weights
from .problem import EVERYTHING, FeedForward, FeedForwardInputs, FeedForwardWeights

if TYPE_CHECKING:
    from collections.abc import Callable

    Score = Callable[[FeedForward, Setup], torch.Tensor]
    """What neurons are chosen by, [hidden_dim]."""

HALF = 0.5


def kept_neurons(problem: FeedForward, setup: Setup, share: float = HALF, score: Score = by_weights) -> torch.Tensor:
    """Indices of the neurons that stay, in ascending order: those of the largest scores."""
    return strongest(score(problem, setup), kept_count(problem.hidden_dim, share))


def pruned_weights(problem: FeedForward, setup: Setup, share: float = HALF, score: Score = by_weights) -> FeedForwardWeights:
    """The network of the neurons that stay."""
    weights: FeedForwardWeights = setup.weights
    kept = kept_neurons(problem, setup, share, score)
    rows = {name: tensor[kept].contiguous() for name, tensor in weights.tensors().items() if name in ("w1", "b1", "w_gate", "b_gate")}
    return weights.replace(w2=weights.w2[:, kept].contiguous(), **rows)


def claim(problem: FeedForward, setup: Setup, inputs: FeedForwardInputs, share: float = HALF, score: Score = by_weights) -> torch.Tensor:
    """The network of the kept neurons, in float64."""
    return problem.reference(inputs, pruned_weights(problem, setup, share, score))


def flops_left(share: float) -> Callable[[FeedForward], int]:
    """Of the products of the neurons that stay."""
    return lambda problem: replace(problem, hidden_dim=kept_count(problem.hidden_dim, share)).flops()


def neurons_left(share: float) -> Callable[[FeedForward], str]:
    """How many neurons stay, in words."""
    return lambda problem: f"{kept_count(problem.hidden_dim, share)} of {problem.hidden_dim} neurons"


def activate_in_place(name: str, x: torch.Tensor) -> torch.Tensor:
    """The activation function of that name, written over x: on a CPU new memory for the hidden activations costs a tenth of the call."""
    if name == "relu":
        return torch.relu_(x)
    if name == "silu":
        return F.silu(x, inplace=True)
    activated: torch.Tensor = torch.ops.aten.gelu_(x, approximate="tanh" if name == "gelu_tanh" else "none")
    return activated


def forward(problem: FeedForward, x: torch.Tensor, weights: FeedForwardWeights) -> torch.Tensor:
    """The formula for tokens x [tokens, dim], with as little new memory as it takes."""
    h = problem.normalize(x, weights)
    up = F.linear(h, weights.w1, weights.b1)
    if weights.w_gate is None:
        a = activate_in_place(problem.activation, up)
    else:
        a = activate_in_place(problem.activation, F.linear(h, weights.w_gate, weights.b_gate)).mul_(up)
    y = F.linear(a, weights.w2, weights.b2)
    return y.add_(x) if problem.residual else y


def keeping(name: str, share: float, summary: str, score: Score = by_weights) -> Kernel:
    """The kernel that keeps this share of the hidden neurons, those with the largest scores."""

    def build(problem: FeedForward, setup: Setup) -> Run:
        weights = pruned_weights(problem, setup, share, score)

        def run(inputs: FeedForwardInputs) -> torch.Tensor:
            return forward(problem, inputs.x.reshape(-1, problem.dim), weights).view(inputs.x.shape)

        return holding(run, *weights.tensors().values())

    build.__doc__ = summary
    return kernel(
        FeedForward,
        name=name,
        family="pruned",
        accepts=EVERYTHING,
        approximate=True,
        claim=partial(claim, share=share, score=score),
        identified=fewer_products(flops_left(share), neurons_left(share)),
    )(build)


LARGEST = "of the hidden neurons, those with the largest weights: plain operators on smaller matrices, activations written in place."
pruned = keeping("pruned", HALF, f"Keeps half {LARGEST}")
pruned_75 = keeping("pruned_75", 0.75, f"Keeps three quarters {LARGEST}")
pruned_25 = keeping("pruned_25", 0.25, f"Keeps a quarter {LARGEST}")
pruned_50_activations = keeping(
    "pruned_50_activations",
    HALF,
    "Keeps the half of the hidden neurons that adds most to the output over the calibration inputs, in smaller matrices.",
    by_activations,
)
