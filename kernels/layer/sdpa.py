"""The layer in plain PyTorch with scaled_dot_product_attention inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._identity import ran_backend
from ..registry import Setup, kernel
from ._compose import composed, part, refusal_of
from .problem import EVERYTHING, Layer

if TYPE_CHECKING:
    from ..registry import Run

ATTENTION, FEEDFORWARD = part("attention/sdpa"), part("feedforward/eager")


@kernel(Layer, accepts=EVERYTHING, refuses=refusal_of(ATTENTION, FEEDFORWARD), identified=ran_backend())
def sdpa(problem: Layer, setup: Setup) -> Run:
    """PyTorch's scaled_dot_product_attention between plain projections and a plain feed-forward network."""
    return composed(problem, setup, ATTENTION, FEEDFORWARD)
