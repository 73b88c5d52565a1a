"""The textbook formula through torch.compile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._compiling import compiled_once, no_compiler
from .._identity import compiled_whole
from ..registry import Run, Setup, differentiated, kernel
from ._masks import sight
from ._textbook import textbook
from .problem import EVERYTHING, Attention, AttentionInputs

if TYPE_CHECKING:
    import torch


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
    visible = sight(problem, setup.device)
    backward = problem.direction == "backward"

    def formula(inputs: AttentionInputs) -> torch.Tensor:
        given = problem.dense(inputs)
        return textbook(given.q, given.k, given.v, scale=problem.scale, softcap=problem.softcap, bias=inputs.bias, visible=visible(inputs))

    run = compiled_once(formula, gradients=backward)
    (differentiated(run) if backward else run)(setup.calibration)
    return run
