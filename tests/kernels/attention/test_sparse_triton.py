"""The Triton kernels of sparse attention without a GPU: what they compute in the interpreter, and what their binaries hold."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.bench.codegen.facts import Facts
from kerneldyno.kernels import _cards
from kerneldyno.kernels._code import Configuration
from kerneldyno.kernels.attention import block_sparse, sinks
from kerneldyno.kernels.attention._sparse_blocks import Choice
from kerneldyno.kernels.attention.problem import Attention

Told = Callable[..., list[dict[str, Any]]]
Sound = Callable[..., list[tuple[Configuration, Facts]]]
CARDS = ((8, 6), (9, 0), (10, 0))


@functools.cache
def every(capability: tuple[int, int]) -> list[Configuration]:
    return [*block_sparse.device_code(capability), *sinks.device_code(capability)]


@pytest.mark.slow
def test_right_in_the_interpreter(told: Told) -> None:
    found = told("interpret_sparse.py", interpreted=True)
    assert len(found) >= 40
    assert [case for case in found if case["faults"]] == []
    assert sum(case["blind"] > 0 for case in found) >= 4
    assert sum(case["distance"] > 0.2 for case in found) >= 25, "something was left out"


@pytest.mark.slow
def test_the_whole_gate_lets_them_through(told: Told) -> None:
    found = told("gate_sparse.py", interpreted=True)
    assert [case for case in found if case["wrong"] or not case["distance"] > 0.2] == []
    assert found[0]["left out"] == {}
    assert min(case["probes"] for case in found) >= 10


def test_binaries_fit_the_cards_and_use_tensor_cores(sound: Sound) -> None:
    found = sound(one for card in CARDS for one in every(card) if one.representative)
    assert {one.capability for one, _ in found} == set(CARDS)
    by_tma = [(one.capability[0] in (9, 10), facts.counts["UTMALDG"] > 0) for one, facts in found if one.name == "sparse_kernel"]
    assert by_tma
    assert all(wanted == seen for wanted, seen in by_tma)


@pytest.mark.exhaustive
@pytest.mark.parametrize("card", CARDS)
def test_all_offered_binaries_fit_the_cards(card: tuple[int, int], sound: Sound) -> None:
    sound(every(card))


PROBLEMS = st.builds(
    Attention,
    batch=st.integers(1, 2),
    heads=st.just(4),
    kv_heads=st.sampled_from((1, 2, 4)),
    q_len=st.integers(17, 400),
    kv_len=st.integers(1, 600),
    head_dim=st.integers(16, 128),
    causal=st.booleans(),
    padding=st.booleans(),
    dtype=st.sampled_from(("float32", "float16", "bfloat16")),
)


@settings(deadline=None, max_examples=30)
@given(PROBLEMS, st.sampled_from(sorted(_cards.CARDS)), st.sampled_from(("ieee", "tf32")), st.sampled_from((0, 2, 8)), st.booleans())
def test_whatever_is_launched_is_among_what_codegen_compiles(
    noted_kernel: Callable[[], Any], problem: Attention, name: str, precision: str, parts: int, listed: bool
) -> None:
    pytest.importorskip("triton")
    from kerneldyno.kernels.attention import _sparse_launch

    card = _cards.CARDS[name]
    noted = {kernel: noted_kernel() for kernel in ("pool_kernel", "select_kernel", "sparse_kernel")}
    with pytest.MonkeyPatch.context() as patch:
        for kernel, stand_in in noted.items():
            patch.setattr(_sparse_launch, kernel, stand_in)
        if listed:
            choice = Choice(parts=parts) if parts else Choice(mass=0.9)
            block_sparse.launched(problem, choice, card, precision=precision)(problem.inputs(1))
        else:
            sinks.launched(problem, parts or 4, card, precision=precision)(problem.inputs(1))
    offered = [one for one in every(card.capability) if noted[one.name].constants]
    attending = noted["sparse_kernel"]
    constants, tma = attending.constants, attending.arguments[7] is not None
    exact = problem.dtype == "float32" and precision == "ieee"
    same = [
        one
        for one in offered
        if one.name == "sparse_kernel"
        and (one.dtype == "float32") == (problem.dtype == "float32")
        and (one.warps, one.stages, "t_q" not in one.constants) == (constants["num_warps"], constants["num_stages"], tma)
        and all(one.constants[what] == constants[what] for what in ("LISTED", "QUERIES", "KEYS", "BT", "BS"))
        and one.constants["BD"] >= constants["BD"]
        and one.tensor_cores != exact
    ]
    assert same, constants
    alike = [one for one in offered if one.name == "sparse_kernel" and one.constants["LISTED"] == listed]
    for what in ("CAUSAL", "LENGTHS"):
        assert constants[what] in {one.constants[what] for one in alike}
    for which in ("pool_kernel", "select_kernel") if listed else ():
        given_ = noted[which].constants
        fixed = {"pool_kernel": ("SIZE",), "select_kernel": ("QUERIES", "KEYS", "BE")}[which]
        alike = [one for one in offered if one.name == which and all(one.constants[what] == given_[what] for what in fixed)]
        assert {(one.warps, one.stages) for one in alike} == {(given_["num_warps"], given_["num_stages"])}
        assert max(one.constants["BD"] for one in alike) >= given_["BD"]
        if which == "select_kernel":
            assert max(one.constants["BN"] for one in alike) >= given_["BN"]
