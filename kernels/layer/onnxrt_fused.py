"""The layer in ONNX Runtime with its own operators: attention that knows positions and lengths, and sums and norms in one on a GPU.

On a CPU sums and norms stay apart: with SkipLayerNormalization the whole layer took 1.05 times as long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .. import _onnxsession
from .._identity import onnx_nodes
from .._onnxgraph import CONTRIB, Graph
from ..feedforward._onnx import fused_hidden, linears, network
from ..registry import Device, Run, Setup, Trace, holding, kernel
from ._onnx import layer_run, norm, norm_weights, projections
from .problem import EVERYTHING, Layer, LayerInputs, LayerWeights

if TYPE_CHECKING:
    from typing import Any

    from ._onnx import Feed

LOWEST = torch.finfo(torch.float32).min
"""Added to the scores of padded keys. By default ONNX Runtime adds -10000, which a large score outweighs."""

TURNED = 16
"""Features of a head that has rotary positions come in multiples of so many."""


def grouped_query(problem: Layer, kind: str) -> bool:
    """GroupQueryAttention is asked for: it turns queries and keys itself, and skips what a causal mask hides.

    MultiHeadAttention otherwise, and for causal float32 on a GPU, where the other takes 16 bit only.
    """
    return bool(problem.rope_theta) or problem.kv_heads != problem.heads or (problem.mask == "causal" and takes_dtype(problem, kind))


def takes_dtype(problem: Layer, kind: str) -> bool:
    """Whether the device's GroupQueryAttention takes the dtype: on a GPU float16 and bfloat16 only."""
    return kind == "cpu" or problem.dtype != "float32"


def refusal(problem: Layer, device: Device) -> str | None:
    """What GroupQueryAttention does not take, where it is the only one."""
    if grouped_query(problem, device.kind) and not takes_dtype(problem, device.kind):
        return "rotary positions and grouped heads go through GroupQueryAttention, which takes float16 and bfloat16 on cuda, not float32"
    if problem.rope_theta and problem.head_dim % TURNED:
        return f"GroupQueryAttention turns heads of a multiple of {TURNED} features by their positions, not of {problem.head_dim}"
    return _onnxsession.refusal(problem, device)


def ran(problem: Layer, setup: Setup, trace: Trace) -> str:
    """The judge of its identity."""
    attention = "GroupQueryAttention" if grouped_query(problem, setup.device.type) else "MultiHeadAttention"
    return onnx_nodes(attention, "Gemm")(problem, setup, trace)


@kernel(
    Layer,
    family="onnxrt",
    accepts=EVERYTHING,
    requires=("onnx", "onnxruntime"),
    own_allocator=True,
    refuses=refusal,
    identified=ran,
)
def onnxrt_fused(problem: Layer, setup: Setup) -> Run:
    """ONNX Runtime with its own MultiHeadAttention, or GroupQueryAttention for causal, rotary and grouped layers.

    On a GPU SkipLayerNormalization and BiasGelu, too. On a CPU float16 is computed in float32 between casts.
    """
    on_cpu = setup.device.type == "cpu"
    dtype = "float32" if on_cpu else problem.dtype
    weights: LayerWeights = setup.weights.map(lambda tensor: tensor.to(getattr(torch, dtype)))
    g, beside = Graph(), feeds(problem)
    x = "x" if dtype == problem.dtype else g.cast("x", dtype)
    h = norm(problem, g, x, weights, 1) if problem.norm_first else x
    attended = (_by_groups if grouped_query(problem, setup.device.type) else _by_heads)(problem, g, h, weights, dtype)
    rows = g.reshaped(attended, problem.tokens, problem.heads * problem.head_dim)
    y = (_apart if on_cpu else _together)(problem, g, x, rows, weights)
    y = y if dtype == problem.dtype else g.cast(y, problem.dtype)
    return holding(layer_run(problem, setup, g, y, beside), *weights.tensors().values())


def feeds(problem: Layer) -> dict[str, Feed]:
    """What the graph is given beside x: a mask, lengths."""

    def mask(inputs: LayerInputs) -> torch.Tensor:
        assert inputs.mask is not None
        return inputs.mask[None, None]

    def lengths(inputs: LayerInputs) -> torch.Tensor:
        assert inputs.lengths is not None
        return inputs.lengths

    found: dict[str, Feed] = {}
    if problem.mask == "boolean":
        found["mask"] = ("bool", (1, 1, problem.seq_len, problem.seq_len), mask)
    if problem.padding:
        found["lengths"] = ("int32", (problem.batch,), lengths)
    return found


