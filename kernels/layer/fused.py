"""The layer with our Triton kernels inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._identity import triton_kernels
from ..attention.fused import device_kernel, precision
from ..registry import Setup, Trace, kernel
from ._compose import composed, part, refusal_of
from .problem import EVERYTHING, Layer

if TYPE_CHECKING:
    from ..registry import Run


def ran(problem: Layer, setup: Setup, trace: Trace) -> str:
    """The judge of its identity: both of our kernels ran."""
    found = triton_kernels(device_kernel(problem.attention), "linear_kernel")(problem, setup, trace)
    return f"{found}, attention in TF32" if problem.dtype == "float32" and precision() == "tf32" else found


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
