"""Sparse attention on a GPU, as far as both of its patterns have it in common: what it takes, how the work is cut."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..contract import ITEM_BYTES
from ._prefill_code import takes_tma
from ._prefill_tiles import heads_together
from ._sparse_code import HEAD_DIMS, Asked, cut_for

if TYPE_CHECKING:
    from .._cards import Card
    from ..registry import Device
    from .problem import Attention

FEW_QUERIES = 16
"""Up to so many a step of decoding is bound by reading keys, among which no program alone is quick."""


def refuses(problem: Attention, device: Device) -> str | None:
    """Heads, cards and few queries, which the Triton kernel is not written for."""
    if device.kind != "cuda":
        return None
    if problem.head_dim not in HEAD_DIMS:
        return f"takes head_dim from {HEAD_DIMS.start} to {HEAD_DIMS.stop - 1} on a GPU, not {problem.head_dim}"
    if problem.q_len <= FEW_QUERIES:
        return f"is written for more than {FEW_QUERIES} queries on a GPU, not for {problem.q_len}"
    if device.capability is not None and device.capability < (8, 0):
        return f"is written for compute capability 8.0 and newer, not {device.capability[0]}.{device.capability[1]}"
    return None


def options(problem: Attention, card: Card, asked: Asked) -> dict[str, Any]:
    """What every call is launched with, by the problem and the card; `asked` says which pattern and precision."""
    item_bytes = ITEM_BYTES[problem.dtype]
    lengths = 2 if problem.ragged else 1 if problem.padding else 0
    size = {"head_dim": problem.head_dim, "item_bytes": item_bytes, "l2_bytes": card.l2_bytes}
    return {
        "scale": problem.scale,
        "cut": cut_for(problem, card.capability, card.multiprocessors),
        "asked": replace(asked, causal=problem.triangular, lengths=lengths),
        "together": heads_together(problem.group, problem.kv_len, **size, causal=problem.triangular),
        "tma": takes_tma(card.capability, item_bytes),
    }
