"""The Triton kernels with 8-bit scores without a GPU: the gate in the interpreter, their binaries, and what their launchers pick."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.bench.codegen.facts import Facts
from kerneldyno.bench.gate.examine import examine
from kerneldyno.kernels import _cards
from kerneldyno.kernels._code import Configuration
from kerneldyno.kernels.attention import int8, int8_cache
from kerneldyno.kernels.attention._int8_cache import for_cuda
from kerneldyno.kernels.attention._int8_tiles import BLOCK, PARTS, offered, part, row_bytes, tile, width
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Setup

Told = Callable[..., list[dict[str, Any]]]
Sound = Callable[..., list[tuple[Configuration, Facts]]]
CARDS = ((8, 6), (9, 0), (10, 0))
"""Tiles for sm_80 are those for sm_86, which has less shared memory."""
INTEGER_PRODUCTS = {(8, 6): "IMMA", (9, 0): "IGMMA", (10, 0): "IMMA"}


@pytest.mark.slow
@pytest.mark.parametrize("few", ["few", pytest.param("all", marks=pytest.mark.exhaustive)])
def test_passes_the_gate_in_the_interpreter(few: str, told: Told) -> None:
    found = told("gate_int8.py", few, interpreted=True)
    assert len(found) == {"few": 3, "all": 26}[few]
    assert [case for case in found if case["wrong"]] == []
    assert all(case["probes"] >= 10 and not case["left out"] and case["symmetric"] for case in found), found
    assert all(0.002 < case["distance"] < 0.02 for case in found), found


@pytest.mark.slow
def test_smoothing_is_what_bears_a_bias_of_all_keys(told: Told) -> None:
    plain, biased, unsmoothed = (case["distance"] for case in told("biased_int8.py", interpreted=True))
    assert biased < 1.5 * plain < 0.02
    assert unsmoothed > 5 * biased


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("head_dim", [16, 64, 80, 128, 256])
@pytest.mark.parametrize("more", [{}, {"causal": True, "padding": True}, {"ragged": True, "window": 50, "causal": True}])
def test_passes_the_gate_on_a_gpu(more: dict[str, Any], head_dim: int, dtype: str) -> None:
    for module, kernel, q_len in ((int8, int8.int8, 300), (int8_cache, int8_cache.int8_cache, 4)):
        problem = Attention(batch=2, heads=4, kv_heads=2, q_len=q_len, kv_len=700, head_dim=head_dim, dtype=dtype, **more)
        found = examine(kernel, problem, Setup(torch.device("cuda")))
        assert found.distance is not None
        assert found.distance.relative_rms < 0.02, module


def configurations(card: tuple[int, int]) -> list[Configuration]:
    return [*int8.device_code(card), *int8_cache.device_code(card)]


def assert_integer_products(found: list[tuple[Configuration, Facts]]) -> None:
    for one, facts in found:
        wanted = "IMMA" if one.name == "int8_split_kernel" else INTEGER_PRODUCTS[one.capability]
        assert not one.tensor_cores or facts.tensor.get(wanted, 0) > 0, one
        # values of the cache become 16-bit numbers on the way from shared memory, not from registers back into it
        assert one.name != "int8_split_kernel" or facts.counts["LDGSTS.128"] > 0, one


def test_binaries_fit_the_cards_and_multiply_integers(sound: Sound) -> None:
    found = sound(one for card in CARDS for one in configurations(card) if one.representative)
    assert {one.capability for one, _ in found} == set(CARDS)
    assert_integer_products(found)


@pytest.mark.exhaustive
@pytest.mark.parametrize("card", CARDS)
def test_all_offered_binaries_fit_the_cards(card: tuple[int, int], sound: Sound) -> None:
    assert_integer_products(sound(configurations(card)))


def problems(most_queries: int) -> st.SearchStrategy[Attention]:
    def built(**fields: Any) -> Attention:
        lengths = fields.pop("lengths")
        fields["kv_len"] = max(fields["kv_len"], fields["q_len"]) if lengths == "ragged" else fields["kv_len"]
        return Attention(padding=lengths == "padding", ragged=lengths == "ragged", **fields)

    return st.builds(
        built,
        batch=st.integers(1, 2),
        heads=st.just(4),
        kv_heads=st.sampled_from((1, 2, 4)),
        q_len=st.integers(1, most_queries),
        kv_len=st.integers(1, 1200),
        head_dim=st.integers(16, 256),
        causal=st.booleans(),
        lengths=st.sampled_from(("", "padding", "ragged")),
        window=st.sampled_from((0, 9)),
        dtype=st.sampled_from(("float16", "bfloat16")),
    )


CARD_NAMES = st.sampled_from(sorted(_cards.CARDS))


def alike(noted: Any, one: Configuration, names: tuple[str, ...]) -> bool:
    """Whether a launch is compiled as a configuration says, in all that its tile depends on."""
    launch = (noted.constants["num_warps"], noted.constants["num_stages"])
    return (one.warps, one.stages) == launch and all(one.constants[name] == noted.constants[name] for name in names)


@settings(deadline=None, max_examples=40)
@given(problems(300), CARD_NAMES)
def test_whatever_is_launched_is_among_what_codegen_compiles(noted_kernel: Callable[[], Any], problem: Attention, card: str) -> None:
    pytest.importorskip("triton")
    from kerneldyno.kernels.attention import _int8_launch

    offered_there = list(int8.device_code(_cards.CARDS[card].capability))
    noted = {name: noted_kernel() for name in int8.KERNELS}
    with pytest.MonkeyPatch.context() as patch:
        for name, kernel in noted.items():
            patch.setattr(_int8_launch, name, kernel)
        int8.launched(problem, _cards.CARDS[card])(problem.inputs(1))
    by_name = {name: [one for one in offered_there if one.name == name] for name in noted}
    main = noted["int8_prefill_kernel"]
    by_tma = main.arguments[6] is not None
    same = [one for one in by_name["int8_prefill_kernel"] if alike(main, one, ("AHEAD", "BT", "BS", "BD", "PRECISION"))]
    assert any(("t_k" not in one.constants) == by_tma for one in same), main.constants
    for name in ("CAUSAL", "LENGTHS", "WINDOW"):
        assert main.constants[name] in {one.constants[name] for one in by_name["int8_prefill_kernel"]}, name
    for name in ("int8_sums_kernel", "int8_keys_kernel"):
        held = noted[name].constants
        assert any(one.warps == held["num_warps"] and one.constants["BD"] == held["BD"] for one in by_name[name])
    assert main.constants["BS"] <= BLOCK


@settings(deadline=None, max_examples=40)
@given(problems(16), CARD_NAMES)
def test_whatever_decodes_is_among_what_codegen_compiles(noted_kernel: Callable[[], Any], problem: Attention, card: str) -> None:
    pytest.importorskip("triton")
    from kerneldyno.kernels.attention import _decode_code, _int8_cache_triton

    offered_there = list(int8_cache.device_code(_cards.CARDS[card].capability))
    split, combine = noted_kernel(), noted_kernel()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_int8_cache_triton, "int8_split_kernel", split)
        patch.setattr(_int8_cache_triton, "combine_kernel", combine)
        int8_cache.launched(problem, _cards.CARDS[card])(for_cuda(problem.inputs(1)))
    same = [one for one in offered_there if alike(split, one, ("BM", "BN", "BD", "PRECISION"))]
    for name in ("CAUSAL", "RAGGED", "WINDOW", "PARTIAL"):
        assert split.constants[name] in {one.constants[name] for one in same}, name
    if combine.constants:
        known = [one for one in _decode_code.configurations((9, 0)) if one.name == "combine_kernel"]
        assert any(all(one.constants[name] == combine.constants[name] for name in ("BS", "BC")) for one in known)


@given(st.integers(16, 256), st.sampled_from(CARDS), st.booleans())
def test_tiles_share_blocks_evenly(head_dim: int, card: tuple[int, int], window: bool) -> None:
    for cut in offered(head_dim, card, window=window):
        assert BLOCK % cut.bs == 0
    assert head_dim <= row_bytes(head_dim) <= width(head_dim)
    assert row_bytes(head_dim) % 16 == 0
    few, many = offered(head_dim, card)
    assert tile(16, 1000, head_dim, card, 132) is few
    assert tile(4096, 1000, head_dim, card, 132) is many


@given(st.integers(1, 10**6), st.sampled_from((16, 32)))
def test_parts_hold_all_keys(kv_len: int, keys: int) -> None:
    found = part(kv_len, keys)
    assert found % keys == 0
    assert kv_len <= PARTS * found < kv_len + PARTS * keys


def test_a_cache_takes_half_of_16_bit_and_leaves_padding_out() -> None:
    problem = Attention(batch=2, heads=4, kv_heads=2, q_len=1, kv_len=512, head_dim=128, ragged=True, dtype="float16")
    inputs = problem.inputs(0)
    made = for_cuda(inputs)
    assert made.nbytes < 0.53 * (inputs.k.nbytes + inputs.v.nbytes)
    junk = ~problem.padding_mask(inputs.lengths).mT
    again = for_cuda(inputs.replace(k=inputs.k.masked_fill(junk, torch.nan), v=inputs.v.masked_fill(junk, torch.nan)))
    for name, tensor in made.tensors().items():
        assert torch.equal(tensor, again.tensors()[name]), name
    assert not made.k8[0, :, int(inputs.lengths[0]) :].any()
