"""The plain formula through torch.compile: the baseline."""

from __future__ import annotations

from .._compiling import no_compiler
from .._identity import compiled_whole
from ..registry import Run, Setup, kernel
from ._compiled_formula import compiled_formula
from .problem import EVERYTHING, FeedForward


@kernel(FeedForward, accepts=EVERYTHING, directions=("forward", "backward"), refuses=no_compiler, identified=compiled_whole())
def compiled(problem: FeedForward, setup: Setup) -> Run:
    """torch.compile of the plain formula, for exactly this shape and without graph breaks.

    Compiling belongs to the build, so that a first call on the calibration inputs happens there.
    """
    return compiled_formula(problem, setup)
