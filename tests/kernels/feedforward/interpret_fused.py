"""The fused feed-forward network in Triton's interpreter: prints one line of JSON for each thing that was tried."""

from __future__ import annotations

import json
import sys

import torch

from kerneldyno.bench.gate.examine import examine
from kerneldyno.bench.gate.truth import Truth
from kerneldyno.bench.gate.verify import verify
from kerneldyno.kernels._cards import H100, Card
from kerneldyno.kernels.feedforward import _fused_triton
from kerneldyno.kernels.feedforward._fused_tiles import A100, FULL, HOPPER, by_pointers
from kerneldyno.kernels.feedforward.fused import form, fused
from kerneldyno.kernels.feedforward.problem import FeedForward, activate
from kerneldyno.kernels.registry import Setup

CPU = torch.device("cpu")
VARIANTS = [
    {},
    {"activation": "gelu", "bias": False},
    {"activation": "gelu_tanh", "norm": "rmsnorm", "residual": True},
    {"activation": "silu", "norm": "rmsnorm", "gated": True, "bias": False},
    {"activation": "gelu", "norm": "none", "gated": True, "residual": True},
]
SIZES = [(1, 64, 512), (3, 52, 75), (16, 1024, 80), (17, 512, 96), (129, 48, 80)]


def problems(direction: str) -> None:
    """Every variant at sizes that take every path: split inputs, descriptors, rows that begin anywhere."""
    for fields in VARIANTS:
        for dtype in ("float32", "float16"):
            for seq_len, dim, hidden_dim in SIZES:
                problem = FeedForward(seq_len=seq_len, dim=dim, hidden_dim=hidden_dim, dtype=dtype, direction=direction, **fields)
                weights, inputs = problem.weights(3), problem.inputs(1)
                if seq_len == 129:  # rows further apart than they are long
                    inputs = inputs.replace(x=torch.cat([inputs.x, inputs.x], dim=2)[..., :dim])
                setup, truth = Setup(CPU, weights), Truth.of(problem, inputs, weights, flops=1e10)
                before = truth.inputs.map(torch.clone)
                answer = fused.build(problem, setup)(truth.inputs)
                for name, tensor in before.tensors().items():
                    assert torch.equal(tensor, truth.inputs.tensors()[name]), name
                errors = verify(answer, fused, setup, truth).errors
                told = {"tokens": seq_len, "form": form(problem, H100), "max": errors.max_ratio, "rms": errors.rms_ratio}
                print(json.dumps({"problem": problem.label, **told}))


def gate() -> None:
    """Conduct, poisoned memory and all probes."""
    for fields in ({**VARIANTS[3], "dtype": "float16"}, {**VARIANTS[2], "direction": "backward"}):
        problem = FeedForward(batch=2, seq_len=5, dim=32, hidden_dim=48, **fields)
        found = examine(fused, problem, Setup(CPU), thorough=True)
        print(json.dumps({"problem": problem.label, "probes": len(found.probes)}))


def tiles() -> None:
    """Each tile of the tables through `linear`, on a card of two multiprocessors, against float64."""
    _fused_triton.card_of = lambda device: Card((9, 0), 2, 2**20)
    generator = torch.Generator().manual_seed(0)
    for table in (HOPPER, A100, FULL):
        for cut in dict.fromkeys(one for row in table.values() for tile in row for one in (tile, by_pointers(tile))):
            dtype = torch.float32 if table is FULL else torch.float16
            tokens, inputs, outputs = 2 * cut.bt + 9, 96, 2 * cut.bn + 16
            for gated in (False, True):
                x, w, g, b, r = (
                    torch.randn(shape, generator=generator).to(dtype)
                    for shape in ((tokens, inputs), (outputs, inputs), (outputs, inputs), (outputs,), (tokens, outputs))
                )
                w, g = w / 10, g / 10
                before = torch.empty(tokens, outputs * (1 + gated), dtype=dtype)
                joined = [_fused_triton.interleaved(w, g), _fused_triton.interleaved(b, b)] if gated else [w, b]
                y = _fused_triton.linear(x, *joined, gated=gated, activation="gelu", residual=r, before=before, cut=cut)
                up = x.double() @ w.double().T + b
                gate_ = x.double() @ g.double().T + b
                right = (activate("gelu", gate_) * up if gated else activate("gelu", up)) + r
                kept = torch.stack([up, gate_], 2).flatten(1) if gated else up
                error = max(float((a.double() - b).abs().max() / b.abs().max()) for a, b in ((y, right), (before, kept)))
                print(json.dumps({"tiles": str(cut), "gated": gated, "error": error}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"problems": problems, "gate": gate, "tiles": tiles}[sys.argv[1]](*sys.argv[2:])
