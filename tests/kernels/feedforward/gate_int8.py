"""Put the Triton kernels for 8-bit weights through exact arithmetic and the whole gate in the interpreter; prints JSON lines.

A script of its own: the interpreter is chosen by TRITON_INTERPRET before Triton is imported, and for good. Argument: "exact" for the
kernels one by one, "few" or "all" for the networks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from kerneldyno.bench.gate.errors import Misconduct, WrongOutput
from kerneldyno.bench.gate.examine import Gate
from kerneldyno.kernels._cards import CARDS, Card
from kerneldyno.kernels._int8 import LEVELS, Int8Weight
from kerneldyno.kernels.feedforward import _int8_build, _int8_device, _int8_launch, _int8_tiles, int8_weights
from kerneldyno.kernels.feedforward._int8_network import matrices
from kerneldyno.kernels.feedforward.problem import EVERYTHING, FeedForward, FeedForwardInputs
from kerneldyno.kernels.registry import Kernel, Run, Setup, kernel

NETWORKS: list[dict[str, Any]] = [
    {},
    {"activation": "gelu", "bias": False, "norm": "none"},
    {"activation": "gelu_tanh", "norm": "rmsnorm", "residual": True},
    {"activation": "silu", "norm": "rmsnorm", "gated": True, "bias": False},
    {"activation": "gelu", "norm": "layernorm", "gated": True, "residual": True},
]
FEW = (0, 3)


def exact() -> Iterator[dict[str, Any]]:
    """Integer products by every tile, by descriptors and by pointers; what quantizing gives, against the definition."""
    draw = torch.Generator().manual_seed(0)
    for tokens, dim, outputs in ((1, 64, 96), (16, 130, 70), (70, 100, 203), (130, 256, 300)):
        yield from quantizing(tokens, dim, draw)
        values = torch.randint(-127, 128, (tokens, dim), generator=draw).to(torch.int8)
        up, gate = (Int8Weight(torch.randint(-127, 128, (outputs, dim), generator=draw).to(torch.int8), torch.ones(outputs)) for _ in "ug")
        wide = F.pad(values, (0, _int8_tiles.row_bytes(dim) - dim))
        products = [values.long() @ matrix.values.long().t() for matrix in (up, gate)]
        for capability in ((9, 0), (8, 0)):
            for gated in (False, True):
                for cut in _int8_tiles.integer_tiles(capability, gated=gated):
                    more = {"gate": _int8_launch.padded(gate)} if gated else {}
                    for tma in (False, True):
                        given = (wide, torch.ones(tokens), _int8_launch.padded(up))
                        found = _int8_launch.linear_int8(*given, **more, activation="relu", out_dtype=torch.float32, cut=cut, tma=tma)
                        right = products[1].relu().double() * products[0].double() if gated else products[0].relu().double()
                        # a product of two such sums is rounded once
                        wrong = int((found.double() != right.float().double()).sum())
                        yield {"what": f"products {tokens}×{dim}×{outputs} {cut} gated {gated} tma {tma}", "wrong": wrong}


def quantizing(tokens: int, dim: int, draw: torch.Generator) -> Iterator[dict[str, Any]]:
    """Values may differ by one where the norm, in float32, comes out on the other side of a half."""
    x = torch.randn(tokens, dim, generator=draw)
    x[0] = 0
    weight, bias = (torch.randn(dim, generator=draw) for _ in "wb")
    for norm in ("none", "rmsnorm", "layernorm"):
        given = {} if norm == "none" else {"norm_weight": weight, "norm_bias": bias if norm == "layernorm" else None, "epsilon": 1e-5}
        values, steps = _int8_launch.quantize_rows(x, **given)
        h = x.double()
        if norm != "none":
            of_norm = (weight.double(), bias.double(), 1e-5) if norm == "layernorm" else (weight.double(), 1e-5)
            h = (F.layer_norm if norm == "layernorm" else F.rms_norm)(h, (dim,), *of_norm)
        right = (h / steps.double()[:, None]).round()
        off = (values[:, :dim].double() - right).abs()
        wide = bool(values[:, dim:].any()) or bool((steps * 127 - h.abs().amax(1)).abs().max() > 1e-4)
        wrong = int((off > 1).sum()) + int((off > 0).float().mean() > 1e-3) + wide
        yield {"what": f"quantizing {tokens}×{dim} {norm}", "wrong": wrong}


def interpreted(card: Card) -> Kernel:
    """feedforward/int8 as it is launched on this card, on CPU tensors; it claims what it claims on a GPU."""

    def build(problem: FeedForward, setup: Setup) -> Run:
        return _int8_build.launched(problem, setup.weights, matrices(setup.weights, LEVELS), card)

    def claim(problem: FeedForward, setup: Setup, inputs: FeedForwardInputs) -> torch.Tensor:
        return _int8_build.claim_on_device(problem, setup.weights, inputs, LEVELS)

    return kernel(FeedForward, name="interpreted", devices=("cpu",), accepts=EVERYTHING, approximate=True, claim=claim)(build)


def widening() -> Kernel:
    """feedforward/int8_weights likewise."""

    def build(problem: FeedForward, setup: Setup) -> Run:
        return int8_weights.launched(problem, setup.weights)

    claim = int8_weights.claim_on_cuda
    return kernel(FeedForward, name="widening", devices=("cpu",), accepts=EVERYTHING, approximate=True, claim=claim)(build)


def judged(made: Kernel, problem: FeedForward) -> dict[str, Any]:
    """What the gate says."""
    found: dict[str, Any] = {"what": problem.label}
    setup = Setup(torch.device("cpu"))
    try:
        seen = Gate(problem, setup, thorough=True, patience_s=1e9).admit(made)
    except (WrongOutput, Misconduct) as error:
        return {**found, "wrong": str(error)}
    assert seen.distance is not None
    return {**found, "wrong": "", "probes": len(seen.probes), "left out": seen.left_out, "distance": seen.distance.relative_rms}


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "exact":
        assert _int8_device.levels(torch.device("cpu")) == LEVELS
        for case in exact():
            print(json.dumps(case), flush=True)
    cards = (CARDS["sm_90"], CARDS["sm_80"])
    for number in {"exact": (), "few": FEW, "all": range(len(NETWORKS))}[sys.argv[1]]:
        sizes = FeedForward(batch=2, seq_len=20, dim=72, hidden_dim=140, **NETWORKS[number])
        for dtype in ("float16", "float32") if sys.argv[1] == "all" else ("float16",):
            for made in (interpreted(cards[number % 2]), widening()):
                print(json.dumps(judged(made, replace(sizes, dtype=dtype))), flush=True)
