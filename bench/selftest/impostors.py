"""Kernels that give right answers under names that they do not deserve: each must be found out by what runs, not by its output."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from kerneldyno.kernels.attention.pruned import kept_heads
from kerneldyno.kernels.feedforward._int8_network import matrices
from kerneldyno.kernels.feedforward.pruned import kept_neurons
from kerneldyno.kernels.registry import Kernel, Run, Setup, load

if TYPE_CHECKING:
    from kerneldyno.kernels._onnxgraph import Graph
    from kerneldyno.kernels.attention.problem import Attention
    from kerneldyno.kernels.feedforward.problem import FeedForward

Build = Callable[[Any, Setup], Run]


def impostors() -> list[Kernel]:
    """One of each: they carry the declaration of the kernel that they pretend to be, its `identified` and its `claim` included."""
    kernels = load()
    return [posing(kernels[name], build) for name, build in POSING]


def posing(real: Kernel, build: Build) -> Kernel:
    """A kernel that is declared as `real` is and built by `build`, named "attention/onnxrt_in_torch" after both."""
    return replace(
        real, name=f"{real.name}_{build.__name__}", build_run=build, summary=(build.__doc__ or "").partition("\n")[0], devices=("cpu",)
    )


def in_torch(problem: Attention, setup: Setup) -> Run:
    """Pretends to be ONNX Runtime: a session is made and run in the build, as if to calibrate; in a call torch does it all."""
    load()["attention/onnxrt"].build(problem, setup)(setup.calibration)
    run: Run = problem.naive
    return run


def by_math(problem: Attention, setup: Setup) -> Run:
    """Pretends to be SDPA's flash backend, and runs the unfused one."""
    run = load()["attention/sdpa"].build(problem, setup)

    def unfused(inputs: Any) -> Any:
        with sdpa_kernel(SDPBackend.MATH):
            return run(inputs)

    return unfused


def in_float(problem: FeedForward, setup: Setup) -> Run:
    """Pretends to multiply 8-bit integers: its graph rounds weights and activations to 8 bit, and multiplies them as float32."""
    from kerneldyno.kernels._int8 import weight_levels
    from kerneldyno.kernels._onnxgraph import Graph
    from kerneldyno.kernels.feedforward import _onnx

    weights, integers = setup.weights.map(torch.Tensor.float), matrices(setup.weights, weight_levels(setup.device))
    maps = {"w1": (integers.w1, weights.b1), "w2": (integers.w2, weights.b2), "w_gate": (integers.w_gate, weights.b_gate)}

    def linear(x: str, which: str) -> str:
        matrix, bias = maps[which]
        assert matrix is not None
        return g.linear(_rounded(g, x), matrix.dequantized().float(), bias)

    g = Graph()
    x = "x" if problem.dtype == "float32" else g.cast("x", "float32")
    y = _onnx.network(g, problem, weights, x, linear)
    y = y if problem.dtype == "float32" else g.cast(y, problem.dtype)
    return _onnx.graph_run(problem, setup, _onnx.finished(g, problem, y))


def _rounded(g: Graph, x: str) -> str:
    """x to 8 bit with one scale, and back."""
    values, scale, zero = g.several(3, "DynamicQuantizeLinear", x)
    return g.add("DequantizeLinear", values, scale, zero)


def with_a_break(problem: FeedForward, setup: Setup) -> Run:
    """Pretends to be compiled whole: torch.compile gives up in the middle and goes on with a second graph."""
    rest = replace(problem, norm="none", residual=False)

    def formula(x: torch.Tensor) -> torch.Tensor:
        normal = problem.normalize(x, setup.weights)
        torch._dynamo.graph_break()  # noqa: SLF001 - the plainest of the things that break a graph
        y = rest.formula(normal, setup.weights)
        return x + y if problem.residual else y

    return _called(torch.compile(formula, backend="aot_eager"), problem, setup)


def kept_from_compiling(problem: FeedForward, setup: Setup) -> Run:
    """Pretends to be compiled: what does the work is marked with torch.compiler.disable, and runs eagerly."""
    eager = torch.compiler.disable(lambda x: problem.formula(x, setup.weights))  # type: ignore[no-untyped-call]

    def formula(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = eager(x)
        return result

    return _called(torch.compile(formula), problem, setup)


def with_errors_suppressed(problem: FeedForward, setup: Setup) -> Run:
    """Pretends to be compiled: compiling fails, and torch was told to run eagerly then and to say nothing."""

    def failing(*_: Any) -> Any:
        raise RuntimeError("this compiler compiles nothing")

    def formula(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = problem.formula(x, setup.weights)
        return result

    fast, log = torch.compile(formula, backend=failing), logging.getLogger("torch._dynamo")

    def silently(x: torch.Tensor) -> torch.Tensor:
        level = log.level
        log.setLevel(logging.CRITICAL)
        try:
            with torch._dynamo.config.patch(suppress_errors=True):  # noqa: SLF001 - it has no other name
                result: torch.Tensor = fast(x)
        finally:
            log.setLevel(level)
        return result

    return _called(silently, problem, setup)


def all_heads(problem: Attention, setup: Setup) -> Run:
    """Pretends to leave heads out: it computes them all, and clears those that should have been pruned."""
    heads, _ = kept_heads(problem, setup)
    kept = torch.zeros(problem.heads, 1, 1, dtype=torch.bool, device=setup.device)
    kept[heads] = True
    run = load()["attention/sdpa"].build(problem, setup)
    return lambda inputs: run(inputs).masked_fill(~kept, 0)


def all_neurons(problem: FeedForward, setup: Setup) -> Run:
    """Pretends to leave neurons out: their weights are set to 0, and multiplied as before."""
    kept = torch.zeros(problem.hidden_dim, dtype=torch.bool, device=setup.device)
    kept[kept_neurons(problem, setup)] = True
    weights = setup.weights.replace(w2=setup.weights.w2 * kept)
    return lambda inputs: problem.naive(inputs, weights)


def _called(function: Callable[[torch.Tensor], torch.Tensor], problem: FeedForward, setup: Setup) -> Run:
    """The run of a function of x, which is called once in the build."""
    with torch.no_grad():
        function((setup.calibration or problem.inputs(setup.seed, setup.device)).x)
    return lambda inputs: function(inputs.x)


POSING: tuple[tuple[str, Build], ...] = (
    ("attention/onnxrt", in_torch),
    ("attention/sdpa_flash", by_math),
    ("attention/pruned", all_heads),
    ("feedforward/int8", in_float),
    ("feedforward/compiled", with_a_break),
    ("feedforward/compiled", kept_from_compiling),
    ("feedforward/compiled", with_errors_suppressed),
    ("feedforward/pruned", all_neurons),
)
"""The kernel that each pretends to be, and how it is built."""
