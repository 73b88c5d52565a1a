"""ONNX Runtime's own attention: one node of ONNX opset 23 in a graph written by hand."""

from __future__ import annotations

import torch

from .._identity import onnx_nodes
from .._onnxsession import model, refusal, session, value
from ..registry import Run, Setup, kernel
from ._masks import sdpa_arguments
from .problem import Attention, AttentionInputs


@kernel(
    Attention,
    accepts=("causal", "padding", "bias", "mask"),
    requires=("onnx", "onnxruntime"),
    own_allocator=True,
    refuses=refusal,
    identified=onnx_nodes("Attention"),
)
def onnxrt(problem: Attention, setup: Setup) -> Run:
    """ONNX Runtime's Attention node, reading and writing torch's memory.

    Its causal mode serves equal lengths; everything else is an explicit mask, which it wants in full size: spreading
    it over the queries is timed.
    """
    from onnx import helper

    arguments = sdpa_arguments(problem, setup.device)
    first = arguments(setup.calibration)
    causal, masked = bool(first.get("is_causal")), first["attn_mask"] is not None
    names = ["q", "k", "v"] + (["mask"] if masked else [])
    q_shape = [problem.batch, problem.heads, problem.q_len, problem.head_dim]
    kv_shape = [problem.batch, problem.kv_heads, problem.kv_len, problem.head_dim]
    graph_inputs = [value("q", problem.dtype, q_shape), value("k", problem.dtype, kv_shape), value("v", problem.dtype, kv_shape)]
    if masked:
        mask_dtype = problem.dtype if problem.bias == "additive" else "bool"
        graph_inputs.append(value("mask", mask_dtype, ["mask_batch", "mask_heads", problem.q_len, problem.kv_len]))
    node = helper.make_node("Attention", names, ["output"], is_causal=int(causal), scale=problem.scale)
    loaded = session(model([node], graph_inputs, value("output", problem.dtype, q_shape)), setup, names, "output")

    def run(inputs: AttentionInputs) -> torch.Tensor:
        feeds = {"q": inputs.q, "k": inputs.k, "v": inputs.v}
        if masked:
            mask = arguments(inputs)["attn_mask"]
            feeds["mask"] = mask.expand(*mask.shape[:2], problem.q_len, problem.kv_len)
        return loaded.run(feeds, torch.empty(q_shape, dtype=inputs.q.dtype, device=inputs.q.device))

    return run
