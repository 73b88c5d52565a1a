"""FlexAttention: a compiled tiled kernel, with the mask as code and as a map of blocks to visit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .._compiling import compiled_once, no_compiler
from .._identity import compiled_whole
from ..registry import Device, Run, Setup, differentiated, kernel
from .problem import Attention, AttentionInputs

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128
"""Rows and columns of one block of the map."""

FEWEST = 16
"""Numbers per head, the least side of a matrix product in Triton."""


def refuses(problem: Attention, device: Device) -> str | None:
    """What FlexAttention does not take: small heads on a GPU; on a CPU, where it needs a compiler, backward and float16."""
    if device.kind != "cpu":
        return f"FlexAttention takes head_dim from {FEWEST} on a GPU, not {problem.head_dim}" if problem.head_dim < FEWEST else None
    if problem.direction == "backward":
        return "FlexAttention has no backward direction on a CPU"
    if problem.dtype == "float16":
        return "FlexAttention takes float32 and bfloat16 on a CPU, not float16"
    return no_compiler(problem, device)


@kernel(
    Attention,
    accepts=("causal", "padding", "bias"),
    directions=("forward", "backward"),
    refuses=refuses,
    identified=compiled_whole(),
)
def flex(problem: Attention, setup: Setup) -> Run:
    """FlexAttention, compiled: masked blocks are skipped, grouped heads share keys and values.

    The map of blocks to visit is made once where it follows from the shape (causal), and in every call where it
    depends on the lengths of the sequences. A bias is added by a score_mod.
    """
    from torch.nn.attention.flex_attention import flex_attention

    backward = problem.direction == "backward"
    fast = compiled_once(flex_attention, gradients=backward)
    mask = _mask(problem, setup.device)

    def run(inputs: AttentionInputs) -> torch.Tensor:
        return fast(
            inputs.q,
            inputs.k,
            inputs.v,
            score_mod=None if inputs.bias is None else _adding(inputs.bias),
            block_mask=mask(inputs),
            scale=problem.scale,
            enable_gqa=problem.grouped,
        )

    (differentiated(run) if backward else run)(setup.calibration)
    return run


def _adding(bias: torch.Tensor) -> Callable[..., torch.Tensor]:
    """bias [1, heads, q_len, kv_len]"""

    def add(score: torch.Tensor, b: Any, h: Any, q: Any, k: Any) -> torch.Tensor:  # noqa: ARG001
        return score + bias[0, h, q, k]

    return add


def _mask(problem: Attention, device: torch.device) -> Callable[[AttentionInputs], BlockMask | None]:
    """inputs -> map of blocks, or None where every query sees every key."""
    if not (problem.triangular or problem.padding):
        return lambda _: None
    if not problem.padding:
        fixed = block_mask(problem, torch.full((1,), problem.kv_len, device=device), lengths_matter=False)
        return lambda _: fixed

    def from_lengths(inputs: AttentionInputs) -> BlockMask:
        assert inputs.lengths is not None
        return block_mask(problem, inputs.lengths, lengths_matter=True)

    return from_lengths


def block_mask(problem: Attention, lengths: torch.Tensor, *, lengths_matter: bool) -> BlockMask:
    """Which blocks hold visible pairs and which hold nothing else, from arithmetic on block numbers.

    torch's create_block_mask would evaluate the mask at every pair to find out the same.
    """
    from torch.nn.attention.flex_attention import BlockMask

    past = problem.kv_len - problem.q_len

    def sees(b: Any, h: Any, q: Any, k: Any) -> Any:  # noqa: ARG001
        visible = k <= q + past if problem.causal else k >= 0
        return visible & (k < lengths[b]) if lengths_matter else visible

    device = lengths.device
    q_start = torch.arange(0, problem.q_len, BLOCK, device=device)[None, :, None]
    k_start = torch.arange(0, problem.kv_len, BLOCK, device=device)[None, None, :]
    length = lengths[:, None, None]
    any_seen = (k_start < length).expand(-1, q_start.shape[1], -1)
    # a block that sticks out beyond the last key or query is never full
    all_seen = (k_start + BLOCK <= length) & (q_start + BLOCK <= problem.q_len)
    if problem.causal:
        any_seen = any_seen & (k_start <= q_start + BLOCK - 1 + past)
        all_seen = all_seen & (k_start + BLOCK - 1 <= q_start + past)
    some, full = _listed(any_seen & ~all_seen), _listed(all_seen)
    return BlockMask.from_kv_blocks(
        *some, *full, BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(problem.q_len, problem.kv_len),
        compute_q_blocks=problem.direction == "backward",
    )  # fmt: skip


def _listed(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """bool [batch, q_blocks, kv_blocks] -> how many are true per row, and their numbers before those of the others."""
    numbers = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[:, None], numbers.int()[:, None].contiguous()
