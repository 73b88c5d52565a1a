"""The Triton kernels without a GPU: run by Triton's interpreter, and compiled ahead of time."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.kernels.feedforward import fused
from kerneldyno.kernels.feedforward._fused_code import configurations
from kerneldyno.kernels.feedforward._fused_tiles import Tiles, norm_constants
from kerneldyno.kernels.feedforward.problem import FeedForward
from kerneldyno.kernels.registry import Setup

pytest.importorskip("triton")

INTERPRETED = """
import json, torch
from kerneldyno.bench.gate.conduct import behaves
from kerneldyno.bench.gate.truth import Truth
from kerneldyno.bench.gate.verify import verify
from kerneldyno.kernels.feedforward.fused import fused
from kerneldyno.kernels.feedforward.problem import FeedForward
from kerneldyno.kernels.registry import Setup

variants = [
    {},
    {"activation": "gelu", "bias": False},
    {"activation": "gelu_tanh", "norm": "rmsnorm", "residual": True},
    {"activation": "silu", "norm": "rmsnorm", "gated": True, "bias": False},
    {"activation": "silu", "norm": "none", "gated": True, "residual": True},
]
sizes = [(1, 64, 256), (127, 52, 75), (129, 48, 80)]
found = {}
for fields in variants:
    for dtype in ("float32", "float16"):
        # (300, …) takes the largest tiles
        largest = [(300, 64, 64)] if fields.get("residual") else []
        for seq_len, dim, hidden_dim in sizes if dtype == "float32" else sizes[1:2] + largest:
            problem = FeedForward(seq_len=seq_len, dim=dim, hidden_dim=hidden_dim, dtype=dtype, **fields)
            weights, inputs = problem.weights(3), problem.inputs(1)
            if seq_len == 129:  # rows further apart than they are long
                inputs = inputs.replace(x=torch.cat([inputs.x, inputs.x], dim=2)[..., :dim])
            setup = Setup(torch.device("cpu"), weights)
            truth = Truth(problem, inputs, weights)
            before = inputs.x.clone()
            output = fused.build(problem, setup)(inputs)
            assert torch.equal(inputs.x, before)
            errors = verify(output, fused, setup, truth).errors
            found[problem.label] = [errors.max_ratio, errors.rms_ratio]
