"""The plain formula, one PyTorch operation after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..registry import Run, Setup, kernel
from .problem import EVERYTHING, FeedForward, FeedForwardInputs

if TYPE_CHECKING:
    import torch


@kernel(FeedForward, accepts=EVERYTHING)
def eager(problem: FeedForward, setup: Setup) -> Run:
    """Plain PyTorch: norm, matrix, activation, matrix, each an operation of its own."""

    def run(inputs: FeedForwardInputs) -> torch.Tensor:
        return problem.naive(inputs, setup.weights)

    return run
