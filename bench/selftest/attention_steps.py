"""Attention in float32, step by step: a planted mistake replaces one of the steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from kerneldyno.kernels.attention.problem import Attention, AttentionInputs
    from kerneldyno.kernels.registry import Run, Setup

TILE = 64
"""Keys or queries that planted mistakes treat as one tile."""

Mask = torch.Tensor | None


def as_given(_: Attention, inputs: AttentionInputs) -> AttentionInputs:
    """The inputs themselves."""
    return inputs


def plain_scale(problem: Attention) -> float:
    """1/sqrt(head_dim)."""
    return problem.scale


def spread(problem: Attention, tensor: torch.Tensor) -> torch.Tensor:
    """[batch, kv_heads, …] -> [batch, heads, …]: neighbouring heads share keys and values."""
    return tensor.repeat_interleave(problem.group, dim=1) if problem.grouped else tensor


def products(q: torch.Tensor, k: torch.Tensor, scale: float) -> torch.Tensor:
    """[batch, heads, q_len, kv_len]"""
    return (q @ k.mT) * scale


def capped(problem: Attention, scores: torch.Tensor) -> torch.Tensor:
    """Scores within the problem's softcap."""
    return problem.softcap * torch.tanh(scores / problem.softcap) if problem.softcap else scores


def with_bias(scores: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Scores and bias added."""
    return scores if bias is None else scores + bias.float()


def all_visible(problem: Attention, inputs: AttentionInputs) -> Mask:
    """What the problem shows of the keys."""
    return problem.visible(inputs)


def softmax(scores: torch.Tensor, visible: Mask) -> torch.Tensor:
    """Weights of the keys: hidden ones and rows without a visible one get 0."""
    if visible is None:
        return torch.softmax(scores, -1)
    weights = torch.softmax(scores.masked_fill(~visible, torch.finfo(scores.dtype).min), -1)
    return weights.masked_fill(~visible, 0)


def mixed(weights: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """[batch, heads, q_len, head_dim]"""
    return weights @ v


def as_it_is(_: Attention, __: AttentionInputs, output: torch.Tensor) -> torch.Tensor:
    """The output itself."""
    return output


@dataclass(frozen=True)
class Steps:
    """The steps in order; all of them right unless replaced."""

    inputs: Callable[[Attention, AttentionInputs], AttentionInputs] = as_given
    scale: Callable[[Attention], float] = plain_scale
    spread: Callable[[Attention, torch.Tensor], torch.Tensor] = spread
    products: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor] = products
    capped: Callable[[Attention, torch.Tensor], torch.Tensor] = capped
    with_bias: Callable[[torch.Tensor, Any], torch.Tensor] = with_bias
    visible: Callable[[Attention, AttentionInputs], Mask] = all_visible
    softmax: Callable[[torch.Tensor, Mask], torch.Tensor] = softmax
    mixed: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = mixed
    output: Callable[[Attention, AttentionInputs, torch.Tensor], torch.Tensor] = as_it_is

    def build(self, problem: Attention, setup: Setup) -> Run:  # noqa: ARG002
        """What a kernel's build function does."""
        dtype = getattr(torch, problem.dtype)

        def run(inputs: AttentionInputs) -> torch.Tensor:
            given = problem.dense(self.inputs(problem, inputs))
            q, k, v = given.q.float(), self.spread(problem, given.k.float()), self.spread(problem, given.v.float())
            scores = self.with_bias(self.capped(problem, self.products(q, k, self.scale(problem))), given.bias)
            weights = self.softmax(scores, self.visible(problem, given))
            return self.output(problem, inputs, self.mixed(weights, v)).to(dtype)

        return run
