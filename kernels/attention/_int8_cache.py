"""A cache of keys and values in 8 bit: what it holds, and how it is made of keys and values."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..registry import Tensors
from ._int8_tiles import LEAST, STEPS, row_bytes
from .problem import AttentionInputs


@dataclass(frozen=True)
class Cache(Tensors):
    """Queries as they are, keys and values in 8 bit: centred keys with a step for each, values with a step for each feature.

    On a GPU k8 and v8 are [batch, kv_heads, kv_len, head_dim rounded up to a multiple of 16] with zeros at the end, k_steps
    [batch, kv_heads, kv_len], v_steps [batch, kv_heads, as wide as v8]. On a CPU k8 is [batch, kv_heads, head_dim, kv_len], v8
    [batch, kv_heads, kv_len, head_dim + 1] with ones at the end, which add up the weights; steps have four dimensions.
    """

    q: torch.Tensor
    k8: torch.Tensor
    v8: torch.Tensor
    k_steps: torch.Tensor
    v_steps: torch.Tensor
    lengths: torch.Tensor | None = None
    mask: None = None
    bias: None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the cache alone."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.k8, self.v8, self.k_steps, self.v_steps))


def for_cuda(inputs: AttentionInputs) -> Cache:
    """As the Triton kernel reads it. What lies past a row's length has no part in mean and steps, and becomes 0."""
    batch, kv_heads, keys, size = inputs.k.shape
    wide, device = row_bytes(size), inputs.k.device
    k8, v8 = (torch.zeros(batch, kv_heads, keys, wide, dtype=torch.int8, device=device) for _ in "kv")
    k_steps = torch.zeros(batch, kv_heads, keys, device=device)
    v_steps = torch.zeros(batch, kv_heads, wide, device=device)
    lengths = [keys] * batch if inputs.lengths is None else inputs.lengths.tolist()
    for row, length in enumerate(lengths):  # one after the other: float32 copies of all would take eight times the cache
        k, v = (tensor[row, :, :length].float() for tensor in (inputs.k, inputs.v))
        k = k - k.mean(1, keepdim=True)
        k_step, v_step = (tensor.abs().amax(at, keepdim=True).clamp_min(LEAST) / STEPS for tensor, at in ((k, 2), (v, 1)))
        k8[row, :, :length, :size] = (k / k_step).round()
        v8[row, :, :length, :size] = (v / v_step).round()
        k_steps[row, :, :length] = k_step.squeeze(2)
        v_steps[row, :, :size] = v_step.squeeze(1)
    return Cache(inputs.q, k8, v8, k_steps, v_steps, inputs.lengths)


def for_cpu(inputs: AttentionInputs) -> Cache:
    """As the ONNX graph reads it."""
    made, size = for_cuda(inputs), inputs.k.shape[3]
    v8 = torch.nn.functional.pad(made.v8[..., :size], (0, 1), value=1)
    k8 = made.k8[..., :size].mT.contiguous()
    return replace(made, k8=k8, v8=v8, k_steps=made.k_steps[:, :, None], v_steps=made.v_steps[:, :, None, :size].contiguous())
