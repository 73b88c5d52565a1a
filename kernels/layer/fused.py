"""The layer with our Triton kernels inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._cards import Card
from .._identity import triton_kernels
from ..attention import fused as attention
from ..attention._precision import precision
from ..feedforward import fused as feedforward
from ..registry import Setup, Trace, kernel
from ._compose import composed, part, refusal_of
from .problem import EVERYTHING, Layer

if TYPE_CHECKING:
    from ..registry import Run


def ran(problem: Layer, setup: Setup, trace: Trace) -> str:
    """The judge of its identity: both of our kernels ran, in these tiles."""
    found = triton_kernels(attention.device_kernel(problem.attention), "linear_kernel")(problem, setup, trace)
    if not trace.device_watched:
        return found
    card = Card.of(setup.device)
    attended = attention.form(problem.attention, card, precision=precision())
    return f"{found}: attention {attended}, linear {feedforward.form(problem.feedforward, card)}"


ATTENTION, FEEDFORWARD = part("attention/fused"), part("feedforward/fused")


@kernel(
    Layer,
    devices=("cuda",),
    accepts=EVERYTHING,
    requires=("triton",),
    refuses=refusal_of(ATTENTION, FEEDFORWARD),
    identified=ran,
)
def fused(problem: Layer, setup: Setup) -> Run:
    """Our Triton attention and feed-forward network between PyTorch's projections and norms."""
    return composed(problem, setup, ATTENTION, FEEDFORWARD)
