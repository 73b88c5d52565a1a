"""8-bit networks: what they claim, on a CPU; and the Triton kernels without a GPU, interpreted and compiled ahead of time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.bench.gate.errors import WrongOutput
from kerneldyno.bench.gate.truth import Truth
from kerneldyno.bench.gate.verify import verify
from kerneldyno.kernels import _int8
from kerneldyno.kernels._cards import CARDS
from kerneldyno.kernels.feedforward import _int8_tiles, _int8_tuning, int8_mm, int8_onednn
from kerneldyno.kernels.feedforward._int8_build import graph, launched
from kerneldyno.kernels.feedforward._int8_code import configurations, widened
from kerneldyno.kernels.feedforward._int8_network import claimed, matrices
from kerneldyno.kernels.feedforward._int8_smoothing import smoothed
from kerneldyno.kernels.feedforward.int8 import int8
from kerneldyno.kernels.feedforward.int8_smooth import int8_smooth
from kerneldyno.kernels.feedforward.int8_torchao import int8_torchao
from kerneldyno.kernels.feedforward.int8_weights import int8_weights
from kerneldyno.kernels.feedforward.problem import FeedForward
from kerneldyno.kernels.registry import Device, Setup

CPU = torch.device("cpu")
VARIANTS = [
    {},
    {"activation": "gelu", "bias": False},
    {"activation": "gelu_tanh", "norm": "rmsnorm", "residual": True},
    {"activation": "silu", "norm": "rmsnorm", "gated": True, "bias": False},
    {"activation": "silu", "norm": "none", "gated": True, "residual": True},
]


def coarser() -> float:
    """How much coarser weights are where products would saturate."""
    return _int8.LEVELS / _int8.weight_levels(CPU)


def test_is_near_the_exact_result(verified):
    for variant in VARIANTS:
        found = verified(int8, FeedForward(seq_len=64, dim=128, hidden_dim=512, **variant))
        # the product of two branches has heavier tails, which one scale per tensor pays for
        assert 1e-3 < found.distance.relative_rms < (0.04 if variant.get("gated") else 0.02) * coarser()
        assert found.distance.cosine > 0.999


def test_a_wrong_scale_is_caught(monkeypatch, verified):
    monkeypatch.setattr(_int8, "LEVELS", 126)  # the claim follows: still right
    problem = FeedForward(seq_len=33, dim=64, hidden_dim=96)
    verified(int8, problem)
    weights = problem.weights(3)
    setup = Setup(CPU, weights, problem.inputs(2))
    truth = Truth(problem, problem.inputs(1), weights)
    output = int8.build(problem, setup)(truth.inputs)
    with pytest.raises(WrongOutput, match="claims to compute"):
        verify(output * (1 + 0.01 * coarser()), int8, setup, truth)


def test_the_graph_multiplies_integers():
    problem = FeedForward(seq_len=4, gated=True, dim=16, hidden_dim=32)
    weights = problem.weights(0)
    model = graph(problem, weights, matrices(weights))
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("MatMulInteger") == 3
    assert not {"Gemm", "MatMul"} & set(operators)
    assert operators.count("DynamicQuantizeLinear") == 2  # the gate reads what W1 reads


def test_holds_a_quarter_of_the_bytes():
    problem = FeedForward(seq_len=4)
    weights = problem.weights(0)
    run = int8.build(problem, Setup(CPU, weights))
    assert 0.25 < run.weight_bytes / weights.nbytes < 0.26


def test_products_by_torch_compute_their_claim():
    """torch._int_mm with a scale per token: it runs on a CPU just as well."""
    for variant, tokens in ((VARIANTS[0], 5), (VARIANTS[4], 64)):
        problem = FeedForward(seq_len=tokens, dim=64, hidden_dim=128, **variant)
        weights, inputs = problem.weights(0), problem.inputs(1)
        found = int8_mm.multiplied(problem, weights, matrices(weights))(inputs)
        right = claimed(problem, weights, inputs, None, _int8.rounded_per_token)
        exact = problem.reference(inputs, weights)
        assert float((found - right).norm()) < 0.1 * float((right - exact).norm())
        assert float((right - exact).norm() / exact.norm()) < 0.03


def test_each_library_is_asked_itself_how_many_levels_it_multiplies_exactly():
    assert _int8.exact_levels(_int8.torch_product, (_int8.LEVELS,)) == _int8.LEVELS
    assert _int8.exact_levels(int8_onednn.product) in (_int8.LEVELS, _int8.FEWER_LEVELS)
    with pytest.raises(RuntimeError, match="saturate"):
        _int8.exact_levels(lambda left, right: _int8.torch_product(left, right).clamp(-1000, 1000))


def test_smoothing_leaves_the_network_what_it_is():
    for variant in VARIANTS:
        problem = FeedForward(seq_len=20, dim=24, hidden_dim=40, **variant)
        weights, inputs = problem.weights(0), problem.inputs(1)
        weights = weights.replace(w1=torch.cat([torch.zeros(1, 24), weights.w1[1:]]))  # a neuron that never says anything
        smooth = smoothed(problem, weights, problem.inputs(2))
        torch.testing.assert_close(problem.reference(inputs, smooth), problem.reference(inputs, weights), rtol=1e-4, atol=1e-5)
        assert torch.equal(smooth.w2, weights.w2) == (problem.activation in ("gelu", "gelu_tanh") and not problem.gated)


def test_smoothing_bears_outliers(verified):
    """Channels fifty times as large, as the norms of language models make some: one scale cannot hold them and the others."""
    problem = FeedForward(seq_len=200, dim=64, hidden_dim=256, bias=False)
    weights = problem.weights(0)
    loud = torch.tensor([3, 17, 40])
    weights = weights.replace(
        norm_weight=weights.norm_weight.index_copy(0, loud, 50 * weights.norm_weight[loud]),
        w1=weights.w1.index_copy(1, loud, weights.w1[:, loud] / 50),
    )
    inputs, setup = problem.inputs(1), Setup(CPU, weights, problem.inputs(2))
    exact = problem.reference(inputs, weights)
    plain, smooth = (float((kernel.build(problem, setup)(inputs) - exact).norm() / exact.norm()) for kernel in (int8, int8_smooth))
    assert plain > 0.1
    assert smooth < 0.03 * coarser()
    verified(int8_smooth, problem)


def test_weights_alone_are_nearer_than_activations_too(verified):
    problem = FeedForward(seq_len=33, dim=64, hidden_dim=256)
    alone, both = (verified(kernel, problem).distance.relative_rms for kernel in (int8_weights, int8))
    assert alone < 0.011
    assert alone < both


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # raised by inductor's own imports
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_torchao_computes_its_claim(dtype, verified):
    pytest.importorskip("torchao")
    problem = FeedForward(seq_len=43, dim=72, hidden_dim=203, dtype=dtype, **VARIANTS[4])
    assert verified(int8_torchao, problem).distance.relative_rms < 0.03


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"seq_len": 16}, "need 17 tokens on cuda, not 16"), ({"seq_len": 64, "dim": 100}, "multiples of 8, not dim 100")],
)
def test_what_torchao_does_not_take(fields, words):
    assert words in int8_torchao.refuses(FeedForward(**fields), Device("cuda", capability=(9, 0)))


# ---------------------------------------------------------------- the Triton kernels


def told(argument: str, cache: Path) -> list[dict]:
    """What gate_int8.py prints, line by line, in the interpreter."""
    pytest.importorskip("triton")
    variables = os.environ | {"TRITON_INTERPRET": "1", "TRITON_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"}
    here = Path(__file__)
    command = [sys.executable, str(here.parents[1] / "interpreted.py"), str(here.with_name("gate_int8.py")), argument]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_integers_are_exact_in_the_interpreter(tmp_path):
    found = told("exact", tmp_path)
    assert len(found) == 116
    assert [case for case in found if case["wrong"]] == []


@pytest.mark.slow
@pytest.mark.parametrize("few", ["few", pytest.param("all", marks=pytest.mark.exhaustive)])
def test_passes_the_gate_in_the_interpreter(few, tmp_path):
    found = told(few, tmp_path)
    assert len(found) == {"few": 4, "all": 20}[few]
    assert [case for case in found if case["wrong"]] == []
    assert all(case["probes"] >= 7 and not case["left out"] and 1e-3 < case["distance"] < 0.03 for case in found), found


BUILDS = ((8, 6), (9, 0), (10, 0))
"""Tiles for sm_80 are those for sm_86, which has less shared memory."""
INTEGER_PRODUCTS = {(8, 6): "IMMA", (9, 0): "IGMMA", (10, 0): "IMMA"}


def assert_integers(found):
    for one, facts in found:
        if one.name == "linear_int8_kernel" and one.constants["BT"] >= 64 and "p_sx" not in one.constants:
            assert set(facts.tensor) == {INTEGER_PRODUCTS[one.capability]}, one
        if one.name == "linear_int8_kernel" and one.capability != (9, 0):
            assert facts.shared_bytes <= 99 * 1024, one


def test_binaries_multiply_integers_on_tensor_cores(sound):
    found = sound(one for card in BUILDS for one in (*configurations(card), *widened(card)) if one.representative)
    assert {one.capability for one, _ in found} == set(BUILDS)
    assert_integers(found)


@pytest.mark.exhaustive
@pytest.mark.parametrize("card", BUILDS)
def test_all_offered_binaries_fit_the_cards(card, sound):
    assert_integers(sound((*configurations(card), *widened(card))))


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


@settings(deadline=None, max_examples=40)
@given(PROBLEMS, st.sampled_from(sorted(CARDS)))
def test_whatever_is_launched_is_among_what_codegen_compiles(problem, name):
    pytest.importorskip("triton")
    from kerneldyno.kernels.feedforward import _int8_launch

    card, linear, quantize = CARDS[name], Noted(), Noted()
    weights = problem.weights(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_int8_launch, "linear_int8_kernel", linear)
        patch.setattr(_int8_launch, "quantize_kernel", quantize)
        patch.setattr(_int8_launch, "card_of", lambda device: card)
        launched(problem, weights, matrices(weights), card)(problem.inputs(1))
    there = [one for one in configurations(card.capability) if (one.dtype == "float32") == (problem.dtype == "float32")]
    assert (len(linear.calls), len(quantize.calls)) == (2, 2)
    for arguments, constants in linear.calls:
        gated, tma = arguments[4] is not None, arguments[10] is not None
        same = [
            one
            for one in there
            if one.name == "linear_int8_kernel"
            and (one.warps, one.stages) == (constants["num_warps"], constants["num_stages"])
            and all(one.constants[key] == constants[key] for key in ("BT", "BN", "BK", "GROUP", "EVEN"))
            and ("p_g" not in one.constants, "t_x" not in one.constants) == (gated, tma)
        ]
        assert same, constants
    known = {(one.constants["BD"], one.warps) for one in there if one.name == "quantize_kernel"}
    widths = {warps: block for block, warps in known}
    for _, constants in quantize.calls:
        assert constants["num_warps"] in widths
        assert constants["BD"] <= widths[constants["num_warps"]]


@given(st.integers(1, 10**5), st.integers(1, 10**5), st.sampled_from(sorted(CARDS)), st.booleans())
def test_tiles_are_the_largest_that_keep_a_card_busy(tokens, outputs, name, gated):
    card = CARDS[name]
    offered = _int8_tiles.integer_tiles(card.capability, gated=gated)
    cut = _int8_tiles.chosen(offered, tokens, outputs, card.multiprocessors)
    assert cut in offered
    assert (cut.bt == 16) == (tokens <= 16)
    busy = [one for one in offered[1:] if -(-tokens // one.bt) * -(-outputs // one.bn) >= card.multiprocessors]
    assert tokens <= 16 or cut == (busy[0] if busy else offered[-1])


@pytest.mark.parametrize("tokens", [1, 200, 4096])
@pytest.mark.parametrize("gated", [False, True])
def test_candidates_fit_the_card(tokens, gated):
    card = CARDS["sm_90"]
    problem = FeedForward(seq_len=tokens, dim=4096, hidden_dim=14336, gated=gated, dtype="bfloat16")
    tasks = list(_int8_tuning.tasks(problem, card))
    assert [task.key.size for task in tasks] == ["4096→16384" + " gated" * gated, "16384→4096"]
    for task in tasks:
        left = [cut for cut in task.candidates if task.why_not(cut) is None]
        assert len(left) > 4
        assert task.default not in task.candidates
        assert all(cut.shared_bytes(gated=" gated" in task.key.size) <= card.shared_bytes for cut in left)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_passes_the_gate_on_a_gpu(variant, dtype):
    from kerneldyno.bench.gate.examine import examine

    for kernel in (int8, int8_mm.int8_mm, int8_smooth, int8_weights):
        for seq_len, dim, hidden_dim in ((1, 64, 256), (127, 104, 208), (1000, 512, 2048)):
            problem = FeedForward(seq_len=seq_len, dim=dim, hidden_dim=hidden_dim, dtype=dtype, **variant)
            found = examine(kernel, problem, Setup(torch.device("cuda")))
            assert found.distance is not None
            assert found.distance.relative_rms < 0.04, problem.label
