"""Scores from 8-bit integers: q and k are quantized within the timed call, their products are integer arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .._identity import integer_products
from .._onnxsession import ELEMENT_TYPES, constant, model, session, value
from ..registry import Run, Setup, kernel
from ._masks import blind, sight
from .problem import Attention, AttentionInputs

if TYPE_CHECKING:
    import onnx

STEPS = 127
"""Quantized values lie between -127 and 127."""

LEAST = 1e-30
"""Rows smaller than this, such as a single key less its mean, are quantized as if they were so large."""


def quantized(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 [..., rows, head_dim] -> whole numbers and the step size of each row, bit by bit as the graph computes them."""
    step = x.abs().amax(-1, keepdim=True).clamp_min(LEAST) * torch.tensor(1 / STEPS, dtype=torch.float32)
    return (x / step).round(), step


def centred(k: torch.Tensor) -> torch.Tensor:
    """Keys less their mean over tokens (SageAttention's smoothing): every score of a query moves by the same amount."""
    return k - k.double().mean(2, keepdim=True).float()


def claim(problem: Attention, setup: Setup, inputs: AttentionInputs) -> torch.Tensor:  # noqa: ARG001
    """Float64 attention on q and the centred k after quantization and back; v is exact."""
    q8, q_step = quantized(inputs.q.float())
    k8, k_step = quantized(centred(inputs.k.float()))
    return problem.reference(inputs.replace(q=q8.double() * q_step.double(), k=k8.double() * k_step.double()))


@kernel(
    Attention,
    devices=("cpu",),
    accepts=("causal", "padding", "bias", "mask", "window", "ragged"),
    requires=("onnx", "onnxruntime"),
    approximate=True,
    own_allocator=True,
    claim=claim,
    identified=integer_products(1, beside=1),
)
def int8(problem: Attention, setup: Setup) -> Run:
    """8-bit q and k with a scale per token, integer matrix product (u8 × s8); softmax and weights × v in float32.

    One ONNX graph. Weights × v stay in float: rounding the weights to 8 bit doubled the error and saved nothing.
    """
    visible = sight(problem, setup.device)
    clear = blind(problem)  # ONNX's softmax gives NaN for a query that sees no key
    constant_mask = problem.triangular and problem.features == {"causal"} and not clear
    fixed = _additive(problem.position_mask(setup.device), None) if constant_mask else None
    names = ["q", "k", "v"] + (["mask"] if problem.masked else [])
    loaded = session(graph(problem, signed_keys=_signed_is_exact(setup)), setup, names, "output")

    def run(inputs: AttentionInputs) -> torch.Tensor:
        feeds = {"q": inputs.q, "k": inputs.k, "v": inputs.v}
        mask = visible(inputs) if fixed is None else None
        if problem.masked:
            feeds["mask"] = _additive(mask, inputs.bias) if fixed is None else fixed
        output = loaded.run(feeds, torch.empty(inputs.q.shape, dtype=inputs.q.dtype))
        if clear and mask is not None:
            output.masked_fill_(~mask.any(-1, keepdim=True), 0)
        return output

    return run


