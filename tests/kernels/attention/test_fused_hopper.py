"""The Gluon kernel for Hopper without a GPU: its results on a simulated machine, what its binaries contain, and how it is cut."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.bench.codegen import compiling, sass
from kerneldyno.bench.codegen.facts import Facts
from kerneldyno.kernels._cards import H100, Card
from kerneldyno.kernels._code import Configuration
from kerneldyno.kernels.attention import fused_hopper
from kerneldyno.kernels.attention._hopper_code import CAPABILITY, VARIANTS, configuration, configurations
from kerneldyno.kernels.attention._hopper_tiles import DECODE, PREFILL, Tile, splits, tile
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device

Told = Callable[..., list[dict[str, Any]]]
Sound = Callable[..., list[tuple[Configuration, Facts]]]


def test_right_with_any_shape_and_schedule(told: Told) -> None:
    found = told("simulate_hopper.py", "random", interpreted=True)
    assert len(found) >= 50
    assert [case for case in found if case["wrong"]] == []


def test_passes_the_gate(told: Told) -> None:
    found = told("simulate_hopper.py", "gate", interpreted=True)
    assert [case["wrong"] for case in found] == [""] * 4
    assert all(case["probes"] >= 12 for case in found)
    # zero strides are what TMA does not take
    assert {name for case in found for name in case["left out"]} <= {"one key-value head expanded to all"}


@pytest.mark.slow
def test_mistakes_are_seen_on_the_machine(told: Told) -> None:
    found = told("simulate_hopper.py", "faults", interpreted=True)
    assert len(found) == 14
    assert [case["fault"] for case in found if not case["seen"]] == []
    kinds = {case["fault"]: {text.partition(":")[0] for text in case["seen"]} for case in found}
    assert kinds["keys never given back"] == kinds["nobody has the first turn"] == {"Stuck"}
    assert "WrongOutput" in kinds["values given back before they are read"]


def assert_as_designed(found: list[tuple[Configuration, Facts]]) -> None:
    for one, facts in found:
        assert facts.spills == 0, one
        assert facts.traded["multiply"] >= one.constants["HOLDS"], one
        assert facts.traded["load"] == 24, one
        assert facts.counts["UTMALDG"] > 0, one
        assert facts.counts["LDGSTS"] == 0, one
        groups = one.constants["GROUPS"]
        # a wait for the first block, one for each product in each loop, and one at the end: for every single instruction ptxas would
        # have it where registers of a product in flight are written
        assert facts.counts["WARPGROUP.DEPBAR"] <= groups * (4 + 2 * one.constants["CAUSAL"]), one
        products = one.constants["D"] // 16 * (2 + one.constants["CAUSAL"]) + one.constants["BS"] // 16 * (2 + one.constants["CAUSAL"])
        assert facts.tensor == {"HGMMA": groups * products}, one
        assert facts.occupancy.programs == (1 if one.registers > 128 else 2), one


def test_binaries_are_as_they_were_designed(sound: Sound) -> None:
    found = sound(one for one in configurations(CAPABILITY) if one.representative)
    assert len(found) == 4
    assert_as_designed(found)


@pytest.mark.exhaustive
def test_all_binaries_are_as_they_were_designed(sound: Sound) -> None:
    assert_as_designed(sound(configurations(CAPABILITY)))


def test_no_other_card_is_offered_it() -> None:
    assert [one for card in ((8, 0), (8, 6), (10, 0), (12, 0)) for one in fused_hopper.device_code(card)] == []


@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_exponentials_run_beside_the_product_of_weights_and_values(head_dim: int) -> None:
    pytest.importorskip("triton")
    cut = PREFILL[head_dim][1]
    made = compiling.binary(configuration(head_dim, "plain", VARIANTS["plain"], cut))
    text = [f"{one.opcode} {one.operands}" for one in sass.parse(compiling.dumped(made.asm["cubin"], "-sass"))]
    waits = [(at, line.endswith("0x1")) for at, line in enumerate(text) if line.startswith("WARPGROUP.DEPBAR")]
    beside = [
        sum("MUFU.EX2" in line for line in text[begun:ended])
        for (begun, still), (ended, _) in pairwise(waits)
        if still  # one product is left running
    ]
    assert len(beside) == cut.groups
    assert min(beside) >= cut.bs // 2, beside  # of 64 · BS weights, 128 threads compute so many each


PROBLEMS = st.builds(
    Attention,
    batch=st.integers(1, 3),
    heads=st.just(4),
    kv_heads=st.sampled_from((1, 2, 4)),
    q_len=st.integers(1, 300),
    kv_len=st.integers(300, 2000),
    head_dim=st.sampled_from((64, 128, 256)),
    causal=st.booleans(),
    ragged=st.booleans(),
    dtype=st.sampled_from(("float16", "bfloat16")),
)


@settings(deadline=None, max_examples=40)
@given(PROBLEMS, st.integers(1, 200))
def test_whatever_is_launched_is_among_what_codegen_compiles(
    noted_kernel: Callable[[], Any], problem: Attention, multiprocessors: int
) -> None:
    pytest.importorskip("triton")
    from kerneldyno.kernels.attention import _hopper_launch

    noted = noted_kernel()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_hopper_launch, "hopper_kernel", noted)
        patch.setattr(_hopper_launch, "combine_kernel", noted_kernel())
        fused_hopper.launched(problem, Card(CAPABILITY, multiprocessors, H100.l2_bytes))(problem.inputs(1))
    names = ("D", "BS", "STAGES", "GROUPS", "IN_TURN", "HOLDS", "PARTIAL", "CAUSAL")
    given_ = {name: noted.constants[name] for name in names}
    same = [one for one in configurations(CAPABILITY) if {name: one.constants[name] for name in names} == given_]
    assert same, given_
    assert {(one.warps, one.registers) for one in same} == {(noted.constants["num_warps"], noted.constants["maxnreg"])}
    # how many tokens a packed row stands for goes into the remainder of a division, and nowhere else
    assert (noted.constants["TOKENS"] > 0) in {one.constants["TOKENS"] > 0 for one in same}
    for t, argument in zip(("t_q", "t_k", "t_v", "t_o"), noted.arguments, strict=False):
        shape = ", ".join(map(str, argument.block_shape))
        assert all(f"[{shape}]" in one.signature[t] for one in same)


@given(st.sampled_from((64, 128, 256)), st.integers(17, 20_000), st.integers(1, 2000), st.integers(1, 200))
def test_large_tiles_only_where_they_keep_the_card_busy(head_dim: int, queries: int, heads: int, multiprocessors: int) -> None:
    found = tile(head_dim, queries, heads, multiprocessors)
    assert (found.groups == 2) == (heads * -(-queries // 128) >= multiprocessors)


@pytest.mark.parametrize(
    ("fields", "traits"),
    [
        ({"q_len": 4096, "heads": 32, "head_dim": 128}, ""),
        ({"q_len": 100, "heads": 4, "head_dim": 256, "causal": True}, "few tiles"),
        ({"q_len": 4, "kv_len": 5000, "heads": 32, "kv_heads": 8, "causal": True}, "decode"),
    ],
)
def test_candidates_hold_the_default_and_compile_as_forms_say(fields: dict[str, Any], traits: str) -> None:
    problem = Attention(**fields, dtype="bfloat16")
    (task,) = fused_hopper.tuning(problem, H100)
    assert task.key.traits == traits
    assert task.default not in task.candidates
    assert task.why_not(task.default) is None
    left = [cut for cut in task.candidates if task.why_not(cut) is None]
    assert 3 <= len(left) < len(task.candidates)
    for form in task.forms(left[0]):
        assert form.constants["CAUSAL"] == problem.triangular
        assert (form.constants["TOKENS"] > 0) == (traits == "decode")
    assert list(fused_hopper.tuning(problem, Card((8, 0), 108, 40 << 20))) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_what_arithmetic_leaves_compiles_without_spills(head_dim: int, sound: Sound) -> None:
    (task,) = fused_hopper.tuning(Attention(q_len=4096, heads=32, head_dim=head_dim, causal=True, dtype="bfloat16"), H100)
    sound(form for cut in task.candidates if task.why_not(cut) is None for form in task.forms(cut))


def test_splits_keep_all_multiprocessors_busy() -> None:
    cut = DECODE[128]
    assert splits(cut, 1, 8, 4, 32768, 132) >= 16
    assert splits(cut, 64, 8, 4, 32768, 132) == 1


@pytest.mark.parametrize("cut", [*PREFILL[64], *PREFILL[128], *PREFILL[256]])
def test_registers_go_round(cut: Tile) -> None:
    """What warp groups take does not exceed what the launch has: the hardware would wait for ever."""
    assert cut.registers * (cut.groups + 1) >= 24 + cut.groups * cut.held
    assert cut.resident * cut.registers * 128 * (cut.groups + 1) <= 65536


@pytest.mark.parametrize(
    ("fields", "capability", "sentence"),
    [
        ({"head_dim": 80}, (9, 0), "takes head_dim 64, 128, 256, not 80"),
        ({}, (8, 0), "is written for compute capability 9.0 (Hopper), not 8.0"),
        ({}, (10, 0), "is written for compute capability 9.0 (Hopper), not 10.0"),
        ({"dtype": "float32"}, (9, 0), "takes bfloat16, float16, not float32"),
        ({"window": 9}, (9, 0), "does not take window"),
        ({}, (9, 0), None),
    ],
)
def test_who_is_refused(fields: dict[str, Any], capability: tuple[int, int], sentence: str | None) -> None:
    problem = Attention(**{"q_len": 100, "dtype": "bfloat16", **fields})
    assert fused_hopper.fused_hopper.why_not(problem, Device("cuda", capability=capability)) == sentence


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"q": torch.empty(1, 3, 20, 64)}, "does not go with"),
        ({"k": torch.empty(1, 2, 10, 128)[..., 1:65]}, "k with strides .* is not taken by TMA"),
        ({"packed": True, "splits": 2**20}, "too many partial results"),
    ],
)
def test_refusals(changes: dict[str, Any], sentence: str) -> None:
    pytest.importorskip("triton")
    from kerneldyno.kernels.attention._hopper_launch import attend

    given_ = {"q": torch.empty(1, 4, 20, 64), "k": torch.empty(1, 2, 10, 64), "v": torch.empty(1, 2, 10, 64), **changes}
    given_ = {name: value.bfloat16() if isinstance(value, torch.Tensor) and name != "k" else value for name, value in given_.items()}
    given_["k"] = given_["k"].bfloat16() if given_["k"].is_contiguous() else torch.empty(1, 2, 10, 128, dtype=torch.bfloat16)[..., 1:65]
    with pytest.raises(ValueError, match=sentence):
        attend(**given_, scale=1.0, cut=PREFILL[64][0], multiprocessors=4)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [({"groups": 3}, "groups 3"), ({"bs": 96}, "bs 96"), ({"stages": 1}, "stages 1"), ({"groups": 1, "in_turn": True}, "take turns")],
)
def test_impossible_tiles(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Tile(**{"groups": 2, "bs": 64, "stages": 2, "registers": 168, **fields})
