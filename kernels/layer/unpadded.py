"""The layer on valid tokens alone: padded ones are left out of every product, and each sequence attends at its own length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812

from .._identity import ran_backend
from ..registry import Run, Setup, kernel
from . import _rotary
from .problem import EVERYTHING, Layer, LayerInputs

if TYPE_CHECKING:
    from ..registry import Device

    Rotation = tuple[torch.Tensor, torch.Tensor] | None


def refusal(problem: Layer, device: Device) -> str | None:  # noqa: ARG001
    """Without padding there is nothing to leave out."""
    return None if problem.padding else "leaves padded tokens out, and this problem has none: set padding=true"


@kernel(Layer, devices=("cpu",), accepts=EVERYTHING, refuses=refusal, identified=ran_backend())
def unpadded(problem: Layer, setup: Setup) -> Run:
    """Valid tokens packed together for the products, scaled_dot_product_attention for each sequence at its own length.

    On a CPU only: packing asks for lengths on the host, for which a GPU would have to wait. Padded tokens come out as 0.
    """
    weights, network = setup.weights, problem.feedforward
    own = problem.network(weights)
    rotation = problem.rotation(setup.device, getattr(torch, problem.dtype)) if problem.rope_theta else None
    first, second = (weights.norm1_weight, weights.norm1_bias), (weights.norm2_weight, weights.norm2_bias)

    def run(inputs: LayerInputs) -> torch.Tensor:
        assert inputs.lengths is not None
        lengths = inputs.lengths.tolist()
        x = torch.cat([row[:length] for row, length in zip(inputs.x, lengths, strict=True)])
        h = problem.normalized(x, *first) if problem.norm_first else x
        qkv = F.linear(h, weights.w_qkv, weights.b_qkv)
        merged = torch.cat([_attended(problem, part, rotation, inputs.mask) for part in torch.split(qkv, lengths)])
        z = F.linear(merged, weights.w_out, weights.b_out).add_(x)
        y = network.formula(z if problem.norm_first else problem.normalized(z, *first), own)
        if not problem.norm_first:
            y = problem.normalized(y, *second)
        output = torch.zeros(inputs.x.shape, dtype=y.dtype)
        for row, part in zip(output, torch.split(y, lengths), strict=True):
            row[: len(part)] = part
        return output

    return run


def _attended(problem: Layer, qkv: torch.Tensor, rotation: Rotation, mask: torch.Tensor | None) -> torch.Tensor:
    """[length, heads · head_dim] of one sequence's projections [length, …]."""
    length = len(qkv)
    q, k, v = problem.heads_of(qkv[None])
    if rotation is not None:
        cos, sin = (table[:length] for table in rotation)
        q, k = _rotary.rotated(q, cos, sin), _rotary.rotated(k, cos, sin)
    seen = None if mask is None else mask[:length, :length]
    causal = problem.mask == "causal"
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=causal, enable_gqa=problem.kv_heads != problem.heads)
    return out[0].transpose(0, 1).flatten(1)
