"""8-bit weights alone: activations and products stay in floating point, so that a step of decoding reads half of the bytes or fewer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812

from .._identity import integer_operator, triton_kernels
from .._int8 import LEVELS, Int8Weight
from ..registry import Device, Run, Setup, Trace, kernel
from . import _int8_code
from ._int8_device import too_old
from ._int8_network import Matrices, keeping, matrices
from .problem import EVERYTHING, FeedForward, FeedForwardInputs, activate, unchanged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .._code import Configuration
    from .problem import FeedForwardWeights

    Multiplied = Callable[[torch.Tensor, str], torch.Tensor]
    """(x, name of a matrix) -> x times it, transposed."""

WIDEST_NORM = 32768
COLUMNS = 16
"""Rows that the operator of a CPU reads come in so many numbers at once: they are filled up with zeros."""
OPERATOR = "aten::_weight_int8pack_mm"


def in_bfloat16(x: torch.Tensor) -> torch.Tensor:
    """x rounded to bfloat16, in its own dtype."""
    return x.to(torch.bfloat16).to(x.dtype)


def in_short_scales(weight: torch.Tensor) -> Int8Weight:
    """A matrix in 8 bit whose scales, for each output, are bfloat16 numbers: those of the operator of a CPU."""
    scales = in_bfloat16((weight.float().abs().amax(1) / LEVELS).clamp_min(1e-30))
    values = (weight.float() / scales[:, None]).round().clamp(-LEVELS, LEVELS)
    return Int8Weight(values.to(torch.int8), scales)


def short_matrices(weights: FeedForwardWeights) -> Matrices:
    """The network's matrices for a CPU."""
    gate = None if weights.w_gate is None else in_short_scales(weights.w_gate)
    return Matrices(in_short_scales(weights.w1), in_short_scales(weights.w2), gate)


def claim(problem: FeedForward, setup: Setup, inputs: FeedForwardInputs) -> torch.Tensor:
    """The network in float64 on rounded weights; on a CPU with whatever a matrix reads and gives rounded to bfloat16."""
    return (claim_on_cpu if setup.device.type == "cpu" else claim_on_cuda)(problem, setup, inputs)


def claim_on_cuda(problem: FeedForward, setup: Setup, inputs: FeedForwardInputs) -> torch.Tensor:
    """Activations are exact."""
    return problem.formula(inputs.x.double(), matrices(setup.weights).dequantized(setup.weights), unchanged)


def claim_on_cpu(problem: FeedForward, setup: Setup, inputs: FeedForwardInputs) -> torch.Tensor:
    """They are rounded to bfloat16 before and behind each matrix."""
    weights = short_matrices(setup.weights).dequantized(setup.weights)
    return _network(problem, weights, inputs.x.double(), lambda x, name: in_bfloat16(in_bfloat16(x) @ getattr(weights, name).t()))


def refusal(problem: FeedForward, device: Device) -> str | None:
    """On a GPU: rows of a norm that do not fit registers, and old cards."""
    if device.kind != "cuda":
        return None
    if problem.norm != "none" and problem.dim > WIDEST_NORM:
        return f"its norm takes rows of up to {WIDEST_NORM} numbers on cuda, not {problem.dim}"
    return too_old(device)


def ran(problem: FeedForward, setup: Setup, trace: Trace) -> str:
    """The judge of its identity."""
    if setup.device.type == "cuda":
        return triton_kernels("linear_int8_kernel", alone=True)(problem, setup, trace)
    return integer_operator(OPERATOR, 3 if problem.gated else 2)(problem, setup, trace)


def device_code(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form in which its kernel may be launched on a card."""
    yield from _int8_code.widened(capability)


@kernel(
    FeedForward,
    family="int8",
    accepts=EVERYTHING,
    requires=("cuda:triton",),
    approximate=True,
    claim=claim,
    refuses=refusal,
    identified=ran,
    device_code=device_code,
)
def int8_weights(problem: FeedForward, setup: Setup) -> Run:
    """8-bit weights (a scale per output channel) times activations in floating point: for decoding, which reads weights above all.

    On a CPU torch._weight_int8pack_mm in bfloat16; on a GPU a Triton kernel that widens weights to the activations' dtype in registers.
    """
    if setup.device.type == "cpu":
        return _on_cpu(problem, setup.weights)
    run = launched(problem, setup.weights)
    if setup.calibration is not None:
        run(setup.calibration)
    return run


def _network(problem: FeedForward, weights: FeedForwardWeights, x: torch.Tensor, multiplied: Multiplied) -> torch.Tensor:
    """The formula, with biases added to what `multiplied` gives, in x's dtype."""

    def linear(h: torch.Tensor, name: str, bias: torch.Tensor | None) -> torch.Tensor:
        y = multiplied(h, name).to(x.dtype)
        return y if bias is None else y + bias

    h = problem.normalize(x, weights)
    up = linear(h, "w1", weights.b1)
    a = activate(problem.activation, linear(h, "w_gate", weights.b_gate)) * up if problem.gated else activate(problem.activation, up)
    y = linear(a, "w2", weights.b2)
    return x + y if problem.residual else y


def _on_cpu(problem: FeedForward, weights: FeedForwardWeights) -> Run:
    integers = short_matrices(weights).map(_filled)
    packed = {
        name: (m.values, m.scales.to(torch.bfloat16)) for name in ("w1", "w2", "w_gate") if (m := getattr(integers, name)) is not None
    }

    def multiplied(x: torch.Tensor, name: str) -> torch.Tensor:
        values, scales = packed[name]
        rows = F.pad(x.to(torch.bfloat16), (0, values.shape[1] - x.shape[1])).contiguous()
        found: torch.Tensor = torch.ops.aten._weight_int8pack_mm(rows, values, scales)  # noqa: SLF001
        return found

    def run(inputs: FeedForwardInputs) -> torch.Tensor:
        return _network(problem, weights, inputs.x.reshape(-1, problem.dim), multiplied).view(inputs.x.shape)

    return keeping(run, integers, weights)


def _filled(weight: Int8Weight) -> Int8Weight:
    return Int8Weight(F.pad(weight.values, (0, -weight.values.shape[1] % COLUMNS)).contiguous(), weight.scales)


def launched(problem: FeedForward, weights: FeedForwardWeights) -> Run:
    """The run on our Triton kernels; in Triton's interpreter on a CPU."""
    from . import _int8_launch as ours
    from ._fused_triton import normalize

    weights, integers = weights.map(torch.Tensor.contiguous), matrices(weights).map(ours.padded)
    w1, w2, gate = integers.w1, integers.w2, integers.w_gate

    def run(inputs: FeedForwardInputs) -> torch.Tensor:
        x = inputs.x.reshape(-1, problem.dim)
        if x.stride(1) != 1:
            x = x.contiguous()
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call] # Triton launches on the current device
            norm = (weights.norm_weight, weights.norm_bias, problem.norm_epsilon)
            h = x if norm[0] is None else normalize(x, norm[0], norm[1], norm[2])
            a = ours.linear_weights(h, w1, weights.b1, gate=gate, gate_bias=weights.b_gate, activation=problem.activation)
            y = ours.linear_weights(a, w2, weights.b2, residual=x if problem.residual else None)
        return y.view(inputs.x.shape)

    return keeping(run, integers, weights)
