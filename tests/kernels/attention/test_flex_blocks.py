"""What FlexAttention is told, carried out in plain torch: views, maps of blocks and mods together are the problem, on both devices."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kerneldyno.kernels.attention._flex_blocks import Blocks
from kerneldyno.kernels.attention._flex_layout import Layout
from kerneldyno.kernels.attention._flex_mods import logical_pages, mask_mod, score_mod
from kerneldyno.kernels.attention.problem import Attention, AttentionInputs

ON = pytest.mark.parametrize("threads", [0, 1, 64], ids=["gpu", "one thread", "many threads"])
HERE = torch.device("cpu")


def pairs(layout: Layout) -> tuple[torch.Tensor, ...]:
    """Numbers of batch rows, heads, rows and keys of the layout, ready to be broadcast."""
    sizes = (layout.batch, layout.heads, layout.rows, layout.keys)
    return tuple(torch.arange(size).view([-1 if i == place else 1 for i in range(4)]) for place, size in enumerate(sizes))


def listed(counts: torch.Tensor | None, numbers: torch.Tensor | None, layout: Layout) -> torch.Tensor:
    """bool [batch, 1, rows, keys]: true in the blocks of a list."""
    found = torch.zeros(layout.batch, 1, layout.rows, layout.keys, dtype=torch.bool)
    if counts is None or numbers is None:
        return found
    for b in range(layout.batch):
        for i in range(counts.shape[-1]):
            at = b % counts.shape[0], 0, i
            chosen = numbers[at][: int(counts[at])].tolist()
            assert len(set(chosen)) == len(chosen)
            for j in chosen:
                rows, keys = slice(i * layout.q_block, (i + 1) * layout.q_block), slice(j * layout.kv_block, (j + 1) * layout.kv_block)
                found[b, :, rows, keys] = True
    return found


def told(layout: Layout, inputs: AttentionInputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """bool [batch, 1 or heads, rows, keys]: in blocks with a mask, in blocks without, and what the mask says everywhere."""
    some, some_numbers, full, full_numbers = Blocks.of(layout, HERE).lists(inputs)
    sees = mask_mod(layout, inputs, logical_pages(layout, HERE)(inputs))
    mask = torch.ones(1, dtype=torch.bool) if sees is None else sees(*pairs(layout))
    return listed(some, some_numbers, layout), listed(full, full_numbers, layout), mask


@ON
def test_told_right(case: dict[str, Any], threads: int) -> None:
    problem = Attention(**case)
    layout, inputs = Layout(problem, threads), problem.inputs(1)
    masked, full, mask = told(layout, inputs)
    q, k, v = (tensor.double() for tensor in (layout.queries(inputs.q), layout.cached(inputs.k), layout.cached(inputs.v)))
    repeats = layout.heads // k.shape[1]
    assert layout.shared == (repeats > 1 and not layout.pooled) or layout.pooled
    scores = q @ k.repeat_interleave(repeats, dim=1).mT * problem.scale
    change = score_mod(layout, inputs, logical_pages(layout, HERE)(inputs))
    if change is not None:
        scores = change(scores, *pairs(layout))
    seen = full | (masked & mask)
    weights = torch.softmax(scores.masked_fill(~seen, -1e300), dim=-1).masked_fill(~seen, 0)
    found = (weights @ v.repeat_interleave(repeats, dim=1)).view(inputs.q.shape)
    torch.testing.assert_close(found, problem.reference(inputs), rtol=1e-9, atol=1e-9)


@ON
@pytest.mark.parametrize("q_len_kv_len", [(1, 1), (128, 128), (129, 127), (300, 700), (700, 300), (1, 640), (5, 640)])
@pytest.mark.parametrize("fields", [{}, {"causal": True}, {"window": 150}, {"window": 40, "causal": True}, {"kv_heads": 1, "window": 90}])
@pytest.mark.parametrize("lengths", ["padding", "ragged"])
def test_whole_blocks_are_neither_visited_in_vain_nor_masked_in_vain(
    q_len_kv_len: tuple[int, int], fields: dict[str, Any], lengths: str, threads: int
) -> None:
    q_len, kv_len = q_len_kv_len
    problem = Attention(batch=3, heads=2, q_len=q_len, kv_len=max(kv_len, q_len) if lengths == "ragged" else kv_len, **fields)
    problem = Attention(**{**problem.fields(), lengths: True, "head_dim": 8})
    layout, inputs = Layout(problem, threads), problem.inputs(0)
    masked, full, mask = told(layout, inputs)
    mask = mask.expand(3, layout.heads, layout.rows, layout.keys)[:, :1]
    for rows in torch.arange(layout.rows).split(layout.q_block):
        for keys in torch.arange(layout.keys).split(layout.kv_block):
            block = (slice(None), slice(None), slice(int(rows[0]), int(rows[-1]) + 1), slice(int(keys[0]), int(keys[-1]) + 1))
            some, every = mask[block].flatten(1).any(1), mask[block].flatten(1).all(1)
            assert torch.equal((masked | full)[block].flatten(1).any(1), some)
            whole = len(keys) == layout.kv_block and (layout.cpu or (len(rows) == layout.q_block and not layout.short))
            assert torch.equal(full[block].flatten(1).any(1), every & torch.tensor(whole))


@pytest.mark.parametrize("page_size", [16, 96, 100, 256, 1000])
@ON
def test_pages_are_cut_into_blocks_that_fit(page_size: int, threads: int) -> None:
    layout = Layout(Attention(q_len=1, kv_len=2000, page_size=page_size), threads)
    assert page_size % layout.kv_block == 0
    assert layout.kv_block <= 512
    assert layout.cpu or 128 % layout.kv_block == 0


def test_a_page_of_another_row_is_never_taken_for_its_own() -> None:
    problem = Attention(batch=2, q_len=1, kv_len=64, page_size=16, ragged=True, heads=1)
    inputs = problem.inputs(1).replace(
        block_table=torch.tensor([[0, 3, 0, 0], [5, 2, 1, 4]], dtype=torch.int32), lengths=torch.tensor([20, 64], dtype=torch.int32)
    )
    logical = logical_pages(Layout(problem, 1), HERE)(inputs)
    assert logical is not None
    assert logical[0, [0, 3]].tolist() == [0, 1]
    assert logical[1, [5, 2, 1, 4]].tolist() == [0, 1, 2, 3]
