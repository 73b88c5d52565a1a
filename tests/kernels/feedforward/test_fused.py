"""The Triton kernels without a GPU: run by Triton's interpreter, and compiled ahead of time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.kernels._cards import H100, SHARED
from kerneldyno.kernels.feedforward._fused_code import configurations
from kerneldyno.kernels.feedforward._fused_tiles import (
    A100,
    FULL,
    HOPPER,
    LEAST_STEPS,
    UNALIGNED,
    blocks,
    by_pointers,
    norm_constants,
    part,
    tiles,
)
from kerneldyno.kernels.feedforward.fused import device_kernels, fused
from kerneldyno.kernels.feedforward.problem import FeedForward
from kerneldyno.kernels.registry import Device, Setup

pytest.importorskip("triton")
GPU = Device("cuda", capability=(9, 0))


def interpreted(*arguments):
    """What the script beside this file prints, in Triton's interpreter: the environment decides before Triton is imported."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    here = Path(__file__)
    command = [sys.executable, str(here.parents[1] / "interpreted.py"), str(here.with_name("interpret_fused.py")), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_is_right_in_the_interpreter(direction):
    found = interpreted("problems", direction)
    assert len(found) == 50
    # it keeps sums in float32 and rounds as often as the plain formula does: hardly worse, mostly better
    largest, square = (2, 1.5) if direction == "forward" else (3, 2)  # gradients of a single token are chains of few numbers
    assert max(one["max"] for one in found) < largest
    assert max(one["rms"] for one in found) < square
    assert {one["tokens"] for one in found} == {1, 3, 16, 17, 129}
    forms = " ".join(one["form"] for one in found)
    assert all(word in forms for word in ("splits", "TMA", "swapped", "64×32×32"))


def test_the_whole_gate_in_the_interpreter():
    found = interpreted("gate")
    assert [one["probes"] for one in found] == [6, 6]


def test_every_tile_in_the_interpreter():
    """Also those that only large problems take: persistent programs with several tiles each, epilogues in parts."""
    found = interpreted("tiles")
    assert {one["tiles"] for one in found} >= {str(cut) for table in (HOPPER, A100, FULL) for row in table.values() for cut in row}
    assert max(one["error"] for one in found) < 2e-3


CARDS = ((8, 6), (9, 0), (10, 0))
"""With the least shared memory, with descriptors, with tensor memory."""


def assert_estimates(found):
    """Shared memory is what `Tiles` says, at most; exact products are FMAs."""
    cuts = {str(cut): cut for table in (HOPPER, A100, FULL) for row in table.values() for one in row for cut in (one, by_pointers(one))}
    cuts |= {str(UNALIGNED): UNALIGNED}
    for one, facts in found:
        if one.name == "linear_kernel":
            estimate = cuts[one.tile].shared_bytes(4 if one.dtype == "float32" else 2)
            if one.capability < (10, 0):  # there barriers and sums lie in it, too
                assert facts.shared_bytes <= estimate, (one, facts.shared_bytes, estimate)
            assert facts.shared_bytes <= SHARED.get(one.capability, 99) << 10, one
            assert (facts.counts["FFMA"] > 0) >= (one.dtype == "float32"), one


def few(card):
    return [one for one in fused.device_code(card) if one.representative]


def test_binaries_fit_the_cards_and_use_tensor_cores(sound):
    found = sound(one for card in CARDS for one in few(card))
    assert {one.capability for one, _ in found} == set(CARDS)
    assert_estimates(found)


def test_every_kernel_is_among_the_representative_forms():
    names = {one.name for one in few((9, 0))}
    there = {
        "linear_kernel",
        "linear_split_kernel",
        "linear_sum_kernel",
        "norm_kernel",
        "activation_gradient_kernel",
        "norm_gradient_kernel",
    }
    assert names == there
    assert len(few((9, 0))) <= 10


@pytest.mark.exhaustive
@pytest.mark.parametrize("card", [*CARDS, (8, 0)])
def test_all_offered_binaries_fit_the_cards(card, sound):
    assert_estimates(sound(fused.device_code(card)))


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
    direction=st.sampled_from(("forward", "backward")),
    dim=st.integers(16, 200),
    hidden_dim=st.integers(16, 200),
    activation=st.sampled_from(("relu", "gelu", "gelu_tanh", "silu")),
    norm=st.sampled_from(("none", "layernorm", "rmsnorm")),
    gated=st.booleans(),
    bias=st.booleans(),
    residual=st.booleans(),
    dtype=st.sampled_from(("float32", "float16", "bfloat16")),
)


LAUNCHED = {"_fused_triton": ("linear_kernel", "linear_split_kernel", "linear_sum_kernel", "norm_kernel"),
            "_fused_gradients": ("activation_gradient_kernel", "norm_gradient_kernel")}  # fmt: skip


def launches(problem):
    """What a build and a call would launch: (kernel, arguments, constants)."""
    noted = {}
    with pytest.MonkeyPatch.context() as patch:
        for module, names in LAUNCHED.items():
            for name in names:
                noted[name] = Noted()
                patch.setattr(import_module(f"kerneldyno.kernels.feedforward.{module}"), name, noted[name])
        fused.build(problem, Setup(torch.device("cpu"), problem.weights(1)))(problem.inputs(1))
    return [(name, *call) for name, there in noted.items() for call in there.calls]


