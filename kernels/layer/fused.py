"""The layer in our Triton kernels throughout: norms, projections, rotary positions, attention and network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .._cards import Card
from .._identity import triton_kernels
from ..attention import fused as attention
from ..attention._precision import precision
from ..feedforward import fused as feedforward
from ..registry import Device, Setup, Trace, kernel
from . import _rotary_code
from ._compose import build_attention, build_network, part, refusal_of
from ._on_device import Parts, launched
from .problem import EVERYTHING, Layer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._code import Configuration
    from ..registry import Run
    from ._on_device import Norm
    from .problem import LayerWeights


def ran(problem: Layer, setup: Setup, trace: Trace) -> str:
    """The judge of its identity: all of our kernels ran, in these tiles, and torch multiplied nothing beside them."""
    turned = ("rotate_kernel",) if problem.rope_theta else ()
    names = (attention.device_kernel(problem.attention), *turned, "norm_kernel")
    found = triton_kernels(*names, alone=True)(problem, setup, trace)
    if not trace.device_watched:
        return found
    network = feedforward.ran(problem.feedforward, setup, trace)
    return f"{found}, attention {attention.form(problem.attention, Card.of(setup.device), precision=precision())}; {network}"


def device_code(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form in which its own kernel may be launched on a card; those of its parts are theirs."""
    return _rotary_code.configurations(capability)


ATTENTION, FEEDFORWARD = part("attention/fused"), part("feedforward/fused")


def refusal(problem: Layer, device: Device) -> str | None:
    """What its parts do not take; and norms too wide for registers, wherever they stand."""
    if problem.dim > feedforward.WIDEST_NORM:
        return f"its norms take rows of up to {feedforward.WIDEST_NORM} numbers, not {problem.dim}"
    return refusal_of(ATTENTION, FEEDFORWARD)(problem, device)


@kernel(
    Layer,
    devices=("cuda",),
    accepts=EVERYTHING,
    requires=("triton",),
    refuses=refusal,
    identified=ran,
    device_code=device_code,
)
def fused(problem: Layer, setup: Setup) -> Run:
    """Our Triton kernels: norm, projection, rotary positions, attention, projection with its residual, network; no product of torch."""
    from ..feedforward._fused_triton import linear, normalize

    weights: LayerWeights = setup.weights.map(torch.Tensor.contiguous)

    def project_in(x: torch.Tensor, norm: Norm) -> torch.Tensor:
        return linear(normalize(x, *norm, problem.norm_epsilon) if norm else x, weights.w_qkv, weights.b_qkv)

    def project_out(attended: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return linear(attended, weights.w_out, weights.b_out, residual=x)

    attend = build_attention(ATTENTION, problem.attention, setup)
    feed = build_network(FEEDFORWARD, problem, setup, weights)
    return launched(problem, setup, weights, Parts(project_in, attend, project_out, feed))
