"""The backward kernels without a GPU: gradients in the interpreter, what their binaries contain, how the work is cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.bench.codegen.facts import Facts
from kerneldyno.kernels import _cards
from kerneldyno.kernels._cards import H100
from kerneldyno.kernels._code import Configuration
from kerneldyno.kernels.attention import _backward_tuning, fused
from kerneldyno.kernels.attention._backward_code import configurations, width
from kerneldyno.kernels.attention._backward_tiles import by_pointers, offered, seers, shares, tile
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device

Told = Callable[..., list[dict[str, Any]]]
Sound = Callable[..., list[tuple[Configuration, Facts]]]
CARDS = ((8, 0), (9, 0), (10, 0))


@pytest.mark.slow
def test_right_in_the_interpreter(told: Told) -> None:
    found = told("interpret_backward.py", interpreted=True)
    assert len(found) >= 85
    assert [case for case in found if case["faults"]] == []
    assert sum(case["blind"] > 0 for case in found) >= 6


def assert_loads_and_waits(found: list[tuple[Configuration, Facts]]) -> None:
    for one, facts in found:
        if one.name == "delta_kernel":
            continue
        assert (facts.counts["UTMALDG"] > 0) == ("t_k" not in one.constants), one
        if one.capability == (9, 0) and facts.tensor.get("HGMMA"):
            # where registers of a product in flight are written, ptxas waits for every single instruction
            assert facts.counts["WARPGROUP.DEPBAR"] <= facts.tensor["HGMMA"] / 2, one


def test_binaries_fit_the_cards_and_use_tensor_cores(sound: Sound) -> None:
    found = sound(one for card in CARDS for one in configurations(card) if one.representative)
    assert {one.capability for one, _ in found} == set(CARDS)
    assert_loads_and_waits(found)


@pytest.mark.exhaustive
@pytest.mark.parametrize("card", CARDS)
def test_all_offered_binaries_fit_the_cards(card: tuple[int, int], sound: Sound) -> None:
    assert_loads_and_waits(sound(configurations(card)))


PROBLEMS = st.builds(
    Attention,
    batch=st.integers(1, 2),
    heads=st.just(4),
    kv_heads=st.sampled_from((1, 2, 4)),
    q_len=st.integers(17, 200),
    kv_len=st.integers(1, 300),
    head_dim=st.integers(16, 256),
    causal=st.booleans(),
    padding=st.booleans(),
    bias=st.sampled_from(("none", "additive", "boolean")),
    window=st.sampled_from((0, 9)),
    softcap=st.sampled_from((0.0, 5.0)),
    dtype=st.sampled_from(("float32", "float16", "bfloat16")),
    direction=st.just("backward"),
)


@settings(deadline=None, max_examples=60)
@given(PROBLEMS, st.sampled_from(sorted(_cards.CARDS)), st.sampled_from(("ieee", "tf32")))
def test_whatever_is_launched_is_among_what_codegen_compiles(
    noted_kernel: Callable[[], Any], problem: Attention, card: str, precision: str
) -> None:
    pytest.importorskip("triton")
    from kerneldyno.kernels.attention import _backward_launch, _prefill_launch

    noted, capability = {name: noted_kernel() for name in ("prefill", "keys", "queries", "delta")}, _cards.CARDS[card].capability
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_prefill_launch, "prefill_kernel", noted["prefill"])
        for name in ("keys", "queries", "delta"):
            patch.setattr(_backward_launch, f"{name}_kernel", noted[name])
        fused.launched(problem, _cards.CARDS[card], precision=precision)(problem.inputs(1))
    # of the other axes no card takes more than 65535 programs
    assert {len(one.grid) for one in noted.values()} <= {0, 1}
    assert bool(noted["queries"].grid) is not noted["keys"].constants["ONCE"]
    given_, places = noted["keys"].constants, {"t_q": 10, "t_dq": 14}
    described = {name: noted["keys"].arguments[place] is not None for name, place in places.items()}
    exact = problem.dtype == "float32" and precision == "ieee"
    offered_there = [one for one in configurations(capability) if one.name == "keys_kernel"]
    same = [
        one
        for one in offered_there
        if (one.dtype == "float32") == (problem.dtype == "float32")
        and (one.warps, one.stages) == (given_["num_warps"], given_["num_stages"])
        and all((name not in one.constants) == there for name, there in described.items())
        and all(one.constants[name] == given_[name] for name in ("ONCE", "BT", "BS", "BD"))
    ]
    # rows of a number of bytes that TMA does not add to are rare, and not compiled
    assert same or (described["t_q"] is False and problem.head_dim % 4), given_
    assert not same or {one.tensor_cores for one in same} >= {not exact}
    for name in ("CAUSAL", "LENGTHS", "WINDOW", "SOFTCAP", "BIAS"):
        assert given_[name] in {one.constants[name] for one in offered_there}


SEEN = st.tuples(
    st.integers(0, 12), st.sampled_from((2, 4, 8)), st.sampled_from((1, 2, 4)), st.integers(1, 40), st.integers(-20, 20),
    st.integers(1, 60), st.integers(1, 30), st.booleans(), st.booleans(),
)  # fmt: skip


@given(SEEN)
def test_queries_that_see_keys_are_in_range_and_those_that_see_all_are_known(drawn: tuple[Any, ...]) -> None:
    tile_, keys, rows, queries, past, length, window, causal, windowed = drawn
    first = tile_ * keys

    def sees(query: int, key: int) -> bool:
        at = query + past
        return (
            key < length
            and (key <= at or not causal)
            and (not windowed or (key > at - window and (causal or key < at + window)))
        )  # fmt: skip

    lo, whole, until, hi = seers(first, keys, rows, queries, past, length, window, causal, windowed)
    assert 0 <= lo < hi <= max(queries, 1)
    assert lo % rows == 0
    assert whole % rows == 0
    for query in range(queries):
        seen = [sees(query, key) for key in range(first, first + keys)]
        block = query // rows * rows
        assert lo <= query < hi or not any(seen), "left out"
        if whole <= block < until:
            assert all(seen), "unmasked"


@pytest.mark.parametrize("item_bytes", [2, 4])
@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (9, 0), (10, 0), (12, 0)])
@pytest.mark.parametrize("burdened", [False, True])
def test_something_is_offered_for_every_head(item_bytes: int, capability: tuple[int, int], burdened: bool) -> None:
    for head_dim in range(16, 257):
        few, many = offered(head_dim, item_bytes, capability, burdened=burdened)
        assert few.bs <= many.bs
        assert by_pointers(many, head_dim).bs <= many.bs
        assert head_dim <= width(head_dim) <= max(16, 2 * head_dim)


@pytest.mark.parametrize(("keys", "sequences", "large"), [(64, 1000, False), (65, 1000, True), (4096, 4, False), (4096, 5, True)])
def test_large_tiles_only_where_they_keep_the_card_busy(keys: int, sequences: int, large: bool) -> None:
    assert tile(keys, sequences, 128, 2, (9, 0), H100.multiprocessors) is offered(128, 2, (9, 0))[large]


@pytest.mark.parametrize(
    ("group", "programs", "count"),
    [(1, 4, 1), (8, 200, 1), (8, 66, 2), (7, 66, 7), (8, 30, 8), (64, 16, 16), (6, 50, 3)],
)
def test_heads_of_a_group_are_shared_where_there_are_few_programs(group: int, programs: int, count: int) -> None:
    assert shares(group, programs, 132) == count


def test_it_takes_every_problem_backward_and_says_both_tiles() -> None:
    problem = Attention(batch=4, q_len=4096, heads=16, head_dim=128, causal=True, dtype="bfloat16", direction="backward")
    assert fused.fused.why_not(problem, Device("cuda", capability=(9, 0))) in (
        None,
        "needs the Python package triton, which is not installed",
    )
    assert fused.form(problem, H100) == "128×128 w8 s3 ahead, default; backward 64×128 w8 s2, default"


def test_what_is_to_be_chosen_backward_is_the_backward_tile() -> None:
    problem = Attention(batch=4, q_len=4096, heads=16, head_dim=128, causal=True, dtype="bfloat16", direction="backward")
    (found,) = fused.tuning(problem, H100)
    assert found.key.function == "keys_kernel"
    assert found.default == _backward_tuning.default(problem, H100)
    assert found.default not in found.candidates
    assert any(cut.twice for cut in found.candidates)
    assert {one.name for one in found.forms(next(cut for cut in found.candidates if cut.twice))} == {"keys_kernel", "queries_kernel"}
    capped = Attention(q_len=512, softcap=5.0, dtype="bfloat16", direction="backward")
    assert _backward_tuning.key(capped, H100).traits == "burdened, few tiles"


@pytest.mark.parametrize(
    ("head_dim", "sentence"),
    [
        (256, "of shared memory: a program has 227"),
        (256, "leave room for the rest"),
        (64, "keys are not there"),
        (64, "queries are not there"),
    ],
)
def test_why_arithmetic_leaves_tiles_out(head_dim: int, sentence: str) -> None:
    problem = Attention(q_len=40, head_dim=head_dim, dtype="bfloat16", direction="backward")
    (found,) = fused.tuning(problem, H100)
    assert any(sentence in (found.why_not(cut) or "") for cut in found.candidates)
    assert any(found.why_not(cut) is None for cut in found.candidates)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("twice", [False, True])
def test_gradients_on_the_device(dtype: str, twice: bool) -> None:
    from kerneldyno.bench.gate.examine import Gate
    from kerneldyno.kernels._tuned import Pin, pinned
    from kerneldyno.kernels.registry import Setup

    problem = Attention(batch=2, heads=4, kv_heads=2, q_len=300, head_dim=64, causal=True, padding=True, dtype=dtype, direction="backward")
    key = _backward_tuning.key(problem, H100)
    tiles = {"bt": 32, "bs": 32, "warps": 8, "stages": 2, "twice": twice}
    with pinned([Pin(function="keys_kernel", size=key.size, dtype=key.dtype, choice=tiles)]):
        Gate(problem, Setup(torch.device("cuda"))).admit(fused.fused)
