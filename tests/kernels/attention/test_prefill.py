"""The prefill kernel without a GPU: its results in the interpreter, what its binaries contain, how the work is cut and ordered."""

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
from kerneldyno.kernels.attention import fused
from kerneldyno.kernels.attention._prefill_code import configurations
from kerneldyno.kernels.attention._prefill_tiles import by_pointers, heads_together, offered, parts, place, tile
from kerneldyno.kernels.attention.problem import Attention

Told = Callable[..., list[dict[str, Any]]]
Sound = Callable[..., list[tuple[Configuration, Facts]]]
CARDS = ((8, 6), (9, 0), (10, 0))
"""Tiles for sm_80 are those for sm_86, which has less shared memory."""


@pytest.mark.slow
def test_right_in_the_interpreter(told: Told) -> None:
    found = told("interpret_prefill.py", interpreted=True)
    assert len(found) >= 75
    assert [case for case in found if case["faults"]] == []
    assert sum(case["blind"] > 0 for case in found) >= 10


def assert_loads_and_waits(found: list[tuple[Configuration, Facts]]) -> None:
    for one, facts in found:
        assert (facts.counts["UTMALDG"] > 0) == ("t_k" not in one.constants), one
        if one.constants["AHEAD"] and one.capability == (9, 0):
            # where registers of a product in flight are written, ptxas waits for every single instruction
            assert facts.counts["WARPGROUP.DEPBAR"] < facts.tensor["HGMMA"] / 2, one


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
    q_len=st.integers(17, 300),
    kv_len=st.integers(1, 300),
    head_dim=st.integers(16, 256),
    causal=st.booleans(),
    bias=st.sampled_from(("none", "additive", "boolean")),
    window=st.sampled_from((0, 9)),
    softcap=st.sampled_from((0.0, 5.0)),
    dtype=st.sampled_from(("float32", "float16", "bfloat16")),
)


@settings(deadline=None, max_examples=60)
@given(PROBLEMS, st.sampled_from(sorted(_cards.CARDS)), st.sampled_from(("ieee", "tf32")))
def test_whatever_is_launched_is_among_what_codegen_compiles(
    noted_kernel: Callable[[], Any], problem: Attention, card: str, precision: str
) -> None:
    pytest.importorskip("triton")
    from kerneldyno.kernels.attention import _prefill_launch

    noted, offered_there = noted_kernel(), list(configurations(_cards.CARDS[card].capability))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_prefill_launch, "prefill_kernel", noted)
        fused.launched(problem, _cards.CARDS[card], precision=precision)(problem.inputs(1))
    given_, tma = noted.constants, noted.arguments[7] is not None
    exact = problem.dtype == "float32" and precision == "ieee"
    same = [
        one
        for one in offered_there
        if (one.dtype == "float32") == (problem.dtype == "float32")
        and (one.warps, one.stages, "t_q" not in one.constants) == (given_["num_warps"], given_["num_stages"], tma)
        and all(one.constants[name] == given_[name] for name in ("AHEAD", "PERSISTENT", "SPECIALIZED", "BT", "BS", "BD", "BD2"))
        and (one.constants["BIAS"] > 0) == (given_["BIAS"] > 0)
    ]
    assert same, given_
    assert {one.tensor_cores for one in same} >= {not exact}
    for name in ("CAUSAL", "LENGTHS", "WINDOW", "SOFTCAP", "BIAS"):
        assert given_[name] in {one.constants[name] for one in offered_there}


@given(st.integers(16, 256))
def test_parts_hold_the_head_and_no_more_than_one_would(head_dim: int) -> None:
    first, second = parts(head_dim)
    whole = 1 << (head_dim - 1).bit_length()
    assert head_dim <= first + second <= max(16, whole)
    assert second < first
    for part in (first, second or 16):
        assert part >= 16
        assert part & (part - 1) == 0


@given(st.integers(16, 256))
def test_tiles_by_pointers_hold_fewer_keys(head_dim: int) -> None:
    few, many = (by_pointers(cut, head_dim) for cut in offered(head_dim, 2, (9, 0)))
    assert many.bs <= (64 if head_dim <= 192 else 32)
    assert few.bs <= 64
    assert (few.bt, many.bt) == (64, 128)


KNOWN = {16: (16, 0), 40: (64, 0), 64: (64, 0), 80: (64, 16), 96: (64, 32), 112: (128, 0), 144: (128, 16), 192: (128, 64), 256: (256, 0)}


@pytest.mark.parametrize(("head_dim", "both"), KNOWN.items())
def test_parts_of_known_heads(head_dim: int, both: tuple[int, int]) -> None:
    assert parts(head_dim) == both


@pytest.mark.parametrize(
    ("queries", "sequences", "large"), [(17, 1000, False), (64, 1000, False), (65, 1000, True), (4096, 4, False), (4096, 5, True)]
)
def test_large_tiles_only_where_they_keep_the_card_busy(queries: int, sequences: int, large: bool) -> None:
    found = tile(queries, sequences, 128, 2, (9, 0), H100.multiprocessors)
    assert found is offered(128, 2, (9, 0))[large]


@pytest.mark.parametrize("item_bytes", [2, 4])
@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (9, 0), (10, 0), (12, 0)])
@pytest.mark.parametrize("biased", [False, True])
def test_something_is_offered_for_every_head(item_bytes: int, capability: tuple[int, int], biased: bool) -> None:
    for head_dim in range(16, 257):
        few, many = offered(head_dim, item_bytes, capability, biased=biased)
        assert few.bt <= many.bt


def test_heads_side_by_side_fill_half_of_the_cache() -> None:
    # Llama-3-8B at 8192 keys: 4 MiB of keys and values in each of 8 heads, 25 MiB of cache for them
    assert heads_together(4, 8192, 128, 2, H100.l2_bytes, causal=True) == 4 * 6
    assert heads_together(4, 8192, 128, 2, H100.l2_bytes, causal=False) == 4
    assert heads_together(1, 10**6, 128, 2, H100.l2_bytes, causal=True) == 1


@given(st.integers(1, 7), st.integers(1, 9), st.integers(1, 12), st.booleans())
def test_every_block_of_every_head_is_worked_on_once(blocks: int, total: int, together: int, causal: bool) -> None:
    found = [place(i, blocks, total, together, causal) for i in range(blocks * total)]
    assert sorted(found) == [(head, block) for head in range(total) for block in range(blocks)]
    for start in range(0, total, together):
        section = [block for head, block in found if start <= head < start + together]
        assert section == sorted(section, reverse=causal), "the longest first"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"heads": 3}, "heads are no multiple"),
        ({"head_dim": 32}, "head_dims differ"),
        ({"lse": torch.zeros(1)}, "give a contiguous float32"),
    ],
)
def test_refusals(changes: dict[str, Any], sentence: str) -> None:
    pytest.importorskip("triton")
    from kerneldyno.kernels.attention._prefill_launch import attend

    q = torch.zeros(1, changes.get("heads", 4), 8, changes.get("head_dim", 16))
    k = torch.zeros(1, 2, 8, 16)
    cut = offered(16, 4, (9, 0))[0]
    with pytest.raises(ValueError, match=sentence):
        attend(q, k, k, scale=1.0, cut=cut, lse=changes.get("lse"))
