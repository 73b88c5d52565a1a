"""The layer on our Triton kernels, whichever way its matrices are multiplied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..attention.problem import AttentionInputs

if TYPE_CHECKING:
    from ..registry import Run, Setup
    from .problem import Layer, LayerInputs, LayerWeights

    Norm = tuple[torch.Tensor, torch.Tensor | None] | None
    """Weight and bias of the norm that comes before a projection; None: none does."""


@dataclass(frozen=True)
class Parts:
    """What the layer is made of."""

    project_in: Callable[[torch.Tensor, Norm], torch.Tensor]
    """x [tokens, dim] -> q, k and v of it side by side, [tokens, rows of w_qkv], a tensor of its own"""
    attend: Run
    project_out: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """(attended [tokens, heads · head_dim], x) -> their projection and x, added, [tokens, dim]"""
    feed: Callable[[torch.Tensor], torch.Tensor]
    """[batch, seq_len, dim] -> the same, with its residual"""


def launched(problem: Layer, setup: Setup, weights: LayerWeights, parts: Parts) -> Callable[[LayerInputs], torch.Tensor]:
    """The run; in Triton's interpreter on a CPU. It is called once here if there are calibration inputs: that compiles it."""
    from ..feedforward._fused_triton import normalize
    from ._rotary_triton import rotate

    rotation = problem.rotation(setup.device, torch.float32) if problem.rope_theta else None
    epsilon, shape = problem.norm_epsilon, (problem.batch, problem.seq_len, -1)
    first, second = (weights.norm1_weight, weights.norm1_bias), (weights.norm2_weight, weights.norm2_bias)

    def run(inputs: LayerInputs) -> torch.Tensor:
        x = inputs.x.reshape(-1, problem.dim)
        x = x if x.stride(1) == 1 else x.contiguous()
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call] # Triton launches on the current device
            qkv = parts.project_in(x, first if problem.norm_first else None)
            if rotation is not None:
                rotate(qkv, *rotation, problem.heads + problem.kv_heads)
            q, k, v = problem.heads_of(qkv.view(shape))
            mask = None if inputs.mask is None else inputs.mask[None, None]
            attended = parts.attend(AttentionInputs(q=q, k=k, v=v, mask=mask, lengths=inputs.lengths))
            z = parts.project_out(attended.transpose(1, 2).reshape(len(x), -1), x)
            if problem.norm_first:
                return parts.feed(z.view(inputs.x.shape))
            y = parts.feed(normalize(z, *first, epsilon).view(inputs.x.shape))
            return normalize(y.flatten(0, 1), *second, epsilon).view(inputs.x.shape)

    if setup.calibration is not None:
        run(setup.calibration)
    return run
