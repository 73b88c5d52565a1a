"""The textbook formula over a whole problem, in blocks that fit the memory: the float64 truth, and its like in other dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..registry import Gradients
from ._textbook import part, textbook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .problem import Attention, AttentionInputs

    Rows = slice | torch.Tensor

BLOCK_SCORES = {"cpu": 2**20, "cuda": 2**24}
"""Scores held at once: on a CPU they fit its caches, on a GPU float64 with its temporaries stays below 1 GiB."""


def forward(problem: Attention, inputs: AttentionInputs, dtype: torch.dtype) -> torch.Tensor:
    """The output in the rows that the problem asks for, computed and returned in `dtype`."""
    output = _empty(problem, inputs, dtype)
    inputs = problem.dense(inputs)
    with torch.no_grad():
        for batch, kv_heads, heads, rows in _blocks(problem, BLOCK_SCORES[inputs.q.device.type]):
            asked = _asked(problem, rows)
            qkv = {"q": inputs.q[batch, heads, asked], "k": inputs.k[batch, kv_heads], "v": inputs.v[batch, kv_heads]}
            qkv = {name: tensor.to(dtype) for name, tensor in qkv.items()}
            output[batch, heads, rows] = _block(problem, inputs, qkv, batch, heads, asked)
    return output


def gradients(problem: Attention, inputs: AttentionInputs, *, naive: bool = False) -> Gradients:
    """Output and gradients for `inputs.grad` in float64, or in the problem's own dtype if `naive`.

    Raises ValueError when the inputs hold no gradient of the output.
    """
    if inputs.grad is None:
        raise ValueError("the inputs hold no grad: draw them from a problem with direction backward")
    dtype = getattr(torch, problem.dtype) if naive else torch.float64
    # sums over blocks are kept wider than 16 bit: one matrix product would do so, too
    wide = torch.promote_types(dtype, torch.float32)
    output = _empty(problem, inputs, dtype)
    found = {"q": torch.zeros_like(output, dtype=wide)}
    found |= {name: torch.zeros(getattr(inputs, name).shape, dtype=wide, device=inputs.q.device) for name in ("k", "v")}
    for batch, kv_heads, heads, rows in _blocks(problem, BLOCK_SCORES[inputs.q.device.type] // 2):
        asked = _asked(problem, rows)
        places: dict[str, tuple[Rows, ...]] = {"q": (batch, heads, asked), "k": (batch, kv_heads), "v": (batch, kv_heads)}
        with torch.enable_grad():
            leaves = {name: getattr(inputs, name)[at].detach().to(dtype).requires_grad_() for name, at in places.items()}
            # the plain formula repeats shared keys and values, and adds up what comes back in its own dtype
            used = {name: leaf.repeat_interleave(problem.group, 1) if naive and name != "q" else leaf for name, leaf in leaves.items()}
            result = _block(problem, inputs, used, batch, heads, asked)
        output[batch, heads, rows] = result.detach()
        grad = inputs.grad[batch, heads, asked].to(dtype)
        targets = {**places, "q": (batch, heads, rows)}
        for (name, at), value in zip(targets.items(), torch.autograd.grad(result, list(leaves.values()), grad), strict=True):
            found[name][at] += value
    return Gradients(output, {name: value.to(dtype) for name, value in found.items()})


def _empty(problem: Attention, inputs: AttentionInputs, dtype: torch.dtype) -> torch.Tensor:
    """Room for the output, in the rows that are asked for."""
    count = problem.q_len if problem.rows is None else len(problem.rows)
    return torch.empty((*inputs.q.shape[:2], count, problem.head_dim), dtype=dtype, device=inputs.q.device)


def _asked(problem: Attention, rows: slice) -> Rows:
    """The query rows that a part of the output stands for."""
    return rows if problem.rows is None else problem.rows[rows]


def _block(
    problem: Attention, inputs: AttentionInputs, qkv: dict[str, torch.Tensor], batch: slice, heads: slice, rows: Rows
) -> torch.Tensor:
    bias = None if inputs.bias is None else part(inputs.bias, batch, heads, rows).to(qkv["q"].dtype)
    visible = problem.visible(inputs, batch, heads, rows)
    return textbook(**qkv, scale=problem.scale, softcap=problem.softcap, bias=bias, visible=visible)


def _blocks(problem: Attention, scores: int) -> Iterator[tuple[slice, slice, slice, slice]]:
    """(batch, kv_heads, heads, rows of the output) of parts with at most `scores` scores each, as far as single rows allow."""
    count = problem.q_len if problem.rows is None else len(problem.rows)
    rows = min(count, max(1, scores // (problem.group * problem.kv_len)))
    # keys and values of few queries are more than their scores
    each = problem.kv_len * max(problem.group * rows, problem.head_dim // 4)
    kv_heads = min(problem.kv_heads, max(1, scores // each))
    batches = min(problem.batch, max(1, scores // (kv_heads * each)))
    for b in range(0, problem.batch, batches):
        for h in range(0, problem.kv_heads, kv_heads):
            kv = slice(h, min(h + kv_heads, problem.kv_heads))
            heads = slice(kv.start * problem.group, kv.stop * problem.group)
            for r in range(0, count, rows):
                yield slice(b, b + batches), kv, heads, slice(r, r + rows)
