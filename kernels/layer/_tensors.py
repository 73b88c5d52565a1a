"""The tensors of a layer, weights and inputs, and how random ones are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from .. import _given
from ..registry import Tensors

if TYPE_CHECKING:
    from .problem import Layer


@dataclass(frozen=True)
class LayerWeights(Tensors):
    """The trained part; None where the problem has none.

    The numbers of heads are those of w_qkv and w_out, and the hidden size is that of w1, so that pruned layers are weights, too.
    """

    w_qkv: torch.Tensor
    """[(heads + 2 · kv_heads) · head_dim, dim]: the rows of q, then of k, then of v"""
    w_out: torch.Tensor
    """[dim, heads · head_dim]"""
    norm1_weight: torch.Tensor
    """[dim]"""
    w1: torch.Tensor
    """[hidden_dim, dim]"""
    w2: torch.Tensor
    """[dim, hidden_dim]"""
    norm2_weight: torch.Tensor
    b_qkv: torch.Tensor | None = None
    b_out: torch.Tensor | None = None
    norm1_bias: torch.Tensor | None = None
    """[dim]; LayerNorm only"""
    b1: torch.Tensor | None = None
    b2: torch.Tensor | None = None
    norm2_bias: torch.Tensor | None = None
    w_gate: torch.Tensor | None = None
    """[hidden_dim, dim]"""
    b_gate: torch.Tensor | None = None


@dataclass(frozen=True)
class LayerInputs(Tensors):
    """What one call of a layer kernel reads."""

    x: torch.Tensor
    """[batch, seq_len, dim]"""
    mask: torch.Tensor | None = None
    """bool [seq_len, seq_len], true where a query sees a key; each sees itself and the first key."""
    lengths: torch.Tensor | None = None
    """int32 [batch]: tokens from here on are padding."""

    differentiable: ClassVar[tuple[str, ...]] = ("x",)


def drawn_weights(problem: Layer, seed: int, device: torch.device | str) -> LayerWeights:
    """Matrices N(0, 1/fan_in); norm weights around 1; biases small, but not zero, so that a forgotten one shows."""
    if problem.given:
        return _given.layer_weights(problem, device)
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int, scale: float = 0.1, mean: float = 0.0) -> torch.Tensor:
        drawn = torch.randn(shape, generator=generator, device=device)
        return (mean + scale * drawn).to(getattr(torch, problem.dtype))

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return normal(rows, columns, scale=columns**-0.5)

    def bias(size: int) -> torch.Tensor | None:
        return normal(size) if problem.bias else None

    def norm() -> tuple[torch.Tensor, torch.Tensor | None]:
        return normal(dim, mean=1.0), normal(dim) if problem.norm == "layernorm" else None

    dim, hidden, width = problem.dim, problem.hidden_dim, problem.heads * problem.head_dim
    rows = width + 2 * problem.kv_heads * problem.head_dim
    w_qkv, b_qkv = matrix(rows, dim), bias(rows)
    w_out, b_out = matrix(dim, width), bias(dim)
    norm1_weight, norm1_bias = norm()
    w1, b1 = matrix(hidden, dim), bias(hidden)
    w2, b2 = matrix(dim, hidden), bias(dim)
    norm2_weight, norm2_bias = norm()
    gate = {"w_gate": matrix(hidden, dim), "b_gate": bias(hidden)} if problem.gated else {}
    return LayerWeights(
        w_qkv=w_qkv, b_qkv=b_qkv, w_out=w_out, b_out=b_out, norm1_weight=norm1_weight, norm1_bias=norm1_bias,
        w1=w1, b1=b1, w2=w2, b2=b2, norm2_weight=norm2_weight, norm2_bias=norm2_bias, **gate,
    )  # fmt: skip


def drawn_inputs(problem: Layer, seed: int, device: torch.device | str) -> LayerInputs:
    """x from N(0, 1), a mask that hides a quarter of the pairs, and the lengths that the attention inside has."""
    generator = torch.Generator(device).manual_seed(seed)
    shape = (problem.batch, problem.seq_len, problem.dim)
    drawn = torch.randn(shape, generator=generator, device=device, dtype=getattr(torch, problem.dtype))
    x = _given.layer_x(problem, seed, device) if problem.given else drawn
    return LayerInputs(x=x, mask=_mask(problem, generator, device), lengths=valid_lengths(problem, device))


def valid_lengths(problem: Layer, device: torch.device | str) -> torch.Tensor | None:
    """int32 [batch] of a padded problem; None of others."""
    return torch.tensor(problem.attention.lengths(), dtype=torch.int32, device=device) if problem.padding else None


def _mask(problem: Layer, generator: torch.Generator, device: torch.device | str) -> torch.Tensor | None:
    if problem.mask != "boolean":
        return None
    mask = torch.rand(problem.seq_len, problem.seq_len, generator=generator, device=device) < 0.75
    mask = mask | torch.eye(problem.seq_len, dtype=torch.bool, device=device)
    mask[:, 0] = True  # no length hides the first key, so that every query sees one
    return mask
