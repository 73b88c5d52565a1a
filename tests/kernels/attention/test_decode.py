"""The decode kernel without a GPU: its results in the interpreter, what its binaries contain, and how it cuts the keys."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.bench.codegen.facts import Facts
from kerneldyno.kernels import _cards
from kerneldyno.kernels._code import Configuration
from kerneldyno.kernels.attention import fused
from kerneldyno.kernels.attention._decode_code import configurations
from kerneldyno.kernels.attention._decode_splits import AIM, MOST, SHORT, Tile, offered, resident, seen, shared_bytes, splits, stretch, tile
from kerneldyno.kernels.attention.problem import Attention

Told = Callable[..., list[dict[str, Any]]]
Sound = Callable[..., list[tuple[Configuration, Facts]]]
CARDS = ((8, 6), (9, 0), (10, 0))
"""Tiles for sm_80 are those for sm_86, which has less shared memory."""
CAPABILITIES = ((8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0))
CUT = Tile(16, 64, 4, 3)


@pytest.mark.slow
def test_right_in_the_interpreter(told: Told) -> None:
    found = told("interpret_decode.py", interpreted=True)
    assert len(found) >= 100
    assert [case for case in found if case["faults"]] == []
    assert sum(case.get("blind", 0) > 0 for case in found) >= 10


def assert_wide_loads(found: list[tuple[Configuration, Facts]]) -> None:
    for one, facts in found:
        if one.name != "split_kernel" or "s_ks" not in one.aligned:
            continue
        # keys and values come in pieces of 16 bytes
        assert facts.counts["LDGSTS.128"] > 0, one
        assert facts.counts["LDGSTS"] == facts.counts["LDGSTS.128"] or one.constants["BIAS"], one
        cut = Tile(one.constants["BM"], one.constants["BN"], one.warps, one.stages)
        estimate = shared_bytes(cut, one.constants["D"], 4 if one.dtype == "float32" else 2, one.capability)
        assert 0.9 <= estimate / facts.shared_bytes <= 1.35 or one.constants["BIAS"] or one.constants["D"] < 64, one


def test_binaries_fit_the_cards_and_load_wide(sound: Sound) -> None:
    found = sound(one for card in CARDS for one in configurations(card) if one.representative)
    assert {one.capability for one, _ in found} == set(CARDS)
    assert_wide_loads(found)


@pytest.mark.exhaustive
@pytest.mark.parametrize("card", CARDS)
def test_all_offered_binaries_fit_the_cards(card: tuple[int, int], sound: Sound) -> None:
    assert_wide_loads(sound(configurations(card)))


PROBLEMS = st.builds(
    Attention,
    batch=st.integers(1, 3),
    heads=st.sampled_from((4, 12)),
    kv_heads=st.sampled_from((1, 2, 4)),
    q_len=st.integers(1, 16),
    kv_len=st.integers(16, 3000),
    head_dim=st.integers(16, 256),
    causal=st.booleans(),
    ragged=st.booleans(),
    bias=st.sampled_from(("none", "additive", "boolean")),
    window=st.sampled_from((0, 9)),
    softcap=st.sampled_from((0.0, 5.0)),
    page_size=st.sampled_from((0, 16, 24, 64)),
    dtype=st.sampled_from(("float32", "float16", "bfloat16")),
)


@settings(deadline=None, max_examples=60)
@given(PROBLEMS, st.sampled_from(sorted(_cards.CARDS)), st.sampled_from(("ieee", "tf32")))
def test_whatever_is_launched_is_among_what_codegen_compiles(
    noted_kernel: Callable[[], Any], problem: Attention, card: str, precision: str
) -> None:
    pytest.importorskip("triton")
    from kerneldyno.kernels.attention import _decode_triton

    split, combine, there = noted_kernel(), noted_kernel(), list(configurations(_cards.CARDS[card].capability))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_decode_triton, "split_kernel", split)
        patch.setattr(_decode_triton, "combine_kernel", combine)
        fused.launched(problem, _cards.CARDS[card], precision=precision)(problem.inputs(1))
    given_, full = split.constants, problem.dtype == "float32"
    of_dtype = [one for one in there if (one.dtype == "float32") == full]
    # a bias asks for other warps; the precision of 16-bit products is not looked at
    names = ["BM", "BN", "BD", "WHOLE", *(["PRECISION"] if full else [])]
    same = [
        one
        for one in of_dtype
        if one.name == "split_kernel"
        and (one.warps, one.stages) == (given_["num_warps"], given_["num_stages"])
        and all(one.constants[name] == given_[name] for name in names)
        and (one.constants["BIAS"] > 0) == (given_["BIAS"] > 0)
    ]
    assert same, given_
    for name in ("CAUSAL", "RAGGED", "WINDOW", "SOFTCAP", "BIAS", "PARTIAL", "PAGE"):
        assert given_[name] in {one.constants[name] for one in there if one.name == "split_kernel"}
    assert bool(combine.constants) == given_["PARTIAL"]
    if combine.constants:
        forms = [one for one in of_dtype if one.name == "combine_kernel"]
        assert combine.constants["num_warps"] in {one.warps for one in forms}
        assert (combine.constants["BS"], combine.constants["BC"]) in {(one.constants["BS"], one.constants["BC"]) for one in forms}


ranges = {
    "begin": st.integers(0, 5000),
    "length": st.integers(0, 5000),
    "keys": st.sampled_from((16, 32, 64, 128)),
    "count": st.integers(1, MOST),
}


@given(**ranges)
def test_each_key_is_read_by_one_split(begin: int, length: int, keys: int, count: int) -> None:
    cuts = [stretch(begin, begin + length, keys, count, index) for index in range(count)]
    assert cuts[0][0] == begin // keys * keys
    assert cuts[-1][1] == max(-(-(begin + length) // keys), begin // keys) * keys
    assert all(before[1] == after[0] for before, after in pairwise(cuts))
    sizes = [(hi - lo) // keys for lo, hi in cuts]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 0
    assert all(edge % keys == 0 for cut in cuts for edge in cut)


@given(first=st.integers(-40, 300), count=st.integers(1, 40), length=st.integers(1, 300), window=st.integers(0, 320), causal=st.booleans())
def test_what_a_block_of_rows_sees(first: int, count: int, length: int, window: int, causal: bool) -> None:
    def visible(position: int) -> set[int]:
        last = position if causal else position + window - 1 if window else length
        return set(range(max(0, position - window + 1) if window else 0, min(length, last + 1)))

    rows = [visible(position) for position in range(first, first + count)]
    begin, end, whole, until = seen(first, first + count - 1, length, window, causal, window > 0)
    assert set().union(*rows) == set(range(begin, end))
    assert set.intersection(*rows) == set(range(whole, until))
    assert min(begin, end, whole, until) >= 0


@given(
    batch=st.integers(1, 300), kv_heads=st.integers(1, 32), row_blocks=st.integers(1, 40), kv_len=st.integers(1, 200_000),
    multiprocessors=st.integers(1, 200), residents=st.integers(1, 8), keys=st.sampled_from((16, 32, 64, 128)),
)  # fmt: skip
def test_splits_stay_within_bounds(
    batch: int, kv_heads: int, row_blocks: int, kv_len: int, multiprocessors: int, residents: int, keys: int
) -> None:
    cut = Tile(16, keys, 4, 3)
    count = splits(batch, kv_heads, row_blocks, kv_len, cut, multiprocessors, residents)
    assert 1 <= count <= MOST
    programs, slots = batch * kv_heads * row_blocks, multiprocessors * min(residents, AIM)
    if programs >= 0.8 * slots or kv_len <= SHORT:
        assert count == 1
    if count > 1:
        assert min((hi - lo) // keys for lo, hi in (stretch(0, kv_len, keys, count, index) for index in range(count))) >= 2
        # no wave for a few programs: the last one is used as well as one without splits, or better
        waves = programs * count / slots
        assert waves / math.ceil(waves) >= 0.85 * programs / slots


@pytest.mark.parametrize(
    ("batch", "kv_len", "wanted"),
    [(1, 300, 1), (1, 1000, 8), (1, 4096, 32), (1, 32768, 32), (8, 4096, 4), (32, 4096, 1), (64, 8192, 1)],
)
def test_splits_of_eight_kv_heads_on_132_multiprocessors(batch: int, kv_len: int, wanted: int) -> None:
    count = splits(batch, 8, 1, kv_len, CUT, 132, 3)
    assert 0.85 * wanted <= count <= wanted


@given(
    rows=st.integers(1, 3000), head_dim=st.integers(16, 256), item_bytes=st.sampled_from((2, 4)), capability=st.sampled_from(CAPABILITIES)
)
def test_tile_is_the_smallest_that_holds_the_rows(rows: int, head_dim: int, item_bytes: int, capability: tuple[int, int]) -> None:
    choice = offered(head_dim, item_bytes, capability)
    found = tile(rows, head_dim, item_bytes, capability)
    assert found in choice
    assert [cut.rows for cut in choice] == sorted(cut.rows for cut in choice)
    assert found.rows >= rows or found == choice[-1]
    assert all(cut.rows < rows for cut in choice if cut.rows < found.rows)
    assert 1 <= resident(found, head_dim, item_bytes, capability) <= 8


def test_several_programs_share_a_multiprocessor() -> None:
    for capability in CAPABILITIES:
        for head_dim in (64, 80, 128, 256):
            assert resident(tile(4, head_dim, 2, capability), head_dim, 2, capability) >= 2, (capability, head_dim)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"splits": 0}, "splits 0 is impossible"),
        ({"splits": 129}, "splits 129 is impossible"),
        ({"lse": torch.empty(1, 4, 2, dtype=torch.float64)}, "contiguous float32"),
        ({"q": torch.empty(1, 3, 1, 64)}, "does not go with"),
        ({"q": torch.empty(1, 4, 1, 32)}, "does not go with"),
    ],
)
def test_refusals(changes: dict[str, Any], sentence: str) -> None:
    pytest.importorskip("triton")
    from kerneldyno.kernels.attention._decode_triton import decode

    q, k = torch.empty(1, 4, 1, 64), torch.empty(1, 2, 10, 64)
    with pytest.raises(ValueError, match=sentence):
        decode(**{"q": q, "k": k, "v": k, "scale": 1.0, "kv_len": 10, "cut": CUT, "splits": 1, **changes})