print(json.dumps(found))
"""


def test_is_right_in_the_interpreter():
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert len(found) == 22
    # it keeps sums in float32 and rounds as often as the plain formula does: hardly worse, mostly better
    assert max(ratio for ratio, _ in found.values()) < 2
    assert max(ratio for _, ratio in found.values()) < 1.5


CARDS = ((8, 6), (9, 0), (10, 0))
"""Tiles are the same for all cards: they have to fit those with the least shared memory."""


def assert_estimates(found):
    """Shared memory is what `Tiles` says, at most; exact products are FMAs."""
    for one, facts in found:
        if one.name == "linear_kernel":
            tiles = Tiles(*(one.constants[name] for name in ("BT", "BN", "BK")), one.warps, one.stages)
            item_bytes = 4 if one.dtype == "float32" else 2
            estimate = tiles.shared_bytes(item_bytes, gated="p_g" not in one.constants)
            if one.capability < (10, 0):  # there barriers and sums lie in it, too
                assert facts.shared_bytes <= estimate, one
            assert estimate <= 99 * 1024, one
            assert (facts.counts["FFMA"] > 0) >= (one.dtype == "float32"), one


def test_binaries_fit_the_cards_and_use_tensor_cores(sound):
    found = sound(one for card in CARDS for one in configurations(card) if one.representative)
    assert {one.capability for one, _ in found} == set(CARDS)
    assert_estimates(found)


@pytest.mark.exhaustive
@pytest.mark.parametrize("card", CARDS)
def test_all_offered_binaries_fit_the_cards(card, sound):
    assert_estimates(sound(configurations(card)))


class Noted:
    """Stands where a device kernel does, which nothing here could run, and notes what it would be compiled for."""

    def __init__(self):
        self.calls = []

    def __getitem__(self, grid):
        return lambda *arguments, **constants: self.calls.append((arguments, constants))


PROBLEMS = st.builds(
    FeedForward,
    batch=st.integers(1, 2),
    seq_len=st.integers(1, 300),
    dim=st.integers(16, 200),
    hidden_dim=st.integers(16, 200),
    activation=st.sampled_from(("relu", "gelu", "gelu_tanh", "silu")),
    norm=st.sampled_from(("none", "layernorm", "rmsnorm")),
    gated=st.booleans(),
    bias=st.booleans(),
    residual=st.booleans(),
    dtype=st.sampled_from(("float32", "float16", "bfloat16")),
)


@settings(deadline=None, max_examples=60)
@given(PROBLEMS)
def test_whatever_is_launched_is_among_what_codegen_compiles(problem):
    from kerneldyno.kernels.feedforward import _fused_triton

    linear, norm, there = Noted(), Noted(), list(configurations((9, 0)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_fused_triton, "linear_kernel", linear)
        patch.setattr(_fused_triton, "norm_kernel", norm)
        fused.fused.build(problem, Setup(torch.device("cpu"), problem.weights(1)))(problem.inputs(1))
    of_dtype = [one for one in there if (one.dtype == "float32") == (problem.dtype == "float32")]
    assert len(linear.calls) == 2
    for arguments, constants in linear.calls:
        gated = arguments[2] is not None
        same = [
            one
            for one in of_dtype
            if one.name == "linear_kernel"
            and (one.warps, one.stages) == (constants["num_warps"], constants["num_stages"])
            and all(one.constants[name] == constants[name] for name in ("BT", "BN", "BK", "GROUP", "EVEN"))
            and ("p_g" not in one.constants) == gated
        ]
        assert same, constants
        assert constants["ACTIVATION"] in {one.constants.get("ACTIVATION") for one in of_dtype}
    assert len(norm.calls) == (problem.norm != "none")
    for _, constants in norm.calls:
        assert norm_constants(problem.dim, centred=problem.norm == "layernorm") == (
            {name: constants[name] for name in ("CENTRED", "BD")},
            constants["num_warps"],
        )


@pytest.mark.parametrize("dim", [1, 64, 100, 4096, 5000, 16384, 20000, 32768])
def test_warps_of_a_norm_are_among_what_codegen_compiles(dim):
    block, warps = norm_constants(dim, centred=True)
    known = {one.warps: one.constants["BD"] for one in configurations((9, 0)) if one.name == "norm_kernel"}
    assert warps in known
    assert block["BD"] / warps <= max(512, known[warps] / warps)


@pytest.mark.gpu
def test_is_right_on_a_gpu():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    from kerneldyno.bench.gate.conduct import behaves
    from kerneldyno.bench.gate.truth import Truth
    from kerneldyno.bench.gate.verify import verify
    from kerneldyno.kernels.feedforward.fused import fused
    from kerneldyno.kernels.feedforward.problem import FeedForward
    from kerneldyno.kernels.registry import Setup

    device = torch.device("cuda")
    for fields in ({}, {"activation": "silu", "norm": "rmsnorm", "gated": True, "bias": False, "residual": True}):
        for dtype in ("float32", "bfloat16", "float16"):
            for seq_len, dim, hidden_dim in ((1, 64, 256), (127, 100, 203), (1000, 512, 2048)):
                problem = FeedForward(seq_len=seq_len, dim=dim, hidden_dim=hidden_dim, dtype=dtype, **fields)
                weights = problem.weights(3, device)
                setup = Setup(device, weights, problem.inputs(2, device))
                truth = Truth(problem, problem.inputs(1, device), weights)
                output = behaves(fused.build(problem, setup), truth.inputs, problem.inputs(4, device), setup.device).first
                verify(output, fused, setup, truth)
