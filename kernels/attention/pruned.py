"""Structured pruning: a share of the heads is left out, and the others computed by a smaller attention."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812

from .._identity import fewer_products
from .._pruning import some_of, strongest
from ..registry import Device, Kernel, Run, Setup, kernel
from ._masks import sdpa_arguments
from .problem import Attention, AttentionInputs

if TYPE_CHECKING:
    from collections.abc import Callable

    Heads = torch.Tensor | slice

HALF = 0.5
FEW_QUERIES = 16
"""Up to so many queries, copying keys and values together costs as much as attending to them."""


def kept_heads(problem: Attention, setup: Setup, share: float = HALF) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the query heads and of the key-value heads that stay, in ascending order.

    A key-value head's score is the norm of its values over the calibration inputs, padding left out; a group of query
    heads goes or stays with the head it shares.
    """
    values = setup.calibration.v.double()
    if setup.calibration.lengths is not None:
        values = values * problem.padding_mask(setup.calibration.lengths).mT
    kv_heads = strongest(values.square().sum(dim=(0, 2, 3)), some_of(problem.kv_heads, share))
    heads = (kv_heads[:, None] * problem.group + torch.arange(problem.group, device=kv_heads.device)).flatten()
    return heads, kv_heads


def claim(problem: Attention, setup: Setup, inputs: AttentionInputs, share: float = HALF) -> torch.Tensor:
    """Exact attention with the outputs of the dropped heads set to 0."""
    heads, _ = kept_heads(problem, setup, share)
    exact = problem.reference(inputs)
    output = torch.zeros_like(exact)
    output[:, heads] = exact[:, heads]
    return output


def single_head(problem: Attention, device: Device) -> str | None:  # noqa: ARG001
    """With one key-value head, there is none to leave out."""
    return "has a single key-value head: there is none to leave out" if problem.kv_heads == 1 else None


def flops_left(share: float) -> Callable[[Attention], int]:
    """Of the products of the heads that stay; what a mask hides counts too."""

    def left(problem: Attention) -> int:
        heads = some_of(problem.kv_heads, share) * problem.group
        return 4 * problem.batch * heads * problem.q_len * problem.kv_len * problem.head_dim

    return left


def stretches(kv_heads: list[int], group: int) -> list[tuple[slice, slice]]:
    """(query heads, key-value heads) of each run of neighbours among these key-value heads: views, where indices would copy."""
    found: list[list[int]] = []
    for head in kv_heads:
        if found and found[-1][1] == head:
            found[-1][1] = head + 1
        else:
            found.append([head, head + 1])
    return [(slice(first * group, end * group), slice(first, end)) for first, end in found]


def heads_left(share: float) -> Callable[[Attention], str]:
    """How many heads stay, in words."""
    return lambda problem: f"{some_of(problem.kv_heads, share) * problem.group} of {problem.heads} heads"


def keeping(name: str, words: str, share: float) -> Kernel:
    """The kernel that keeps this share of the key-value heads."""

    def build(problem: Attention, setup: Setup) -> Run:
        heads, kv_heads = kept_heads(problem, setup, share)
        parts = stretches(kv_heads.tolist(), problem.group) if problem.q_len <= FEW_QUERIES else [(heads, kv_heads)]
        arguments = sdpa_arguments(problem, setup.device)

        def run(inputs: AttentionInputs) -> torch.Tensor:
            output = inputs.q.new_zeros(inputs.q.shape)
            for own, shared in parts:
                given = arguments(_of_heads(inputs, own))
                q, k, v = inputs.q[:, own], inputs.k[:, shared], inputs.v[:, shared]
                output[:, own] = F.scaled_dot_product_attention(q, k, v, **given)
            return output

        return run

    build.__doc__ = f"""{words} of the heads, those whose values have the larger norm, through SDPA; 0 for the others.

    Which heads stay is decided once, on the calibration inputs. Gathering them (of a few queries neighbours are attended where they
    lie, a call for each stretch) and writing zeros is timed.
    """
    return kernel(
        Attention,
        name=name,
        accepts=("causal", "padding", "bias", "mask", "window", "ragged"),
        approximate=True,
        claim=partial(claim, share=share),
        refuses=single_head,
        identified=fewer_products(flops_left(share), heads_left(share)),
    )(build)


pruned = keeping("pruned", "Half", HALF)
pruned_75 = keeping("pruned_75", "Three quarters", 0.75)
pruned_25 = keeping("pruned_25", "A quarter", 0.25)


def _of_heads(inputs: AttentionInputs, heads: Heads) -> AttentionInputs:
    """The inputs with bias and mask, where they differ between heads, for these heads only."""
    per_head = {
        name: tensor[:, heads] for name in ("bias", "mask") if (tensor := getattr(inputs, name)) is not None and tensor.shape[1] > 1
    }
    return inputs.replace(**per_head) if per_head else inputs
