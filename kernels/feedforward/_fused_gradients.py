"""The backward pass of the fused feed-forward network: PyTorch's matrix products between Triton kernels of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton

from ..registry import Gradients
from ._fused_backward import activation_gradient_kernel, norm_gradient_kernel
from ._fused_backward_code import ACTIVATION_TILE, ACTIVATION_WARPS, norm_gradient_constants
from ._fused_triton import card_of, linear, normalize

if TYPE_CHECKING:
    from ._fused_tiles import Tiles
    from .problem import FeedForward, FeedForwardInputs, FeedForwardWeights

Found = dict[str, torch.Tensor]


def forward_backward(
    problem: FeedForward,
    weights: FeedForwardWeights,
    joined: tuple[torch.Tensor, torch.Tensor | None],
    inputs: FeedForwardInputs,
    cuts: tuple[Tiles, Tiles],
) -> Gradients:
    """One forward pass, which keeps what the matrices saw and gave, and the gradients for `inputs.grad`.

    `joined`: W1 and its bias, interleaved with the gate's if there is one. Over tokens, sums for biases and the norm are taken in
    float32 in a fixed order, those for matrices as cuBLAS takes them.
    """
    assert inputs.grad is not None
    x, grad = (_rows(tensor, problem.dim) for tensor in (inputs.x, inputs.grad))
    h = x
    if weights.norm_weight is not None:
        h = normalize(x, weights.norm_weight, weights.norm_bias, problem.norm_epsilon)
    before = torch.empty((len(x), len(joined[0])), dtype=x.dtype, device=x.device)
    fixed = {"activation": problem.activation, "gated": weights.w_gate is not None, "before": before}
    a = linear(h, *joined, **fixed, cut=cuts[0])  # type: ignore[arg-type]
    y = linear(a, weights.w2, weights.b2, residual=x if problem.residual else None, cut=cuts[1])
    found: Found = {"w2": grad.mT @ a}
    if weights.b2 is not None:
        found["b2"] = grad.sum(0, dtype=torch.float32).to(x.dtype)
    of_up, of_gate = _activation_gradient(problem.activation, weights, grad @ weights.w2, before, found)
    of_h = of_up @ weights.w1
    found["w1"] = of_up.mT @ h
    if of_gate is not None and weights.w_gate is not None:
        of_h.addmm_(of_gate, weights.w_gate)
        found["w_gate"] = of_gate.mT @ h
    of_x = _norm_gradient(problem, weights, x, of_h, grad if problem.residual else None, found)
    return Gradients(y.view(inputs.x.shape), {"x": of_x.view(inputs.x.shape), **found})


def _rows(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    """[tokens, dim] whose columns are adjacent."""
    flat = tensor.reshape(-1, dim)
    return flat if flat.stride(1) == 1 else flat.contiguous()


def _activation_gradient(
    activation: str, weights: FeedForwardWeights, of_a: torch.Tensor, before: torch.Tensor, found: Found
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gradients [tokens, hidden_dim] of W1's product and of the gate's; those of their biases join `found`."""
    tokens, hidden = of_a.shape
    gated, (rows, columns) = weights.w_gate is not None, ACTIVATION_TILE
    of_up, of_gate = torch.empty_like(of_a), torch.empty_like(of_a) if gated else None
    shape = (triton.cdiv(tokens, rows), hidden)
    names = [name for name in ("b1", "b_gate") if getattr(weights, name) is not None]
    sums = {name: torch.empty(shape, dtype=torch.float32, device=of_a.device) for name in names}
    activation_gradient_kernel[(shape[0], triton.cdiv(hidden, columns))](
        of_a, before, of_up, of_gate, sums.get("b1"), sums.get("b_gate"), tokens, hidden,
        ACTIVATION=activation, GATED=gated, BT=rows, BN=columns, num_warps=ACTIVATION_WARPS,
    )  # fmt: skip
    found |= {name: parts.sum(0).to(of_a.dtype) for name, parts in sums.items()}
    return of_up, of_gate


def _norm_gradient(
    problem: FeedForward, weights: FeedForwardWeights, x: torch.Tensor, of_h: torch.Tensor, above: torch.Tensor | None, found: Found
) -> torch.Tensor:
    """The gradient of x [tokens, dim]; those of the norm's weight and bias join `found`."""
    if weights.norm_weight is None:
        return of_h if above is None else of_h.add_(above)
    tokens, dim = x.shape
    centred = weights.norm_bias is not None
    fixed, warps, places = norm_gradient_constants(dim, centred=centred)
    programs = min(tokens, places * card_of(x.device).multiprocessors)
    of_x = torch.empty((tokens, dim), dtype=x.dtype, device=x.device)
    sums = [torch.empty((programs, dim), dtype=torch.float32, device=x.device) if wanted else None for wanted in (True, centred)]
    norm_gradient_kernel[(programs,)](
        x, weights.norm_weight, of_h, above, of_x, *sums, x.stride(0), 0 if above is None else above.stride(0), tokens, dim,
        problem.norm_epsilon, **fixed, num_warps=warps,
    )  # fmt: skip
    found |= {name: parts.sum(0).to(x.dtype) for name, parts in zip(("norm_weight", "norm_bias"), sums, strict=True) if parts is not None}
    return of_x
