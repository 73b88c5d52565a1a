"""The plain formula through torch.compile: the baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._compiling import compiled_once, no_compiler
from .._identity import compiled_whole
from ..registry import Run, Setup, kernel
from .problem import EVERYTHING, FeedForward, FeedForwardInputs

if TYPE_CHECKING:
    import torch


@kernel(FeedForward, accepts=EVERYTHING, refuses=no_compiler, identified=compiled_whole())
def compiled(problem: FeedForward, setup: Setup) -> Run:
    """torch.compile of the plain formula, for exactly this shape and without graph breaks.

    Compiling belongs to the build, so that a first call on the calibration inputs happens there.
    """

    def formula(x: torch.Tensor) -> torch.Tensor:
        return problem.formula(x, setup.weights)

    fast = compiled_once(formula)

    def run(inputs: FeedForwardInputs) -> torch.Tensor:
        return fast(inputs.x)

    run(setup.calibration or problem.inputs(setup.seed, setup.device))
    return run
