"""What block-sparse attention claims to compute, in float64: the choice of blocks written out, then the exact formula with a mask."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ._sparse_blocks import KEYS, folded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._sparse_blocks import Choice
    from .problem import Attention, AttentionInputs


def claimed(problem: Attention, inputs: AttentionInputs, choice: Choice, queries: int) -> torch.Tensor:
    """Exact attention in which a block of queries sees nothing but the blocks of keys chosen for it; head by head, to save memory."""
    rows = problem.q_len if problem.rows is None else len(problem.rows)
    output = torch.empty((problem.batch, problem.heads, rows, problem.head_dim), dtype=torch.float64, device=inputs.q.device)
    together = problem.group if folded(problem) else 1
    alone = replace(problem, batch=1, heads=together, kv_heads=1).at(problem.rows)
    for row in range(problem.batch):
        at = slice(row, row + 1)
        lengths = None if inputs.lengths is None else inputs.lengths[at]
        for first in range(0, problem.heads, together):
            heads, shared = slice(first, first + together), slice(first // problem.group, first // problem.group + 1)
            one = inputs.replace(q=inputs.q[at, heads], k=inputs.k[at, shared], v=inputs.v[at, shared], lengths=lengths)
            output[at, heads] = alone.reference(one.with_mask(kept(alone, one, choice, queries)))
    return output


def kept(problem: Attention, inputs: AttentionInputs, choice: Choice, queries: int) -> torch.Tensor:
    """bool [q_len, kv_len]: true on the keys of blocks that are chosen, of a single head or of heads with one choice for all."""
    device = inputs.q.device
    length = problem.kv_len if inputs.lengths is None else int(inputs.lengths)
    keys = [inputs.k[0, 0, start : min(start + KEYS, length)].double() for start in range(0, length, KEYS)]
    mean_keys = torch.stack([block.mean(0) for block in keys])
    sizes = torch.tensor([len(block) for block in keys], dtype=torch.float64, device=device)
    mask = torch.zeros(problem.q_len, problem.kv_len, dtype=torch.bool, device=device)
    _, last_seen = problem.seen(device, inputs.lengths)
    asked = range(problem.q_len) if problem.rows is None else problem.rows.tolist()
    for block in sorted({row // queries for row in asked}):
        rows = slice(block * queries, (block + 1) * queries)
        seen = last_seen[0, rows]
        end = math.ceil(min(int(seen.max()) + 1, length) / KEYS)
        if end <= 0:
            continue
        logarithms = mean_keys[:end] @ inputs.q[0, :, rows].double().mean((0, 1)) * problem.scale + sizes[:end].log()
        always = {0} | {number for number in range(end) if problem.triangular and number >= int(seen.min()) // KEYS}
        for number in ranked(logarithms, always, choice):
            mask[rows, number * KEYS : (number + 1) * KEYS] = True
    return mask


def ranked(logarithms: torch.Tensor, always: set[int], choice: Choice) -> Iterator[int]:
    """The blocks that are kept: those that stay in any case, then the heaviest ones, until there are enough."""
    weights = logarithms.softmax(0).tolist()
    order = sorted(range(len(weights)), key=lambda number: (number not in always, -float(logarithms[number])))
    mass = 0.0
    for position, number in enumerate(order):
        enough = mass >= choice.mass if choice.mass else position * choice.parts >= len(weights)
        if enough and number not in always:
            return
        mass += weights[number]
        yield number
