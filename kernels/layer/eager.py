"""The layer in plain PyTorch, one operation after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._identity import one_by_one
from ..registry import Setup, kernel
from ._compose import composed, part, refusal_of
from .problem import EVERYTHING, Layer

if TYPE_CHECKING:
    from ..registry import Run

ATTENTION, FEEDFORWARD = part("attention/eager"), part("feedforward/eager")


@kernel(Layer, accepts=EVERYTHING, refuses=refusal_of(ATTENTION, FEEDFORWARD), identified=one_by_one())
def eager(problem: Layer, setup: Setup) -> Run:
    """Plain PyTorch throughout: attention with all scores in memory, every operation on its own."""
    return composed(problem, setup, ATTENTION, FEEDFORWARD)
