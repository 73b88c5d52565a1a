"""ONNX Runtime's MultiHeadAttention operator (com.microsoft), in a graph written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .._identity import onnx_nodes
from .._onnxsession import model, refusal, session, value
from ..registry import Device, Run, Setup, kernel
from ._onnx import blind_cleared, explicit_mask, tokens_first
from .problem import Attention, AttentionInputs

if TYPE_CHECKING:
    from .._onnxsession import Session

MANY_QUERIES = 512
"""From so many on the CPU's tiled kernel is at least as fast as the one that keeps all scores (at 2048 by 1.15 x), and far smaller."""
LOWEST = torch.finfo(torch.float32).min
"""Added to the scores of padded keys. By default ONNX Runtime adds -10000, which a large score outweighs."""


def mha_refuses(problem: Attention, device: Device) -> str | None:
    """What the operator does not take."""
    if problem.grouped:
        return f"MultiHeadAttention has a key-value head for each query head, not {problem.kv_heads} for {problem.heads}"
    return refusal(problem, device)


def folded(problem: Attention) -> bool:
    """Heads are taken for sequences of one head each: what lies [batch, heads, sequence, head_dim] then needs no transposing.

    A mask that differs between batch rows or heads would have to be repeated: then they stay heads.
    """
    return problem.bias == "none" and not (problem.positional and problem.ragged)


def tiled(problem: Attention, device: torch.device) -> bool:
    """The CPU's FlashAttention is asked for, which takes no mask and wants keys and values token by token (it copies them)."""
    return device.type == "cuda" or (problem.q_len >= MANY_QUERIES and not problem.masked)


@kernel(
    Attention,
    family="onnxrt",
    accepts=("causal", "padding", "bias", "mask", "window", "ragged"),
    requires=("onnx", "onnxruntime"),
    own_allocator=True,
    refuses=mha_refuses,
    identified=onnx_nodes("MultiHeadAttention"),
)
def onnxrt_mha(problem: Attention, setup: Setup) -> Run:
    """ONNX Runtime's MultiHeadAttention, reading and writing torch's memory.

    Lengths as its key_padding_mask, everything else as its attention_bias; on a GPU its own causal mode where lengths are equal.
    """
    device = setup.device
    # on a CPU it is slower than a mask that was made before: 1.15 x
    unidirectional = device.type == "cuda" and problem.triangular and not problem.cross and problem.features == {"causal"}
    mask_of = explicit_mask(problem, device, positions=problem.positional and not unidirectional, additive=True)
    cleared = blind_cleared(problem, device)
    counted = problem.padding or problem.ragged
    loaded, q_shape, kv_shape, shape = _loaded(problem, setup, unidirectional, mask_of(setup.calibration) is not None)
    repeats = problem.heads if folded(problem) else 1

    def run(inputs: AttentionInputs) -> torch.Tensor:
        feeds = {"q": inputs.q.reshape(q_shape), "k": inputs.k.reshape(kv_shape), "v": inputs.v.reshape(kv_shape)}
        mask = mask_of(inputs)
        if mask is not None:
            feeds["mask"] = mask
        if counted and inputs.lengths is not None:
            feeds["counts"] = inputs.lengths.repeat_interleave(repeats) if repeats > 1 else inputs.lengths
        output = loaded.run(feeds, torch.empty(shape, dtype=inputs.q.dtype, device=device))
        heads = output.view(*shape[:2], -1, problem.head_dim).transpose(1, 2)
        return cleared(inputs, heads.reshape(inputs.q.shape))

    return run


def _loaded(problem: Attention, setup: Setup, unidirectional: bool, masked: bool) -> tuple[Session, list[int], list[int], list[int]]:
    """The session, and the shapes in which it takes queries, keys and values, and gives its output."""
    from onnx import helper

    dtype, size, length = problem.dtype, problem.head_dim, problem.q_len
    one_each = folded(problem)
    sequences, heads = (problem.batch * problem.heads, 1) if one_each else (problem.batch, problem.heads)
    shape = [sequences, length, heads * size]
    q_shape = shape if one_each else [sequences, heads, length, size]
    by_token = one_each and tiled(problem, setup.device)
    kv_shape = [sequences, problem.kv_len, size] if by_token else [sequences, heads, problem.kv_len, size]
    inputs = {"q": value("q", dtype, q_shape), "k": value("k", dtype, kv_shape), "v": value("v", dtype, kv_shape)}
    if problem.padding or problem.ragged:
        inputs["counts"] = value("counts", "int32", [sequences])
    if masked:
        inputs["mask"] = value("mask", dtype, ["mask_batch", "mask_heads", length, problem.kv_len])
    nodes, constants, query = ([], [], "q") if one_each else tokens_first("q", sequences, heads, length, size)
    places = [query, "k", "v", "", *(name if name in inputs else "" for name in ("counts", "mask"))]
    attributes: dict[str, Any] = {"num_heads": heads, "scale": problem.scale, "unidirectional": int(unidirectional)}
    attributes["mask_filter_value"] = LOWEST
    nodes.append(helper.make_node("MultiHeadAttention", places, ["output"], domain="com.microsoft", **attributes))
    graph = model(nodes, list(inputs.values()), value("output", dtype, shape), constants)
    return session(graph, setup, list(inputs), "output"), q_shape, kv_shape, shape
