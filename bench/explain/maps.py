"""Attention maps of a kernel, taken from the kernel itself: with columns of the identity as values, its output is its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

MOST_CELLS = 128
"""Of a pooled map, in each direction."""


def weights_of(call: Callable[[Any], torch.Tensor], inputs: Any, heads: Sequence[int]) -> torch.Tensor:
    """[heads, q_len, kv_len]: the weight that each query of the first batch row gives each key, in the dtype of the answers.

    One call for every head_dim keys, with everything but the values as it is. What a kernel derives from the values (a step of
    quantization, a choice of keys) it then derives from these: `unexplained` tells whether that matters.
    """
    q_len, (_, _, kv_len, head_dim) = inputs.q.shape[2], inputs.k.shape
    found: torch.Tensor | None = None
    for start in range(0, kv_len, head_dim):
        width = min(head_dim, kv_len - start)
        values = torch.zeros_like(inputs.v)
        values[:, :, start : start + width, :width] = torch.eye(width, dtype=values.dtype, device=values.device)
        answer = call(inputs.replace(v=values))[0, list(heads)]
        if found is None:
            found = torch.empty((len(heads), q_len, kv_len), dtype=answer.dtype, device=answer.device)
        found[:, :, start : start + width] = answer[..., :width]
    assert found is not None  # there is a key
    return found


def exact(problem: Any, inputs: Any, heads: Sequence[int]) -> torch.Tensor:
    """float64 [heads, q_len, kv_len]: the right weights, by the problem's own reference, one head at a time."""
    single = replace(problem, batch=1, heads=1, kv_heads=1, given="")
    maps = []
    for head in heads:
        shared = slice(head // problem.group, head // problem.group + 1)
        own = {"q": inputs.q[:1, head : head + 1], "k": inputs.k[:1, shared], "v": inputs.v[:1, shared]}
        for name in ("bias", "mask"):
            if (given := getattr(inputs, name)) is not None:
                own[name] = given[:1, head : head + 1] if given.shape[1] > 1 else given[:1]
        lengths = None if inputs.lengths is None else inputs.lengths[:1]
        maps.append(weights_of(single.reference, inputs.replace(**own, lengths=lengths), [0])[0])
    return torch.stack(maps)


def unexplained(call: Callable[[Any], torch.Tensor], inputs: Any, heads: Sequence[int], maps: torch.Tensor, group: int) -> float:
    """Relative distance (root mean square) of the real answer from the maps times the real values, over these heads."""
    answer = call(inputs)[0, list(heads)].double()
    values = inputs.v[0, [head // group for head in heads]].double()
    difference = answer - maps.double() @ values
    scale = float(answer.square().mean().sqrt())
    return float(difference.square().mean().sqrt()) / scale if scale else 0.0


def pooled(weights: torch.Tensor, query_cell: int, key_cell: int) -> list[list[float]]:
    """[q_len, kv_len] -> at most MOST_CELLS each way: summed over the keys of a cell, averaged over its queries; three digits."""
    rows = torch.stack([part.double().mean(0) for part in torch.split(weights, query_cell)])
    cells = torch.stack([part.sum(1) for part in torch.split(rows, key_cell, dim=1)], dim=1)
    return [[float(f"{value:.3g}") for value in row] for row in cells.tolist()]


def cell_of(length: int) -> int:
    """Queries, or keys, in one cell of a pooled map."""
    return -(-length // MOST_CELLS)
