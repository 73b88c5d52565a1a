"""The textbook formula through torch.compile."""

from __future__ import annotations

from .._compiling import no_compiler
from .._identity import compiled_whole
from ..registry import Run, Setup, kernel
from ._compiled_textbook import compiled_textbook
from .problem import EVERYTHING, Attention


@kernel(
    Attention,
    accepts=EVERYTHING,
    directions=("forward", "backward"),
    refuses=no_compiler,
    identified=compiled_whole(),
)
def compiled(problem: Attention, setup: Setup) -> Run:
    """torch.compile of the textbook formula, for exactly this shape and without graph breaks.

    Inductor may recognize the formula and put SDPA in its place. Compiling belongs to the build, so that a first call
    on the calibration inputs happens there.
    """
    return compiled_textbook(problem, setup)
