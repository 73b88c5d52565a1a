"""What a query sees and what scores become, as FlexAttention wants it told: functions of the numbers of one pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._flex_layout import Layout
    from .problem import AttentionInputs

    Mod = Callable[..., torch.Tensor]


def mask_mod(layout: Layout, inputs: AttentionInputs, logical: torch.Tensor | None) -> Mod | None:
    """Whether a row of queries sees a key; None where all see all. `logical` is what `logical_pages` gives."""
    problem = layout.problem
    lengths, mask = inputs.lengths, inputs.mask
    ragged_end = layout.pooled and problem.kv_len % problem.page_size > 0 and lengths is None
    if not (problem.positional or lengths is not None or mask is not None or ragged_end):
        return None

    def sees(b: Any, h: Any, r: Any, k: Any) -> torch.Tensor:
        batch, head, query = layout.meaning(b, h, r)
        key = _key(layout, logical, batch, k)
        end = problem.kv_len if lengths is None else lengths[batch]
        visible: torch.Tensor = key < end
        position = query + ((end if problem.ragged else problem.kv_len) - problem.q_len)
        if problem.causal:
            visible = visible & (key <= position)
        if problem.window:
            visible = visible & (key > position - problem.window)
            if not problem.causal:
                visible = visible & (key < position + problem.window)
        return visible if mask is None else visible & mask[_index(layout, mask, batch, head, query, key)]

    return sees


def score_mod(layout: Layout, inputs: AttentionInputs, logical: torch.Tensor | None) -> Mod | None:
    """The softcap, then the bias; None where neither is asked for."""
    cap, bias = layout.problem.softcap, inputs.bias
    if not cap and bias is None:
        return None

    def changed(score: torch.Tensor, b: Any, h: Any, r: Any, k: Any) -> torch.Tensor:
        if cap:
            score = cap * torch.tanh(score / cap)
        if bias is None:
            return score
        batch, head, query = layout.meaning(b, h, r)
        return score + bias[_index(layout, bias, batch, head, query, _key(layout, logical, batch, k))]

    return changed


def _index(layout: Layout, tensor: torch.Tensor, batch: Any, head: Any, query: Any, key: Any) -> tuple[Any, ...]:
    """The numbers, 0 in dimensions of size 1, which stand for all. The last page of a row may reach beyond its keys.

    All of them are tensors: torch 2.10 wants to know what a plain number among them is worth.
    """
    numbers = (batch, head, query, key.clamp(max=layout.problem.kv_len - 1) if layout.pooled else key)
    return tuple(number if size > 1 else number * 0 for number, size in zip(numbers, tensor.shape, strict=True))


def _key(layout: Layout, logical: torch.Tensor | None, batch: Any, k: Any) -> Any:
    """The key's number in its row, which for paged keys is not where it lies in the pool."""
    if logical is None:
        return k
    page_size = layout.problem.page_size
    return logical[batch, k // (page_size * layout.problem.kv_heads)] * page_size + k % page_size


def logical_pages(layout: Layout, device: torch.device) -> Callable[[AttentionInputs], torch.Tensor | None]:
    """inputs -> int32 [batch, pages of the pool]: which page of a row each is; anything for pages that are not the row's.

    Not for torch.compile: in what it compiles, a mask_mod sees the zeros of a tensor before others are scattered into it.
    """
    problem = layout.problem
    if not problem.page_size:
        return lambda _: None
    unused = problem.kv_shape[0]
    numbers = torch.arange(problem.pages, dtype=torch.int32, device=device).expand(problem.batch, -1)
    starts = numbers * problem.page_size

    def inverse(inputs: AttentionInputs) -> torch.Tensor:
        assert inputs.block_table is not None
        table = inputs.block_table.long()
        if inputs.lengths is not None:  # entries past a row's last page are 0, and page 0 may be one that it has
            table = table.masked_fill(starts >= inputs.lengths[:, None], unused)
        return torch.zeros(problem.batch, unused + 1, dtype=torch.int32, device=device).scatter_(1, table, numbers)

    return inverse
