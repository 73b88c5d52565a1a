"""ONNX Runtime's own attention: one Attention node of ONNX's opset 23 or 24 in a graph written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .._identity import onnx_nodes
from .._onnxsession import OPSET, model, refusal, session, value
from ..registry import Run, Setup, kernel
from ._onnx import blind_cleared, explicit_mask
from .problem import Attention, AttentionInputs

if TYPE_CHECKING:
    from .._onnxsession import Session

COUNTING_OPSET = 24
"""The first whose Attention can be told how many keys each row has, and aligns its causal mode to them."""


def causal_by_itself(problem: Attention) -> bool:
    """The node's causal mode says all that positions hide: it has no window, and stands at the end of the keys that it is told of."""
    return problem.triangular and not problem.window and not problem.padding


def counts_keys(problem: Attention, device: torch.device) -> bool:
    """The node is told how many keys each row has: it needs no mask for that.

    For equal lengths its older causal mode would do, but on a CPU it takes 5 % longer.
    """
    aligned = causal_by_itself(problem) and (problem.cross or device.type == "cpu")
    return problem.padding or problem.ragged or aligned


def stacked(problem: Attention) -> bool:
    """Query heads that share a key-value head are taken for more queries of one head: one product instead of several.

    It works where all of them see the same keys, and needs no copy.
    """
    return problem.grouped and not problem.positional and problem.bias == "none"


@kernel(
    Attention,
    accepts=("causal", "padding", "bias", "mask", "window", "softcap", "ragged"),
    requires=("onnx", "onnxruntime"),
    own_allocator=True,
    refuses=refusal,
    identified=onnx_nodes("Attention"),
)
def onnxrt(problem: Attention, setup: Setup) -> Run:
    """ONNX Runtime's Attention node, reading and writing torch's memory.

    Causal masks, ragged rows and padding through the number of keys in each row; what a mask must say, it wants in full size:
    spreading one over the queries is timed, a window is made once.
    """
    device = setup.device
    counted = counts_keys(problem, device)
    by_mask = problem.positional and not causal_by_itself(problem)
    mask_of = explicit_mask(problem, device, positions=by_mask, additive=False)
    cleared = blind_cleared(problem, device) if device.type == "cuda" else lambda _, output: output  # a CPU's node gives 0 itself
    everything = torch.full((problem.batch,), problem.kv_len, dtype=torch.int64, device=device)
    first = mask_of(setup.calibration)
    loaded, shape = _loaded(problem, setup, counted, None if first is None else first.dtype)

    def run(inputs: AttentionInputs) -> torch.Tensor:
        feeds = {"q": inputs.q.reshape(shape), "k": inputs.k, "v": inputs.v}
        mask = mask_of(inputs)
        if mask is not None:
            feeds["mask"] = mask
        if counted:
            feeds["counts"] = everything if inputs.lengths is None else inputs.lengths.long()
        output = loaded.run(feeds, torch.empty(shape, dtype=inputs.q.dtype, device=device))
        return cleared(inputs, output.view(inputs.q.shape))

    return run


def _loaded(problem: Attention, setup: Setup, counted: bool, mask_dtype: torch.dtype | None) -> tuple[Session, list[int]]:
    """The session, and the shape in which it takes queries."""
    from onnx import helper

    dtype, size = problem.dtype, problem.head_dim
    q_shape = [problem.batch, problem.heads, problem.q_len, size]
    if stacked(problem):
        q_shape = [problem.batch, problem.kv_heads, problem.group * problem.q_len, size]
    kv_shape = [problem.batch, problem.kv_heads, problem.kv_len, size]
    inputs = {"q": value("q", dtype, q_shape), "k": value("k", dtype, kv_shape), "v": value("v", dtype, kv_shape)}
    if mask_dtype is not None:
        mask_shape: list[int | str] = ["mask_batch", "mask_heads", problem.q_len, problem.kv_len]
        inputs["mask"] = value("mask", str(mask_dtype).removeprefix("torch."), mask_shape)
    if counted:
        inputs["counts"] = value("counts", "int64", [problem.batch])
    places = ["q", "k", "v", "mask" if "mask" in inputs else ""] + (["", "", "counts"] if counted else [])
    attributes: dict[str, Any] = {"softcap": problem.softcap} if problem.softcap else {}
    attributes["is_causal"] = int(causal_by_itself(problem))
    node = helper.make_node("Attention", places, ["output"], **attributes, scale=problem.scale)
    opset = COUNTING_OPSET if counted else OPSET
    graph = model([node], list(inputs.values()), value("output", dtype, q_shape), opset=opset)
    return session(graph, setup, list(inputs), "output"), q_shape
