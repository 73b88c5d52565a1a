"""The plain formula through torch.compile, with the matrix products that were fastest when they were tried."""

from __future__ import annotations

from .._compiling import no_compiler
from .._identity import compiled_whole
from ..registry import Run, Setup, kernel
from ._compiled_formula import compiled_formula
from .problem import EVERYTHING, FeedForward


@kernel(
    FeedForward,
    family="compiled",
    accepts=EVERYTHING,
    directions=("forward", "backward"),
    refuses=no_compiler,
    identified=compiled_whole(),
)
def compiled_tuned(problem: FeedForward, setup: Setup) -> Run:
    """torch.compile's max-autotune of the plain formula, without CUDA graphs: Triton or C++ products beside the library's.

    Each is tried alone, in the build; what is fastest alone and in a warm cache need not be so in the whole.
    """
    return compiled_formula(problem, setup, tuned=True)
