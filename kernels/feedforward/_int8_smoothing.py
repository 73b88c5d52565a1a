"""SmoothQuant (Xiao et al., arXiv 2211.10438): what activations have in outliers is moved into the weights, which bear it better."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812

from .problem import activate

if TYPE_CHECKING:
    from .problem import FeedForward, FeedForwardInputs, FeedForwardWeights

ALPHA = 0.5
"""Share of the difficulty that weights take."""
LEAST = 1e-5
"""Factors are not smaller: of channels that are always 0."""


def smoothed(problem: FeedForward, weights: FeedForwardWeights, calibration: FeedForwardInputs) -> FeedForwardWeights:
    """Weights of the same network, in each dtype the same but for rounding, whose activations are easier to quantize.

    Input channel j is divided by s_j = max|x_j|^ALPHA / max|w_j|^(1 - ALPHA). The norm's weight and bias divide what W1 reads: without
    a norm nothing can. W1's rows, and its bias, divide what W2 reads, where they reach it through nothing but a product (gated
    networks) or through ReLU, for which a positive factor is the same before and after; other activations are left as they are.
    """
    wide = weights.map(torch.Tensor.float)
    h = problem.normalize(calibration.x.float(), wide).reshape(-1, problem.dim)
    found = wide
    if wide.norm_weight is not None:
        read = wide.w1 if wide.w_gate is None else torch.cat([wide.w1, wide.w_gate])
        s = factors(h, read)
        bias = None if wide.norm_bias is None else wide.norm_bias / s
        gate = None if wide.w_gate is None else wide.w_gate * s
        found = found.replace(norm_weight=wide.norm_weight / s, norm_bias=bias, w1=wide.w1 * s, w_gate=gate)
    if problem.gated or problem.activation == "relu":
        up = F.linear(h, wide.w1, wide.b1)
        gate = up if wide.w_gate is None else F.linear(h, wide.w_gate, wide.b_gate)
        a = activate(problem.activation, gate) * (1 if wide.w_gate is None else up)
        s = factors(a, wide.w2)
        b1 = None if found.b1 is None else found.b1 / s
        found = found.replace(w1=found.w1 / s[:, None], b1=b1, w2=found.w2 * s)
    return found


def factors(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """s [channels] of activations [tokens, channels] that meet a weight [outputs, channels]; 1 for channels that are always 0."""
    activations, weights = x.abs().amax(0), weight.abs().amax(0)
    found = activations**ALPHA / weights.clamp_min(LEAST) ** (1 - ALPHA)
    return torch.where((activations < LEAST) | (weights < LEAST), 1.0, found)