@settings(deadline=None, max_examples=60)
@given(PROBLEMS)
def test_whatever_is_launched_is_among_what_codegen_compiles(problem):
    there = [one for one in fused.device_code((9, 0)) if (one.dtype == "float32") == (problem.dtype == "float32")]
    found = launches(problem)
    products = [name for name, _, _ in found if name in ("linear_kernel", "linear_split_kernel")]
    assert len(products) == 2
    assert {name for name, _, _ in found} == set(device_kernels(problem, H100))
    for name, _, constants in found:
        free = {"ACTIVATION", "BD", "num_warps", "num_stages"}
        same = [
            one
            for one in there
            if one.name == name
            and all(one.constants[word] == value for word, value in constants.items() if word not in free)
            and (name == "norm_kernel" or "BD" in constants or one.warps == constants["num_warps"])
        ]
        assert same, (name, constants)
        assert constants.get("num_stages", 0) in {0, *(one.stages for one in same)}
        assert constants.get("ACTIVATION", "none") in {"none", *(one.constants.get("ACTIVATION") for one in there)}


def test_descriptors_are_made_for_what_takes_them():
    problem = FeedForward(seq_len=300, dim=64, hidden_dim=96, dtype="bfloat16", activation="silu", gated=True)
    for made, wanted in ((problem, True), (replace(problem, dim=68), False), (replace(problem, dtype="float32"), False)):
        for name, arguments, _ in launches(made):
            if name == "linear_kernel":
                assert [arguments[place] is not None for place in (6, 7, 8)] == [wanted] * 3
                if wanted:
                    assert [tuple(arguments[place].block_shape) for place in (6, 7)] == [(64, 64), (128, 64)]


@pytest.mark.parametrize("tokens", [1, 16, 17, 64, 65, 4096])
def test_inputs_are_split_where_tiles_are_few(tokens):
    """Two programs on every multiprocessor, or whole waves of them; no split is short of loads to keep in flight."""
    for inputs, rows in ((4096, 28672), (14336, 4096), (512, 2048), (2048, 512), (100, 100)):
        cut = tiles(tokens, inputs, rows, 2, H100)
        share = part(tokens, inputs, rows, cut, H100.multiprocessors)
        splits = -(-inputs // share)
        assert share % cut.bk == 0
        assert splits == 1 or (tokens <= 64 and share >= LEAST_STEPS * cut.bk)
        if tokens <= 64 and inputs >= 4096:
            assert blocks(cut, tokens, rows) * splits >= 1.5 * H100.multiprocessors
    assert part(1, 14336, 4096, HOPPER[16][0], 132) == 14336 // 4


def test_tiles_are_the_largest_that_fill_the_card():
    def taken(tokens, rows, capability=(9, 0)):
        cut = tiles(tokens, 4096, rows, 2, replace(H100, capability=capability))
        return cut.bt, cut.bn

    assert [taken(tokens, 28672) for tokens in (1, 64, 128, 512, 4096)] == [(16, 64), (64, 64), (128, 256), (128, 256), (128, 256)]
    assert [taken(tokens, 4096) for tokens in (65, 256, 512, 2048)] == [(64, 128), (64, 128), (128, 128), (128, 256)]
    assert taken(4096, 28672, (8, 0)) == (128, 256)
    assert taken(4096, 28672, (8, 9)) == (128, 128)


def test_weights_that_it_keeps_are_reported():
    problem = FeedForward(seq_len=8, dim=64, hidden_dim=96, activation="silu", gated=True)
    weights = problem.weights(1)
    held = {}
    for direction in ("forward", "backward"):
        run = fused.build_run(replace(problem, direction=direction), Setup(torch.device("cpu"), weights))
        held[direction] = run.weight_bytes
    assert held["forward"] == weights.nbytes
    assert held["backward"] == weights.nbytes + 4 * (2 * 64 * 96 + 2 * 96)


def test_rows_that_no_program_has_room_for_are_refused():
    wide = FeedForward(seq_len=1, dim=16384, hidden_dim=16)
    assert fused.why_not(wide, GPU) is None
    backward = replace(wide, direction="backward")
    assert fused.why_not(backward, GPU) == "its norm with gradients takes rows of up to 8192 numbers, not 16384"
    assert "rows of up to 32768 numbers" in str(fused.why_not(replace(wide, dim=40000), GPU))
    assert fused.why_not(replace(backward, norm="none"), GPU) is None


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
    most = {"activation": "silu", "norm": "rmsnorm", "gated": True, "bias": False, "residual": True}
    for fields in ({}, most, {**most, "direction": "backward"}):
        for dtype in ("float32", "bfloat16", "float16"):
            for seq_len, dim, hidden_dim in ((1, 64, 256), (127, 100, 203), (1000, 512, 2048)):
                problem = FeedForward(seq_len=seq_len, dim=dim, hidden_dim=hidden_dim, dtype=dtype, **fields)
                weights = problem.weights(3, device)
                setup = Setup(device, weights, problem.inputs(2, device))
                truth = Truth(problem, problem.inputs(1, device), weights)
                output = behaves(fused.build(problem, setup), truth.inputs, problem.inputs(4, device), setup.device).first
                verify(output, fused, setup, truth)
