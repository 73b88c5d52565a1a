"""The plain formula through torch.compile, for the kernels that differ in how hard it tries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._compiling import compiled_once
from ..registry import Run, Setup, differentiated

if TYPE_CHECKING:
    import torch

    from .problem import FeedForward, FeedForwardInputs


def compiled_formula(problem: FeedForward, setup: Setup, *, tuned: bool = False) -> Run:
    """inputs -> output [batch, seq_len, dim]; compiled here, and `tuned` as `compiled_once` says."""
    backward = problem.direction == "backward"

    def formula(x: torch.Tensor) -> torch.Tensor:
        return problem.formula(x, setup.weights)

    fast = compiled_once(formula, gradients=backward, tuned=tuned)

    def run(inputs: FeedForwardInputs) -> torch.Tensor:
        return fast(inputs.x)

    (differentiated(run, setup.weights) if backward else run)(setup.calibration or problem.inputs(setup.seed, setup.device))
    return run