def _additive(visible: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
    """float32, added to scores: the bias, and -inf where a key is not seen."""
    if visible is None:
        assert bias is not None
        return bias.float()
    start = torch.zeros(visible.shape) if bias is None else bias.float()
    return start.masked_fill(~visible, -torch.inf)


def _signed_is_exact(setup: Setup) -> bool:
    """Whether u8 × s8 products are right on this CPU: without VNNI instructions, sums of two of them can saturate at 16 bit."""
    from onnx import helper

    inputs = [value("a", "uint8", [16, 64]), value("b", "int8", [64, 16])]
    product = model([helper.make_node("MatMulInteger", ["a", "b"], ["c"])], inputs, value("c", "int32", [16, 16]))
    largest = {"a": torch.full((16, 64), 255, dtype=torch.uint8), "b": torch.full((64, 16), STEPS, dtype=torch.int8)}
    found = session(product, setup, ["a", "b"], "c").run(largest, torch.empty(16, 16, dtype=torch.int32))
    return bool((found == 64 * 255 * STEPS).all())


def graph(problem: Attention, *, signed_keys: bool) -> onnx.ModelProto:
    """q, k, v [and mask] -> output; the query heads of a group stand below one another as rows of one matrix.

    With `signed_keys` the integer product is u8 × s8, which 8-bit instructions of x86 take; else u8 × u8, which is
    exact everywhere and half as fast. The shift that makes numbers unsigned is undone by the zero points.
    """
    from onnx import helper

    node = helper.make_node
    rows = [problem.batch, problem.kv_heads, problem.group * problem.q_len]
    scores = [problem.batch, problem.heads, problem.q_len, problem.kv_len]
    q_shape = [problem.batch, problem.heads, problem.q_len, problem.head_dim]
    kv_shape = [problem.batch, problem.kv_heads, problem.kv_len, problem.head_dim]
    own, single = ELEMENT_TYPES[f"torch.{problem.dtype}"], ELEMENT_TYPES["torch.float32"]
    nodes = [node("Cast", [name], [f"{name}_wide"], to=single) for name in ("q", "k", "v")]
    nodes += [node("Reshape", ["q_wide", "q_rows"], ["q_in"])]
    nodes += _centring("k_wide", "k_in") + _quantizing("q_in") + _quantizing("k_in")
    nodes += [
        *_unsigned("q_in_whole", "q8"),
        *([node("Cast", ["k_in_whole"], ["k8"], to=ELEMENT_TYPES["torch.int8"])] if signed_keys else _unsigned("k_in_whole", "k8")),
        node("Transpose", ["k8"], ["k8t"], perm=[0, 1, 3, 2]),
        node("MatMulInteger", ["q8", "k8t", "zero_point"] + ([] if signed_keys else ["zero_point"]), ["products"]),
        node("Cast", ["products"], ["raw"], to=single),
        node("Transpose", ["k_in_step"], ["k_step"], perm=[0, 1, 3, 2]),
        node("Mul", ["q_in_step", "scale"], ["q_step"]),
        node("Mul", ["q_step", "k_step"], ["steps"]),
        node("Mul", ["raw", "steps"], ["scores"]),
        *_masking(problem.masked),
        node("Softmax", ["masked"], ["weights"], axis=-1),
        node("MatMul", ["weights", "v_wide"], ["mixed"]),
        node("Reshape", ["mixed", "q_shape"], ["output_wide"]),
        node("Cast", ["output_wide"], ["output"], to=own),
    ]
    numbers = {"scale": problem.scale, "offset": 128.0, "per_step": 1 / STEPS, "least": LEAST}
    shapes = {"q_rows": [*rows, problem.head_dim], "q_shape": q_shape, "score_rows": [*rows, problem.kv_len], "score_shape": scores}
    constants = [constant(name, torch.tensor(number)) for name, number in numbers.items()]
    constants += [constant(name, torch.tensor(shape)) for name, shape in shapes.items()]
    constants += [constant("last", torch.tensor([3])), constant("tokens", torch.tensor([2]))]
    constants += [constant("zero_point", torch.tensor(128, dtype=torch.uint8))]
    inputs = [value("q", problem.dtype, q_shape), value("k", problem.dtype, kv_shape), value("v", problem.dtype, kv_shape)]
    if problem.masked:
        inputs.append(value("mask", "float32", ["mask_batch", "mask_heads", "mask_rows", problem.kv_len]))
    return model(nodes, inputs, value("output", problem.dtype, q_shape), constants)


def _centring(x: str, out: str) -> list[onnx.NodeProto]:
    """The mean is summed in float64, so that its float32 value does not depend on the order of summation."""
    from onnx import helper

    return [
        helper.make_node("Cast", [x], [f"{x}_double"], to=ELEMENT_TYPES["torch.float64"]),
        helper.make_node("ReduceMean", [f"{x}_double", "tokens"], [f"{x}_mean_double"], keepdims=1),
        helper.make_node("Cast", [f"{x}_mean_double"], [f"{x}_mean"], to=ELEMENT_TYPES["torch.float32"]),
        helper.make_node("Sub", [x, f"{x}_mean"], [out]),
    ]


def _quantizing(x: str) -> list[onnx.NodeProto]:
    """x -> {x}_whole, float32 whole numbers, and {x}_step, the step size of each row."""
    from onnx import helper

    return [
        helper.make_node("Abs", [x], [f"{x}_abs"]),
        helper.make_node("ReduceMax", [f"{x}_abs", "last"], [f"{x}_largest"], keepdims=1),
        helper.make_node("Max", [f"{x}_largest", "least"], [f"{x}_range"]),
        helper.make_node("Mul", [f"{x}_range", "per_step"], [f"{x}_step"]),
        helper.make_node("Div", [x, f"{x}_step"], [f"{x}_ratio"]),
        helper.make_node("Round", [f"{x}_ratio"], [f"{x}_whole"]),
    ]


def _unsigned(x: str, out: str) -> list[onnx.NodeProto]:
    from onnx import helper

    return [
        helper.make_node("Add", [x, "offset"], [f"{x}_shifted"]),
        helper.make_node("Cast", [f"{x}_shifted"], [out], to=ELEMENT_TYPES["torch.uint8"]),
    ]


def _masking(masked: bool) -> list[onnx.NodeProto]:
    """scores -> masked, by way of the shape in which heads are told apart."""
    from onnx import helper

    if not masked:
        return [helper.make_node("Identity", ["scores"], ["masked"])]
    return [
        helper.make_node("Reshape", ["scores", "score_shape"], ["scores_by_head"]),
        helper.make_node("Add", ["scores_by_head", "mask"], ["masked_by_head"]),
        helper.make_node("Reshape", ["masked_by_head", "score_rows"], ["masked"]),
    ]
