"""The layer through torch.compile: the baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._compiling import compiled_once, no_compiler
from .._identity import compiled_whole
from ..registry import Run, Setup, kernel
from ._compose import composed, part
from .problem import EVERYTHING, Layer

if TYPE_CHECKING:
    import torch

    from .problem import LayerInputs

ATTENTION, FEEDFORWARD = part("attention/sdpa"), part("feedforward/eager")


@kernel(Layer, accepts=EVERYTHING, refuses=no_compiler, identified=compiled_whole())
def compiled(problem: Layer, setup: Setup) -> Run:
    """torch.compile of the layer with scaled_dot_product_attention inside, for this shape and without graph breaks.

    Compiling belongs to the build, so that a first call on the calibration inputs happens there.
    """
    layer = composed(problem, setup, ATTENTION, FEEDFORWARD)

    def formula(inputs: LayerInputs) -> torch.Tensor:
        return layer(inputs)

    run = compiled_once(formula)
    run(setup.calibration or problem.inputs(setup.seed, setup.device))
    return run