def _bias(problem: Layer, g: Graph, dtype: str) -> str:
    """The boolean mask as numbers to be added to the scores."""
    if problem.mask != "boolean":
        return ""
    nothing, never = (g.constant(torch.tensor(number, dtype=getattr(torch, dtype))) for number in (0.0, -torch.inf))
    return g.add("Where", "mask", nothing, never)


def _by_heads(problem: Layer, g: Graph, h: str, weights: LayerWeights, dtype: str) -> str:
    """MultiHeadAttention of h: [batch, seq_len, heads · head_dim]."""
    pairs = projections(problem, weights)
    shape = (problem.batch, problem.seq_len, problem.heads * problem.head_dim)
    q, k, v = (g.reshaped(g.linear(h, *pairs[which]), *shape) for which in "qkv")
    attributes: dict[str, Any] = {"unidirectional": int(problem.mask == "causal"), "mask_filter_value": LOWEST}
    places = [q, k, v, "", "lengths" if problem.padding else "", _bias(problem, g, dtype)]
    return g.add("MultiHeadAttention", *places, num_heads=problem.heads, domain=CONTRIB, **attributes)


def _by_groups(problem: Layer, g: Graph, h: str, weights: LayerWeights, dtype: str) -> str:
    """GroupQueryAttention of h, q, k and v by one product: [batch, seq_len, heads · head_dim]."""
    qkv = g.reshaped(g.linear(h, weights.w_qkv, weights.b_qkv), problem.batch, problem.seq_len, sum(problem.widths))
    if problem.padding:
        last = g.add("Sub", "lengths", g.constant(torch.ones((), dtype=torch.int32)))
    else:
        last = g.constant(torch.full((problem.batch,), problem.seq_len - 1, dtype=torch.int32))
    total = g.constant(torch.tensor(problem.seq_len, dtype=torch.int32))
    turned = bool(problem.rope_theta)
    tables = [g.constant(table) for table in problem.rotation("cpu", getattr(torch, dtype))] if turned else ["", ""]
    places = [qkv, "", "", "", "", last, total, *tables, "", _bias(problem, g, dtype)]
    attributes: dict[str, Any] = {"num_heads": problem.heads, "kv_num_heads": problem.kv_heads, "do_rotary": int(turned)}
    attributes |= {} if problem.mask == "causal" else {"causal": 0}
    return g.several(3, "GroupQueryAttention", *places, domain=CONTRIB, **attributes)[0]


def _apart(problem: Layer, g: Graph, x: str, rows: str, weights: LayerWeights) -> str:
    """What comes after the attention, a node for each sum and each norm."""
    z = g.add("Add", x, g.linear(rows, weights.w_out, weights.b_out))
    z = z if problem.norm_first else norm(problem, g, z, weights, 1)
    own = problem.network(weights)
    y = network(g, problem.feedforward, own, z, linears(own, g))
    return y if problem.norm_first else norm(problem, g, y, weights, 2)


def _together(problem: Layer, g: Graph, x: str, rows: str, weights: LayerWeights) -> str:
    """What comes after the attention, with sums, biases and norms in one node each."""
    first, second = (2, None) if problem.norm_first else (1, 2)
    h, z = _skip(problem, g, x, g.product(rows, weights.w_out), weights.b_out, weights, first)
    z = z if problem.norm_first else h
    own = problem.network(weights)
    linear = linears(own, g)
    a = fused_hidden(g, problem.feedforward, own, h, linear)
    if second is None:
        return g.add("Add", z, linear(a, "w2"))
    return _skip(problem, g, z, g.product(a, weights.w2), weights.b2, weights, second)[0]


def _skip(problem: Layer, g: Graph, x: str, y: str, bias: torch.Tensor | None, weights: LayerWeights, which: int) -> tuple[str, str]:
    """(norm of x + y + bias, x + y + bias)."""
    weight, shift = norm_weights(weights, which)
    constants = [g.constant(weight), *([g.constant(shift)] if problem.norm == "layernorm" else []), g.constant(bias)]
    operator = "SkipLayerNormalization" if problem.norm == "layernorm" else "SkipSimplifiedLayerNormalization"
    normed, _, _, total = g.several(4, operator, x, y, *constants, epsilon=problem.norm_epsilon, domain=CONTRIB)
    return normed, total
