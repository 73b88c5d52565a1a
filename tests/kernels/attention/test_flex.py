"""FlexAttention: the map of blocks against the mask itself, and the compiled kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kerneldyno.kernels.attention.flex import BLOCK, block_mask, flex
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device

needs_compiler = pytest.mark.skipif(
    flex.why_not(Attention(q_len=8), Device("cpu")) is not None, reason="FlexAttention needs a C++ compiler on a CPU"
)


def blocks(counts: torch.Tensor | None, numbers: torch.Tensor | None, row: int, i: int) -> set[int]:
    assert counts is not None
    assert numbers is not None
    return set(numbers[row, 0, i, : int(counts[row, 0, i])].tolist())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("q_len", "kv_len"), [(1, 1), (128, 128), (129, 127), (300, 700), (700, 300), (1, 640)])
def test_block_map_is_what_the_mask_says(q_len: int, kv_len: int, causal: bool) -> None:
    problem = Attention(batch=3, heads=1, q_len=q_len, kv_len=kv_len, head_dim=8, causal=causal, padding=True)
    inputs = problem.inputs(0)
    assert inputs.lengths is not None
    found = block_mask(problem, inputs.lengths, lengths_matter=True)
    mask = problem.visible(inputs)
    assert mask is not None
    visible = mask.expand(3, 1, q_len, kv_len)[:, 0]
    for b in range(3):
        for i, rows in enumerate(torch.split(visible[b], BLOCK, dim=0)):
            tiles = torch.split(rows, BLOCK, dim=1)
            full = blocks(found.full_kv_num_blocks, found.full_kv_indices, b, i)
            some = blocks(found.kv_num_blocks, found.kv_indices, b, i)
            assert full == {j for j, tile in enumerate(tiles) if tile.shape == (BLOCK, BLOCK) and tile.all()}
            assert some | full == {j for j, tile in enumerate(tiles) if tile.any()}
            assert not some & full


@needs_compiler
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # raised by inductor's own imports
def test_right_for_other_lengths_without_compiling_again(build: Callable[..., Any]) -> None:
    from torch._dynamo.utils import counters

    problem = Attention(batch=2, heads=4, kv_heads=2, q_len=170, kv_len=301, head_dim=32, causal=True, padding=True)
    run, _ = build(flex, problem)
    graphs = counters["stats"]["unique_graphs"]
    for seed, lengths in enumerate(([150, 301], [1, 128], [129, 300])):
        inputs = problem.inputs(seed).replace(lengths=torch.tensor(lengths, dtype=torch.int32))
        torch.testing.assert_close(run(inputs), problem.reference(inputs).float(), rtol=1e-5, atol=3e-6)
    assert counters["stats"]["unique_graphs"] == graphs


@needs_compiler
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # raised by inductor's own imports
@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {"bias": "additive", "padding": True},
        {"dtype": "bfloat16", "q_len": 130, "kv_len": 60, "causal": True, "kv_heads": 1},
    ],
)
def test_right(more: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    judge(flex, Attention(**{"batch": 2, "heads": 4, "q_len": 129, "head_dim": 32, **more}))


def test_refusals_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = Device("cpu")
    assert "backward" in (flex.why_not(Attention(q_len=8, direction="backward"), cpu) or "")
    assert "not float16" in (flex.why_not(Attention(q_len=8, dtype="float16"), cpu) or "")
    assert flex.why_not(Attention(q_len=8, bias="boolean"), cpu) == "does not take mask"
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert "C++ compiler" in (flex.why_not(Attention(q_len=8), cpu) or "")
    gpu = Device("cuda", capability=(9, 0))
    assert flex.why_not(Attention(q_len=8, direction="backward", dtype="float16"), gpu) is None
    assert "head_dim from 16 on a GPU, not 8" in (flex.why_not(Attention(q_len=8, head_dim=8), gpu) or "")
