"""What the kernels with 8-bit scores claim to compute: quantization and back, slow and obvious, in the numbers that all of them round."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ._int8_tiles import BLOCK, LEAST, STEPS

if TYPE_CHECKING:
    from .problem import AttentionInputs


def quantized(x: torch.Tensor, largest: torch.Tensor | None = None, steps: int = STEPS) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 -> whole numbers, and the size of a step, so many of which `largest` (that of each row) comes to."""
    largest = x.abs().amax(-1, keepdim=True) if largest is None else largest
    step = largest.clamp_min(LEAST) * torch.tensor(1 / steps, dtype=torch.float32)
    return (x * (1 / step)).round(), step


def centred(k: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
    """Keys less their mean over tokens (SageAttention's smoothing): every score of a query moves by the same amount.

    With lengths, those past a row's length have no part in it, and become 0.
    """
    if lengths is None:
        return k - k.double().mean(2, keepdim=True).float()
    there = (torch.arange(k.shape[2], device=k.device) < lengths[:, None])[:, None, :, None]
    mean = torch.where(there, k, 0).double().sum(2, keepdim=True) / lengths[:, None, None, None]
    return torch.where(there, k - mean.float(), 0)


def by_row(x: torch.Tensor, steps: int = STEPS) -> torch.Tensor:
    """float64: x [..., rows, head_dim] with a step for each row."""
    whole, step = quantized(x.float(), steps=steps)
    return whole.double() * step.double()


def by_block(k: torch.Tensor) -> torch.Tensor:
    """float64: k [..., tokens, head_dim] with a step for every BLOCK tokens."""
    blocks = []
    for start in range(0, k.shape[-2], BLOCK):
        block = k[..., start : start + BLOCK, :].float()
        whole, step = quantized(block, block.abs().amax((-2, -1), keepdim=True))
        blocks.append(whole.double() * step.double())
    return torch.cat(blocks, dim=-2)


def keys_by_token(inputs: AttentionInputs) -> torch.Tensor:
    """float64: centred keys with a step for each."""
    return by_row(centred(inputs.k.float(), inputs.lengths))


def keys_by_block(inputs: AttentionInputs) -> torch.Tensor:
    """float64: centred keys with a step for every BLOCK of a head."""
    return by_block(centred(inputs.k.float(), inputs.lengths))


def values_by_feature(inputs: AttentionInputs) -> torch.Tensor:
    """float64: values with a step for each feature of a head; those past a row's length have no part in it, and become 0."""
    v = inputs.v.float()
    if inputs.lengths is not None:
        there = torch.arange(v.shape[2], device=v.device) < inputs.lengths[:, None]
        v = torch.where(there[:, None, :, None], v, 0)
    return by_row(v.mT).mT
