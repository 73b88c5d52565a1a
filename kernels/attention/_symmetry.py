"""Symmetries of attention: other numbers whose right answer is known as soon as that of the original is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..registry import Gradients

if TYPE_CHECKING:
    from collections.abc import Callable

    from .problem import Attention, AttentionInputs


def disguised(problem: Attention, inputs: AttentionInputs, seed: int) -> tuple[AttentionInputs, Callable[[Any], Any]]:
    """Features of q and k with their signs turned together, which leaves every score as it is, and features of v.

    A turned feature of v turns that feature of the output. Signs are drawn for every key-value head, feature and batch row,
    and turning a sign rounds nothing, so that answers agree to the last bit.
    """
    generator = torch.Generator().manual_seed(seed)
    # a page may belong to several rows, so the rows of a paged cache are turned alike
    kv_shape = (1 if problem.page_size else problem.batch, problem.kv_heads, 1, problem.head_dim)
    turned_k, turned_v = (_signs(kv_shape, generator).to(inputs.q) for _ in range(2))
    turned_q, turned_o = (signs.repeat_interleave(problem.group, dim=1) for signs in (turned_k, turned_v))
    grad = None if inputs.grad is None else inputs.grad * turned_o
    clothed = inputs.replace(q=inputs.q * turned_q, k=inputs.k * turned_k, v=inputs.v * turned_v, grad=grad)

    def back(answer: Any) -> Any:
        if not isinstance(answer, Gradients):
            return answer * turned_o
        signs = {"q": turned_q, "k": turned_k, "v": turned_v}
        return Gradients(answer.output * turned_o, {name: value * signs[name] for name, value in answer.by_name.items()})

    return clothed, back


def _signs(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 2, shape, generator=generator) * 2.0 - 1.0
