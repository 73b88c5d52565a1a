"""The plain formula, one PyTorch operation after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._identity import one_by_one
from ..registry import Run, Setup, kernel
from .problem import EVERYTHING, FeedForward, FeedForwardInputs

if TYPE_CHECKING:
    import torch


@kernel(FeedForward, accepts=EVERYTHING, directions=("forward", "backward"), identified=one_by_one())
def eager(problem: FeedForward, setup: Setup) -> Run:
    """Plain PyTorch: norm, matrix, activation, matrix, each an operation of its own."""

    def run(inputs: FeedForwardInputs) -> torch.Tensor:
        return problem.formula(inputs.x, setup.weights)

    return run
